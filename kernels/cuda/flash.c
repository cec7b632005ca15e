/* kernels/cuda/flash.c: how flash.cu's kernels are launched. */
#include "kernels/cuda/attention_shapes.h"
#include "kernels/cuda/tensor_core.h"

#include <string.h>

/* Rows that begin at multiples of `bytes`; a NULL pointer counts as aligned. */
static int is_aligned(const void *at, const int64_t stride[4], uint64_t bytes) {
    return ((uintptr_t)at | 2 * (uint64_t)(stride[0] | stride[1] | stride[2])) % bytes == 0;
}

static int is_plain(const attune_attention_f32 *a) {
    return a->mask_kind == ATTUNE_KERNEL_MASK_NONE && !a->causal && is_aligned(a->q, a->stride_q, 16) &&
           is_aligned(a->k, a->stride_k, 16) && is_aligned(a->v, a->stride_v, 16) &&
           is_aligned(a->out, a->stride_out, 4);
}

int attune_cuda_plan_flash(const attune_attention_f32 *a, int cc, attune_cuda_plan *plan) {
    static const struct {
        int64_t size;
        const char *kernel[2][2]; /* float16, bfloat16; plain, general */
    } kernels[] = {
#define TILE(size, sixteens, keys)                                                                           \
    {size,                                                                                                   \
     {{"attune_flash_f16_" #size, "attune_flash_f16_" #size "_general"},                                     \
      {"attune_flash_bf16_" #size, "attune_flash_bf16_" #size "_general"}}},
        ATTUNE_CUDA_TILES(TILE)
#undef TILE
    };
    tensor_core_tile tile;
    memset(plan, 0, sizeof *plan);
    if (!tensor_core_tile_of(a, cc, &tile, plan))
        return 0;
    const int bf16 = a->storage == ATTUNE_KERNEL_BF16;
    const char *kernel = a->d_qk == 512 && a->d_v == 512
                             ? (bf16 ? "attune_flash_bf16_512" : "attune_flash_f16_512")
                         : bf16 ? "attune_flash_bf16_any"
                                : "attune_flash_f16_any";
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; ++i)
        if (kernels[i].size == tile.size)
            kernel = kernels[i].kernel[bf16][!is_plain(a)];
    return tensor_core_launch(a, kernel, (uint64_t)((a->n_q - 1) / tile.rows + 1), tile.shared, 0, plan);
}
