// softmax.cu: for backend `math`: rows of raw scores in float32 (B, Hq, Nq, Nk), at args.matrix, become weights in args' storage, each
// row beginning where it began: a row of 16-bit weights takes the first half of its place. The scale, the mask and causality come in
// here. A warp takes a row, lane by lane in a fixed order: the same bits in every run.
#include "kernels/arithmetic.h"
#include "kernels/cuda/attention.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef attune_attention_f32 problem;

struct row {
    float *scores;
    int64_t mask, last_key; // element of the mask for key 0; the last key that causality shows
};

static __device__ row row_of(const problem &a, int64_t index) {
    const int64_t i = index % a.n_q, h = index / a.n_q % a.heads_q, b = index / a.n_q / a.heads_q;
    row r;
    r.scores = (float *)a.matrix + index * a.n_k;
    r.mask = b * a.stride_mask[0] + h * a.stride_mask[1] + i * a.stride_mask[2];
    r.last_key = a.causal ? i + (a.n_k - a.n_q) : a.n_k - 1;
    return r;
}

// The score of key j to base 2; -infinity where it is masked.
static __device__ float score(const problem &a, const row &r, float factor, int64_t j) {
    if (j > r.last_key)
        return -INFINITY;
    float s = r.scores[j] * factor;
    if (a.mask_kind == ATTUNE_KERNEL_MASK_BOOL && !((const uint8_t *)a.mask)[r.mask + j * a.stride_mask[3]])
        return -INFINITY;
    if (a.mask_kind == ATTUNE_KERNEL_MASK_FLOAT) {
        const float added = ((const float *)a.mask)[r.mask + j * a.stride_mask[3]];
        s = added * ATTUNE_LOG2E_F32 == -INFINITY ? -INFINITY : fmaf(added, ATTUNE_LOG2E_F32, s);
    }
    return s;
}

static __device__ void store(const problem &a, const row &r, int64_t j, float weight) {
    if (a.storage == ATTUNE_KERNEL_F32)
        r.scores[j] = weight;
    else if (a.storage == ATTUNE_KERNEL_F16)
        ((__half *)r.scores)[j] = __float2half_rn(weight);
    else
        ((__nv_bfloat16 *)r.scores)[j] = __float2bfloat16_rn(weight);
}

extern "C" __global__ void __launch_bounds__(128)
    attune_softmax(const __grid_constant__ attune_attention_f32 args, float factor) {
    const problem &a = args;
    const int64_t index = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (index >= a.batch * a.heads_q * a.n_q)
        return;
    const row r = row_of(a, index);
    float largest = -INFINITY, sum = 0.0f;
    for (int64_t j = threadIdx.x; j < a.n_k; j += 32)
        largest = fmaxf(largest, score(a, r, factor, j)); // may drop a NaN: its weight is one
    for (int step = 16; step > 0; step /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    if (largest == -INFINITY)
        largest = 0.0f; // nothing is seen: every weight is 0
    for (int64_t j = threadIdx.x; j < a.n_k; j += 32)
        sum += exp2f(score(a, r, factor, j) - largest);
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const float reciprocal = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (int64_t first = 0; first < a.n_k; first += 32) {
        const int64_t j = first + threadIdx.x;
        const float s = j < a.n_k ? score(a, r, factor, j) : 0.0f;
        __syncwarp(); // 16-bit weights lie over scores of lower keys, read by now
        if (j < a.n_k)
            store(a, r, j, exp2f(s - largest) * reciprocal);
    }
}
