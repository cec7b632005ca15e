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

/* to[r][channel] for `rows` <= ROW_GROUP queries and `columns` vectors of channels. p[key][r] are weights,
 * m[r] = 1 / l[r]. */
INLINE void rows_tile(const float *p, int64_t lanes, const float *values, int64_t stride, int64_t keys,
                      const float *l, const float *m, float *to, int64_t stride_to, int64_t rows,
                      ahead *coming, const int columns) {
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
                value[c] = v_load(values + c * WIDTH);
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
            v_store(to + r * stride_to + c * WIDTH, end_sum(sum[r][c], sums_of_weights, reciprocal));
    }
}

/* All queries of a tile by `columns` vectors of channels from `c` on; one function per width, for register
 * allocation. */
#define ROWS(columns)                                                                                        \
    __attribute__((noinline)) static void rows_##columns(const tile *t, const block *b, int64_t keys,        \
                                                         int64_t c, float *to, int64_t stride) {             \
        const int64_t lanes = tile_lanes(t);                                                                 \
        for (int64_t i = 0; i < t->rows; i += ROW_GROUP) {                                                   \
            rows_tile(t->scores + i, lanes, b->v + c, b->stride_v, keys, t->l + i, t->m + i,                 \
                      to + i * stride + c, stride, t->rows - i, t->ahead, columns);                          \
        }                                                                                                    \
    }
ROWS(1)
ROWS(2)
ROWS(3)

static int fits_rows(const attune_attention_f32 *a) {
    return a->n_k <= KEYS && a->storage == ATTUNE_KERNEL_F32 && a->d_v >= WIDTH;
}

/* Calls of prefetch_lines for one tile of so many rows. */
static int64_t rows_calls(const attune_attention_f32 *a, int64_t keys, int64_t rows) {
    const int64_t vectors = a->d_v / WIDTH, steps = ahead_keys(rows > WIDTH ? TILE_LANES : WIDTH);
    return (rows + ROW_GROUP - 1) / ROW_GROUP * ((vectors + ROW_VECTORS - 1) / ROW_VECTORS) *
               ((keys + steps - 1) / steps) +
           value_calls(a->d_v % WIDTH, keys, (int)((rows + WIDTH - 1) / WIDTH));
}

/* The tile's rows of the output, `stride` apart, from its weights. Channels behind the last whole vector pass
 * through t->sums. */
static void store_rows_of_block(const tile *t, const block *b, int64_t keys, float *to, int64_t stride) {
    static void (*const by_columns[])(const tile *, const block *, int64_t, int64_t, float *,
                                      int64_t) = {rows_1, rows_2, rows_3};
    const int64_t lanes = tile_lanes(t), left = t->args->d_v % WIDTH, whole = t->args->d_v - left;
    for (int64_t lane = 0; lane < lanes; lane += WIDTH)
        v_store(t->m + lane, v_div(v_set1(1.0f), v_load(t->l + lane)));
    for (int64_t c = 0, columns; c < whole; c += columns * WIDTH) {
        const int64_t vectors = (whole - c) / WIDTH;
        columns = vectors == 4 ? 2 : vectors < ROW_VECTORS ? vectors : ROW_VECTORS;
        by_columns[columns - 1](t, b, keys, c, to, stride);
    }
    if (left > 0) {
        value_block(t, b, keys, whole, 0, (int)(lanes / WIDTH));
        lanes_to_rows(t->sums + whole * lanes, lanes, t->l, to + whole, stride, t->rows, left);
    }
}
