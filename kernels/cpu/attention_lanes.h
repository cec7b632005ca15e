/*
 * kernels/cpu/attention_lanes.h: rows in memory to queries in lanes and back, and prefetching for small
 * problems. Part of attention_tile.h.
 */

/* The rows of the next tile's four arrays, asked for a few lines at a time while this tile computes. */
typedef struct ahead {
    const float *from[4];
    int64_t stride[4], rows[4], columns[4];
    int array;
    int64_t row, column;
} ahead;

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

/* WIDTH lanes, all columns. */
INLINE void rows_to_vector(const float *from, int64_t stride, int64_t rows, int64_t columns, vec scale,
                           float *to, int64_t lanes) {
    int64_t c = 0;
    for (; c + WIDTH <= columns; c += WIDTH)
        columns_to_lanes(from + c, stride, rows, WIDTH, scale, to + c * lanes, lanes);
    if (c < columns)
        columns_to_lanes(from + c, stride, rows, (int)(columns - c), scale, to + c * lanes, lanes);
}

/* The same for all vectors of a tile. */
static void rows_to_lanes(const float *from, int64_t stride, int64_t rows, int64_t columns, float scale,
                          float *to, int64_t lanes) {
    const vec factor = v_set1(scale);
    for (int64_t lane = 0; lane < lanes; lane += WIDTH) {
        if (rows - lane >= WIDTH)
            rows_to_vector(from + lane * stride, stride, WIDTH, columns, factor, to + lane, lanes);
        else
            rows_to_vector(from + lane * stride, stride, rows - lane, columns, factor, to + lane, lanes);
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

INLINE void vector_to_rows(const float *from, int64_t lanes, vec l, float *to, int64_t stride, int64_t rows,
                           int64_t columns) {
    const vec reciprocal = v_div(v_set1(1.0f), l);
    int64_t c = 0;
    for (; c + WIDTH <= columns; c += WIDTH)
        lanes_to_columns(from + c * lanes, lanes, l, reciprocal, to + c, stride, rows, WIDTH);
    if (c < columns)
        lanes_to_columns(from + c * lanes, lanes, l, reciprocal, to + c, stride, rows, (int)(columns - c));
}

static void lanes_to_rows(const float *from, int64_t lanes, const float *l, float *to, int64_t stride,
                          int64_t rows, int64_t columns) {
    for (int64_t lane = 0; lane < lanes; lane += WIDTH) {
        const vec sum = v_load(l + lane);
        if (rows - lane >= WIDTH)
            vector_to_rows(from + lane, lanes, sum, to + lane * stride, stride, WIDTH, columns);
        else
            vector_to_rows(from + lane, lanes, sum, to + lane * stride, stride, rows - lane, columns);
    }
}

/* ---- 16-bit storage; strides in elements ---- */

static void widen_rows(int32_t storage, const char *from, int64_t from_stride, int64_t rows, int64_t columns,
                       float *to, int64_t stride) {
    for (int64_t i = 0; i < rows; ++i) {
        const uint16_t *const row = (const uint16_t *)(const void *)from + i * from_stride;
        float *const wide = to + i * stride;
        if (storage == ATTUNE_KERNEL_F16)
            for (int64_t c = 0; c < columns; ++c)
                wide[c] = attune_widen_f16(row[c]);
        else
            for (int64_t c = 0; c < columns; ++c)
                wide[c] = attune_widen_bf16(row[c]);
    }
}

static void narrow_rows(int32_t storage, const float *from, int64_t from_stride, int64_t rows,
                        int64_t columns, char *to, int64_t stride) {
    for (int64_t i = 0; i < rows; ++i) {
        const float *const row = from + i * from_stride;
        uint16_t *const narrow = (uint16_t *)(void *)to + i * stride;
        if (storage == ATTUNE_KERNEL_F16)
            for (int64_t c = 0; c < columns; ++c)
                narrow[c] = attune_narrow_f16(row[c]);
        else
            for (int64_t c = 0; c < columns; ++c)
                narrow[c] = attune_narrow_bf16(row[c]);
    }
}
