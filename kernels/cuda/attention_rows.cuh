// attention_rows.cuh: what both tensor-core kernels do with the scores of a warp: masks, the online softmax, the
// product with the values. A warp holds scores as the accumulators of mma.m16n8: s[m][n][i] is row 16 m + lane / 4 + 8
// (i / 2), key 8 n + lane % 4 * 2 + i % 2. Every float operation is an intrinsic, so that all kernels of one head size
// give the same bits however they are compiled.
#ifndef ATTUNE_KERNELS_CUDA_ATTENTION_ROWS_CUH
#define ATTUNE_KERNELS_CUDA_ATTENTION_ROWS_CUH

#include "kernels/arithmetic.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/tensor_core.cuh"

constexpr float START = -0x1p100f; // rule 18: also the least maximum, so that a row that sees nothing ends as 0

// Heads and blocks are counted in 32 bits on 7.5, where a division of 64 is a call around which registers spill; later generations
// need fewer registers in the loop with 64.
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ < 800
typedef uint32_t block_index; // 65,535 squared fits
#else
typedef int64_t block_index;
#endif

// Where a block's head lies.
struct head {
    const char *q, *k, *v;
    block_index batch, index; // of the query head
};

// The block's head, batch * heads_q + index, is spread over y and z (each at most 65,535); false where there is none.
INLINE bool find_head(const attune_attention_f32 &args, head *h) {
    const int64_t linear = (int64_t)blockIdx.z * 65535 + blockIdx.y;
    if (linear >= args.batch * args.heads_q)
        return false;
    h->batch = (block_index)linear / (block_index)args.heads_q;
    h->index = (block_index)linear % (block_index)args.heads_q;
    const int64_t kv = h->index / ((block_index)args.heads_q / (block_index)args.heads_kv);
    h->q = (const char *)args.q + 2 * (h->batch * args.stride_q[0] + h->index * args.stride_q[1]);
    h->k = (const char *)args.k + 2 * (h->batch * args.stride_k[0] + kv * args.stride_k[1]);
    h->v = (const char *)args.v + 2 * (h->batch * args.stride_v[0] + kv * args.stride_v[1]);
    return true;
}

INLINE bool copies_of_16(const void *at, const int64_t stride[4]) {
    return ((uintptr_t)at % 16 | (uint64_t)(stride[0] | stride[1] | stride[2]) % 8) == 0;
}

// A score that no mask made -inf.
INLINE float not_masked(float score) { return score == -INFINITY ? -FLT_MAX : score; }

// The online softmax of 16 M rows. `scale` turns a score into the exponent's base 2 and is positive.
template <typename T, int M, int N> struct rows {
    float top[M][2];  // the maximum, scaled
    float sum[M][4];  // [0] and [2]: of the weights, summed by the tensor cores as one more channel of value 1
    float s[M][N][4]; // scores, then weights
    float correction[M][2];

    __device__ __forceinline__ void start() {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            top[m][0] = top[m][1] = START;
#pragma unroll
            for (int i = 0; i < 4; ++i)
                sum[m][i] = 0;
        }
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    s[m][n][i] = 0;
    }

    // Of row (m, half), the first `left` keys of the tile are seen.
    __device__ __forceinline__ void hide(int m, int half, int64_t left) {
        const int own = (int)(left < 0 ? 0 : left < 8 * N ? left : 8 * N) - (int)(threadIdx.x % 4) * 2;
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
                if (8 * n + i >= own)
                    s[m][n][2 * half + i] = -INFINITY;
    }

    __device__ __forceinline__ void hide_tail(int64_t left) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            hide(m, 0, left);
            hide(m, 1, left);
        }
    }

    // One row's part of a mask, from its element for the lane's first key on; the first `own` keys exist.
    __device__ __forceinline__ void mask_bool(int m, int half, const uint8_t *at, int64_t stride, int own) {
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                if (8 * n + i < own && *at == 0)
                    s[m][n][2 * half + i] = -INFINITY;
                at += i ? 7 * stride : stride;
            }
    }
    __device__ __forceinline__ void mask_float(int m, int half, const float *at, int64_t stride, int own) {
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float added = 8 * n + i < own ? *at : 0.0f;
                float &score = s[m][n][2 * half + i];
                score = __fmul_rn(added, ATTUNE_LOG2E_F32) == -INFINITY
                            ? -INFINITY
                            : not_masked(__fmaf_rn(added, ATTUNE_LOG2E_F32, score));
                at += i ? 7 * stride : stride;
            }
    }

    // Rules 19 and 20 for keys from `key` to args.n_k: a masked score is -inf, and no other is (one that the product
    // made is the least finite number, whose weight is 0 as well). With a float mask scores come out scaled.
    __device__ __forceinline__ void mask(const attune_attention_f32 &args, const head &h, float scale, int64_t row,
                                         int64_t key) {
        const bool is_float = args.mask_kind == ATTUNE_KERNEL_MASK_FLOAT;
        const int64_t column = key + threadIdx.x % 4 * 2, left = args.n_k - column;
        const int own = (int)(left < 8 * N ? left : 8 * N);
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (is_float)
                        s[m][n][i] = __fmul_rn(s[m][n][i], scale);
                    s[m][n][i] = not_masked(s[m][n][i]);
                }
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int64_t at = row + 16 * m + 8 * half + threadIdx.x % 32 / 4;
                const int64_t query = at < args.n_q ? at : args.n_q - 1;
                const int64_t element = h.batch * args.stride_mask[0] + h.index * args.stride_mask[1] +
                                        query * args.stride_mask[2] + column * args.stride_mask[3];
                if (args.mask_kind == ATTUNE_KERNEL_MASK_BOOL)
                    mask_bool(m, half, (const uint8_t *)args.mask + element, args.stride_mask[3], own);
                else if (is_float)
                    mask_float(m, half, (const float *)args.mask + element, args.stride_mask[3], own);
                const int64_t seen = args.causal ? query + args.n_k - args.n_q + 1 : args.n_k;
                hide(m, half, (seen < args.n_k ? seen : args.n_k) - key);
            }
    }

    // Rules 21 to 23: scores become weights, `correction` is what earlier sums are multiplied by.
    // MASKED: the weight of a masked key is -0, and no other is.
    template <bool MASKED> __device__ __forceinline__ void weights(float scale) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float best = fmaxf(s[m][0][2 * half], s[m][0][2 * half + 1]);
#pragma unroll
                for (int n = 1; n < N; ++n)
                    best = fmaxf(best, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
                best = fmaxf(best, __shfl_xor_sync(~0u, best, 1));
                best = fmaxf(best, __shfl_xor_sync(~0u, best, 2));
                // never below the product that weights are made with, so that none is above 1
                const float scaled = __fmul_rn(best, scale), next = fmaxf(top[m][half], __fmaf_rn(fabsf(scaled), 0x1p-23f, scaled));
                correction[m][half] = exp2_approximate(__fsub_rn(top[m][half], next));
                top[m][half] = next;
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; ++i) {
                        const float weight = exp2_approximate(__fmaf_rn(s[m][n][i], scale, -next));
                        s[m][n][i] = MASKED && s[m][n][i] == -INFINITY ? -0.0f : weight;
                    }
            }
    }

    // True where some row of the warp must be rescaled; where none must, a factor of 1 would change no bit.
    __device__ __forceinline__ bool rescales() const {
        bool any = false;
#pragma unroll
        for (int m = 0; m < M; ++m)
            any |= !(correction[m][0] == 1.0f) | !(correction[m][1] == 1.0f);
        return __any_sync(~0u, any);
    }

    template <int C> __device__ __forceinline__ void rescale(float (&o)[M][C][4]) {
        if (!rescales())
            return;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                sum[m][i] = __fmul_rn(sum[m][i], correction[m][i / 2]);
#pragma unroll
                for (int c = 0; c < C; ++c)
                    o[m][c][i] = __fmul_rn(o[m][c][i], correction[m][i / 2]);
            }
    }

    // The weights of keys 16 k to 16 k + 15 as the left factor of an mma, and their sum.
    __device__ __forceinline__ void left_factor(int m, int k, uint32_t p[4]) {
        p[0] = pack<T>(s[m][2 * k][0], s[m][2 * k][1]);
        p[1] = pack<T>(s[m][2 * k][2], s[m][2 * k][3]);
        p[2] = pack<T>(s[m][2 * k + 1][0], s[m][2 * k + 1][1]);
        p[3] = pack<T>(s[m][2 * k + 1][2], s[m][2 * k + 1][3]);
    }
};

// Both halves of a pair: all ones where `value` has what is asked.
INLINE uint32_t halves(bool low, bool high) { return (low ? 0xffffu : 0) | (high ? 0xffff0000u : 0); }

template <typename T> INLINE uint32_t not_finite(uint32_t pair) {
    constexpr uint32_t e = element<T>::EXPONENTS & 0xffff;
    return halves((pair & e) == e, (pair >> 16 & e) == e);
}

// o += p v where v may hold infinities and NaN and p masked keys, which take no part whatever they hold (rule 27): the
// finite values go their usual way, of the others it is counted how many a row sees. A key that is seen with weight 0
// and an infinite value gives NaN, as 0 times infinity does.
template <typename T> INLINE void mma16_special(float o[4], const uint32_t p[4], uint32_t v0, uint32_t v1) {
    constexpr uint32_t INFINITE = element<T>::EXPONENTS & 0xffff;
    uint32_t seen[4], positive[4], finite[2], special[2], up[2], down[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        seen[i] = ~halves(p[i] & 0x8000, p[i] >> 31) & element<T>::ONES;
        positive[i] = halves((p[i] & 0x7fff) != 0, (p[i] & 0x7fff0000) != 0) & element<T>::ONES;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const uint32_t v = i ? v1 : v0, which = not_finite<T>(v);
        finite[i] = v & ~which;
        special[i] = which & element<T>::ONES;
        up[i] = halves((v & 0xffff) == INFINITE, v >> 16 == INFINITE) & element<T>::ONES;
        down[i] = halves((v & 0xffff) == (INFINITE | 0x8000), v >> 16 == (INFINITE | 0x8000)) & element<T>::ONES;
    }
    float all[4] = {0, 0, 0, 0}, ups[4] = {0, 0, 0, 0}, downs[4] = {0, 0, 0, 0};
    mma16<T>(o, p, finite[0], finite[1]);
    mma16<T>(all, seen, special[0], special[1]);
    mma16<T>(ups, positive, up[0], up[1]);
    mma16<T>(downs, positive, down[0], down[1]);
#pragma unroll
    for (int i = 0; i < 4; ++i)
        if (all[i] != 0)
            o[i] = __fadd_rn(o[i], all[i] == ups[i] ? INFINITY : all[i] == downs[i] ? -INFINITY : NAN);
}

// One more step: SPECIAL as above.
template <typename T, bool SPECIAL> INLINE void multiply(float o[4], const uint32_t p[4], uint32_t v0, uint32_t v1) {
    if constexpr (SPECIAL)
        mma16_special<T>(o, p, v0, v1);
    else
        mma16<T>(o, p, v0, v1);
}

// Rule 24 for two neighbouring channels; `second` is false where only one is left.
template <typename T> INLINE void store_pair(char *to, float a, float b, float sum, bool second, bool aligned) {
    const float r = __frcp_rn(sum);
    const bool nothing = sum == 0;
    const uint32_t pair = pack_stored<T>(nothing ? 0.0f : __fmul_rn(a, r), nothing ? 0.0f : __fmul_rn(b, r));
    if (aligned && second)
        *(uint32_t *)to = pair;
    else {
        *(uint16_t *)to = (uint16_t)pair;
        if (second)
            *(uint16_t *)(to + 2) = (uint16_t)(pair >> 16);
    }
}

// The sums of a chunk of keys, not yet divided, for the kernel that joins chunks: in the workspace lie per head, chunk
// and query d_v sums, the maximum and the sum of the weights.
INLINE float *partial(const attune_attention_f32 &args, const head &h, int64_t chunks, int64_t chunk, int64_t row) {
    return (float *)args.matrix +
           (((h.batch * args.heads_q + h.index) * chunks + chunk) * args.n_q + row) * (args.d_v + 2);
}

// Runs a kernel of this folder; tensor cores of compute capability 7.5 have no bfloat16, there planners refuse it.
template <typename T, typename KERNEL> INLINE void run_kernel(const attune_attention_f32 &args, float factor) {
    extern __shared__ __align__(16) unsigned char shared[];
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ < 800
    if constexpr (element<T>::ONES != element<__half>::ONES)
        __trap();
    else
#endif
        KERNEL(args).run(factor, shared);
}

#define ATTUNE_CUDA_KERNEL(name, T, ...)                                                                       \
    extern "C" __global__ void __launch_bounds__(128)                                                          \
        name(const __grid_constant__ attune_attention_f32 args, float factor) {                                \
        run_kernel<T, __VA_ARGS__>(args, factor);                                                              \
    }

#endif
