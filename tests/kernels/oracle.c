/* tests/kernels/oracle.c: see oracle.h. */
#include "tests/kernels/oracle.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

/* The product of k and q for row i and key j of a head, and the sum of its terms' magnitudes. */
static double product(const attune_attention_f32 *a, const float *q, const float *k, double *magnitude) {
    double sum = 0.0;
    *magnitude = 0.0;
    for (int64_t d = 0; d < a->d_qk; ++d) {
        sum += (double)q[d] * (double)k[d];
        *magnitude += fabs((double)q[d] * (double)k[d]);
    }
    return sum;
}

double oracle_row(const attune_attention_f32 *a, int64_t b, int64_t h, int64_t i, double *out) {
    const double scale = a->scale != 0.0f ? (double)a->scale : 1.0 / sqrt((double)a->d_qk);
    const int64_t kv = h / (a->heads_q / a->heads_kv);
    const float *q = (const float *)a->q + b * a->stride_q[0] + h * a->stride_q[1] + i * a->stride_q[2];
    double *s = malloc((size_t)a->n_k * sizeof *s);
    ck_assert_ptr_nonnull(s);
    double most = -INFINITY, sum = 0.0, error = 0.0;
    for (int64_t j = 0; j < a->n_k; ++j) {
        const float *k = (const float *)a->k + b * a->stride_k[0] + kv * a->stride_k[1] + j * a->stride_k[2];
        const int64_t at =
            b * a->stride_mask[0] + h * a->stride_mask[1] + i * a->stride_mask[2] + j * a->stride_mask[3];
        double magnitude;
        s[j] = scale * product(a, q, k, &magnitude);
        if (a->mask_kind == ATTUNE_KERNEL_MASK_FLOAT)
            s[j] += (double)((const float *)a->mask)[at];
        if ((a->mask_kind == ATTUNE_KERNEL_MASK_BOOL && !((const uint8_t *)a->mask)[at]) ||
            (a->causal && j > i + a->n_k - a->n_q))
            s[j] = -INFINITY;
        most = s[j] > most ? s[j] : most;
        error = fabs(scale) * magnitude > error ? fabs(scale) * magnitude : error;
    }
    for (int64_t c = 0; c < a->d_v; ++c)
        out[c] = 0.0;
    for (int64_t j = 0; j < a->n_k && most > -INFINITY; ++j) {
        const float *v = (const float *)a->v + b * a->stride_v[0] + kv * a->stride_v[1] + j * a->stride_v[2];
        const double p = exp(s[j] - most);
        sum += p;
        for (int64_t c = 0; c < a->d_v; ++c)
            out[c] += p * (double)v[c];
    }
    for (int64_t c = 0; c < a->d_v && sum > 0.0; ++c)
        out[c] /= sum;
    free(s);
    return error;
}
