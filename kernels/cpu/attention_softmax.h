/*
 * kernels/cpu/attention_softmax.h: exp2 and the weights of keys, in lanes. Part of attention_tile.h.
 */

/* t[i] = 2^t[i] for `count` independent vectors step by step together: one alone would wait for each step's
 * latency. v_exp2_split takes t apart into n, kept as v_exp2_scale wants it, and f, which it returns. `far`:
 * t may lie below exp2's range. */
INLINE void exp2_each(vec *t, const int count, const int far) {
    static const float c[] = {ATTUNE_EXP2_C4, ATTUNE_EXP2_C3, ATTUNE_EXP2_C2, ATTUNE_EXP2_C1, 1.0f};
    vec f[EXP2_CHAINS], p[EXP2_CHAINS];
    power n[EXP2_CHAINS];
    UNROLL
    for (int i = 0; i < count; ++i) {
        f[i] = v_exp2_split(t[i], &n[i]);
        p[i] = v_set1(ATTUNE_EXP2_C5);
    }
    UNROLL
    for (int step = 0; step < 5; ++step) {
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

/* The weights of `keys` keys from their scores, where the maximum m is known; l goes on as their sum. */
INLINE void weigh_keys(float *s, const float *m, float *l, int64_t keys, const int vectors) {
    vec larger[4], sum[4];
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        larger[v] = v_load(m + v * WIDTH);
        sum[v] = v_load(l + v * WIDTH);
    }
    weigh(s, keys, larger, sum, vectors, 1);
    UNROLL
    for (int v = 0; v < vectors; ++v)
        v_store(l + v * WIDTH, sum[v]);
}

/* m becomes the largest of itself and the scores. v_max drops NaN, which the references' maximum keeps; both
 * make the row NaN, because the NaN's own weight is NaN and goes into l. */
INLINE void raise_maximum(const float *s, float *m, int64_t keys, const int vectors) {
    vec larger[4];
    UNROLL
    for (int v = 0; v < vectors; ++v)
        larger[v] = v_load(m + v * WIDTH);
    for (int64_t j = 0; j < keys; ++j) {
        UNROLL
        for (int v = 0; v < vectors; ++v)
            larger[v] = v_max(v_load(s + (j * vectors + v) * WIDTH), larger[v]);
    }
    UNROLL
    for (int v = 0; v < vectors; ++v)
        v_store(m + v * WIDTH, larger[v]);
}

/* One function per number of vectors, for register allocation; `keys` of the tile's scores. */
#define TILE_SOFTMAX(vectors)                                                                                \
    __attribute__((noinline)) static void weigh_tile_##vectors(const tile *t, int64_t keys) {                \
        weigh_keys(t->scores, t->m, t->l, keys, vectors);                                                    \
    }                                                                                                        \
    __attribute__((noinline)) static void raise_tile_##vectors(const tile *t, int64_t keys) {                \
        raise_maximum(t->scores, t->m, keys, vectors);                                                       \
    }
TILE_SOFTMAX(1)
TILE_SOFTMAX(2)
TILE_SOFTMAX(3)
#if TILE_VECTORS > 3
TILE_SOFTMAX(4)
#define ALL_VECTORS(name) name##_1, name##_2, name##_3, name##_4
#else
#define ALL_VECTORS(name) name##_1, name##_2, name##_3
#endif

/* By vectors - 1. */
static void (*const weigh_tile[TILE_VECTORS])(const tile *, int64_t) = {ALL_VECTORS(weigh_tile)};
static void (*const raise_tile[TILE_VECTORS])(const tile *, int64_t) = {ALL_VECTORS(raise_tile)};
