/* kernels/cuda/efficient.c: how efficient.cu's kernels are launched. */
#include "kernels/cuda/attention_shapes.h"
#include "kernels/cuda/tensor_core.h"

#include <stdio.h>
#include <string.h>

/* Keys are split where whole heads make fewer than FEW blocks, until there are ENOUGH of them; a chunk has at
 * least TILES tiles, else joining costs more than it gains. */
enum { FEW = 128, ENOUGH = 256, TILES = 4 };

/* Keys of a chunk: n_k where they are not split. */
static int64_t chunk_of(const attune_attention_f32 *a, const tensor_core_tile *tile) {
    const int64_t blocks = (a->n_q - 1) / tile->rows + 1, least = TILES * tile->keys;
    if (blocks >= FEW || a->batch >= FEW || a->heads_q >= FEW || blocks * a->batch * a->heads_q >= FEW ||
        a->n_k <= least)
        return a->n_k;
    const int64_t all = blocks * a->batch * a->heads_q, wanted = (ENOUGH + all - 1) / all;
    const int64_t tiles = ((a->n_k - 1) / wanted + tile->keys) / tile->keys;
    return tiles * tile->keys > least ? tiles * tile->keys : least;
}

int attune_cuda_plan_memory_efficient(const attune_attention_f32 *a, int cc, attune_cuda_plan *plan) {
    static const struct {
        int64_t size;
        const char *kernel[2];
    } kernels[] = {
#define TILE(size, sixteens, keys) {size, {"attune_efficient_f16_" #size, "attune_efficient_bf16_" #size}},
        ATTUNE_CUDA_TILES(TILE)
#undef TILE
            {0, {"attune_efficient_f16_any", "attune_efficient_bf16_any"}}};
    static const char *const join[2] = {"attune_efficient_join_f16", "attune_efficient_join_bf16"};
    tensor_core_tile tile;
    memset(plan, 0, sizeof *plan);
    if (!tensor_core_tile_of(a, cc, &tile, plan))
        return 0;
    size_t i = 0;
    while (kernels[i].size != tile.size)
        ++i;
    const int bf16 = a->storage == ATTUNE_KERNEL_BF16;
    const int64_t chunk = chunk_of(a, &tile), chunks = (a->n_k - 1) / chunk + 1;
    if (!tensor_core_launch(a, kernels[i].kernel[bf16],
                            (uint64_t)((a->n_q - 1) / tile.rows + 1) * (uint64_t)chunks, tile.shared, chunk,
                            plan))
        return 0;
    if (chunks == 1)
        return 1;
    /* per head, chunk and query: d_v sums, a maximum, a sum of weights (efficient.cu); few blocks, so no
     * overflow */
    plan->workspace = (uint64_t)(a->batch * a->heads_q * chunks * a->n_q * (a->d_v + 2)) * sizeof(float);
    plan->workspace = (plan->workspace + 255) / 256 * 256;
    return tensor_core_launch(a, join[bf16], (uint64_t)((a->n_q - 1) / 4 + 1), 0, chunk, plan);
}
