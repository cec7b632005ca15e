// attention_join.cuh: joins the sums of chunks of keys that attention_tile.cuh and attention_wide.cuh left in the workspace.
#ifndef ATTUNE_KERNELS_CUDA_ATTENTION_JOIN_CUH
#define ATTUNE_KERNELS_CUDA_ATTENTION_JOIN_CUH

#include "kernels/cuda/attention_rows.cuh"

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
                const float *part = partial(args, h, chunks, chunk, row);
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

#endif
