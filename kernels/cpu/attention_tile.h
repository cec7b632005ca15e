/*
 * kernels/cpu/attention_tile.h: the attention kernel of arithmetic id `attune-f32-1`, written once over a
 * vector type. Each attention_ISA.c defines the vector operations and the tilings, then includes this file.
 *
 * Queries lie in the lanes, so every lane walks the reference's chain of operations for its own row and no
 * sum is ever reordered. A tile is up to TILE_VECTORS vectors of queries of one head: its queries (times c)
 * and its running sums are held transposed in the workspace; keys and values are broadcast from where they
 * are. Per block of keys: scores (k by q'), bias (mask, causality), softmax, weighted values (v by p).
 *
 * Needs: vec, WIDTH (lanes), TILE_VECTORS (3 or 4), GROUP_1 ... GROUP_4 (keys or channels per register tile
 * of that many vectors), CHANNEL_PIECE, v_zero, v_set1, v_load, v_store, v_add, v_sub, v_mul, v_div, v_max(a,
 * b) (b where either is NaN), v_fma(a, b, c) = a b + c, v_exp2, v_select_equal(a, b, yes, no),
 * v_any_not_equal(a, b) (NaN differs), v_select_nan(a, yes, no), v_load_part(p, n), v_store_part(p, x, n),
 * v_transpose(x).
 */
#include "kernels/arithmetic.h"
#include "kernels/attention.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define INLINE     static inline __attribute__((always_inline))
#define KEYS       ATTUNE_ATTENTION_KEY_BLOCK
#define TILE_LANES (WIDTH * TILE_VECTORS)

/* Loops over a register tile must vanish, or the tile lives in memory. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The rows of the next tile's four arrays, asked for a few lines at a time while this tile computes. */
typedef struct ahead {
    const float *from[4];
    int64_t stride[4], rows[4], columns[4];
    int array;
    int64_t row, column;
} ahead;

/* A tile at work. Arrays are [channel or key][lane], with WIDTH * vectors lanes in this tile. */
typedef struct tile {
    const attune_attention_f32 *args;
    int64_t batch, head;    /* of the queries */
    int64_t query;          /* the first */
    int64_t rows;           /* queries in use */
    const float *q, *k, *v; /* the first query; the head's first key and value */
    float *out;
    float *queries;      /* q', d_qk rows */
    float *sums;         /* o, d_v rows */
    float *scores;       /* s, then p: KEYS rows */
    float *bias;         /* KEYS rows; only where the problem has a mask or is causal */
    struct ahead *ahead; /* what the next tile will read and write, or NULL */
} tile;

/*
 * Small tiles end before the processor's own prefetching has seen where they lead; asking for all of the next
 * one at once would stall on the few misses that a core can have outstanding.
 */
INLINE void prefetch_lines(ahead *p, int lines) {
    if (!p)
        return;
    for (; lines > 0 && p->array < 4; --lines) {
        const int i = p->array;
        __builtin_prefetch(p->from[i] + p->row * p->stride[i] + p->column, 0, 3);
        p->column += 16;
        if (p->column >= p->columns[i]) {
            p->column = 0;
            if (++p->row >= p->rows[i]) {
                p->row = 0;
                ++p->array;
            }
        }
    }
}

static void prefetch_array(ahead *p, int i, const float *from, int64_t stride, int64_t rows,
                           int64_t columns) {
    p->from[i] = from;
    p->stride[i] = stride;
    p->rows[i] = stride == columns ? 1 : rows;
    p->columns[i] = stride == columns ? rows * columns : columns;
}

/* ---- between rows in memory and lanes ---- */

/* to[c][lane] = from[lane][c] * scale for WIDTH lanes and `part` <= WIDTH columns; lanes without a row are 0.
 */
INLINE void columns_to_lanes(const float *from, int64_t stride, int64_t rows, const int part, vec scale,
                             float *to, int64_t lanes) {
    vec x[WIDTH];
    UNROLL
    for (int i = 0; i < WIDTH; ++i) {
        x[i] = v_zero();
        if (i < rows)
            x[i] = v_mul(part == WIDTH ? v_load(from + i * stride) : v_load_part(from + i * stride, part),
                         scale);
    }
    v_transpose(x);
    UNROLL
    for (int i = 0; i < WIDTH; ++i)
        if (i < part)
            v_store(to + i * lanes, x[i]);
}

/* The same for all columns and all vectors of a tile. */
static void rows_to_lanes(const float *from, int64_t stride, int64_t rows, int64_t columns, float scale,
                          float *to, int64_t lanes) {
    const vec factor = v_set1(scale);
    for (int64_t lane = 0; lane < lanes; lane += WIDTH) {
        const float *source = from + lane * stride;
        int64_t c = 0;
        for (; c + WIDTH <= columns; c += WIDTH)
            columns_to_lanes(source + c, stride, rows - lane, WIDTH, factor, to + c * lanes + lane, lanes);
        if (c < columns)
            columns_to_lanes(source + c, stride, rows - lane, (int)(columns - c), factor,
                             to + c * lanes + lane, lanes);
    }
}

/* The end of the arithmetic: to[lane][c] = stored(from[c][lane] * (1 / l)), +0 where l is 0. */
INLINE void lanes_to_columns(const float *from, int64_t lanes, vec l, vec reciprocal, float *to,
                             int64_t stride, int64_t rows, const int part) {
    const vec zero = v_zero(), nan = v_set1(__builtin_nanf(""));
    vec x[WIDTH];
    UNROLL
    for (int i = 0; i < WIDTH; ++i) {
        x[i] = zero;
        if (i < part) {
            const vec y = v_add(v_mul(v_load(from + i * lanes), reciprocal), zero);
            x[i] = v_select_equal(l, zero, zero, v_select_nan(y, nan, y));
        }
    }
    v_transpose(x);
    UNROLL
    for (int i = 0; i < WIDTH; ++i)
        if (i < rows) {
            if (part == WIDTH)
                v_store(to + i * stride, x[i]);
            else
                v_store_part(to + i * stride, x[i], part);
        }
}

static void lanes_to_rows(const float *from, int64_t lanes, const vec *l, float *to, int64_t stride,
                          int64_t rows, int64_t columns) {
    for (int64_t lane = 0; lane < lanes; lane += WIDTH) {
        const vec sum = l[lane / WIDTH], reciprocal = v_div(v_set1(1.0f), sum);
        float *target = to + lane * stride;
        int64_t c = 0;
        for (; c + WIDTH <= columns; c += WIDTH)
            lanes_to_columns(from + c * lanes + lane, lanes, sum, reciprocal, target + c, stride, rows - lane,
                             WIDTH);
        if (c < columns)
            lanes_to_columns(from + c * lanes + lane, lanes, sum, reciprocal, target + c, stride, rows - lane,
                             (int)(columns - c));
    }
}

/* ---- the two products ---- */

/* to[g][lane] = (resume ? to[g][lane] : 0) + sum over n, ascending, of b[g * step + n * next] x[n][lane]: a
 * register tile of `vectors` x `group` sums. Scores: g is a key, n a channel; weighted values: g is a
 * channel, n a key. */
INLINE void product_tile(const float *x, const float *b, int64_t step, int64_t next, int64_t count,
                         int resume, float *to, const int vectors, const int group) {
    vec sum[16][4];
    UNROLL
    for (int g = 0; g < group; ++g) {
        UNROLL
        for (int v = 0; v < vectors; ++v)
            sum[g][v] = resume ? v_load(to + (g * vectors + v) * WIDTH) : v_zero();
    }
    for (int64_t n = 0; n < count; ++n) {
        vec lane[4];
        UNROLL
        for (int v = 0; v < vectors; ++v)
            lane[v] = v_load(x + (n * vectors + v) * WIDTH);
        UNROLL
        for (int g = 0; g < group; ++g) {
            const vec one = v_set1(b[g * step + n * next]);
            UNROLL
            for (int v = 0; v < vectors; ++v)
                sum[g][v] = v_fma(one, lane[v], sum[g][v]);
        }
    }
    UNROLL
    for (int g = 0; g < group; ++g) {
        UNROLL
        for (int v = 0; v < vectors; ++v)
            v_store(to + (g * vectors + v) * WIDTH, sum[g][v]);
    }
}

/* One register tile per function, so that the compiler allocates registers for nothing else. */
typedef void product_function(const float *x, const float *b, int64_t stride, int64_t count, int resume,
                              float *to);

#define PRODUCT(vectors, name, group)                                                                        \
    __attribute__((noinline)) static void scores_##vectors##_##name(                                         \
        const float *x, const float *b, int64_t stride, int64_t count, int resume, float *to) {              \
        product_tile(x, b, stride, 1, count, resume, to, vectors, group);                                    \
    }                                                                                                        \
    __attribute__((noinline)) static void values_##vectors##_##name(                                         \
        const float *x, const float *b, int64_t stride, int64_t count, int resume, float *to) {              \
        product_tile(x, b, 1, stride, count, resume, to, vectors, group);                                    \
    }
#define PRODUCTS(vectors, group)                                                                             \
    PRODUCT(vectors, full, group) PRODUCT(vectors, 4, 4) PRODUCT(vectors, 2, 2) PRODUCT(vectors, 1, 1)
#define PRODUCT_ROW(kind, vectors)                                                                           \
    { kind##_##vectors##_full, kind##_##vectors##_4, kind##_##vectors##_2, kind##_##vectors##_1 }

PRODUCTS(1, GROUP_1)
PRODUCTS(2, GROUP_2)
PRODUCTS(3, GROUP_3)
#if TILE_VECTORS > 3
PRODUCTS(4, GROUP_4)
#define PRODUCT_ROWS(kind)                                                                                   \
    PRODUCT_ROW(kind, 1), PRODUCT_ROW(kind, 2), PRODUCT_ROW(kind, 3), PRODUCT_ROW(kind, 4)
#else
#define PRODUCT_ROWS(kind) PRODUCT_ROW(kind, 1), PRODUCT_ROW(kind, 2), PRODUCT_ROW(kind, 3)
#endif

/* By vectors - 1, the largest register tile first; groups says how many keys or channels each takes. */
static product_function *const scores_tiles[TILE_VECTORS][4] = {PRODUCT_ROWS(scores)};
static product_function *const values_tiles[TILE_VECTORS][4] = {PRODUCT_ROWS(values)};
static const int groups[4][4] = {
    {GROUP_1, 4, 2, 1}, {GROUP_2, 4, 2, 1}, {GROUP_3, 4, 2, 1}, {GROUP_4, 4, 2, 1}};

/* Channels are taken in pieces so that q' stays in the first-level cache; the chain goes on from the stored
 * float. */
static void score_block(const tile *t, int64_t first, int64_t keys, const int vectors) {
    const attune_attention_f32 *a = t->args;
    const int64_t stride = a->stride_k[2], lanes = vectors * WIDTH;
    const int64_t pieces = (a->d_qk + CHANNEL_PIECE - 1) / CHANNEL_PIECE,
                  piece = (a->d_qk + pieces - 1) / pieces;
    for (int64_t d = 0; d < a->d_qk; d += piece) {
        const int64_t channels = a->d_qk - d < piece ? a->d_qk - d : piece;
        int g = 0;
        for (int64_t j = 0; j < keys; j += groups[vectors - 1][g]) {
            while (keys - j < groups[vectors - 1][g])
                ++g;
            prefetch_lines(t->ahead, 16);
            scores_tiles[vectors - 1][g](t->queries + d * lanes, t->k + (first + j) * stride + d, stride,
                                         channels, d > 0, t->scores + j * lanes);
        }
    }
}

static void value_block(const tile *t, int64_t first, int64_t keys, const int vectors) {
    const attune_attention_f32 *a = t->args;
    const float *value = t->v + first * a->stride_v[2];
    int g = 0;
    for (int64_t c = 0; c < a->d_v; c += groups[vectors - 1][g]) {
        while (a->d_v - c < groups[vectors - 1][g])
            ++g;
        prefetch_lines(t->ahead, 16);
        values_tiles[vectors - 1][g](t->scores, value + c, a->stride_v[2], keys, first > 0,
                                     t->sums + c * vectors * WIDTH);
    }
}

/* ---- masks ---- */

/* Whether some query of the tile may not see some key of the block. */
static int is_biased(const tile *t, int64_t first, int64_t keys) {
    const attune_attention_f32 *a = t->args;
    return a->mask_kind != ATTUNE_KERNEL_MASK_NONE ||
           (a->causal && t->query + (a->n_k - a->n_q) < first + keys - 1);
}

/* One query's bias for a block of keys: the mask's float; -inf where a boolean or causality masks; else 0. */
static void bias_row(const tile *t, int64_t query, int64_t first, int64_t keys, float *to) {
    const attune_attention_f32 *a = t->args;
    const int64_t step = a->stride_mask[3];
    const int64_t at =
        t->batch * a->stride_mask[0] + t->head * a->stride_mask[1] + query * a->stride_mask[2] + first * step;
    const int64_t seen = a->causal ? query + (a->n_k - a->n_q) - first + 1 : keys;
    for (int64_t j = 0; j < keys; ++j) {
        to[j] = 0.0f;
        if (a->mask_kind == ATTUNE_KERNEL_MASK_FLOAT)
            to[j] = ((const float *)a->mask)[at + j * step];
        else if (a->mask_kind == ATTUNE_KERNEL_MASK_BOOL)
            to[j] = ((const uint8_t *)a->mask)[at + j * step] ? 0.0f : -INFINITY;
    }
    for (int64_t j = seen < 0 ? 0 : seen; j < keys; ++j)
        to[j] = -INFINITY;
}

/* The block's bias in lanes. The scores, not yet computed, hold its rows for a moment. */
static void make_bias(const tile *t, int64_t first, int64_t keys, int64_t lanes) {
    for (int64_t i = 0; i < t->rows; ++i)
        bias_row(t, t->query + i, first, keys, t->scores + i * KEYS);
    rows_to_lanes(t->scores, KEYS, t->rows, keys, 1.0f, t->bias, lanes);
}

/* Adds the bias to the scores. A boolean is a float mask of 0 and -inf: adding 0 changes at most the sign of
 * a zero score, which does not reach 2^x. Returns whether any key is masked for any query. */
static int add_bias(const tile *t, int64_t keys, int64_t lanes) {
    const vec log2e = v_set1(ATTUNE_LOG2E_F32), never = v_set1(-INFINITY);
    vec masked = v_zero();
    for (int64_t i = 0; i < keys * lanes; i += WIDTH) {
        const vec bias = v_load(t->bias + i), product = v_mul(bias, log2e);
        const vec s = v_fma(bias, log2e, v_load(t->scores + i));
        masked = v_select_equal(product, never, never, masked);
        v_store(t->scores + i, v_select_equal(product, never, never, s));
    }
    return v_any_not_equal(masked, v_zero());
}

static int has_not_finite(const float *from, int64_t stride, int64_t rows, int64_t columns) {
    uint32_t found = 0;
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = 0; c < columns; ++c) {
            uint32_t bits;
            memcpy(&bits, from + i * stride + c, sizeof bits);
            found |= (bits & 0x7f800000u) == 0x7f800000u;
        }
    return found != 0;
}

/* value_block where a masked key's value may be infinite or NaN, which times a weight of 0 would not be 0. */
static void value_block_masked(const tile *t, int64_t first, int64_t keys, int64_t lanes) {
    const attune_attention_f32 *a = t->args;
    const vec log2e = v_set1(ATTUNE_LOG2E_F32), never = v_set1(-INFINITY);
    if (first == 0)
        memset(t->sums, 0, (size_t)(a->d_v * lanes) * sizeof(float));
    for (int64_t j = 0; j < keys; ++j)
        for (int64_t lane = 0; lane < lanes; lane += WIDTH) {
            const vec product = v_mul(v_load(t->bias + j * lanes + lane), log2e);
            const vec p = v_load(t->scores + j * lanes + lane);
            for (int64_t c = 0; c < a->d_v; ++c) {
                float *sum = t->sums + c * lanes + lane;
                const vec before = v_load(sum), value = v_set1(t->v[(first + j) * a->stride_v[2] + c]);
                v_store(sum, v_select_equal(product, never, before, v_fma(value, p, before)));
            }
        }
}

/* ---- the online softmax ---- */

/*
 * Scores become weights; m, l and the sums move to the new maximum. v_max drops NaN, which the reference's
 * maximum keeps; both make the row NaN, because the NaN's own weight is NaN and goes into l. Factors of 1 are
 * skipped: exact.
 */
INLINE void softmax_block(const tile *t, int64_t first, int64_t keys, vec *m, vec *l, const int vectors) {
    const vec one = v_set1(1.0f);
    vec larger[4], sum[4];
    UNROLL
    for (int v = 0; v < vectors; ++v)
        larger[v] = m[v];
    for (int64_t j = 0; j < keys; ++j) {
        UNROLL
        for (int v = 0; v < vectors; ++v)
            larger[v] = v_max(v_load(t->scores + (j * vectors + v) * WIDTH), larger[v]);
    }
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        const vec factor = v_exp2(v_sub(m[v], larger[v]));
        sum[v] = l[v];
        m[v] = larger[v];
        if (first > 0 && v_any_not_equal(factor, one)) {
            sum[v] = v_mul(sum[v], factor);
            for (int64_t c = 0; c < t->args->d_v; ++c) {
                float *o = t->sums + (c * vectors + v) * WIDTH;
                v_store(o, v_mul(v_load(o), factor));
            }
        }
    }
    for (int64_t j = 0; j < keys; ++j) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            float *s = t->scores + (j * vectors + v) * WIDTH;
            const vec p = v_exp2(v_sub(v_load(s), larger[v]));
            v_store(s, p);
            sum[v] = v_add(sum[v], p);
        }
    }
    UNROLL
    for (int v = 0; v < vectors; ++v)
        l[v] = sum[v];
}

INLINE void attend_tile(const tile *t, float factor, const int vectors) {
    const attune_attention_f32 *a = t->args;
    const int64_t lanes = vectors * WIDTH;
    /* Keys that causality hides from the tile's last query are hidden from all. */
    const int64_t seen = a->causal ? t->query + t->rows + (a->n_k - a->n_q) : a->n_k;
    const int64_t end = seen < a->n_k ? seen : a->n_k;
    vec m[4], l[4];
    for (int v = 0; v < vectors; ++v) {
        m[v] = v_set1(ATTUNE_ATTENTION_MAX_START);
        l[v] = v_zero();
    }
    if (end <= 0)
        memset(t->sums, 0, (size_t)(a->d_v * lanes) * sizeof(float));
    rows_to_lanes(t->q, a->stride_q[2], t->rows, a->d_qk, factor, t->queries, lanes);
    for (int64_t first = 0; first < end; first += KEYS) {
        const int64_t keys = end - first < KEYS ? end - first : KEYS;
        const int biased = is_biased(t, first, keys);
        int masked = 0;
        if (biased)
            make_bias(t, first, keys, lanes);
        score_block(t, first, keys, vectors);
        if (biased)
            masked = add_bias(t, keys, lanes);
        softmax_block(t, first, keys, m, l, vectors);
        if (masked && has_not_finite(t->v + first * a->stride_v[2], a->stride_v[2], keys, a->d_v))
            value_block_masked(t, first, keys, lanes);
        else
            value_block(t, first, keys, vectors);
    }
    lanes_to_rows(t->sums, lanes, l, t->out, a->stride_out[2], t->rows, a->d_v);
}

__attribute__((noinline)) static void attend_1(const tile *t, float factor) {
    attend_tile(t, factor, 1);
}
__attribute__((noinline)) static void attend_2(const tile *t, float factor) {
    attend_tile(t, factor, 2);
}
__attribute__((noinline)) static void attend_3(const tile *t, float factor) {
    attend_tile(t, factor, 3);
}
#if TILE_VECTORS > 3
__attribute__((noinline)) static void attend_4(const tile *t, float factor) {
    attend_tile(t, factor, 4);
}
#endif

/* ---- how work is cut ---- */

static uint64_t tiles_per_head(const attune_attention_f32 *a) {
    return ((uint64_t)a->n_q + TILE_LANES - 1) / TILE_LANES;
}

/* Tiles per task: small tiles are taken together, so that a task is worth handing out (about 2^20
 * multiplications). */
static uint64_t tiles_per_task(const attune_attention_f32 *a) {
    const double rows = a->n_q < TILE_LANES ? (double)a->n_q : (double)TILE_LANES;
    const double cost = rows * (double)a->n_k * ((double)a->d_qk + (double)a->d_v);
    return cost >= 0x1p20 ? 1 : (uint64_t)(0x1p20 / cost);
}

static uint64_t all_tiles(const attune_attention_f32 *a) {
    return (uint64_t)a->batch * (uint64_t)a->heads_q * tiles_per_head(a);
}

static uint64_t count_tasks(const attune_attention_f32 *a) {
    return (all_tiles(a) + tiles_per_task(a) - 1) / tiles_per_task(a);
}

static uint64_t workspace_bytes(const attune_attention_f32 *a) {
    const int biased = a->mask_kind != ATTUNE_KERNEL_MASK_NONE || a->causal;
    uint64_t rows, bytes;
    if (__builtin_add_overflow((uint64_t)a->d_qk, (uint64_t)a->d_v, &rows) ||
        __builtin_add_overflow(rows, (uint64_t)(biased ? 2 * KEYS : KEYS), &rows) ||
        __builtin_mul_overflow(rows, (uint64_t)TILE_LANES * sizeof(float), &bytes) || bytes > UINT64_MAX - 63)
        return UINT64_MAX;
    return (bytes + 63) / 64 * 64;
}

static tile find_tile(const attune_attention_f32 *a, uint64_t index) {
    const uint64_t per_head = tiles_per_head(a), heads = (uint64_t)a->heads_q;
    tile t = {.args = a};
    t.query = (int64_t)(index % per_head) * TILE_LANES;
    t.head = (int64_t)(index / per_head % heads);
    t.batch = (int64_t)(index / per_head / heads);
    t.rows = a->n_q - t.query < TILE_LANES ? a->n_q - t.query : TILE_LANES;
    const int64_t kv = t.head / (a->heads_q / a->heads_kv);
    t.q = a->q + t.batch * a->stride_q[0] + t.head * a->stride_q[1] + t.query * a->stride_q[2];
    t.k = a->k + t.batch * a->stride_k[0] + kv * a->stride_k[1];
    t.v = a->v + t.batch * a->stride_v[0] + kv * a->stride_v[1];
    t.out = a->out + t.batch * a->stride_out[0] + t.head * a->stride_out[1] + t.query * a->stride_out[2];
    return t;
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_index(const attune_attention_f32 *a, uint64_t index, ahead *next,
                                                   float factor, float *memory) {
    tile t = find_tile(a, index);
    t.ahead = next;
    t.queries = memory;
    t.sums = t.queries + a->d_qk * TILE_LANES;
    t.scores = t.sums + a->d_v * TILE_LANES;
    t.bias = t.scores + KEYS * TILE_LANES;
    static void (*const attend[TILE_VECTORS])(const tile *, float) = {
        attend_1,
        attend_2,
        attend_3,
#if TILE_VECTORS > 3
        attend_4
#endif
    };
    attend[(t.rows - 1) / WIDTH](&t, factor);
}

static void run_task(const attune_attention_f32 *a, uint64_t task, void *workspace) {
    const uint64_t environment = attune_fp_enter();
    const float factor = attune_attention_f32_factor(a->scale, a->d_qk);
    const uint64_t per_task = tiles_per_task(a), all = all_tiles(a);
    for (uint64_t i = task * per_task; i < all && i - task * per_task < per_task; ++i) {
        ahead next = {.array = 0};
        const int small = per_task > 1 && a->n_k <= KEYS && i + 1 < all;
        if (small) {
            const tile t = find_tile(a, i + 1);
            prefetch_array(&next, 0, t.q, a->stride_q[2], t.rows, a->d_qk);
            prefetch_array(&next, 1, t.k, a->stride_k[2], a->n_k, a->d_qk);
            prefetch_array(&next, 2, t.v, a->stride_v[2], a->n_k, a->d_v);
            prefetch_array(&next, 3, t.out, a->stride_out[2], t.rows, a->d_v);
        }
        attend_index(a, i, small ? &next : NULL, factor, workspace);
    }
    attune_fp_leave(environment);
}
