/*
 * kernels/activation.h: SiLU, GELU, quick GELU, GEGLU and sums in float32 after arithmetic id `attune-f32-1`,
 * as loops over arrays. All kernels give the same bits: those of the reference. Products and convolutions
 * apply the same functions in registers (kernels/cpu/vector_math.h).
 */
#ifndef ATTUNE_KERNELS_ACTIVATION_H
#define ATTUNE_KERNELS_ACTIVATION_H

#include <stdint.h>

/* [any] Every function: sets and restores the floating-point environment; out may be an input. */
typedef struct attune_activation_f32_kernel {
    const char *isa; /* "generic", "avx2", "avx512", "neon" */
    /* out[i] = f(x[i]), n of them. SiLU is x sigmoid(x) (Hendrycks & Gimpel 2016; Elfwing et al. 2017), GELU
     * x Phi(x) with the exact Phi (Hendrycks & Gimpel 2016), quick GELU x sigmoid(1.702 x). */
    void (*silu)(const float *x, int64_t n, float *out);
    void (*gelu)(const float *x, int64_t n, float *out);
    void (*quick_gelu)(const float *x, int64_t n, float *out);
    /* out[r][c] = a[r][c] gelu(b[r][c]) (Shazeer 2020); strides in elements, from row to row. */
    void (*geglu)(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t rows,
                  int64_t channels, float *out, int64_t out_stride);
    /* out[i] = a[i] + b[i] */
    void (*add)(const float *a, const float *b, int64_t n, float *out);
} attune_activation_f32_kernel;

extern const attune_activation_f32_kernel attune_activation_f32_generic;
extern const attune_activation_f32_kernel attune_activation_f32_avx2;
extern const attune_activation_f32_kernel attune_activation_f32_avx512;
extern const attune_activation_f32_kernel attune_activation_f32_neon;

/* ---- the reference (kernels/reference): one value, in the caller's floating-point environment, not yet as
 * it is stored (rules 6 and 7) ---- */

/* [any] e^z for z <= 0 and NaN. */
float attune_exp_f32_reference(float z);
/* [any] (1 - erf(a / sqrt 2)) / 2, the normal distribution's upper tail, for a >= 0 and NaN. */
float attune_tail_f32_reference(float a);
float attune_silu_f32_reference(float x);
float attune_gelu_f32_reference(float x);
float attune_quick_gelu_f32_reference(float x);

#endif
