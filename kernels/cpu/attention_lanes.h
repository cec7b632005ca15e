/*
 * kernels/cpu/attention_lanes.h: rows in memory to queries in lanes and back, and asking ahead for what comes
 * next. Part of attention_tile.h.
 */

/* Arrays of which every line is asked for, some at a time, while a tile computes. */
typedef struct ahead {
    struct rows_ahead {
        const char *from;
        int64_t stride, rows, bytes; /* the stride in bytes too */
    } arrays[4];
    int count, array;       /* of arrays; the next */
    int lines;              /* per call of prefetch_lines */
    struct rows_ahead left; /* of the array at hand */
    const char *at, *end;   /* what is left of the row at hand */
} ahead;

/* Of `count` steps of a product's innermost loop, as many as go from one call of prefetch_lines to the next.
 */
INLINE int64_t ahead_steps(int64_t count, const int vectors) {
    return vectors < TILE_VECTORS || AHEAD_WITHIN ? (vectors > 2 ? 4 * vectors : 8) : count;
}

static int64_t ahead_calls(int64_t count, int vectors) {
    const int64_t steps = ahead_steps(count, vectors);
    return (count + steps - 1) / steps;
}

static void prefetch_rows(ahead *p, const char *from, int64_t stride, int64_t rows, int64_t bytes) {
    const int together = stride == bytes;
    p->arrays[p->count++] =
        (struct rows_ahead){from, stride, together ? 1 : rows, together ? rows * bytes : bytes};
}

/* Makes `calls` calls of prefetch_lines ask for all of it. */
static void spread_ahead(ahead *p, int64_t calls) {
    int64_t lines = 0;
    for (int i = 0; i < p->count; ++i)
        lines += p->arrays[i].rows * ((p->arrays[i].bytes + 63) / 64);
    p->lines = (int)((lines + calls - 1) / calls);
}

/* Asking for many at once would stall on the few misses that a core can have outstanding. No function is
 * called here, amid a register tile. */
INLINE void prefetch_lines(ahead *p) {
    if (!p)
        return;
    const char *at = p->at;
    for (int lines = p->lines; lines > 0; --lines, at += 64) {
        if (__builtin_expect(at >= p->end, 0)) {
            if (p->left.rows == 0) {
                if (p->array == p->count) {
                    p->lines = 0;
                    return;
                }
                p->left = p->arrays[p->array++];
            }
            at = p->left.from;
            p->end = at + p->left.bytes;
            p->left.from += p->left.stride;
            --p->left.rows;
        }
        __builtin_prefetch(at, 0, 2); /* into the second-level cache: the first is full of the tile */
    }
    p->at = at;
}

/* ---- between rows in memory and lanes ---- */

/* to[c][lane] = from[lane][c] * scale for WIDTH lanes and columns. */
INLINE void block_to_lanes(const float *from, int64_t stride, vec scale, float *to, int64_t lanes) {
    vec x[WIDTH];
    v_load_transposed(from, stride, x);
    UNROLL
    for (int i = 0; i < WIDTH; ++i)
        v_store(to + i * lanes, v_mul(x[i], scale));
}

/* The same for `part` <= WIDTH columns and fewer rows; lanes without a row are 0. */
static void part_to_lanes(const float *from, int64_t stride, int64_t rows, int part, vec scale, float *to,
                          int64_t lanes) {
    vec x[WIDTH];
    UNROLL
    for (int i = 0; i < WIDTH; ++i)
        x[i] = i < rows ? v_load_part(from + i * stride, part) : v_zero();
    v_transpose(x);
    UNROLL
    for (int i = 0; i < WIDTH; ++i)
        if (i < part)
            v_store(to + i * lanes, v_mul(x[i], scale));
}

/* WIDTH lanes, all columns; where the last block is not whole, it takes columns of the one before again. */
INLINE void rows_to_vector(const float *from, int64_t stride, int64_t rows, int64_t columns, vec scale,
                           float *to, int64_t lanes) {
    for (int64_t c = 0; c < columns; c += WIDTH) {
        if (rows == WIDTH && columns >= WIDTH) {
            const int64_t at = c + WIDTH <= columns ? c : columns - WIDTH;
            block_to_lanes(from + at, stride, scale, to + at * lanes, lanes);
        } else {
            part_to_lanes(from + c, stride, rows, columns - c < WIDTH ? (int)(columns - c) : WIDTH, scale,
                          to + c * lanes, lanes);
        }
    }
}

/* The same for all vectors of a tile. */
static void rows_to_lanes(const float *from, int64_t stride, int64_t rows, int64_t columns, float scale,
                          float *to, int64_t lanes) {
    const vec factor = v_set1(scale);
    for (int64_t lane = 0; lane < lanes; lane += WIDTH) {
        const int64_t left = rows - lane < WIDTH ? rows - lane : WIDTH;
        rows_to_vector(from + lane * stride, stride, left, columns, factor, to + lane, lanes);
    }
}

/* The end of the arithmetic: stored(sum * (1 / l)), +0 where l is 0. */
INLINE vec end_sum(vec sum, vec l, vec reciprocal) {
    const vec zero = v_zero(), y = v_add(v_mul(sum, reciprocal), zero);
    return v_select_equal(l, zero, zero, v_select_nan(y, v_set1(__builtin_nanf("")), y));
}

/* to[lane][c] = the end of from[c][lane]. */
INLINE void lanes_to_columns(const float *from, int64_t lanes, vec l, vec reciprocal, float *to,
                             int64_t stride, int64_t rows, const int part) {
    vec x[WIDTH];
    UNROLL
    for (int i = 0; i < WIDTH; ++i)
        x[i] = i < part ? end_sum(v_load(from + i * lanes), l, reciprocal) : v_zero();
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
