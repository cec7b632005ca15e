/*
 * kernels/cpu/attention_tile.h: the attention kernel of arithmetic id `attune-f32-1`, written once over a
 * vector type. Each attention_ISA.c defines the vector operations and the tilings, then includes this file.
 *
 * Queries lie in the lanes, so every lane walks the reference's chain of operations for its own row and no
 * sum is ever reordered. A tile is up to TILE_VECTORS vectors of queries of one head: its queries (times c)
 * and its running sums are held transposed in the workspace; keys and values are broadcast from where they
 * are. Per block of keys: scores (k by q'), bias (mask, causality), softmax, weighted values (v by p). A
 * panel of some tiles takes each block of keys together, while the block is in the cache.
 *
 * Needs: vec, WIDTH (lanes), TILE_VECTORS (3 or 4), GROUP_1 ... GROUP_4 (the most keys or channels per
 * register tile of that many vectors: 4, 6 or 8), CHANNEL_PIECE, EXP2_CHAINS (vectors of exp2 at once),
 * v_zero, v_set1, v_keep, v_load, v_store, v_add, v_sub, v_mul, v_div, v_max(a, b) and v_min(a, b) (b where
 * either is NaN), v_fma(a, b, c) = a b + c, power, v_exp2_split(t, &n), v_exp2_scale(p, n), v_at_least(t,
 * low, x) (x, but 0 where t < low; x where t is NaN), v_select_equal(a, b, yes, no), v_any_not_equal(a, b)
 * (NaN differs), v_select_nan(a, yes, no), v_load_part(p, n), v_store_part(p, x, n), v_transpose(x).
 */
#include "kernels/arithmetic.h"
#include "kernels/attention.h"
#include "kernels/storage.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define INLINE     static inline __attribute__((always_inline))
#define KEYS       ATTUNE_ATTENTION_KEY_BLOCK
#define TILE_LANES (WIDTH * TILE_VECTORS)

/* Tiles per panel: at most PANEL_TILES, their arrays at most PANEL_BYTES (the second-level cache), and few
 * enough for PANELS_SHARED panels where a problem has that many tiles. */
#define PANEL_TILES   8
#define PANEL_BYTES   (768 * 1024)
#define PANELS_SHARED 16

/* Loops over a register tile must vanish, or the tile lives in memory. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

struct ahead;

/* A tile at work. Arrays are [channel or key][lane], with WIDTH * vectors lanes in this tile. */
typedef struct tile {
    const attune_attention_f32 *args;
    int64_t batch, head; /* of the queries */
    int64_t query;       /* the first */
    int64_t rows;        /* queries in use */
    int64_t seen;        /* keys from here on are hidden from all of its queries by causality */
    float *queries;      /* q', d_qk rows */
    float *sums;         /* o, d_v rows */
    float *m, *l;        /* one row each */
    float *scores;       /* s, then p: KEYS rows; all tiles of a panel use the same in turn */
    float *bias;         /* KEYS rows, likewise; only where the problem has a mask or is causal */
    struct ahead *ahead; /* what the next panel will read and write, or NULL */
} tile;

/* A block of keys: its rows of k and v. */
typedef struct block {
    int64_t first;
    const float *k, *v;
    int64_t stride_k, stride_v;
} block;

#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/attention_masks.h"
#include "kernels/cpu/attention_products.h"

/* ---- the online softmax ---- */

/* t[i] = 2^t[i] for `count` independent vectors step by step together: one alone would wait for each step's
 * latency. v_exp2_split takes t apart into n, kept as v_exp2_scale wants it, and f, which it returns. `far`:
 * t may lie below exp2's range. */
INLINE void exp2_each(vec *t, const int count, const int far) {
    static const float c[] = {ATTUNE_EXP2_C5, ATTUNE_EXP2_C4, ATTUNE_EXP2_C3,
                              ATTUNE_EXP2_C2, ATTUNE_EXP2_C1, 1.0f};
    vec f[EXP2_CHAINS], p[EXP2_CHAINS];
    power n[EXP2_CHAINS];
    UNROLL
    for (int i = 0; i < count; ++i) {
        f[i] = v_exp2_split(t[i], &n[i]);
        p[i] = v_set1(ATTUNE_EXP2_C6);
    }
    UNROLL
    for (int step = 0; step < 6; ++step) {
        vec next = v_set1(c[step]);
        v_keep(&next);
        UNROLL
        for (int i = 0; i < count; ++i)
            p[i] = v_fma(p[i], f[i], next);
    }
    UNROLL
    for (int i = 0; i < count; ++i) {
        const vec x = v_exp2_scale(p[i], n[i]);
        t[i] = far ? v_at_least(t[i], v_set1(ATTUNE_EXP2_MIN), x) : x;
    }
}

/* s becomes p for `rows` keys; their weights are added to sum in order. */
INLINE void weigh_rows(float *s, const vec *larger, vec *sum, const int rows, const int vectors,
                       const int far) {
    vec p[EXP2_CHAINS];
    UNROLL
    for (int i = 0; i < rows * vectors; ++i)
        p[i] = v_sub(v_load(s + i * WIDTH), larger[i % vectors]);
    exp2_each(p, rows * vectors, far);
    UNROLL
    for (int i = 0; i < rows * vectors; ++i) {
        v_store(s + i * WIDTH, p[i]);
        sum[i % vectors] = v_add(sum[i % vectors], p[i]);
    }
}

INLINE void weigh(float *s, int64_t keys, const vec *larger, vec *sum, const int vectors, const int far) {
    const int rows = EXP2_CHAINS / vectors;
    int64_t j = 0;
    for (; j + rows <= keys; j += rows)
        weigh_rows(s + j * vectors * WIDTH, larger, sum, rows, vectors, far);
    for (; j < keys; ++j)
        weigh_rows(s + j * vectors * WIDTH, larger, sum, 1, vectors, far);
}

/* l and the sums of vector v move from the maximum m to a larger one. Factors of 1 are skipped: exact. */
INLINE void rescale(const tile *t, int v, vec larger, vec *l, const int vectors) {
    vec factor = v_sub(v_load(t->m + v * WIDTH), larger);
    exp2_each(&factor, 1, 1);
    if (!v_any_not_equal(factor, v_set1(1.0f)))
        return;
    *l = v_mul(*l, factor);
    for (int64_t c = 0; c < t->args->d_v; ++c) {
        float *o = t->sums + (c * vectors + v) * WIDTH;
        v_store(o, v_mul(v_load(o), factor));
    }
}

/*
 * Scores become weights; m, l and the sums move to the new maximum. v_max drops NaN, which the reference's
 * maximum keeps; both make the row NaN, because the NaN's own weight is NaN and goes into l.
 */
INLINE void softmax_block(const tile *t, int64_t first, int64_t keys, const int vectors) {
    vec larger[4], least[4], sum[4];
    int far = 0;
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        larger[v] = v_load(t->m + v * WIDTH);
        least[v] = v_set1(INFINITY);
    }
    for (int64_t j = 0; j < keys; ++j) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            const vec s = v_load(t->scores + (j * vectors + v) * WIDTH);
            larger[v] = v_max(s, larger[v]);
            least[v] = v_min(s, least[v]);
        }
    }
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        const vec span = v_sub(least[v], larger[v]);
        far |= v_any_not_equal(v_max(v_set1(ATTUNE_EXP2_MIN), span), span);
        sum[v] = v_load(t->l + v * WIDTH);
        if (first > 0)
            rescale(t, v, larger[v], &sum[v], vectors);
        v_store(t->m + v * WIDTH, larger[v]);
    }
    if (far)
        weigh(t->scores, keys, larger, sum, vectors, 1);
    else
        weigh(t->scores, keys, larger, sum, vectors, 0);
    UNROLL
    for (int v = 0; v < vectors; ++v)
        v_store(t->l + v * WIDTH, sum[v]);
}

/* ---- one block of keys for one tile ---- */

INLINE void attend_block(const tile *t, const block *b, const int vectors) {
    const attune_attention_f32 *a = t->args;
    const int64_t left = t->seen - b->first, keys = left < KEYS ? left : KEYS, lanes = vectors * WIDTH;
    const int biased = is_biased(t, b->first, keys);
    int masked = 0;
    if (biased)
        make_bias(t, b->first, keys, lanes);
    score_block(t, b, keys, vectors);
    if (biased)
        masked = add_bias(t, keys, lanes);
    softmax_block(t, b->first, keys, vectors);
    if (masked && has_not_finite(b->v, b->stride_v, keys, a->d_v))
        value_block_masked(t, b, keys, lanes);
    else
        value_block(t, b, keys, vectors);
}

__attribute__((noinline)) static void attend_1(const tile *t, const block *b) {
    attend_block(t, b, 1);
}
__attribute__((noinline)) static void attend_2(const tile *t, const block *b) {
    attend_block(t, b, 2);
}
__attribute__((noinline)) static void attend_3(const tile *t, const block *b) {
    attend_block(t, b, 3);
}
#if TILE_VECTORS > 3
__attribute__((noinline)) static void attend_4(const tile *t, const block *b) {
    attend_block(t, b, 4);
}
#endif

static void (*const attend[TILE_VECTORS])(const tile *, const block *) = {attend_1, attend_2, attend_3,
#if TILE_VECTORS > 3
                                                                          attend_4
#endif
};

/* ---- how work is cut: by the problem alone ---- */

static uint64_t divide_up(uint64_t a, uint64_t b) {
    return a / b + (a % b != 0);
}

/* Floats of a block's keys and values, widened: none where they are floats already. */
static uint64_t block_floats(const attune_attention_f32 *a) {
    return a->storage == ATTUNE_KERNEL_F32 ? 0 : ((uint64_t)a->d_qk + (uint64_t)a->d_v) * KEYS;
}

/* Floats of one tile's own arrays. */
static uint64_t tile_floats(const attune_attention_f32 *a) {
    return ((uint64_t)a->d_qk + (uint64_t)a->d_v + 2) * TILE_LANES;
}

/* Tiles per panel: what keeps the tiles' arrays within PANEL_BYTES and leaves enough panels to share out. */
static uint64_t panel_tiles(const attune_attention_f32 *a) {
    const uint64_t per_head = divide_up((uint64_t)a->n_q, TILE_LANES);
    const uint64_t shared = per_head * (uint64_t)a->batch * (uint64_t)a->heads_q / PANELS_SHARED;
    const uint64_t floats = PANEL_BYTES / sizeof(float), widened = block_floats(a);
    uint64_t tiles = floats > widened ? (floats - widened) / tile_floats(a) : 0;
    if (tiles > shared)
        tiles = shared;
    if (tiles > PANEL_TILES)
        tiles = PANEL_TILES;
    return tiles > 1 ? divide_up(per_head, divide_up(per_head, tiles)) : 1; /* panels of one size */
}

static uint64_t panels_per_head(const attune_attention_f32 *a) {
    return divide_up(divide_up((uint64_t)a->n_q, TILE_LANES), panel_tiles(a));
}

static uint64_t all_panels(const attune_attention_f32 *a) {
    return (uint64_t)a->batch * (uint64_t)a->heads_q * panels_per_head(a);
}

/* Panels per task: small ones are taken together, so that a task is worth handing out (about 2^20
 * multiplications). */
static uint64_t panels_per_task(const attune_attention_f32 *a) {
    const double most = (double)panel_tiles(a) * TILE_LANES,
                 rows = (double)a->n_q < most ? (double)a->n_q : most;
    const double cost = rows * (double)a->n_k * ((double)a->d_qk + (double)a->d_v);
    return cost >= 0x1p20 ? 1 : (uint64_t)(0x1p20 / cost);
}

static uint64_t count_tasks(const attune_attention_f32 *a) {
    return divide_up(all_panels(a), panels_per_task(a));
}

static uint64_t workspace_bytes(const attune_attention_f32 *a) {
    const int biased = a->mask_kind != ATTUNE_KERNEL_MASK_NONE || a->causal;
    const uint64_t limit = (uint64_t)1 << 40;
    if ((uint64_t)a->d_qk > limit || (uint64_t)a->d_v > limit)
        return UINT64_MAX;
    const uint64_t floats =
        panel_tiles(a) * tile_floats(a) + (uint64_t)(biased ? 2 : 1) * KEYS * TILE_LANES + block_floats(a);
    return divide_up(floats * sizeof(float), 64) * 64;
}

/* ---- a panel ---- */

typedef struct panel {
    const attune_attention_f32 *args;
    int64_t batch, head, query, rows;
    const char *q, *k, *v; /* the first query's row, the head's first key and value */
    char *out;
} panel;

static int64_t element(const attune_attention_f32 *a) {
    return a->storage == ATTUNE_KERNEL_F32 ? 4 : 2;
}

static panel find_panel(const attune_attention_f32 *a, uint64_t index) {
    const uint64_t per_head = panels_per_head(a), heads = (uint64_t)a->heads_q;
    const int64_t most = (int64_t)panel_tiles(a) * TILE_LANES;
    panel p = {.args = a};
    p.query = (int64_t)(index % per_head) * most;
    p.head = (int64_t)(index / per_head % heads);
    p.batch = (int64_t)(index / per_head / heads);
    p.rows = a->n_q - p.query < most ? a->n_q - p.query : most;
    const int64_t kv = p.head / (a->heads_q / a->heads_kv);
    p.q = (const char *)a->q +
          element(a) * (p.batch * a->stride_q[0] + p.head * a->stride_q[1] + p.query * a->stride_q[2]);
    p.k = (const char *)a->k + element(a) * (p.batch * a->stride_k[0] + kv * a->stride_k[1]);
    p.v = (const char *)a->v + element(a) * (p.batch * a->stride_v[0] + kv * a->stride_v[1]);
    p.out = (char *)a->out + element(a) * (p.batch * a->stride_out[0] + p.head * a->stride_out[1] +
                                           p.query * a->stride_out[2]);
    return p;
}

static int64_t tile_lanes(const tile *t) {
    return (t->rows + WIDTH - 1) / WIDTH * WIDTH;
}

/* 16-bit rows pass through `scratch` (KEYS columns at a time) on their way to and from the lanes. */
static void load_queries(const tile *t, const char *rows, float factor, float *scratch) {
    const attune_attention_f32 *a = t->args;
    const int64_t lanes = tile_lanes(t);
    if (a->storage == ATTUNE_KERNEL_F32) {
        rows_to_lanes((const float *)(const void *)rows, a->stride_q[2], t->rows, a->d_qk, factor, t->queries,
                      lanes);
        return;
    }
    for (int64_t c = 0; c < a->d_qk; c += KEYS) {
        const int64_t columns = a->d_qk - c < KEYS ? a->d_qk - c : KEYS;
        widen_rows(a->storage, rows + 2 * c, a->stride_q[2], t->rows, columns, scratch, KEYS);
        rows_to_lanes(scratch, KEYS, t->rows, columns, factor, t->queries + c * lanes, lanes);
    }
}

static void store_sums(const tile *t, char *rows, float *scratch) {
    const attune_attention_f32 *a = t->args;
    const int64_t lanes = tile_lanes(t);
    if (a->storage == ATTUNE_KERNEL_F32) {
        lanes_to_rows(t->sums, lanes, t->l, (float *)(void *)rows, a->stride_out[2], t->rows, a->d_v);
        return;
    }
    for (int64_t c = 0; c < a->d_v; c += KEYS) {
        const int64_t columns = a->d_v - c < KEYS ? a->d_v - c : KEYS;
        lanes_to_rows(t->sums + c * lanes, lanes, t->l, scratch, KEYS, t->rows, columns);
        narrow_rows(a->storage, scratch, KEYS, t->rows, columns, rows + 2 * c, a->stride_out[2]);
    }
}

static tile begin_tile(const panel *p, int64_t offset, float factor, float *scores, float *memory) {
    const attune_attention_f32 *a = p->args;
    tile t = {.args = a, .batch = p->batch, .head = p->head, .query = p->query + offset};
    t.rows = p->rows - offset < TILE_LANES ? p->rows - offset : TILE_LANES;
    const int64_t seen = a->causal ? t.query + t.rows + (a->n_k - a->n_q) : a->n_k;
    t.seen = seen < a->n_k ? seen : a->n_k;
    t.scores = scores;
    t.queries = memory;
    t.sums = t.queries + a->d_qk * TILE_LANES;
    t.m = t.sums + a->d_v * TILE_LANES;
    t.l = t.m + TILE_LANES;
    for (int64_t lane = 0; lane < TILE_LANES; lane += WIDTH) {
        v_store(t.m + lane, v_set1(ATTUNE_ATTENTION_MAX_START));
        v_store(t.l + lane, v_zero());
    }
    if (t.seen <= 0)
        memset(t.sums, 0, (size_t)(a->d_v * TILE_LANES) * sizeof(float));
    load_queries(&t, p->q + element(a) * offset * a->stride_q[2], factor, scores);
    return t;
}

/* The block of keys from `first`, of which `keys` are needed. */
static block find_block(const panel *p, int64_t first, int64_t keys, float *widened) {
    const attune_attention_f32 *a = p->args;
    const char *const k = p->k + element(a) * first * a->stride_k[2];
    const char *const v = p->v + element(a) * first * a->stride_v[2];
    if (a->storage == ATTUNE_KERNEL_F32)
        return (block){first, (const float *)(const void *)k, (const float *)(const void *)v, a->stride_k[2],
                       a->stride_v[2]};
    float *const values = widened + a->d_qk * KEYS;
    widen_rows(a->storage, k, a->stride_k[2], keys, a->d_qk, widened, a->d_qk);
    widen_rows(a->storage, v, a->stride_v[2], keys, a->d_v, values, a->d_v);
    return (block){first, widened, values, a->d_qk, a->d_v};
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_panel(const attune_attention_f32 *a, uint64_t index, ahead *next,
                                                   float factor, float *memory) {
    const panel p = find_panel(a, index);
    const int biased = a->mask_kind != ATTUNE_KERNEL_MASK_NONE || a->causal;
    const int64_t floats = (int64_t)tile_floats(a);
    float *const scores = memory, *const bias = scores + KEYS * TILE_LANES;
    float *const widened = biased ? bias + KEYS * TILE_LANES : bias, *const arrays =
                                                                         widened + block_floats(a);
    tile tiles[PANEL_TILES];
    int count = 0;
    for (int64_t offset = 0; offset < p.rows; offset += TILE_LANES, ++count) {
        tiles[count] = begin_tile(&p, offset, factor, scores, arrays + count * floats);
        tiles[count].bias = bias;
        tiles[count].ahead = next;
    }
    const int64_t end = tiles[count - 1].seen; /* the last tile sees the most */
    for (int64_t first = 0; first < end; first += KEYS) {
        const block b = find_block(&p, first, end - first < KEYS ? end - first : KEYS, widened);
        for (int i = 0; i < count; ++i)
            if (first < tiles[i].seen)
                attend[(tiles[i].rows - 1) / WIDTH](&tiles[i], &b);
    }
    for (int i = 0; i < count; ++i)
        store_sums(&tiles[i], p.out + element(a) * i * TILE_LANES * a->stride_out[2], scores);
}

static void run_task(const attune_attention_f32 *a, uint64_t task, void *workspace) {
    const uint64_t environment = attune_fp_enter();
    const float factor = attune_attention_f32_factor(a->scale, a->d_qk);
    const uint64_t per_task = panels_per_task(a), all = all_panels(a);
    for (uint64_t i = task * per_task; i < all && i - task * per_task < per_task; ++i) {
        ahead next = {.array = 0};
        const int small = per_task > 1 && a->n_k <= KEYS && i + 1 < all && a->storage == ATTUNE_KERNEL_F32;
        if (small) {
            const panel p = find_panel(a, i + 1);
            prefetch_array(&next, 0, (const float *)(const void *)p.q, a->stride_q[2], p.rows, a->d_qk);
            prefetch_array(&next, 1, (const float *)(const void *)p.k, a->stride_k[2], a->n_k, a->d_qk);
            prefetch_array(&next, 2, (const float *)(const void *)p.v, a->stride_v[2], a->n_k, a->d_v);
            prefetch_array(&next, 3, (const float *)(const void *)p.out, a->stride_out[2], p.rows, a->d_v);
        }
        attend_panel(a, i, small ? &next : NULL, factor, workspace);
    }
    attune_fp_leave(environment);
}
