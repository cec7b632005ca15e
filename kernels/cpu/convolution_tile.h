/*
 * kernels/cpu/convolution_tile.h: 3x3 convolutions after kernels/convolution.h, written once over a vector
 * type. Each convolution_ISA.c includes a vector_ISA.h, defines TILE_ROWS, then includes this file.
 *
 * The input is read where it lies. A register tile is some neighbouring pixels of one output row by a panel
 * of output channels; for one ky, its taps kx = 0, 1, 2 are one stretch of 3 * in floats of the input row, so
 * a tile is up to three pieces of chains (product_tile.h). Only the first and the last pixel of a row miss a
 * tap: their tiles take that tap as a piece of its own, without them.
 */
#include "kernels/convolution.h"
#include "kernels/cpu/product_tile.h"

#define MOST_PIXELS  512 /* of a task, and about the fewest */
#define LEAST_PIXELS 128

/* How a convolution is cut. Rows are output rows, those of all images (or the strip's) one after another. */
typedef struct cut {
    int64_t height, width; /* of the output */
    int64_t first_input;   /* which row x begins with */
    int64_t all_rows, rows, row_blocks;
    int64_t all_panels, panels, panel_blocks;
    int taps; /* of the chains at once: 9, 3 (one ky) or 1 */
} cut;

static cut cut_convolution(const attune_convolution_f32 *a) {
    cut c = {.height = divide_up(a->height, a->stride), .width = divide_up(a->width, a->stride)};
    c.all_rows = a->rows ? a->rows : a->batch * c.height;
    c.first_input = a->rows && a->first_row ? a->first_row * a->stride - 1 : 0;
    const int64_t cached = (CACHE_BYTES / 4 / a->width / a->in - 2) / a->stride;
    int64_t most = at_least(at_most(cached, MOST_PIXELS / c.width), divide_up(LEAST_PIXELS, c.width));
    c.row_blocks = divide_up(c.all_rows, most);
    c.rows = divide_up(c.all_rows, c.row_blocks);
    c.row_blocks = divide_up(c.all_rows, c.rows);
    c.all_panels = divide_up(a->out, PANEL);
    c.panels = cut_panels(c.all_panels, c.row_blocks,
                          9.0 * (double)a->in * (double)a->out * (double)(c.all_rows * c.width));
    c.panel_blocks = divide_up(c.all_panels, c.panels);
    c.taps = 9 * a->in <= MOST_STEPS ? 9 : 3 * a->in <= MOST_STEPS ? 3 : 1;
    return c;
}

static uint64_t count_tasks(const attune_convolution_f32 *a) {
    const cut c = cut_convolution(a);
    return (uint64_t)(c.row_blocks * c.panel_blocks);
}

static int64_t sum_floats(const cut *c) {
    return c->rows * c->width * PANEL;
}

static uint64_t workspace_bytes(const attune_convolution_f32 *a) {
    const cut c = cut_convolution(a);
    const int64_t wide = a->storage == ATTUNE_KERNEL_F32 ? 0 : c.taps * a->in * PANEL;
    return round_64((sum_floats(&c) + wide) * 4);
}

/* Some taps of one panel. */
typedef struct stage {
    const attune_convolution_f32 *args;
    const cut *c;
    int first, end; /* taps */
    int64_t panel;
    piece whole; /* what its tiles have in common */
    int widened; /* a bit for each tap whose weights are floats */
} stage;

/* A tile's pieces: the whole tile's begin and end are in `whole`; `pieces` of `taps` taps of some pixels. */
typedef struct tile {
    piece whole;
    int64_t pixels;
    int begun, last; /* its chains: begin in this stage and have not yet; end in this stage */
} tile;

/* `count` pixels from `first` of the tile by taps kx ... kx_end of one ky; `line` is the input row. */
static void run_taps(tile *t, stage *s, const float *line, int64_t x, int ky, int kx, int kx_end,
                     int64_t first, int64_t count, int closing) {
    const attune_convolution_f32 *a = s->args;
    if (count <= 0 || kx >= kx_end)
        return;
    piece p = t->whole;
    const int all = count == t->pixels, taps = ((1 << kx_end) - (1 << kx)) << ky * 3;
    if (!all && !t->begun) { /* the tile's sums are put where its pieces find them */
        piece none = t->whole;
        none.result = NULL;
        run_tile(&none, t->pixels);
        t->begun = 1;
    }
    p.start = t->begun ? NULL : t->whole.start;
    p.x = line + ((x + first) * a->stride + kx - 1) * a->in;
    p.stride = a->stride * a->in;
    const int64_t at = (ky * 3 + kx - s->first) * a->in * PANEL;
    p.w += at;
    if (p.stored) {
        p.wide += at;
        p.stored = (s->widened & taps) == taps ? NULL : p.stored + at;
        s->widened |= taps;
    }
    p.steps = (kx_end - kx) * a->in;
    p.sums += first * PANEL;
    t->last = closing && all;
    if (!t->last)
        p.result = NULL;
    t->begun = 1;
    run_tile(&p, count);
    look_on(&p);
    t->whole.ahead = p.ahead;
}

/* One ky of a tile at pixels x ... of an output row. `closing`: its last piece may end the chains. */
static void run_line(tile *t, stage *s, const float *line, int64_t x, int ky, int closing) {
    const attune_convolution_f32 *a = s->args;
    const int kx = (int)at_least(s->first - ky * 3, 0), kx_end = (int)at_most(s->end - ky * 3, 3);
    const int left = x == 0 && kx == 0,
              right = (x + t->pixels - 1) * a->stride + 1 >= a->width && kx_end == 3;
    if (left)
        run_taps(t, s, line, x, ky, 0, 1, 1, t->pixels - 1, 0);
    const int from = left ? 1 : kx, to = right ? 2 : kx_end;
    run_taps(t, s, line, x, ky, from, to, 0, t->pixels, closing && !right);
    if (right && kx <= 2)
        run_taps(t, s, line, x, ky, 2, 3, 0, t->pixels - 1, 0);
}

/* The tile's pixels from x of output row `row` (of all images). */
static void run_pixels(tile *t, stage *s, int64_t row, int64_t x) {
    const attune_convolution_f32 *a = s->args;
    const int64_t image = a->rows ? 0 : row / s->c->height;
    const int64_t y = a->rows ? a->first_row + row : row % s->c->height;
    int last_ky = -1;
    for (int ky = s->first / 3; ky * 3 < s->end; ++ky) {
        const int64_t line = y * a->stride + ky - 1;
        if (line >= 0 && line < a->height)
            last_ky = ky;
    }
    for (int ky = s->first / 3; ky <= last_ky; ++ky) {
        const int64_t line = y * a->stride + ky - 1;
        if (line >= 0 && line < a->height)
            run_line(t, s, a->x + (image * a->height + line - s->c->first_input) * a->width * a->in, x, ky,
                     ky == last_ky);
    }
    if (t->begun && (!t->whole.result || t->last))
        return;
    piece none = t->whole; /* what is left to begin or to end */
    none.start = t->begun ? NULL : t->whole.start;
    run_tile(&none, t->pixels);
}

/* All rows of a block by one stage. */
static void run_rows_of(stage *s, int64_t first, int64_t rows, float *sums) {
    const attune_convolution_f32 *a = s->args;
    float start[PANEL];
    for (int64_t row = first; row < first + rows; ++row) {
        const float *const begin =
            a->start && !a->rows ? a->start + row / s->c->height * a->stride_start : a->start;
        panel_start(begin, s->panel, a->out, start);
        for (int64_t x = 0, n; x < s->c->width; x += n, sums += n * PANEL) {
            n = tile_rows(s->c->width - x, TILE_ROWS);
            tile t = {.whole = s->whole, .pixels = n, .begun = s->first > 0};
            t.whole.sums = sums, t.whole.start = start;
            const int64_t at = (row * s->c->width + x) * a->out + s->panel * PANEL;
            if (s->end == 9) {
                t.whole.columns = at_most(PANEL, a->out - s->panel * PANEL);
                t.whole.stride_result = t.whole.stride_residual = a->out;
                t.whole.result = a->result + at;
                t.whole.residual = a->residual ? a->residual + at : NULL;
            }
            run_pixels(&t, s, row, x);
            s->whole.ahead = t.whole.ahead;
        }
    }
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void convolve(const attune_convolution_f32 *a, uint64_t task, float *sums) {
    const cut c = cut_convolution(a);
    const int64_t first = (int64_t)task / c.panel_blocks * c.rows, rows = at_most(c.rows, c.all_rows - first);
    const int64_t panel = (int64_t)task % c.panel_blocks * c.panels;
    float *const wide = sums + sum_floats(&c);
    for (int64_t j = panel; j < at_most(panel + c.panels, c.all_panels); ++j)
        for (int tap = 0; tap < 9; tap += c.taps) {
            stage s = {.args = a, .c = &c, .first = tap, .end = tap + c.taps, .panel = j};
            place_weights(&s.whole, a->weights, a->storage, (j * 9 + tap) * a->in, c.taps * a->in,
                          c.all_panels * 9 * a->in, wide);
            run_rows_of(&s, first, rows, sums);
        }
}

static void run_task(const attune_convolution_f32 *a, uint64_t task, void *workspace) {
    const uint64_t environment = attune_fp_enter();
    convolve(a, task, workspace);
    attune_fp_leave(environment);
}

/* The table of a convolution_ISA.c. */
#define CONVOLUTION(name)                                                                                    \
    {                                                                                                        \
        .isa = name, .packed_bytes = packed_bytes, .pack = pack, .tasks = count_tasks,                       \
        .workspace = workspace_bytes, .run = run_task                                                        \
    }
