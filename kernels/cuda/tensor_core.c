/* kernels/cuda/tensor_core.c: see tensor_core.h. */
#include "kernels/cuda/tensor_core.h"
#include "kernels/cuda/attention_shapes.h"

#include <stdio.h>

enum { GRID_YZ = 65535 };

int tensor_core_tile_of(const attune_attention_f32 *a, int cc, tensor_core_tile *tile,
                        attune_cuda_plan *plan) {
    static const tensor_core_tile tiles[] = {
#define TILE(size, sixteens, keys)                                                                           \
    {size, 64 * (sixteens), keys, ATTUNE_CUDA_TILE_SHARED(size, sixteens, keys)},
        ATTUNE_CUDA_TILES(TILE)
#undef TILE
    };
    const int64_t size = a->d_qk > a->d_v ? a->d_qk : a->d_v;
    if (a->storage == ATTUNE_KERNEL_F32)
        (void)snprintf(plan->refusal, sizeof plan->refusal,
                       "tensor cores take float16 and bfloat16, not float32");
    else if (a->storage == ATTUNE_KERNEL_BF16 && cc < 80)
        (void)snprintf(plan->refusal, sizeof plan->refusal,
                       "tensor cores take bfloat16 from compute capability 8.0 on; this device has %d.%d",
                       cc / 10, cc % 10);
    else if (size > ATTUNE_CUDA_WIDE_SIZE)
        (void)snprintf(plan->refusal, sizeof plan->refusal, "head size %lld is above %d", (long long)size,
                       ATTUNE_CUDA_WIDE_SIZE);
    if (plan->refusal[0])
        return 0;
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; ++i)
        if (tiles[i].size == a->d_qk && tiles[i].size == a->d_v) {
            *tile = tiles[i];
            return 1;
        }
    const int64_t qk = (a->d_qk + 15) / 16 * 16, v = (a->d_v + 15) / 16 * 16;
    *tile = (tensor_core_tile){.rows = ATTUNE_CUDA_WIDE_ROWS,
                               .keys = ATTUNE_CUDA_WIDE_KEYS,
                               .shared = (uint32_t)(ATTUNE_CUDA_WIDE_TILES(qk, v) + ATTUNE_CUDA_WIDE_SCORES)};
    return 1;
}

int tensor_core_launch(const attune_attention_f32 *a, const char *kernel, uint64_t x, uint32_t shared,
                       int64_t chunk_k, attune_cuda_plan *plan) {
    uint64_t heads;
    if (x > ATTUNE_CUDA_GRID_X || __builtin_mul_overflow((uint64_t)a->batch, (uint64_t)a->heads_q, &heads) ||
        heads > (uint64_t)GRID_YZ * GRID_YZ) {
        (void)snprintf(plan->refusal, sizeof plan->refusal,
                       "batch %lld, %lld heads, %lld queries are more blocks than a grid has",
                       (long long)a->batch, (long long)a->heads_q, (long long)a->n_q);
        return 0;
    }
    plan->launches[plan->count++] =
        (attune_cuda_launch){.kernel = kernel,
                             .grid = {(uint32_t)x, (uint32_t)(heads < GRID_YZ ? heads : GRID_YZ),
                                      (uint32_t)((heads + GRID_YZ - 1) / GRID_YZ)},
                             .block = {128, 1, 1},
                             .shared = shared,
                             .chunk_k = chunk_k};
    return 1;
}
