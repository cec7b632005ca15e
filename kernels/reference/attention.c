/*
 * kernels/reference/attention.c: docs/arithmetic.md in plain C: exp2 and attention of arithmetic id
 * `attune-f32-1`. Loops to be checked by reading, never optimised. The online softmax over key blocks is that
 * of FlashAttention (Dao et al. 2022, algorithm 1) after Milakov & Gimelshein 2018, with every order of
 * summation fixed.
 */
#include "kernels/reference/attention_row.h"

float attune_exp2_f32_reference(float t) {
    if (t != t)
        return t;
    if (t < ATTUNE_EXP2_MIN)
        return 0.0f;
    const float n = rintf(t);
    const float f = t - n; /* exact: both are multiples of t's last place and |f| <= 1/2 */
    float p = ATTUNE_EXP2_C5;
    p = fmaf(p, f, ATTUNE_EXP2_C4);
    p = fmaf(p, f, ATTUNE_EXP2_C3);
    p = fmaf(p, f, ATTUNE_EXP2_C2);
    p = fmaf(p, f, ATTUNE_EXP2_C1);
    p = fmaf(p, f, 1.0f);
    return ldexpf(p, (int)n); /* exact: the result is normal */
}

float attune_attention_f32_factor(float scale, int64_t d_qk) {
    const float s = scale != 0.0f ? scale : (float)(1.0 / sqrt((double)d_qk));
    return (float)((double)s * ATTUNE_LOG2E_F64);
}

/* `out` itself holds the running sums o until the end. */
static void attend_row(const row *r) {
    const attune_attention_f32 *a = r->args;
    const int64_t step = a->stride_out[3];
    float m = ATTUNE_ATTENTION_MAX_START, l = 0.0f;
    for (int64_t d = 0; d < a->d_v; ++d)
        r->out[d * step] = 0.0f;
    for (int64_t first = 0; first < a->n_k; first += ATTUNE_ATTENTION_KEY_BLOCK) {
        const int64_t left = a->n_k - first;
        const int64_t keys = left < ATTUNE_ATTENTION_KEY_BLOCK ? left : ATTUNE_ATTENTION_KEY_BLOCK;
        float s[ATTUNE_ATTENTION_KEY_BLOCK] = {0};
        int seen[ATTUNE_ATTENTION_KEY_BLOCK];
        float larger = m;
        for (int64_t j = 0; j < keys; ++j) {
            seen[j] = score(r, first + j, &s[j]);
            if (seen[j] && (s[j] > larger || s[j] != s[j]))
                larger = s[j];
        }
        const float rescale = attune_exp2_f32_reference(m - larger);
        l = l * rescale;
        for (int64_t d = 0; d < a->d_v; ++d)
            r->out[d * step] = r->out[d * step] * rescale;
        m = larger;
        for (int64_t j = 0; j < keys; ++j) {
            if (!seen[j])
                continue;
            const float p = attune_exp2_f32_reference(s[j] - m);
            const float *value = r->v + (first + j) * a->stride_v[2];
            l = l + p;
            for (int64_t d = 0; d < a->d_v; ++d)
                r->out[d * step] = fmaf(value[d * a->stride_v[3]], p, r->out[d * step]);
        }
    }
    const float reciprocal = 1.0f / l;
    for (int64_t d = 0; d < a->d_v; ++d)
        r->out[d * step] = l == 0.0f ? 0.0f : stored(r->out[d * step] * reciprocal);
}

void attune_attention_f32_reference(const attune_attention_f32 *args) {
    attune_reference_rows(args, attend_row);
}
