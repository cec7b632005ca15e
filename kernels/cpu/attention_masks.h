/*
 * kernels/cpu/attention_masks.h: masks and causality as a bias of the scores. Part of attention_tile.h.
 */

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

/* The block's bias in lanes. The scratch holds its rows for a moment. */
static void make_bias(const tile *t, int64_t first, int64_t keys, int64_t lanes) {
    for (int64_t i = 0; i < t->rows; ++i)
        bias_row(t, t->query + i, first, keys, t->scratch + i * KEYS);
    rows_to_lanes(t->scratch, KEYS, t->rows, keys, 1.0f, t->bias, lanes);
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
static void value_block_masked(const tile *t, const block *b, int64_t keys, int resume, int64_t lanes) {
    const attune_attention_f32 *a = t->args;
    const vec log2e = v_set1(ATTUNE_LOG2E_F32), never = v_set1(-INFINITY);
    if (!resume)
        memset(t->sums, 0, (size_t)(a->d_v * lanes) * sizeof(float));
    for (int64_t j = 0; j < keys; ++j)
        for (int64_t lane = 0; lane < lanes; lane += WIDTH) {
            const vec product = v_mul(v_load(t->bias + j * lanes + lane), log2e);
            const vec p = v_load(t->scores + j * lanes + lane);
            for (int64_t c = 0; c < a->d_v; ++c) {
                float *sum = t->sums + c * lanes + lane;
                const vec before = v_load(sum), value = v_set1(b->v[j * b->stride_v + c]);
                v_store(sum, v_select_equal(product, never, before, v_fma(value, p, before)));
            }
        }
}
