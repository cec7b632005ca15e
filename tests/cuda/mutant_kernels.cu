// mutant_kernels.cu: one of each kind of kernel, under the names of those that ship, from sources that mutate.sh changed.
#include "kernels/cuda/attention_join.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_wide.cuh"

#if defined MUTANT_plain || defined MUTANT_short
ATTUNE_CUDA_KERNEL(attune_flash_f16_40, __half, tile_kernel<__half, 40, 2, 64, false, false>)
#endif
#ifdef MUTANT_general
ATTUNE_CUDA_KERNEL(attune_flash_f16_40_general, __half, tile_kernel<__half, 40, 2, 64, true, false>)
#endif
#ifdef MUTANT_wide
ATTUNE_CUDA_KERNEL(attune_flash_f16_any, __half, wide_kernel<__half, 0, false>)
#endif
#ifdef MUTANT_split
ATTUNE_CUDA_KERNEL(attune_efficient_f16_40, __half, tile_kernel<__half, 40, 2, 64, true, true>)
ATTUNE_CUDA_KERNEL(attune_efficient_join_f16, __half, join_kernel<__half>)
#endif
