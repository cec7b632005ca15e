/*
 * kernels/reference/attention.c: docs/arithmetic.md in plain C: exp2 and attention of arithmetic id
 * `attune-f32-1`. Loops to be checked by reading, never optimised. The online softmax over key blocks is that
 * of FlashAttention (Dao et al. 2022, algorithm 1) after Milakov & Gimelshein 2018, with every order of
 * summation fixed.
 */
#include "kernels/attention.h"

#include "kernels/arithmetic.h"
#include "kernels/reference/stored.h"

#include <math.h>

float attune_exp2_f32_reference(float t) {
    if (t != t)
        return t;
    if (t < ATTUNE_EXP2_MIN)
        return 0.0f;
    const float n = rintf(t);
    const float f = t - n; /* exact: both are multiples of t's last place and |f| <= 1/2 */
    float p = ATTUNE_EXP2_C6;
    p = fmaf(p, f, ATTUNE_EXP2_C5);
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
static int score(const row *r, int64_t j, float *s) {
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

/* Query row `index` of all B * Hq * Nq. Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_index(const attune_attention_f32 *a, int64_t index) {
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

void attune_attention_f32_reference(const attune_attention_f32 *args) {
    const uint64_t environment = attune_fp_enter();
    for (int64_t index = 0; index < args->batch * args->heads_q * args->n_q; ++index)
        attend_index(args, index);
    attune_fp_leave(environment);
}

/* The same rows as tasks: the kernel for processors that have none of their own. */
static uint64_t tasks(const attune_attention_f32 *args) {
    return (uint64_t)args->batch * (uint64_t)args->heads_q * (uint64_t)args->n_q;
}

static uint64_t workspace(const attune_attention_f32 *args) {
    (void)args;
    return 0;
}

static void run(const attune_attention_f32 *args, uint64_t task, void *memory) {
    (void)memory;
    const uint64_t environment = attune_fp_enter();
    attend_index(args, (int64_t)task);
    attune_fp_leave(environment);
}

const attune_attention_f32_kernel attune_attention_f32_generic = {
    .isa = "generic", .tasks = tasks, .workspace = workspace, .run = run};
