/*
 * kernels/reference/attention_row.h: what the references of all arithmetic ids have in common: a query row
 * and the score of a key.
 */
#ifndef ATTUNE_KERNELS_REFERENCE_ATTENTION_ROW_H
#define ATTUNE_KERNELS_REFERENCE_ATTENTION_ROW_H

#include "kernels/arithmetic.h"
#include "kernels/attention.h"
#include "kernels/reference/stored.h"

#include <math.h>

/* One query row; pointers are to its batch entry and head. */
typedef struct row {
    const attune_attention_f32 *args;
    const float *q, *k, *v;
    const char *mask;
    float *out;
    int64_t last_key; /* of those that causality lets it see; may be -1 */
    float factor;
} row;

/* The score of key j in `s`; 0 where the key is masked, so that it takes no part at all. */
static inline int score(const row *r, int64_t j, float *s) {
    const attune_attention_f32 *a = r->args;
    float added = 0.0f;
    if (j > r->last_key)
        return 0;
    if (a->mask_kind == ATTUNE_KERNEL_MASK_BOOL && !((const uint8_t *)r->mask)[j * a->stride_mask[3]])
        return 0;
    if (a->mask_kind == ATTUNE_KERNEL_MASK_FLOAT) {
        added = ((const float *)r->mask)[j * a->stride_mask[3]];
        const float product = added * ATTUNE_LOG2E_F32;
        if (product == -INFINITY)
            return 0;
    }
    float acc = 0.0f;
    for (int64_t d = 0; d < a->d_qk; ++d) {
        const float scaled = r->q[d * a->stride_q[3]] * r->factor;
        acc = fmaf(r->k[j * a->stride_k[2] + d * a->stride_k[3]], scaled, acc);
    }
    *s = a->mask_kind == ATTUNE_KERNEL_MASK_FLOAT ? fmaf(added, ATTUNE_LOG2E_F32, acc) : acc;
    return 1;
}

/* One query row from its inputs to its output. */
typedef void attend_row_function(const row *r);

/* attend_row for all of the B * Hq * Nq query rows. */
void attune_reference_rows(const attune_attention_f32 *args, attend_row_function *attend_row);

#endif
