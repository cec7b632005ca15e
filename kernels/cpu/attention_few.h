/*
 * kernels/cpu/attention_few.h: arithmetic id `attune-f32-1` where a head has at most a vector of queries and
 * few keys (attention over time: very many heads of 16 frames), so that what surrounds the products counts.
 * Scores stay in registers until they are weights. Part of attention_tile.h.
 */
#if FEW_KEYS

/* Vectors of exp2 at once beside FEW_KEYS vectors of scores. */
#define FEW_CHAINS 4

_Static_assert(FEW_KEYS % 8 == 0 && FEW_CHAINS <= EXP2_CHAINS,
               "two halves of whole fours; exp2_each's arrays");
_Static_assert(TILE_VECTORS >= 3, "a tile's sums hold a vector's and the rows of two heads");

/* Channels from one call of prefetch_lines to the next. */
#define FEW_STEPS 4

/* An output of more than this is written past the caches: most do not hold it until somebody reads it, and
 * lines that are written whole need not be read first. */
#define PAST_FLOATS ((int64_t)4 * 1024 * 1024)

/* No mask, FEW_KEYS / 2 <= keys <= FEW_KEYS. */
static int has_few_keys(const attune_attention_f32 *a) {
    return a->n_q <= WIDTH && a->n_k >= FEW_KEYS / 2 && a->n_k <= FEW_KEYS && !has_bias(a) && fits_rows(a);
}

/* v_max drops NaN as in softmax_block. */
INLINE vec largest_of_few(const vec *s) {
    vec larger[FEW_CHAINS];
    UNROLL
    for (int i = 0; i < FEW_CHAINS; ++i)
        larger[i] = v_set1(ATTUNE_ATTENTION_MAX_START);
    UNROLL
    for (int i = 0; i < FEW_KEYS; ++i)
        larger[i % FEW_CHAINS] = v_max(s[i], larger[i % FEW_CHAINS]);
    return v_max(v_max(larger[0], larger[1]), v_max(larger[2], larger[3]));
}

/* The weights of all keys to t->scores, their sum to t->l. The keys of the second half of the registers may
 * be some of the first half's again, whose weights are stored twice and count once. */
__attribute__((noinline)) static void weigh_few(const tile *t, const block *b) {
    enum { HALF = FEW_KEYS / 2 };
    const int64_t stride = b->stride_k, count = t->args->d_qk, again = FEW_KEYS - b->keys;
    const float *x = t->queries, *k[FEW_KEYS / 4];
    vec s[FEW_KEYS];
    UNROLL
    for (int i = 0; i < FEW_KEYS; i += 4)
        k[i / 4] = b->k + (i < HALF ? i : i - again) * stride;
    UNROLL
    for (int i = 0; i < FEW_KEYS; ++i)
        s[i] = v_zero();
    for (int64_t n = 0; n < count;) {
        const int64_t end = count - n < FEW_STEPS ? count : n + FEW_STEPS;
        prefetch_lines(t->ahead);
        for (; n < end; ++n, x += WIDTH) {
            const vec lane = v_load(x);
            UNROLL
            for (int i = 0; i < FEW_KEYS; ++i)
                s[i] = v_fma(v_set1(k[i / 4][n + i % 4 * stride]), lane, s[i]);
        }
    }
    const vec larger = largest_of_few(s);
    UNROLL
    for (int i = 0; i < FEW_KEYS; ++i)
        s[i] = v_sub(s[i], larger);
    UNROLL
    for (int i = 0; i < FEW_KEYS; i += FEW_CHAINS)
        exp2_each(s + i, FEW_CHAINS, 1);
    vec sum = v_zero();
    UNROLL
    for (int i = 0; i < FEW_KEYS; ++i) {
        v_store(t->scores + (i < HALF ? i : i - again) * WIDTH, s[i]);
        if (i < HALF || i >= HALF + again)
            sum = v_add(sum, s[i]);
    }
    v_store(t->l, sum);
}

/* Asks for the panel after p. */
INLINE void look_ahead_few(ahead *next, const panel *p, int past) {
    const attune_attention_f32 *a = p->args;
    prefetch_queries(next, p->next);
    prefetch_keys(next, p->next, 0, a->n_k);
    if (!past)
        prefetch_output(next, p->next);
    spread_ahead(next, (a->d_qk + FEW_STEPS - 1) / FEW_STEPS + rows_calls(a, a->n_k, a->n_q));
}

/* 1 where each head's rows are whole lines of a large output; 2 where those of two heads together are, and
 * tasks have an even number of heads; else 0. */
INLINE int64_t heads_past_caches(const attune_attention_f32 *a) {
    const int64_t *const stride = a->stride_out;
    if (a->batch * a->heads_q * a->n_q * a->d_v <= PAST_FLOATS ||
        (uintptr_t)a->out % (WIDTH * sizeof(float)) != 0 || stride[0] % WIDTH != 0)
        return 0;
    if (stride[2] == a->d_v)
        return stride[1] % WIDTH == 0 && a->n_q * a->d_v % WIDTH == 0;
    if (stride[2] % WIDTH != 0)
        return 0;
    if (a->d_v % WIDTH == 0)
        return stride[1] % WIDTH == 0;
    return 2 * a->d_v % WIDTH == 0 && stride[1] == a->d_v && a->heads_q % 2 == 0 &&
                   2 * panel_cost(a, TILE_LANES) <= TASK_COST
               ? 2
               : 0;
}

/* The rows of p's head, and of the one before it where they are two, from `staged`. */
static void store_past_caches(const panel *p, int64_t heads, const float *staged) {
    const attune_attention_f32 *a = p->args;
    const int together = a->stride_out[2] == a->d_v;
    const int64_t rows = together ? 1 : a->n_q, columns = together ? a->n_q * a->d_v : heads * a->d_v;
    float *to = (float *)(void *)p->out - (heads - 1) * a->d_v;
    for (int64_t r = 0; r < rows; ++r, to += a->stride_out[2], staged += columns)
        for (int64_t c = 0; c < columns; c += WIDTH)
            v_stream(to + c, v_load(staged + c));
}

/* A head. Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_few(const panel *p) {
    const attune_attention_f32 *a = p->args;
    const int64_t heads = heads_past_caches(a);
    block b = find_keys(p, 0, a->n_k);
    find_values(p, &b);
    tile t = place_tile(p, 0, p->arrays);
    ahead next = {.count = 0};
    if (p->next) {
        look_ahead_few(&next, p, heads > 0);
        t.ahead = &next;
    }
    load_tile(&t, p);
    weigh_few(&t, &b);
    if (heads == 0) {
        store_rows_of_block(&t, &b, a->n_k, tile_rows(&t, p), a->stride_out[2]);
        return;
    }
    const int64_t at = heads == 2 ? p->head % 2 : 0;
    float *const staged = t.sums + a->d_v * WIDTH; /* behind the lanes of the one vector */
    store_rows_of_block(&t, &b, a->n_k, staged + at * a->d_v, heads * a->d_v);
    if (at + 1 == heads)
        store_past_caches(p, heads, staged);
}

/* Runs the task if the problem is one of few keys; returns whether it did. */
static int run_few(const attune_attention_f32 *a, uint64_t task, void *memory) {
    if (!has_few_keys(a))
        return 0;
    run_panels(a, task, TILE_LANES, attend_few, memory);
    v_stream_end();
    return 1;
}
#else
static int run_few(const attune_attention_f32 *a, uint64_t task, void *memory) {
    (void)a, (void)task, (void)memory;
    return 0;
}
#endif
