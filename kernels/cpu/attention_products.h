/*
 * kernels/cpu/attention_products.h: scores (k by q') and weighted values (v by p) of one tile and one block
 * of keys, in register tiles: some keys or channels by all of the tile's vectors. Part of attention_tile.h.
 */

/* to[g][lane] = (resume ? to[g][lane] : 0) + sum over n, ascending, of b[g * step + n * next] x[n][lane]: a
 * register tile of `vectors` x `group` sums. Scores: g is a key, n a channel; weighted values: g is a
 * channel, n a key. */
INLINE void product_tile(const float *x, const float *b, int64_t step, int64_t next, int64_t count,
                         int resume, float *to, ahead *coming, const int vectors, const int group) {
    vec sum[16][4];
    UNROLL
    for (int g = 0; g < group; ++g) {
        UNROLL
        for (int v = 0; v < vectors; ++v)
            sum[g][v] = resume ? v_load(to + (g * vectors + v) * WIDTH) : v_zero();
    }
    const int64_t steps = ahead_steps(count, vectors);
    for (int64_t n = 0; n < count;) {
        const int64_t end = count - n < steps ? count : n + steps;
        prefetch_lines(coming);
        for (; n < end; ++n) {
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
    }
    UNROLL
    for (int g = 0; g < group; ++g) {
        UNROLL
        for (int v = 0; v < vectors; ++v)
            v_store(to + (g * vectors + v) * WIDTH, sum[g][v]);
    }
}

/* `tiles` register tiles side by side, one function per shape, so that the compiler allocates registers for
 * nothing else. */
typedef void product_function(const float *x, const float *b, int64_t stride, int64_t count, int resume,
                              float *to, int64_t tiles, ahead *next);

#define PRODUCT(vectors, group)                                                                              \
    __attribute__((noinline)) static void scores_##vectors##_##group(                                        \
        const float *x, const float *b, int64_t stride, int64_t count, int resume, float *to, int64_t tiles, \
        ahead *next) {                                                                                       \
        for (int64_t t = 0; t < tiles; ++t, b += group * stride, to += group * vectors * WIDTH) {            \
            product_tile(x, b, stride, 1, count, resume, to, next, vectors, group);                          \
        }                                                                                                    \
    }                                                                                                        \
    __attribute__((noinline)) static void values_##vectors##_##group(                                        \
        const float *x, const float *b, int64_t stride, int64_t count, int resume, float *to, int64_t tiles, \
        ahead *next) {                                                                                       \
        for (int64_t t = 0; t < tiles; ++t, b += group, to += group * vectors * WIDTH) {                     \
            product_tile(x, b, 1, stride, count, resume, to, next, vectors, group);                          \
        }                                                                                                    \
    }
#define PRODUCTS_4(vectors)     PRODUCT(vectors, 1) PRODUCT(vectors, 2) PRODUCT(vectors, 3) PRODUCT(vectors, 4)
#define PRODUCTS_6(vectors)     PRODUCTS_4(vectors) PRODUCT(vectors, 5) PRODUCT(vectors, 6)
#define PRODUCTS_8(vectors)     PRODUCTS_6(vectors) PRODUCT(vectors, 7) PRODUCT(vectors, 8)
#define SHAPES_4(kind, vectors) kind##vectors##_1, kind##vectors##_2, kind##vectors##_3, kind##vectors##_4
#define SHAPES_6(kind, vectors) SHAPES_4(kind, vectors), kind##vectors##_5, kind##vectors##_6
#define SHAPES_8(kind, vectors) SHAPES_6(kind, vectors), kind##vectors##_7, kind##vectors##_8
#define PASTE(a, b)             a##b
#define PRODUCTS(group)         PASTE(PRODUCTS_, group)
#define SHAPES(group)           PASTE(SHAPES_, group)

PRODUCTS(GROUP_1)
(1) PRODUCTS(GROUP_2)(2) PRODUCTS(GROUP_3)(3)
#if TILE_VECTORS > 3
    PRODUCTS(GROUP_4)(4)
#define ALL_SHAPES(kind)                                                                                     \
    {SHAPES(GROUP_1)(kind, 1)}, {SHAPES(GROUP_2)(kind, 2)}, {SHAPES(GROUP_3)(kind, 3)}, {                    \
        SHAPES(GROUP_4)(kind, 4)                                                                             \
    }
#else
#define ALL_SHAPES(kind)                                                                                     \
    {SHAPES(GROUP_1)(kind, 1)}, {SHAPES(GROUP_2)(kind, 2)}, {                                                \
        SHAPES(GROUP_3)(kind, 3)                                                                             \
    }
#endif

    /* By vectors - 1 and group - 1. */
    static product_function *const scores_shapes[TILE_VECTORS][8] = {ALL_SHAPES(scores_)};
static product_function *const values_shapes[TILE_VECTORS][8] = {ALL_SHAPES(values_)};
static const int most_grouped[TILE_VECTORS] = {GROUP_1, GROUP_2, GROUP_3
#if TILE_VECTORS > 3
                                               ,
                                               GROUP_4
#endif
};

/* How the keys or channels that are `left` go on: as many register tiles of the largest group as fit, but the
 * last two are evened out, since a narrow one waits for the latency of its sums. */
INLINE int64_t next_tiles(int64_t left, const int vectors, int *group) {
    const int most = most_grouped[vectors - 1];
    const int64_t whole = left / most - (left % most != 0);
    *group = whole > 0 ? most : left > most ? (int)(left + 1) / 2 : (int)left;
    return whole > 1 ? whole : 1;
}

/* Calls of prefetch_lines for one tile of so many vectors. */
static int64_t score_calls(const attune_attention_f32 *a, int64_t keys, int vectors) {
    const int64_t pieces = (a->d_qk + CHANNEL_PIECE - 1) / CHANNEL_PIECE, most = most_grouped[vectors - 1];
    return (keys + most - 1) / most * pieces * ahead_calls(a->d_qk / pieces, vectors);
}
static int64_t value_calls(int64_t channels, int64_t keys, int vectors) {
    const int64_t most = most_grouped[vectors - 1];
    return (channels + most - 1) / most * ahead_calls(keys, vectors);
}

/* Channels are taken in pieces so that q' stays in the first-level cache; the chain goes on from the stored
 * float. */
static void score_block(const tile *t, const block *b, int64_t keys, const int vectors) {
    const int64_t d_qk = t->args->d_qk, lanes = vectors * WIDTH;
    const int64_t pieces = (d_qk + CHANNEL_PIECE - 1) / CHANNEL_PIECE, piece = (d_qk + pieces - 1) / pieces;
    int group;
    for (int64_t d = 0; d < d_qk; d += piece) {
        const int64_t channels = d_qk - d < piece ? d_qk - d : piece;
        for (int64_t j = 0, tiles; j < keys; j += tiles * group) {
            tiles = next_tiles(keys - j, vectors, &group);
            scores_shapes[vectors - 1][group - 1](t->queries + d * lanes, b->k + j * b->stride_k + d,
                                                  b->stride_k, channels, d > 0, t->scores + j * lanes, tiles,
                                                  t->ahead);
        }
    }
}

/* From channel `c` on. */
static void value_block(const tile *t, const block *b, int64_t keys, int64_t c, int resume,
                        const int vectors) {
    const int64_t d_v = t->args->d_v;
    int group;
    for (int64_t tiles; c < d_v; c += tiles * group) {
        tiles = next_tiles(d_v - c, vectors, &group);
        values_shapes[vectors - 1][group - 1](t->scores, b->v + c, b->stride_v, keys, resume,
                                              t->sums + c * vectors * WIDTH, tiles, t->ahead);
    }
}
