/* kernels/cuda/tensor_core.h: what the planners of flash.c and efficient.c share. */
#ifndef ATTUNE_KERNELS_CUDA_TENSOR_CORE_H
#define ATTUNE_KERNELS_CUDA_TENSOR_CORE_H

#include "kernels/cuda/attention.h"

/* A kernel's tiles for one pair of head sizes: queries of a block, keys of a tile, bytes of shared memory. */
typedef struct tensor_core_tile {
    int64_t size; /* both head sizes, or 0: any others up to 512 */
    int64_t rows, keys;
    uint32_t shared;
} tensor_core_tile;

/* [any] The tile for a problem, 0 and plan->refusal where tensor cores do not serve it on `cc`. */
int tensor_core_tile_of(const attune_attention_f32 *args, int cc, tensor_core_tile *tile,
                        attune_cuda_plan *plan);
/* [any] Appends a launch of `x` blocks for each head (the kernels' find_head); 0 and plan->refusal where a
 * grid does not hold them. */
int tensor_core_launch(const attune_attention_f32 *args, const char *kernel, uint64_t x, uint32_t shared,
                       int64_t chunk_k, attune_cuda_plan *plan);

#endif
