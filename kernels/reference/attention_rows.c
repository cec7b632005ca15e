/* kernels/reference/attention_rows.c: the references' walk over query rows. */
#include "kernels/reference/attention_row.h"

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_index(const attune_attention_f32 *a, int64_t index,
                                                   attend_row_function *attend_row) {
    const int64_t i = index % a->n_q, h = index / a->n_q % a->heads_q, b = index / a->n_q / a->heads_q;
    const int64_t kv = h / (a->heads_q / a->heads_kv);
    const int64_t element = a->mask_kind == ATTUNE_KERNEL_MASK_FLOAT ? (int64_t)sizeof(float) : 1;
    row r = {.args = a, .factor = attune_attention_f32_factor(a->scale, a->d_qk)};
    r.q = (const float *)a->q + b * a->stride_q[0] + h * a->stride_q[1] + i * a->stride_q[2];
    r.k = (const float *)a->k + b * a->stride_k[0] + kv * a->stride_k[1];
    r.v = (const float *)a->v + b * a->stride_v[0] + kv * a->stride_v[1];
    r.out = (float *)a->out + b * a->stride_out[0] + h * a->stride_out[1] + i * a->stride_out[2];
    if (a->mask_kind != ATTUNE_KERNEL_MASK_NONE)
        r.mask = (const char *)a->mask +
                 element * (b * a->stride_mask[0] + h * a->stride_mask[1] + i * a->stride_mask[2]);
    r.last_key = a->causal ? i + (a->n_k - a->n_q) : a->n_k - 1;
    attend_row(&r);
}

void attune_reference_rows(const attune_attention_f32 *args, attend_row_function *attend_row) {
    const uint64_t environment = attune_fp_enter();
    for (int64_t index = 0; index < args->batch * args->heads_q * args->n_q; ++index)
        attend_index(args, index, attend_row);
    attune_fp_leave(environment);
}
