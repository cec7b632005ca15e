// attention_wide.cuh: attention for every head size up to 512, of keys and of values apart: a block of four warps has
// 16 queries together. Warp w multiplies the w-th quarter of the depth (its queries stay in registers), the four partial
// scores are added in the order of the warps by every warp, and each multiplies the weights with its quarter of the
// channels. Algorithm and order of keys as in attention_tile.cuh, so the class is `invariant` too.
//
// SIZE: both head sizes, known to the compiler; 0: those of the arguments.
#ifndef ATTUNE_KERNELS_CUDA_ATTENTION_WIDE_CUH
#define ATTUNE_KERNELS_CUDA_ATTENTION_WIDE_CUH

#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_shapes.h"

template <typename T, int SIZE, bool CHUNKED> struct wide_kernel {
    static constexpr int KEYS = ATTUNE_CUDA_WIDE_KEYS, ROWS = ATTUNE_CUDA_WIDE_ROWS, M = ROWS / 16, SCORE_ROW = 24;
    static constexpr int MOST = ATTUNE_CUDA_WIDE_SIZE / 64; // 16s of depth, and of channels, of a warp

    const attune_attention_f32 &args;
    head h;
    int64_t row, keys;
    float scale;
    bool aligned_k, aligned_v;
    uint32_t k0, v0;
    float *partials;
    rows<T, M, KEYS / 8> r;
    float o[M][2 * MOST][4];
    uint32_t q[M][MOST][4];

    __device__ __forceinline__ explicit wide_kernel(const attune_attention_f32 &a) : args(a) {}

    __device__ __forceinline__ int size_k() const { return SIZE ? SIZE : (int)args.d_qk; }
    __device__ __forceinline__ int size_v() const { return SIZE ? SIZE : (int)args.d_v; }
    __device__ __forceinline__ int depth() const { return (size_k() + 15) / 16; }
    __device__ __forceinline__ int columns() const { return (size_v() + 15) / 16; }
    // Bytes from row to row, padded sizes plus 16 bytes: an odd number of 16 bytes.
    __device__ __forceinline__ int line_k() const { return depth() * 32 + 16; }
    __device__ __forceinline__ int line_v() const { return columns() * 32 + 16; }
    // The first 16 of the warp, and one behind its last.
    __device__ __forceinline__ static int first_of(int count) { return threadIdx.x / 32 * ((count + 3) / 4); }
    __device__ __forceinline__ static int end_of(int count) {
        const int end = first_of(count) + (count + 3) / 4;
        return end < count ? end : count;
    }

    // `count` rows, zeros behind `left` and behind `size`.
    __device__ __forceinline__ static void copy(uint32_t to, const char *from, int64_t stride, int count, int64_t left,
                                                int size, int line, bool aligned) {
        const int lane = threadIdx.x % 32;
#pragma unroll 1
        for (int i = threadIdx.x / 32; i < count; i += 4) {
            const char *source = from + 2 * i * stride;
#pragma unroll 1
            for (int chunk = lane; chunk < (size + 15) / 16 * 2; chunk += 32) {
                const uint32_t at = to + i * line + chunk * 16;
                if (i >= left || chunk * 8 >= size)
                    store16(at, make_int4(0, 0, 0, 0));
                else if (aligned && chunk * 8 + 8 <= size)
                    copy16(at, source + chunk * 16);
                else
                    copy_elements(at, source + chunk * 16, size - chunk * 8);
            }
        }
        copies_commit();
    }

    __device__ __forceinline__ void copy_k(int64_t key) {
        copy(k0, h.k + 2 * key * args.stride_k[2], args.stride_k[2], KEYS, keys - key, size_k(), line_k(), aligned_k);
    }
    __device__ __forceinline__ void copy_v(int64_t key) {
        copy(v0, h.v + 2 * key * args.stride_v[2], args.stride_v[2], KEYS, keys - key, size_v(), line_v(), aligned_v);
    }

    __device__ __forceinline__ void read_q(bool negate) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int i = 0; i < MOST; ++i)
                if (first_of(depth()) + i < end_of(depth())) {
                    ldmatrix4(q[m][i], k0 + (16 * m + lane % 16) * line_k() + (first_of(depth()) + i) * 32 + lane / 16 * 16);
                    if (negate)
#pragma unroll
                        for (int j = 0; j < 4; ++j)
                            q[m][i][j] ^= 0x80008000u;
                }
    }

    // The warp's quarter of the depth, written where every warp finds it.
    __device__ __forceinline__ void partial_scores() {
        const int lane = threadIdx.x % 32;
        r.clear();
        const uint32_t at = k0 + (lane / 16 * 8 + lane % 8) * line_k() + lane / 8 % 2 * 16 + first_of(depth()) * 32;
#pragma unroll
        for (int i = 0; i < MOST; ++i)
            if (first_of(depth()) + i < end_of(depth())) {
                uint32_t b[4];
                ldmatrix4(b, at + i * 32);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma16<T>(r.s[m][0], q[m][i], b[0], b[1]);
                    mma16<T>(r.s[m][1], q[m][i], b[2], b[3]);
                }
            }
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < 2; ++n)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    *place(threadIdx.x / 32, m, n, half) = make_float2(r.s[m][n][2 * half], r.s[m][n][2 * half + 1]);
    }

    __device__ __forceinline__ float2 *place(int warp, int m, int n, int half) const {
        const int lane = threadIdx.x % 32;
        return (float2 *)(partials + (warp * ROWS + 16 * m + 8 * half + lane / 4) * SCORE_ROW + 8 * n + lane % 4 * 2);
    }

    __device__ __forceinline__ void add_scores() {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < 2; ++n)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float2 sum = *place(0, m, n, half);
#pragma unroll
                    for (int warp = 1; warp < 4; ++warp) {
                        const float2 more = *place(warp, m, n, half);
                        sum.x = __fadd_rn(sum.x, more.x);
                        sum.y = __fadd_rn(sum.y, more.y);
                    }
                    r.s[m][n][2 * half] = sum.x;
                    r.s[m][n][2 * half + 1] = sum.y;
                }
    }

    template <bool SPECIAL> __device__ __forceinline__ void values(const uint32_t p[M][4]) {
        const int lane = threadIdx.x % 32;
        const uint32_t at = v0 + lane % 16 * line_v() + lane / 16 * 16 + first_of(columns()) * 32;
#pragma unroll
        for (int i = 0; i < MOST; ++i)
            if (first_of(columns()) + i < end_of(columns())) {
                uint32_t b[4];
                ldmatrix4_trans(b, at + i * 32);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    multiply<T, SPECIAL>(o[m][2 * i], p[m], b[0], b[1]);
                    multiply<T, SPECIAL>(o[m][2 * i + 1], p[m], b[2], b[3]);
                }
            }
    }

    // True where the warp's channels of the tile of values hold an infinity or a NaN: for the whole warp.
    __device__ __forceinline__ bool finds_special() const {
        const int lane = threadIdx.x % 32;
        uint32_t found = 0;
        for (int i = first_of(columns()); i < end_of(columns()); ++i)
            for (int half = 0; half < 2; ++half) {
                uint32_t w[2];
                asm volatile("ld.shared.v2.b32 {%0,%1}, [%2];"
                             : "=r"(w[0]), "=r"(w[1])
                             : "r"(v0 + (lane / 4 + 8 * half) * line_v() + i * 32 + lane % 4 * 8)
                             : "memory");
                found |= not_finite<T>(w[0]) | not_finite<T>(w[1]);
            }
        return __any_sync(~0u, found != 0);
    }

    __device__ __forceinline__ void step(int64_t key) {
        copies_land();
        __syncthreads(); // the keys are there, and everyone has done with the last scores and values
        copy_v(key);
        partial_scores();
        copies_land();
        __syncthreads(); // scores and values are there, and everyone has done with the keys
        if (key + KEYS < keys)
            copy_k(key + KEYS);
        add_scores();
        const bool masks = args.mask_kind != ATTUNE_KERNEL_MASK_NONE ||
                           (args.causal && key + KEYS - 1 > row + args.n_k - args.n_q);
        const float factor = args.mask_kind == ATTUNE_KERNEL_MASK_FLOAT ? 1.0f : scale;
        if (masks)
            r.mask(args, h, scale, row, key);
        else if (key + KEYS > keys)
            r.hide_tail(keys - key);
        r.template weights<true>(factor);
        r.rescale(o);
        uint32_t p[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) {
            r.left_factor(m, 0, p[m]);
            mma16<T>(r.sum[m], p[m], element<T>::ONES, element<T>::ONES);
        }
        if (masks && finds_special())
            values<true>(p);
        else
            values<false>(p);
    }

    __device__ __forceinline__ void store(int64_t chunk, int64_t chunks) {
        const int lane = threadIdx.x % 32;
        const bool whole = ((uintptr_t)args.out % 4 |
                            (uint64_t)(args.stride_out[0] | args.stride_out[1] | args.stride_out[2]) % 2) == 0;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int64_t at = row + 16 * m + 8 * half + lane / 4;
                if (at >= args.n_q)
                    continue;
                const bool chunked = CHUNKED && args.chunk_k < args.n_k;
                float *part = chunked ? partial(args, h, chunks, chunk, at) : NULL;
                char *to = (char *)args.out + 2 * (h.batch * args.stride_out[0] + h.index * args.stride_out[1] +
                                                   at * args.stride_out[2]);
#pragma unroll
                for (int c = 0; c < 2 * MOST; ++c) {
                    const int channel = first_of(columns()) * 16 + 8 * c + lane % 4 * 2;
                    if (first_of(columns()) + c / 2 >= end_of(columns()) || channel >= size_v())
                        continue;
                    const float a = o[m][c][2 * half], b = o[m][c][2 * half + 1];
                    if (!chunked)
                        store_pair<T>(to + 2 * channel, a, b, r.sum[m][2 * half], channel + 1 < size_v(), whole);
                    else {
                        part[channel] = a;
                        if (channel + 1 < size_v())
                            part[channel + 1] = b;
                    }
                }
                if (chunked && threadIdx.x < 32 && lane % 4 == 0) // one warp writes for all
                    part[size_v()] = r.top[m][half], part[size_v() + 1] = r.sum[m][2 * half];
            }
    }

    __device__ __forceinline__ void run(float factor, unsigned char *shared) {
        const block_index blocks = (block_index)((args.n_q + ROWS - 1) / ROWS);
        const int64_t chunk = CHUNKED ? blockIdx.x / blocks : 0;
        row = (CHUNKED ? blockIdx.x % blocks : blockIdx.x) * ROWS;
        if (!find_head(args, &h))
            return;
        const int64_t first = CHUNKED ? chunk * args.chunk_k : 0;
        keys = CHUNKED && first + args.chunk_k < args.n_k ? first + args.chunk_k : args.n_k;
        if (args.causal) { // keys that no query of the block sees
            const int64_t seen = row + ROWS + args.n_k - args.n_q;
            keys = seen < keys ? (seen > first ? seen : first) : keys;
        }
        scale = fabsf(factor);
        aligned_k = copies_of_16(args.k, args.stride_k);
        aligned_v = copies_of_16(args.v, args.stride_v);
        k0 = shared_address(shared);
        v0 = k0 + KEYS * line_k();
        partials = (float *)(shared + ATTUNE_CUDA_WIDE_TILES(depth() * 16, columns() * 16));
        r.start();
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int c = 0; c < 2 * MOST; ++c)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    o[m][c][i] = 0;
        if (first < keys) {
            copy(k0, h.q + 2 * row * args.stride_q[2], args.stride_q[2], ROWS, args.n_q - row, size_k(), line_k(),
                 copies_of_16(args.q, args.stride_q));
            copies_land();
            __syncthreads();
            read_q(factor < 0);
            __syncthreads();
            copy_k(first);
#pragma unroll 1
            for (int64_t key = first; key < keys; key += KEYS)
                step(key);
        }
        store(chunk, CHUNKED ? gridDim.x / blocks : 1);
    }
};

#endif
