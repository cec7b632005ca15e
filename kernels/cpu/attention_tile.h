/*
 * kernels/cpu/attention_tile.h: the attention kernels, written once over a vector type: here what they share,
 * in attention_online.h, attention_full.h and attention_chunked.h the algorithms. Each attention_ISA.c
 * defines the vector operations and the tilings, includes this file and ends with ATTENTION_KERNELS(ISA).
 *
 * Queries lie in the lanes, so every lane walks the reference's chain of operations for its own row and no
 * sum is ever reordered. A tile is up to TILE_VECTORS vectors of queries of one head: its queries (times c)
 * and its running sums are held transposed in the workspace; keys and values are broadcast from where they
 * are. Per block of keys: scores (k by q'), bias (mask, causality), softmax, weighted values (v by p). A
 * panel of some tiles takes each block of keys together, while the block is in the cache.
 *
 * Needs: vec, WIDTH (lanes), TILE_VECTORS (3 or 4), GROUP_1 ... GROUP_4 (the most keys or channels per
 * register tile of that many vectors: 4, 6 or 8), ROW_GROUP (queries of attention_rows.h's tiles),
 * CHANNEL_PIECE, EXP2_CHAINS (vectors of exp2 at once), AHEAD_WITHIN (whether full tiles, too, ask for what
 * comes next amid their innermost loops), FEW_KEYS (how many vectors of scores of attention_few.h stay in
 * registers, a multiple of 8, or 0; with v_stream(p, x) and v_stream_end()), v_zero, v_set1, v_keep, v_load,
 * v_store, v_add, v_sub, v_mul, v_div, v_max(a, b) and v_min(a, b) (b where either is NaN), v_fma(a, b, c) =
 * a b + c, power, v_exp2_split(t, &n), v_exp2_scale(p, n), v_at_least(t, low, x) (x, but 0 where t < low; x
 * where t is NaN), v_select_equal(a, b, yes, no), v_any_not_equal(a, b) (NaN differs), v_select_nan(a, yes,
 * no), v_load_part(p, n), v_store_part(p, x, n), v_transpose(x), v_load_transposed(p, stride, x).
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
    float *scores;       /* s, then p, of the block at hand: a row per key */
    float *bias;         /* KEYS rows; only where the problem has a mask or is causal */
    float *scratch;      /* KEYS rows for a moment: `scores` where the block's are not yet there */
    struct ahead *ahead; /* what comes after this block, or NULL */
} tile;

/* A block of at most KEYS keys: its rows of k and v. */
typedef struct block {
    int64_t first, keys;
    const float *k, *v;
    int64_t stride_k, stride_v;
} block;

#include "kernels/cpu/attention_lanes.h"
#include "kernels/cpu/attention_masks.h"
#include "kernels/cpu/attention_products.h"
#include "kernels/cpu/attention_softmax.h"

#include "kernels/cpu/attention_panels.h"

#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/attention_steps.h"

#include "kernels/cpu/attention_chunked.h"
#include "kernels/cpu/attention_few.h"
#include "kernels/cpu/attention_full.h"
#include "kernels/cpu/attention_online.h"

static uint64_t shared_nothing(const attune_attention_f32 *a) {
    (void)a;
    return 0;
}

#define ATTENTION_KERNEL(which, runs, in_common, family)                                                     \
    {                                                                                                        \
        .isa = which, .passes = runs, .tasks = family##_tasks, .workspace = family##_workspace,              \
        .shared = in_common, .run = family##_run                                                             \
    }

/* The table of one ISA. */
#define ATTENTION_KERNELS(name)                                                                              \
    const attune_attention_f32_kernel attune_attention_f32_##name[ATTUNE_ATTENTION_ALGORITHMS] = {           \
        [ATTUNE_ATTENTION_PANELS] = ATTENTION_KERNEL(#name, 1, shared_nothing, panels),                      \
        [ATTUNE_ATTENTION_ROW_BLOCKS] = ATTENTION_KERNEL(#name, 1, shared_nothing, row_blocks),              \
        [ATTUNE_ATTENTION_SLICES] = ATTENTION_KERNEL(#name, 1, shared_nothing, slices),                      \
        [ATTUNE_ATTENTION_MATRIX] = ATTENTION_KERNEL(#name, MATRIX_PASSES, matrix_shared, matrix),           \
        [ATTUNE_ATTENTION_CHUNKS] = ATTENTION_KERNEL(#name, 1, shared_nothing, chunks)}
