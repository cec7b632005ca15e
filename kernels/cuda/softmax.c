/* kernels/cuda/softmax.c: how softmax.cu's kernel is launched. */
#include "kernels/cuda/attention.h"

#include <stdio.h>
#include <string.h>

enum { WARPS = 4 }; /* of a block, each with a row at a time */

int attune_cuda_plan_softmax(const attune_attention_f32 *a, int cc, attune_cuda_plan *plan) {
    uint64_t rows = (uint64_t)a->n_q, bytes;
    memset(plan, 0, sizeof *plan);
    (void)cc;
    if (__builtin_mul_overflow(rows, (uint64_t)a->batch, &rows) ||
        __builtin_mul_overflow(rows, (uint64_t)a->heads_q, &rows) ||
        __builtin_mul_overflow(rows, 4 * (uint64_t)a->n_k, &bytes) || bytes > INT64_MAX ||
        rows / WARPS >= ATTUNE_CUDA_GRID_X) {
        (void)snprintf(plan->refusal, sizeof plan->refusal,
                       "batch %lld, %lld heads, %lld queries, %lld keys: more scores than can be addressed",
                       (long long)a->batch, (long long)a->heads_q, (long long)a->n_q, (long long)a->n_k);
        return 0;
    }
    plan->workspace = (bytes + 255) / 256 * 256;
    plan->count = 1;
    plan->launches[0] = (attune_cuda_launch){.kernel = "attune_softmax",
                                             .grid = {(uint32_t)((rows + WARPS - 1) / WARPS), 1, 1},
                                             .block = {32, WARPS, 1}};
    return 1;
}
