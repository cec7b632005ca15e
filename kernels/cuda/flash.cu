// flash.cu: `sdp`: attention in float16 and bfloat16 by tensor cores, softmax and sums in binary32; flash.c plans its
// launches. Every kernel is of class `invariant`, so `sdp-no-mem` may use it too.
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_wide.cuh"

#define TILE(size, sixteens, keys)                                                                             \
    TYPE(f16, __half, size, sixteens, keys)                                                                    \
    TYPE(bf16, __nv_bfloat16, size, sixteens, keys)
#define TYPE(type, T, size, sixteens, keys)                                                                    \
    ATTUNE_CUDA_KERNEL(attune_flash_##type##_##size, T, tile_kernel<T, size, sixteens, keys, false, false>)    \
    ATTUNE_CUDA_KERNEL(attune_flash_##type##_##size##_general, T, tile_kernel<T, size, sixteens, keys, true, false>)
ATTUNE_CUDA_TILES(TILE)

ATTUNE_CUDA_KERNEL(attune_flash_f16_512, __half, wide_kernel<__half, 512, false>)
ATTUNE_CUDA_KERNEL(attune_flash_bf16_512, __nv_bfloat16, wide_kernel<__nv_bfloat16, 512, false>)
ATTUNE_CUDA_KERNEL(attune_flash_f16_any, __half, wide_kernel<__half, 0, false>)
ATTUNE_CUDA_KERNEL(attune_flash_bf16_any, __nv_bfloat16, wide_kernel<__nv_bfloat16, 0, false>)
