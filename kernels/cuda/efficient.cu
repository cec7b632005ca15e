// efficient.cu: `xformers`: memory-efficient attention in float16 and bfloat16 by tensor cores; efficient.c plans its
// launches. For short queries keys are split into chunks (args.chunk_k, a multiple of a tile) that blocks of their own
// take; a second kernel joins the chunks in their order. Source: Rabe & Staats, "Self-attention Does Not Need O(n^2)
// Memory", 2021.
#include "kernels/cuda/attention_join.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_wide.cuh"

#define TILE(size, sixteens, keys)                                                                             \
    TYPE(f16, __half, size, sixteens, keys)                                                                    \
    TYPE(bf16, __nv_bfloat16, size, sixteens, keys)
#define TYPE(type, T, size, sixteens, keys)                                                                    \
    ATTUNE_CUDA_KERNEL(attune_efficient_##type##_##size, T, tile_kernel<T, size, sixteens, keys, true, true>)
ATTUNE_CUDA_TILES(TILE)

ATTUNE_CUDA_KERNEL(attune_efficient_f16_any, __half, wide_kernel<__half, 0, true>)
ATTUNE_CUDA_KERNEL(attune_efficient_bf16_any, __nv_bfloat16, wide_kernel<__nv_bfloat16, 0, true>)

ATTUNE_CUDA_KERNEL(attune_efficient_join_f16, __half, join_kernel<__half>)
ATTUNE_CUDA_KERNEL(attune_efficient_join_bf16, __nv_bfloat16, join_kernel<__nv_bfloat16>)
