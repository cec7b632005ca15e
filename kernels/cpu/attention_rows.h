/*
 * kernels/cpu/attention_rows.h: weighted values where all keys are one block. No later block will rescale the
 * sums, so channels can lie in the lanes: each sum is the same chain over the keys, and rows go straight to
 * where they are stored. Part of attention_tile.h.
 */

/* Vectors of channels taken together, at most, by ROW_GROUP queries. */
#define ROW_VECTORS 3

/* Keys from one call of prefetch_lines to the next: few where the tile's neighbour is a problem of its own,
 * all of whose lines must come within one vector of queries. */
INLINE int64_t ahead_keys(int64_t lanes) {
    return lanes == WIDTH ? 2 : 8;
}

/* to[r][channel] for `rows` <= ROW_GROUP queries and `columns` vectors of channels, which start at `at`.
 * p[key][r] are weights, m[r] = 1 / l[r]. */
INLINE void rows_tile(const float *p, int64_t lanes, const float *values, const int64_t *at, int64_t stride,
                      int64_t keys, const float *l, const float *m, float *to, int64_t stride_to,
                      int64_t rows, ahead *coming, const int columns) {
    vec sum[ROW_GROUP][ROW_VECTORS];
    UNROLL
    for (int r = 0; r < ROW_GROUP; ++r) {
        UNROLL
        for (int c = 0; c < columns; ++c)
            sum[r][c] = v_zero();
    }
    const int64_t steps = ahead_keys(lanes);
    for (int64_t j = 0; j < keys;) {
        const int64_t end = keys - j < steps ? keys : j + steps;
        prefetch_lines(coming);
        for (; j < end; ++j, p += lanes, values += stride) {
            vec value[ROW_VECTORS];
            UNROLL
            for (int c = 0; c < columns; ++c)
                value[c] = v_load(values + at[c]);
            UNROLL
            for (int r = 0; r < ROW_GROUP; ++r) {
                const vec one = v_set1(p[r]);
                UNROLL
                for (int c = 0; c < columns; ++c)
                    sum[r][c] = v_fma(value[c], one, sum[r][c]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < ROW_GROUP; ++r) {
        if (r >= rows)
            break;
        const vec reciprocal = v_set1(m[r]), sums_of_weights = v_set1(l[r]);
        UNROLL
        for (int c = 0; c < columns; ++c)
            v_store(to + r * stride_to + at[c], end_sum(sum[r][c], sums_of_weights, reciprocal));
    }
}

/* All queries of a tile by `columns` vectors of channels; one function per width, for register allocation. */
#define ROWS(columns)                                                                                        \
    __attribute__((noinline)) static void rows_##columns(const tile *t, const block *b, int64_t keys,        \
                                                         const int64_t *at, float *to, int64_t stride) {     \
        const int64_t lanes = tile_lanes(t);                                                                 \
        for (int64_t i = 0; i < t->rows; i += ROW_GROUP) {                                                   \
            rows_tile(t->scores + i, lanes, b->v, at, b->stride_v, keys, t->l + i, t->m + i,                 \
                      to + i * stride, stride, t->rows - i, t->ahead, columns);                              \
        }                                                                                                    \
    }
ROWS(1)
ROWS(2)
ROWS(3)

/* Whether the channels fill vectors well enough. */
static int fits_rows(const attune_attention_f32 *a) {
    const int64_t vectors = (a->d_v + WIDTH - 1) / WIDTH;
    return a->n_k <= KEYS && a->storage == ATTUNE_KERNEL_F32 && a->d_v >= WIDTH &&
           4 * vectors * WIDTH <= 5 * a->d_v;
}

/* Calls of prefetch_lines for one tile of so many rows. */
static int64_t rows_calls(const attune_attention_f32 *a, int64_t keys, int64_t rows) {
    const int64_t vectors = (a->d_v + WIDTH - 1) / WIDTH,
                  steps = ahead_keys(rows > WIDTH ? TILE_LANES : WIDTH);
    return (rows + ROW_GROUP - 1) / ROW_GROUP * ((vectors + ROW_VECTORS - 1) / ROW_VECTORS) *
           ((keys + steps - 1) / steps);
}

/* The tile's rows of the output, `stride` apart, from its weights. The last vector of channels may take some
 * of the one before again. */
static void store_rows_of_block(const tile *t, const block *b, int64_t keys, float *to, int64_t stride) {
    static void (*const by_columns[])(const tile *, const block *, int64_t, const int64_t *, float *,
                                      int64_t) = {rows_1, rows_2, rows_3};
    const int64_t d_v = t->args->d_v;
    for (int64_t lane = 0; lane < tile_lanes(t); lane += WIDTH)
        v_store(t->m + lane, v_div(v_set1(1.0f), v_load(t->l + lane)));
    for (int64_t c = 0, columns; c < d_v; c += columns * WIDTH) {
        const int64_t left = (d_v - c + WIDTH - 1) / WIDTH;
        int64_t at[ROW_VECTORS];
        columns = left == 4 ? 2 : left < ROW_VECTORS ? left : ROW_VECTORS;
        for (int64_t i = 0; i < columns; ++i)
            at[i] = c + (i + 1) * WIDTH <= d_v ? c + i * WIDTH : d_v - WIDTH;
        by_columns[columns - 1](t, b, keys, at, to, stride);
    }
}
