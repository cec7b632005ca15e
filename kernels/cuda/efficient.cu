// efficient.cu: `xformers`: memory-efficient attention in float16 and bfloat16 by tensor cores; efficient.c plans its
// launches. For short queries keys are split into chunks (args.chunk_k, a multiple of a tile) that blocks of their own
// take; a second kernel joins the chunks in their order. Source: Rabe & Staats, "Self-attention Does Not Need O(n^2)
// Memory", 2021.
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_wide.cuh"

#define TILE(size, sixteens, keys)                                                                             \
    TYPE(f16, __half, size, sixteens, keys)                                                                    \
    TYPE(bf16, __nv_bfloat16, size, sixteens, keys)
#define TYPE(type, T, size, sixteens, keys)                                                                    \
    ATTUNE_CUDA_KERNEL(attune_efficient_##type##_##size, T, tile_kernel<T, size, sixteens, keys, true, true>)
ATTUNE_CUDA_TILES(TILE)

ATTUNE_CUDA_KERNEL(attune_efficient_f16_any, __half, wide_kernel<__half, 0, true>)
ATTUNE_CUDA_KERNEL(attune_efficient_bf16_any, __nv_bfloat16, wide_kernel<__nv_bfloat16, 0, true>)

// Rule 36 of docs/arithmetic.md, a warp for a row: lanes take pairs of channels, each joins all chunks for itself.
template <typename T> struct join_kernel {
    const attune_attention_f32 &args;

    __device__ __forceinline__ explicit join_kernel(const attune_attention_f32 &a) : args(a) {}

    __device__ __forceinline__ void run(float, unsigned char *) {
        head h;
        const int64_t row = (int64_t)blockIdx.x * 4 + threadIdx.x / 32;
        if (!find_head(args, &h) || row >= args.n_q)
            return;
        const int64_t chunks = (args.n_k + args.chunk_k - 1) / args.chunk_k;
        char *out = (char *)args.out +
                    2 * (h.batch * args.stride_out[0] + h.index * args.stride_out[1] + row * args.stride_out[2]);
        for (int64_t channel = threadIdx.x % 32 * 2; channel < args.d_v; channel += 64) {
            const bool second = channel + 1 < args.d_v;
            float top = START, sum = 0, a = 0, b = 0;
            for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                const float *part = partial(args, h, chunk, row);
                const float next = fmaxf(top, part[args.d_v]), old = exp2_approximate(__fsub_rn(top, next)),
                            weight = exp2_approximate(__fsub_rn(part[args.d_v], next));
                sum = __fmaf_rn(part[args.d_v + 1], weight, __fmul_rn(sum, old));
                a = __fmaf_rn(part[channel], weight, __fmul_rn(a, old));
                b = second ? __fmaf_rn(part[channel + 1], weight, __fmul_rn(b, old)) : 0;
                top = next;
            }
            store_pair<T>(out + 2 * channel, a, b, sum, second, false);
        }
    }
};

ATTUNE_CUDA_KERNEL(attune_efficient_join_f16, __half, join_kernel<__half>)
ATTUNE_CUDA_KERNEL(attune_efficient_join_bf16, __nv_bfloat16, join_kernel<__nv_bfloat16>)
