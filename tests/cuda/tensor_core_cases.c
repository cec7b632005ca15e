/* tests/cuda/tensor_core_cases.c: see tensor_core_cases.h. */
#include "tests/cuda/tensor_core_cases.h"
#include "kernels/storage.h"
#include "tests/kernels/oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Products that a device computes: whole tiles. */
static int64_t padded_work(const tensor_core_kernel *kernel, const attention_case *c) {
    const int64_t rows = !kernel->size || kernel->size == 512 ? 32
                         : kernel->size == 160                ? 64
                                                              : 128,
                  keys = !kernel->size || kernel->size == 512 ? 16
                         : kernel->size > 80                  ? 32
                                                              : 64;
    return c->batch * c->heads_q * ((c->n_q + rows - 1) / rows * rows) * ((c->n_k + keys - 1) / keys * keys) *
           (c->d_qk + c->d_v);
}

attention_case tensor_core_problem(const tensor_core_kernel *kernel, uint64_t i, unsigned sow) {
    static const int64_t queries[] = {1, 5, 16, 17, 33, 40, 64, 65, 129},
                         keys[] = {1, 8, 31, 33, 64, 65, 77, 130},
                         sizes[] = {1, 8, 9, 16, 24, 31, 48, 72, 96, 136, 200, 256, 300, 512};
    uint64_t s = (i + 1) * 0xd1342543de82ef95ull + (uint64_t)kernel->name[0] + (uint64_t)kernel->size;
    attention_case c = random_case(i * 131 + (uint64_t)kernel->size + (uint64_t)kernel->storage);
    c.storage = kernel->storage;
    c.sow = sow;
    c.n_q = queries[random_int(&s, 0, 8)];
    c.n_k = keys[random_int(&s, 0, 7)];
    if (strstr(kernel->name, "efficient") && random_int(&s, 0, 2) == 0)
        c.n_k = random_int(&s, 257, 400); /* keys are split */
    c.d_qk = c.d_v = kernel->size;
    if (!kernel->size) {
        c.d_qk = sizes[random_int(&s, 0, 13)];
        c.d_v = random_int(&s, 0, 1) ? c.d_qk : sizes[random_int(&s, 0, 13)];
        c.d_v -= c.d_qk == 512 && c.d_v == 512 && strstr(kernel->name, "flash"); /* that has its own */
    }
    if (c.amplitude > 4)
        c.amplitude = 4; /* beyond, one key has all the weight, and every kernel gives that key's value */
    c.shift = random_int(&s, 0, 1) ? (int)random_int(&s, 0, 15) : 0;
    if (kernel->plain) {
        static const int layouts[] = {LAYOUT_BHND, LAYOUT_BNHD, LAYOUT_PACKED};
        c.layout = layouts[random_int(&s, 0, 2)];
        c.mask_kind = ATTUNE_KERNEL_MASK_NONE;
        c.causal = 0;
        c.shift = c.shift / 8 * 8;
    } else if (c.mask_kind == ATTUNE_KERNEL_MASK_NONE && !c.causal && kernel->size &&
               strstr(kernel->name, "general"))
        c.shift = c.shift | 1; /* else it would be the plain kernel's */
    if (sow) { /* no weight rounds to 0: 0 times infinity is NaN, where a float's weight gives infinity */
        c.amplitude = fminf(c.amplitude, 1);
        c.scale = 0;
    }
    while (padded_work(kernel, &c) > 3000000) {
        int64_t *const cut[] = {&c.batch, &c.heads_kv, &c.n_q, &c.n_k};
        int64_t *const extent = cut[random_int(&s, 0, 3)];
        *extent = (*extent + 1) / 2;
        c.heads_q = c.heads_kv * (c.heads_q > c.heads_kv ? 2 : 1);
    }
    return c;
}

/*
 * With u = 2^-11 (bfloat16: 2^-8), half a unit in the last place of 1: each weight is rounded by u of itself
 * and so is their sum, the output by u of itself; weights below 2^-14 by 2^-25 each (float16's subnormals). A
 * score's error of 2^-21 of its largest sum of terms is that of rule 31 of docs/arithmetic.md, and changes a
 * weight by as much of itself; 10^-5 is left for the approximate powers. All of the largest value, and half
 * of the least one that is stored.
 */
static double tolerance(const attune_attention_f32 *a, int storage, double score_error, double largest) {
    const double u = storage == ATTUNE_KERNEL_F16 ? 0x1p-11 : 0x1p-8;
    return largest * (3 * u + 0x1p-25 * (double)a->n_k + 2 * score_error * 0x1p-21 + 1e-5) +
           (storage == ATTUNE_KERNEL_F16 ? 0x1p-25 : 0x1.1p-134);
}

static double largest_value(const attune_attention_f32 *a, int64_t b, int64_t h) {
    const int64_t kv = h / (a->heads_q / a->heads_kv);
    double most = 0;
    for (int64_t j = 0; j < a->n_k; ++j)
        for (int64_t c = 0; c < a->d_v; ++c) {
            const double x =
                fabs((double)((const float *)
                                  a->v)[b * a->stride_v[0] + kv * a->stride_v[1] + j * a->stride_v[2] + c]);
            most = isfinite(x) && x > most ? x : most;
        }
    return most;
}

static double widened(const attune_attention_f32 *stored, int64_t at) {
    const uint16_t x = ((const uint16_t *)stored->out)[at];
    return (double)(stored->storage == ATTUNE_KERNEL_F16 ? attune_widen_f16(x) : attune_widen_bf16(x));
}

static const char *check_row(const attention_arrays *a, int sown, int64_t b, int64_t h, int64_t i,
                             double *wanted) {
    static char text[200];
    const attune_attention_f32 *p = &a->args;
    const int storage = a->stored.storage;
    const double explained = oracle_row(p, b, h, i, wanted);
    const double most = tolerance(p, storage, isfinite(explained) ? explained : 0, largest_value(p, b, h));
    const uint16_t not_a_number = storage == ATTUNE_KERNEL_F16 ? 0x7e00 : 0x7fc0;
    for (int64_t c = 0; c < p->d_v; ++c) {
        const int64_t at = b * p->stride_out[0] + h * p->stride_out[1] + i * p->stride_out[2] + c;
        const uint16_t bits = ((const uint16_t *)a->stored.out)[at];
        const double got = widened(&a->stored, at), reference = (double)((const float *)p->out)[at];
        if (sown) /* the rules for special values are the reference's, not those of double */
            wanted[c] = reference;
        const int right = isnan(reference)   ? bits == not_a_number
                          : isinf(reference) ? got == reference
                                             : fabs(got - wanted[c]) <= most;
        if (!right || bits == 0x8000) {
            (void)snprintf(text, sizeof text, "row (%ld, %ld, %ld), channel %ld: %g (%04x), not %g within %g",
                           (long)b, (long)h, (long)i, (long)c, got, bits, wanted[c], most);
            return text;
        }
    }
    return "";
}

/* Elements between rows are as arrays_reset_out left them, like the margin's. */
static int gaps_are_untouched(const attention_arrays *a) {
    const attune_attention_f32 *p = &a->args;
    const int64_t *s = p->stride_out;
    const int64_t end = (p->batch - 1) * s[0] + (p->heads_q - 1) * s[1] + (p->n_q - 1) * s[2] + p->d_v;
    char *written = calloc((size_t)end, 1);
    int untouched = 1;
    ck_assert_ptr_nonnull(written);
    for (int64_t b = 0; b < p->batch; ++b)
        for (int64_t h = 0; h < p->heads_q; ++h)
            for (int64_t i = 0; i < p->n_q; ++i)
                memset(written + b * s[0] + h * s[1] + i * s[2], 1, (size_t)p->d_v);
    for (int64_t i = 0; i < end; ++i)
        untouched &= written[i] || ((const uint16_t *)a->stored.out)[i] == a->halves[3][0];
    free(written);
    return untouched;
}

const char *tensor_core_verdict(attention_arrays *a, int sown) {
    const attune_attention_f32 *p = &a->args;
    double *wanted = calloc((size_t)p->d_v, sizeof *wanted);
    const char *wrong = gaps_are_untouched(a) ? "" : "wrote between rows";
    ck_assert_ptr_nonnull(wanted);
    attune_attention_f32_reference(p);
    for (int64_t b = 0; b < p->batch && !*wrong; ++b)
        for (int64_t h = 0; h < p->heads_q && !*wrong; ++h)
            for (int64_t i = 0; i < p->n_q && !*wrong; ++i)
                wrong = check_row(a, sown, b, h, i, wanted);
    free(wanted);
    return wrong;
}
