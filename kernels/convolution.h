/*
 * kernels/convolution.h: 3x3 convolution with padding 1 and stride 1 or 2 in float32 after arithmetic id
 * `attune-f32-1` (rules 41 and 43 of docs/arithmetic.md), channels last. Each output is one chain of fma over
 * (ky, kx, channel); taps outside of the image contribute nothing. All kernels give the same bits: those of
 * attune_convolution_f32_reference.
 *
 * Work is cut into tasks that never share an output, by the problem alone: the thread count is not an input.
 */
#ifndef ATTUNE_KERNELS_CONVOLUTION_H
#define ATTUNE_KERNELS_CONVOLUTION_H

#include "kernels/matmul.h"

/* Extents are >= 1, arrays are dense; oh = ceil(height / stride), ow likewise. `result` overlaps no input but
 * `residual`, which may be `result` itself. */
typedef struct attune_convolution_f32 {
    int64_t batch, height, width, in, out;
    int32_t stride;        /* 1 or 2 */
    int32_t storage;       /* of the weights */
    const float *x;        /* (batch, height, width, in) */
    const void *weights;   /* taps = 9, packed by this kernel; for the reference as stored */
    const float *start;    /* (out), or (batch, out): where each chain begins (the bias); NULL = +0 */
    int64_t stride_start;  /* from image to image: 0 or out */
    const float *residual; /* (batch, oh, ow, out): added to the end of the chain; NULL = nothing */
    float *result;         /* (batch, oh, ow, out) */
    /* A strip of one image: output rows first_row ... first_row + rows - 1. x begins with the first input row
     * that they read, row max(0, first_row * stride - 1); result and residual begin with row first_row.
     * rows 0: whole images. */
    int64_t first_row, rows;
} attune_convolution_f32;

/* A kernel. As attune_matmul_f32_kernel. */
typedef struct attune_convolution_f32_kernel {
    const char *isa;
    uint64_t (*packed_bytes)(const attune_weights_f32 *weights);
    void (*pack)(const attune_weights_f32 *weights, int64_t first, int64_t count, const void *stored,
                 void *packed);
    uint64_t (*tasks)(const attune_convolution_f32 *args);
    uint64_t (*workspace)(const attune_convolution_f32 *args);
    void (*run)(const attune_convolution_f32 *args, uint64_t task, void *workspace);
} attune_convolution_f32_kernel;

extern const attune_convolution_f32_kernel attune_convolution_f32_generic;
extern const attune_convolution_f32_kernel attune_convolution_f32_neon;
extern const attune_convolution_f32_kernel attune_convolution_f32_avx2;
extern const attune_convolution_f32_kernel attune_convolution_f32_avx512;

/* [any] Everything, on one thread; weights as stored. Sets and restores the floating-point environment. */
void attune_convolution_f32_reference(const attune_convolution_f32 *args);

#endif
