/*
 * elementwise.h: the loops of the CPU operations that are not products: one table per instruction set, all
 * made from elementwise_tmpl.h. Sums run over fixed ranges in a fixed order; nothing here starts threads or
 * allocates.
 *
 * [any] All arrays are dense rows of `channels` floats unless a stride is given; `out` may be `x`.
 */
#ifndef ATTUNE_CPU_ELEMENTWISE_H
#define ATTUNE_CPU_ELEMENTWISE_H

#include <stdint.h>

typedef struct elementwise_kernels {
    const char *isa;
    /* sums[c] += Σ_r x[r][c], rows ascending in groups of four. */
    void (*sum)(const float *x, int64_t rows, int64_t channels, float *sums);
    /* sums[c] += Σ_r (x[r][c] − mean[c])². */
    void (*sum_squares)(const float *x, int64_t rows, int64_t channels, const float *mean, float *sums);
    /* out = x · scale[c] + shift[c], then silu where asked. */
    void (*scale_shift)(const float *x, int64_t rows, int64_t channels, const float *scale,
                        const float *shift, int silu, float *out);
    /* Layer normalisation (Ba et al. 2016) of each row: mean, then squared differences, in 16 partial sums.
     */
    void (*layer_norm)(const float *x, int64_t rows, int64_t channels, float eps, const float *scale,
                       const float *shift, float *out);
    void (*silu)(const float *x, int64_t n, float *out);
    void (*gelu)(const float *x, int64_t n, float *out);
    void (*quick_gelu)(const float *x, int64_t n, float *out);
    /* out[r] = a[r] · gelu(b[r]) */
    void (*geglu)(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t rows,
                  int64_t channels, float *out, int64_t out_stride);
    /* out = a + b */
    void (*add)(const float *a, const float *b, int64_t n, float *out);
    /* Stored weights: whether all are finite (`exponent` is the type's exponent field), and float32 of them.
     */
    int (*finite_f32)(const void *stored, uint64_t n);
    int (*finite_16)(const void *stored, uint64_t n, uint16_t exponent);
    void (*from_f16)(const void *stored, uint64_t n, float *out);
    void (*from_bf16)(const void *stored, uint64_t n, float *out);
} elementwise_kernels;

extern const elementwise_kernels elementwise_generic;
extern const elementwise_kernels elementwise_avx2;
extern const elementwise_kernels elementwise_avx512;

/* The best table for this machine, capped by ATTUNE_CPU_MASK (generic, avx2, avx512; anything else is
 * ignored). */
const elementwise_kernels *elementwise_choose(void);

#endif
