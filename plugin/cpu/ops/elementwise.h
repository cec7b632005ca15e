/*
 * elementwise.h: the CPU operations' loops over arrays: over stored weights, one table per instruction set,
 * all made from elementwise_tmpl.h, and the activations of kernels/activation.h. Nothing here starts threads
 * or allocates.
 *
 * [any] All arrays are dense rows of `channels` floats unless a stride is given; `out` may be `x`.
 */
#ifndef ATTUNE_CPU_ELEMENTWISE_H
#define ATTUNE_CPU_ELEMENTWISE_H

#include "kernels/cpu/dispatch.h"

#include <stdint.h>

typedef struct elementwise_kernels {
    const char *isa;
    /* kernels/activation.h: elementwise_choose fills these in. */
    void (*silu)(const float *x, int64_t n, float *out);
    void (*gelu)(const float *x, int64_t n, float *out);
    void (*quick_gelu)(const float *x, int64_t n, float *out);
    void (*geglu)(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t rows,
                  int64_t channels, float *out, int64_t out_stride);
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

/* Fills `table` with the best loops for the instruction set `isa`, which the processor must support, and the
 * activations of `kernels`. */
void elementwise_choose(attune_cpu_isa isa, const attune_activation_f32_kernel *kernels,
                        elementwise_kernels *table);

#endif
