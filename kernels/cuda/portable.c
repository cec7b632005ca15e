/* kernels/cuda/portable.c: how portable.cu's kernels are launched. */
#include "kernels/cuda/portable.h"
#include "kernels/arithmetic.h"
#include "kernels/cuda/attention.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *kernel;
    int64_t channels;
} tiles[] = {
#define TILE(channels) {"attune_portable_" #channels, channels},
    PORTABLE_TILES(TILE)
#undef TILE
};
enum { TILES = sizeof tiles / sizeof *tiles };

/* Scores, the larger of both stages, and what is one float a row: maxima of the parts, and the factor. */
static uint32_t shared_bytes(int64_t tile) {
    const int64_t scores = ATTUNE_ATTENTION_KEY_BLOCK * PORTABLE_PITCH;
    const int64_t keys = PORTABLE_CHANNELS * (ATTUNE_ATTENTION_KEY_BLOCK + 4 + PORTABLE_PITCH);
    const int64_t values = PORTABLE_VALUES(tile) * tile;
    const int64_t rows = PORTABLE_ROWS * (PORTABLE_PARTS + 1);
    return (uint32_t)((scores + (keys > values ? keys : values) + rows) * (int64_t)sizeof(float));
}

int attune_cuda_plan_portable(const attune_attention_f32 *a, int cc, attune_cuda_plan *plan) {
    int tile = 0;
    uint64_t blocks = (uint64_t)a->n_q / PORTABLE_ROWS + (a->n_q % PORTABLE_ROWS != 0);
    memset(plan, 0, sizeof *plan);
    (void)cc; /* one arithmetic for all */
    while (tile < TILES - 1 && tiles[tile].channels < a->d_v)
        ++tile;
    const uint64_t pieces = ((uint64_t)a->d_v - 1) / (uint64_t)tiles[tile].channels + 1;
    if (__builtin_mul_overflow(blocks, (uint64_t)a->batch, &blocks) ||
        __builtin_mul_overflow(blocks, (uint64_t)a->heads_q, &blocks) ||
        __builtin_mul_overflow(blocks, pieces, &blocks) || blocks > ATTUNE_CUDA_GRID_X) {
        (void)snprintf(plan->refusal, sizeof plan->refusal,
                       "batch %lld, %lld heads, %lld queries, head size %lld make more than %d blocks",
                       (long long)a->batch, (long long)a->heads_q, (long long)a->n_q, (long long)a->d_v,
                       ATTUNE_CUDA_GRID_X);
        return 0;
    }
    plan->count = 1;
    plan->launches[0] = (attune_cuda_launch){.kernel = tiles[tile].kernel,
                                             .grid = {(uint32_t)blocks, 1, 1},
                                             .block = {PORTABLE_THREADS, 1, 1},
                                             .shared = shared_bytes(tiles[tile].channels)};
    return 1;
}
