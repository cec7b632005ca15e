/*
 * kernels/reference/attention_full.c: docs/arithmetic.md in plain C: attention of arithmetic id
 * `attune-f32-full-1`, the softmax over all keys of a row at once. Scores are computed anew where they are
 * needed, so that nothing has to be held.
 */
#include "kernels/reference/attention_row.h"

/* `out` itself holds the sums o until the end. */
static void attend_row(const row *r) {
    const attune_attention_f32 *a = r->args;
    const int64_t step = a->stride_out[3];
    float m = ATTUNE_ATTENTION_MAX_START, l = 0.0f, s;
    for (int64_t d = 0; d < a->d_v; ++d)
        r->out[d * step] = 0.0f;
    for (int64_t j = 0; j < a->n_k; ++j)
        if (score(r, j, &s) && (s > m || s != s))
            m = s;
    for (int64_t j = 0; j < a->n_k; ++j) {
        if (!score(r, j, &s))
            continue;
        const float p = attune_exp2_f32_reference(s - m);
        const float *value = r->v + j * a->stride_v[2];
        l = l + p;
        for (int64_t d = 0; d < a->d_v; ++d)
            r->out[d * step] = fmaf(value[d * a->stride_v[3]], p, r->out[d * step]);
    }
    const float reciprocal = 1.0f / l;
    for (int64_t d = 0; d < a->d_v; ++d)
        r->out[d * step] = l == 0.0f ? 0.0f : stored(r->out[d * step] * reciprocal);
}

void attune_attention_f32_full_reference(const attune_attention_f32 *args) {
    attune_reference_rows(args, attend_row);
}
