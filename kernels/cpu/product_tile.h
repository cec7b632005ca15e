/*
 * kernels/cpu/product_tile.h: what matmul and convolution share, written once over a vector type: packed
 * weights, and a register tile of rows by one panel of output channels.
 *
 * Output channels lie in the lanes, so every lane walks its own chain and no sum is reordered. Weights are
 * packed into panels of PANEL channels, [panel][k][lane], k over (ky, kx, channel); a tile broadcasts the
 * inputs of up to TILE_ROWS rows, which lie at equal distances. A chain that is cut into pieces goes on from
 * the stored float.
 *
 * Needs: vec, WIDTH and the operations that attention_tile.h and the vector files describe, TILE_ROWS (6 or
 * 14: two vectors of sums per row must fit in the registers).
 */
#include "kernels/arithmetic.h"
#include "kernels/matmul.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define PANEL       (2 * WIDTH)
#define STEPS       4                      /* of a chain between two counts of the loop */
#define ROW_GROUPS  ((TILE_ROWS + 2) / 3)  /* rows share pointers by three: x86 adds 0, 1 or 2 strides */
#define CACHE_BYTES ((int64_t)1024 * 1024) /* inputs of a task that the second-level cache should hold */
#define MOST_STEPS  3072                   /* of a chain at once: a panel of weights is in that cache too */
#define TASKS       32                     /* wanted, where each has TASK_WORK multiplications */
#define TASK_WORK   ((double)(1 << 21))

static inline int64_t divide_up(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}

static inline int64_t at_most(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t at_least(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static inline uint64_t round_64(int64_t bytes) {
    return ((uint64_t)bytes + 63) / 64 * 64;
}

#include "kernels/cpu/product_pack.h"

/* ---- a register tile ---- */

/* A piece of the chains of some rows: sum += x[row * stride + n] w[n][lane] over `steps` n, ascending. */
typedef struct piece {
    const float *x;
    int64_t stride; /* from row to row */
    const float *w;
    const uint16_t *stored; /* NULL: w is there; else the tile widens these on its way, into `wide` = w */
    float *wide;
    int32_t storage; /* of stored */
    int64_t steps;
    const float *start;    /* (PANEL): the chains begin here; NULL: they go on from sums */
    float *sums;           /* (rows, PANEL) */
    float *result;         /* the chains end here; NULL: they go on, from sums */
    const float *residual; /* NULL = nothing */
    int64_t stride_result, stride_residual;
    int64_t columns;               /* of result: 1 ... PANEL */
    const char *ahead, *ahead_end; /* the weights that come next: a line is asked for per STEPS steps */
} piece;

INLINE void begin_sums(const piece *p, vec sum[TILE_ROWS][2], const int rows) {
    UNROLL
    for (int i = 0; i < rows; ++i) {
        UNROLL
        for (int v = 0; v < 2; ++v)
            sum[i][v] = v_load(p->start ? p->start + v * WIDTH : p->sums + (i * 2 + v) * WIDTH);
    }
}

INLINE void end_vector(const piece *p, vec sum, int64_t i, int64_t column) {
    const int64_t left = p->columns - column;
    float *const to = p->result + i * p->stride_result + column;
    if (left <= 0)
        return;
    const float *const more = p->residual ? p->residual + i * p->stride_residual + column : NULL;
    if (more)
        sum = v_add(sum, left >= WIDTH ? v_load(more) : v_load_part(more, (int)left));
    sum = v_select_nan(sum, v_set1(__builtin_nanf("")), v_add(sum, v_zero()));
    if (left >= WIDTH)
        v_store(to, sum);
    else
        v_store_part(to, sum, (int)left);
}

/* Where a row's sums will go, and what is added to them, is asked for before the chains run. */
INLINE void look_at_end(const piece *p, int i) {
    const float *const to = p->result + i * p->stride_result;
    __builtin_prefetch(to, 1, 2);
    __builtin_prefetch(to + WIDTH, 1, 2);
    if (p->residual) {
        __builtin_prefetch(p->residual + i * p->stride_residual, 0, 2);
        __builtin_prefetch(p->residual + i * p->stride_residual + WIDTH, 0, 2);
    }
}

/* Where a tile's next weights are: in w, or, where they are stored in 16 bits, in stored and from there wide.
 */
typedef struct weights_at {
    const float *w;
    const uint16_t *stored;
    float *wide;
} weights_at;

INLINE vec load_weights(const weights_at *from, int at, const int storage) {
    if (storage == ATTUNE_KERNEL_F32)
        return v_load(from->w + at);
    const vec w =
        storage == ATTUNE_KERNEL_F16 ? v_load_f16(from->stored + at) : v_load_bf16(from->stored + at);
    v_store(from->wide + at, w);
    return w;
}

INLINE void advance(weights_at *from, int64_t steps, const int storage) {
    if (storage == ATTUNE_KERNEL_F32) {
        from->w += steps * PANEL;
    } else {
        from->stored += steps * PANEL;
        from->wide += steps * PANEL;
    }
}

INLINE void step_sums(const float *const *row, int64_t stride, const weights_at *from, int n,
                      vec sum[TILE_ROWS][2], const int rows, const int storage) {
    vec a = load_weights(from, 2 * n * WIDTH, storage), b = load_weights(from, (2 * n + 1) * WIDTH, storage);
    v_keep(&a);
    v_keep(&b);
    UNROLL
    for (int i = 0; i < rows; ++i) {
        vec one = v_set1(row[i / 3][i % 3 * stride + n]);
        v_keep(&one);
        sum[i][0] = v_fma(one, a, sum[i][0]);
        sum[i][1] = v_fma(one, b, sum[i][1]);
    }
}

INLINE void run_rows(const piece *p, const int rows, const int storage) {
    vec sum[TILE_ROWS][2];
    const float *row[ROW_GROUPS];
    weights_at w = {p->w, p->stored, p->wide};
    const int64_t stride = p->stride;
    const int looks = p->ahead < p->ahead_end;
    const char *ahead = looks ? p->ahead : (const char *)p;
    const int64_t line = looks ? 64 : 0;
    UNROLL
    for (int g = 0; g < (rows + 2) / 3; ++g)
        row[g] = p->steps ? p->x + 3 * g * stride : NULL;
    begin_sums(p, sum, rows);
    if (p->result) {
        UNROLL
        for (int i = 0; i < rows; ++i)
            look_at_end(p, i);
    }
    int64_t left = p->steps;
    for (; left >= STEPS; left -= STEPS, ahead += line) {
        __builtin_prefetch(ahead, 0, 2);
        UNROLL
        for (int g = 0; g < (rows + 2) / 3; ++g)
            __asm__("" : "+r"(row[g])); /* else compilers keep a pointer for each row, in memory */
        UNROLL
        for (int n = 0; n < STEPS; ++n)
            step_sums(row, stride, &w, n, sum, rows, storage);
        advance(&w, STEPS, storage);
        UNROLL
        for (int g = 0; g < (rows + 2) / 3; ++g)
            row[g] += STEPS;
    }
    for (; left > 0; --left) {
        step_sums(row, stride, &w, 0, sum, rows, storage);
        advance(&w, 1, storage);
        UNROLL
        for (int g = 0; g < (rows + 2) / 3; ++g)
            ++row[g];
    }
    UNROLL
    for (int i = 0; i < rows; ++i) {
        UNROLL
        for (int v = 0; v < 2; ++v) {
            if (p->result)
                end_vector(p, sum[i][v], i, v * WIDTH);
            else
                v_store(p->sums + (i * 2 + v) * WIDTH, sum[i][v]);
        }
    }
}

/* One function per height and type of weights, so that the compiler allocates registers for nothing else. */
#define TILE(rows)                                                                                           \
    __attribute__((noinline)) static void run_##rows(const piece *p) {                                       \
        run_rows(p, rows, ATTUNE_KERNEL_F32);                                                                \
    }                                                                                                        \
    __attribute__((noinline)) static void run_##rows##_f16(const piece *p) {                                 \
        run_rows(p, rows, ATTUNE_KERNEL_F16);                                                                \
    }                                                                                                        \
    __attribute__((noinline)) static void run_##rows##_bf16(const piece *p) {                                \
        run_rows(p, rows, ATTUNE_KERNEL_BF16);                                                               \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
#if TILE_ROWS > 6
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
TILE(13)
TILE(14)
#endif

#if TILE_ROWS > 6
#define EACH_TILE(type)                                                                                      \
    {                                                                                                        \
        run_1##type, run_2##type, run_3##type, run_4##type, run_5##type, run_6##type, run_7##type,           \
            run_8##type, run_9##type, run_10##type, run_11##type, run_12##type, run_13##type, run_14##type   \
    }
#else
#define EACH_TILE(type)                                                                                      \
    { run_1##type, run_2##type, run_3##type, run_4##type, run_5##type, run_6##type }
#endif

/* A tile of 1 ... TILE_ROWS rows. */
static inline void run_tile(const piece *p, int64_t rows) {
    static void (*const run[][TILE_ROWS])(const piece *) = {[ATTUNE_KERNEL_F32] = EACH_TILE(),
                                                            [ATTUNE_KERNEL_F16] = EACH_TILE(_f16),
                                                            [ATTUNE_KERNEL_BF16] = EACH_TILE(_bf16)};
    run[p->stored ? p->storage : ATTUNE_KERNEL_F32][rows - 1](p);
}

/* Weights of `steps` steps from step `first` of all panels' `all`: as they lie, or where `room` will have
 * them as floats, once a tile has widened them. What comes next lies behind them and is asked for meanwhile;
 * without that the first tile of each piece would wait for the memory. */
static inline void place_weights(piece *p, const void *packed, int32_t storage, int64_t first, int64_t steps,
                                 int64_t all, float *room) {
    const int64_t bytes = PANEL * storage_bytes(storage), next = first + steps;
    p->storage = storage;
    p->stored = storage == ATTUNE_KERNEL_F32 ? NULL : (const uint16_t *)packed + first * PANEL;
    p->w = storage == ATTUNE_KERNEL_F32 ? (const float *)packed + first * PANEL : room;
    p->wide = room;
    p->ahead = (const char *)packed + next * bytes;
    p->ahead_end = p->ahead + at_most(steps, all - next) * bytes;
}

/* Rows of the tile that begins where `left` are left: all that are left in tiles of nearly one height. */
static inline int64_t tile_rows(int64_t left, int64_t most) {
    return divide_up(left, divide_up(left, most));
}

/* After a tile. */
static inline void look_on(piece *p) {
    if (p->ahead < p->ahead_end)
        p->ahead += p->steps / STEPS * 64;
}

/* The start of a panel's chains, padded with 0. */
static void panel_start(const float *start, int64_t panel, int64_t out, float to[PANEL]) {
    memset(to, 0, PANEL * sizeof *to);
    if (start)
        memcpy(to, start + panel * PANEL, (size_t)at_most(PANEL, out - panel * PANEL) * sizeof *to);
}

/* Panels per task where the rows are cut into `blocks`. */
static inline int64_t cut_panels(int64_t panels, int64_t blocks, double work) {
    int64_t want = work < TASKS * TASK_WORK ? (int64_t)(work / TASK_WORK) : TASKS;
    want = at_least(divide_up(want, blocks), 1);
    return divide_up(panels, at_most(panels, want));
}
