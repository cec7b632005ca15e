/*
 * kernels/matmul.h: x W^T + start in float32 after arithmetic id `attune-f32-1` (rules 40 and 43 of
 * docs/arithmetic.md): linear layers and 1x1 convolutions, as one args struct, one function-pointer type and
 * a table that dispatch fills. Each output is one chain of fma over the input channels, ascending, so all
 * kernels give the same bits: those of attune_matmul_f32_reference.
 *
 * Work is cut into tasks that never share an output, by the problem alone: the thread count is not an input.
 */
#ifndef ATTUNE_KERNELS_MATMUL_H
#define ATTUNE_KERNELS_MATMUL_H

#include "kernels/storage.h"

/* Weights (out, in, taps) as a file stores them; taps is 1, or 9 for a 3x3 convolution (ky, kx). All are
 * finite. */
typedef struct attune_weights_f32 {
    int64_t in, out;
    int32_t taps;
    int32_t storage; /* ATTUNE_KERNEL_F32, _F16 or _BF16: in the file and packed */
    int32_t pairs;   /* not 0: for GEGLU; out is even, and channels o and o + out / 2 lie together */
} attune_weights_f32;

/* What becomes of a product (kernels/activation.h). GEGLU: the first half of the channels times GELU of the
 * second. */
enum {
    ATTUNE_PRODUCT_PLAIN,
    ATTUNE_PRODUCT_SILU,
    ATTUNE_PRODUCT_GELU,
    ATTUNE_PRODUCT_QUICK_GELU,
    ATTUNE_PRODUCT_GEGLU
};

/* Extents are >= 1; strides in elements, from row to row. `out` overlaps no input but `residual`, which may
 * be `out` itself with the same stride. */
typedef struct attune_matmul_f32 {
    int64_t rows, in, out;
    const float *x; /* (rows, in) */
    int64_t stride_x;
    const void *weights; /* packed by this kernel; for the reference as stored */
    int32_t storage;
    const float *start;    /* (out): where each chain begins (the bias); NULL = +0 */
    const float *residual; /* (rows, out): added to the end of the chain; NULL = nothing */
    int64_t stride_residual;
    float *result; /* (rows, out), or (rows, out / 2) for GEGLU */
    int64_t stride_result;
    int32_t activation; /* ATTUNE_PRODUCT_...; no residual beside one. GEGLU wants weights in pairs. */
} attune_matmul_f32;

/* A kernel. The pointers of the args may be NULL in tasks and workspace. */
typedef struct attune_matmul_f32_kernel {
    const char *isa; /* "generic", "avx2", "avx512", "neon" */
    /* [any] Bytes of packed weights, which want to be aligned to 64. */
    uint64_t (*packed_bytes)(const attune_weights_f32 *weights);
    /* [any] Pack output channels first ... first + count - 1 from their stored values (any alignment);
     * several parts make one. */
    void (*pack)(const attune_weights_f32 *weights, int64_t first, int64_t count, const void *stored,
                 void *packed);
    /* [any] How many tasks a problem is cut into, >= 1. */
    uint64_t (*tasks)(const attune_matmul_f32 *args);
    /* [any] Bytes of workspace, aligned to 64, that each concurrent run needs; a multiple of 64. */
    uint64_t (*workspace)(const attune_matmul_f32 *args);
    /* [any] Task `task` < tasks(args). Sets and restores the floating-point environment. */
    void (*run)(const attune_matmul_f32 *args, uint64_t task, void *workspace);
} attune_matmul_f32_kernel;

extern const attune_matmul_f32_kernel attune_matmul_f32_generic;
extern const attune_matmul_f32_kernel attune_matmul_f32_neon;
extern const attune_matmul_f32_kernel attune_matmul_f32_avx2;
extern const attune_matmul_f32_kernel attune_matmul_f32_avx512;

/* [any] Everything, on one thread; weights as stored. Sets and restores the floating-point environment. */
void attune_matmul_f32_reference(const attune_matmul_f32 *args);

#endif
