/*
 * kernels/cpu/matmul_tile.h: products after kernels/matmul.h, written once over a vector type. Each
 * matmul_ISA.c includes a vector_ISA.h, defines TILE_ROWS, then includes this file.
 *
 * A task is a block of rows, whose inputs the second-level cache holds, by some panels of output channels;
 * neighbouring tasks have the same rows. It takes a panel after another, a piece of the chains after another,
 * and all its rows each time.
 */
#include "kernels/cpu/product_tile.h"
#include "kernels/cpu/vector_math.h"

#define MOST_ROWS (32 * TILE_ROWS)

/* How a product is cut. */
typedef struct cut {
    int64_t rows, row_blocks;     /* rows of a block */
    int64_t panels, panel_blocks; /* panels of a block */
    int64_t all_panels;
    int64_t steps;  /* of the chains at once */
    int64_t height; /* rows of a register tile, at most */
} cut;

static cut cut_product(const attune_matmul_f32 *a) {
    cut c;
    int64_t most = at_least(at_most(CACHE_BYTES / 4 / a->in, MOST_ROWS), 4 * TILE_ROWS);
    c.row_blocks = divide_up(a->rows, most);
    c.rows = divide_up(divide_up(a->rows, c.row_blocks), TILE_ROWS) * TILE_ROWS;
    c.row_blocks = divide_up(a->rows, c.rows);
    c.all_panels = count_panels(a->out, a->activation == ATTUNE_PRODUCT_GEGLU);
    c.panels = cut_panels(c.all_panels, c.row_blocks, (double)a->rows * (double)a->in * (double)a->out);
    c.panel_blocks = divide_up(c.all_panels, c.panels);
    c.steps = divide_up(a->in, divide_up(a->in, MOST_STEPS));
    /* Rows at a multiple of 4 KiB share one set of the first-level cache, which must hold them all. */
    c.height = a->stride_x % 1024 == 0 ? at_most(TILE_ROWS, 8) : TILE_ROWS;
    return c;
}

static uint64_t count_tasks(const attune_matmul_f32 *a) {
    const cut c = cut_product(a);
    return (uint64_t)(c.row_blocks * c.panel_blocks);
}

/* Floats of the workspace's two parts: sums, a piece of widened weights. */
static int64_t sum_floats(const cut *c) {
    return c->rows * PANEL;
}
static int64_t wide_floats(const attune_matmul_f32 *a, const cut *c) {
    return a->storage == ATTUNE_KERNEL_F32 ? 0 : c->steps * PANEL;
}
static uint64_t workspace_bytes(const attune_matmul_f32 *a) {
    const cut c = cut_product(a);
    return round_64((sum_floats(&c) + wide_floats(a, &c)) * 4);
}

/* All rows of a block by one piece of one panel's chains. */
static void run_block(piece p, int64_t rows, int64_t height) {
    for (int64_t i = 0, n; i < rows; i += n) {
        n = tile_rows(rows - i, height);
        run_tile(&p, n);
        look_on(&p);
        p.stored = NULL;
        p.x += n * p.stride;
        p.sums += n * PANEL;
        p.result = p.result ? p.result + n * p.stride_result : NULL;
        p.residual = p.residual ? p.residual + n * p.stride_residual : NULL;
    }
}

/* ---- activations: the chains end in sums, which the cache holds ---- */

INLINE void put(float *to, vec x, int64_t left) {
    if (left >= WIDTH)
        v_store(to, v_stored(x));
    else if (left > 0)
        v_store_part(to, v_stored(x), (int)left);
}

INLINE vec activate(vec x, const int kind) {
    return kind == ATTUNE_PRODUCT_SILU   ? v_silu(x)
           : kind == ATTUNE_PRODUCT_GELU ? v_gelu(x)
                                         : v_quick_gelu(x);
}

INLINE void activate_rows(const float *sums, int64_t rows, float *to, int64_t stride, int64_t left,
                          const int kind) {
    for (int64_t i = 0; i < rows; ++i, sums += PANEL, to += stride) {
        const vec a = v_load(sums), b = v_load(sums + WIDTH);
        if (kind == ATTUNE_PRODUCT_GEGLU) {
            put(to, v_mul(a, v_gelu(b)), left);
            continue;
        }
        put(to, activate(a, kind), left);
        put(to + WIDTH, activate(b, kind), left - WIDTH);
    }
}

/* Panel `panel` of rows `first` ..., of which the chains are in `sums`. */
static void activate_panel(const attune_matmul_f32 *a, const float *sums, int64_t first, int64_t rows,
                           int64_t panel) {
    const int geglu = a->activation == ATTUNE_PRODUCT_GEGLU;
    const int64_t column = panel * (geglu ? WIDTH : PANEL), left = (geglu ? a->out / 2 : a->out) - column;
    float *const to = a->result + first * a->stride_result + column;
    if (geglu)
        activate_rows(sums, rows, to, a->stride_result, left, ATTUNE_PRODUCT_GEGLU);
    else if (a->activation == ATTUNE_PRODUCT_SILU)
        activate_rows(sums, rows, to, a->stride_result, left, ATTUNE_PRODUCT_SILU);
    else if (a->activation == ATTUNE_PRODUCT_GELU)
        activate_rows(sums, rows, to, a->stride_result, left, ATTUNE_PRODUCT_GELU);
    else
        activate_rows(sums, rows, to, a->stride_result, left, ATTUNE_PRODUCT_QUICK_GELU);
}

/* The start of a panel's chains; in pairs, of both halves. */
static void start_of(const attune_matmul_f32 *a, int64_t panel, float to[PANEL]) {
    const int64_t half = a->out / 2, first = panel * WIDTH;
    if (a->activation != ATTUNE_PRODUCT_GEGLU || !a->start) {
        panel_start(a->start, panel, a->out, to);
        return;
    }
    const size_t bytes = (size_t)at_most(WIDTH, half - first) * sizeof *to;
    memset(to, 0, PANEL * sizeof *to);
    memcpy(to, a->start + first, bytes);
    memcpy(to + WIDTH, a->start + half + first, bytes);
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void multiply(const attune_matmul_f32 *a, uint64_t task, float *sums) {
    const cut c = cut_product(a);
    const int64_t first = (int64_t)task / c.panel_blocks * c.rows, rows = at_most(c.rows, a->rows - first);
    const int64_t panel = (int64_t)task % c.panel_blocks * c.panels;
    float *const wide = sums + sum_floats(&c);
    const float *const x = a->x + first * a->stride_x;
    for (int64_t j = panel; j < at_most(panel + c.panels, c.all_panels); ++j) {
        float start[PANEL];
        start_of(a, j, start);
        for (int64_t k = 0, steps; k < a->in; k += steps) {
            steps = at_most(c.steps, a->in - k);
            piece p = {.x = x + k, .stride = a->stride_x, .steps = steps, .sums = sums};
            place_weights(&p, a->weights, a->storage, j * a->in + k, steps, c.all_panels * a->in, wide);
            p.start = k ? NULL : start;
            if (k + steps == a->in && !a->activation) {
                p.columns = at_most(PANEL, a->out - j * PANEL);
                p.stride_result = a->stride_result, p.stride_residual = a->stride_residual;
                p.result = a->result + first * a->stride_result + j * PANEL;
                if (a->residual)
                    p.residual = a->residual + first * a->stride_residual + j * PANEL;
            }
            run_block(p, rows, c.height);
        }
        if (a->activation)
            activate_panel(a, sums, first, rows, j);
    }
}

static void run_task(const attune_matmul_f32 *a, uint64_t task, void *workspace) {
    const uint64_t environment = attune_fp_enter();
    multiply(a, task, workspace);
    attune_fp_leave(environment);
}

/* The table of a matmul_ISA.c. */
#define MATMUL(name)                                                                                         \
    {                                                                                                        \
        .isa = name, .packed_bytes = packed_bytes, .pack = pack, .tasks = count_tasks,                       \
        .workspace = workspace_bytes, .run = run_task                                                        \
    }
