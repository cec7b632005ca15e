// attention_tile.cuh: attention for head sizes that fit the registers of a warp: a warp has 16 or 32 queries, a block
// four warps. Algorithm: Dao, "FlashAttention-2", 2023, algorithm 1. Keys are taken tile by tile from key 0 on, so that a
// row's bits depend on its own operands only (class `invariant`). One tile of keys and one of values are in shared
// memory; the copy of values runs during q k, that of the next keys during p v.
//
// GENERAL takes masks, causality and rows that are not aligned to 16 bytes; without them it gives the bits of the plain
// kernel. CHUNKED writes a chunk's sums instead of rows.
#ifndef ATTUNE_KERNELS_CUDA_ATTENTION_TILE_CUH
#define ATTUNE_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_shapes.h"

template <typename T, int D, int M, int KEYS, bool GENERAL, bool CHUNKED> struct tile_kernel {
    static constexpr int ROW = ATTUNE_CUDA_ROW(D), LINE = 2 * ROW; // of shared memory: elements, bytes
    static constexpr int OWN = KEYS / 4, GROUP = 32 / OWN;         // a warp copies OWN rows, GROUP chunks at a time
    static constexpr int CHUNKS = D / 8, COLUMNS = D / 8;
    static constexpr bool KEEPS_Q = D <= 64; // in registers
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ < 800
    static constexpr int AT_ONCE = GENERAL ? 2 : CHUNKS; // copies pass through registers, of which few are free
#else
    static constexpr int AT_ONCE = CHUNKS;
#endif
    static constexpr int STEPS = D / 16;
    static constexpr bool ODD = D % 16 != 0; // a last step of depth 8, and a last column alone

    const attune_attention_f32 &args;
    head h;
    int64_t row, keys; // first query of the block; one behind the last key
    float scale;
    bool negate, aligned;
    uint32_t sq, sk, sv;           // the warp's queries as it reads them, keys and values as the lane reads them
    uint32_t to_k, to_v;           // where the thread's copies go
    const char *from_k, *from_v;   // and come from, in the next tile
    int64_t advance_k, advance_v;  // bytes of a tile
    rows<T, M, KEYS / 8> r;
    float o[M][COLUMNS][4];
    uint32_t kept[KEEPS_Q ? M : 1][KEEPS_Q ? STEPS + 1 : 1][4];

    __device__ __forceinline__ explicit tile_kernel(const attune_attention_f32 &a) : args(a) {}

    // Kept on 7.5 only: elsewhere registers are fewer where it is.
    __device__ __forceinline__ bool copies_whole() const {
        return AT_ONCE < CHUNKS ? aligned : copies_of_16(args.k, args.stride_k) && copies_of_16(args.v, args.stride_v);
    }

    // The thread's part of a tile. TAIL: rows at and behind `left` are zeros.
    template <bool TAIL> __device__ __forceinline__ void copy_tile(uint32_t to, const char *from, int left) {
        const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * OWN + lane % OWN;
        const bool there = !TAIL || own < left;
        if (GENERAL && !copies_whole() && there) {
            for (int chunk = lane / OWN; chunk < CHUNKS; chunk += GROUP)
                copy_elements(to + (chunk - lane / OWN) * 16, from + (chunk - lane / OWN) * 16, 8);
        } else
#pragma unroll AT_ONCE
            for (int j = 0; j < (CHUNKS + GROUP - 1) / GROUP; ++j) {
                if ((j + 1) * GROUP > CHUNKS && lane / OWN + j * GROUP >= CHUNKS)
                    break;
                if (there)
                    copy16(to + j * GROUP * 16, from + j * GROUP * 16);
                else
                    store16(to + j * GROUP * 16, make_int4(0, 0, 0, 0));
            }
        copies_commit();
    }

    // The next tile of keys begins at `key`.
    template <bool TAIL> __device__ __forceinline__ void copy_k(int64_t key) {
        copy_tile<TAIL>(to_k, from_k, TAIL ? (int)(keys - key < KEYS ? keys - key : KEYS) : KEYS);
        from_k += GENERAL ? 2 * KEYS * args.stride_k[2] : advance_k; // the general kernel has no register for it
    }
    template <bool TAIL> __device__ __forceinline__ void copy_v(int64_t key) {
        // the general kernel has no register for to_v either: it lies KEYS rows behind
        copy_tile<TAIL>(GENERAL ? to_k + KEYS * LINE : to_v, from_v,
                        TAIL ? (int)(keys - key < KEYS ? keys - key : KEYS) : KEYS);
        from_v += GENERAL ? 2 * KEYS * args.stride_v[2] : advance_v;
    }

    // Each warp copies its own queries; those that do not exist are zeros.
    __device__ __forceinline__ void copy_q(uint32_t to) {
        constexpr int ROWS = 16 * M, AT_ONCE = 32 / ROWS;
        const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * ROWS + lane % ROWS;
        const bool there = row + first < args.n_q, whole = copies_of_16(args.q, args.stride_q);
        const char *from = h.q + 2 * (row + first) * args.stride_q[2];
        to += first * LINE;
        for (int chunk = lane / ROWS; chunk < CHUNKS; chunk += AT_ONCE)
            if (!there)
                store16(to + chunk * 16, make_int4(0, 0, 0, 0));
            else if (!GENERAL || whole)
                copy16(to + chunk * 16, from + chunk * 16);
            else
                copy_elements(to + chunk * 16, from + chunk * 16, 8);
    }

    __device__ __forceinline__ void read_q(int m, int step, uint32_t a[4]) {
        if (step < STEPS)
            ldmatrix4(a, sq + m * 16 * LINE + step * 32);
        else
            ldmatrix2(a, sq - second_half() + m * 16 * LINE + step * 32);
        if (negate)
#pragma unroll
            for (int i = 0; i < (step < STEPS ? 4 : 2); ++i)
                a[i] ^= 0x80008000u;
    }

    __device__ __forceinline__ void scores() {
        r.clear();
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            uint32_t a[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m) {
                if constexpr (!KEEPS_Q)
                    read_q(m, step, a[m]);
                else
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        a[m][i] = kept[m][step][i];
            }
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) {
                uint32_t b[4];
                ldmatrix4(b, sk + n * 16 * LINE + step * 32);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma16<T>(r.s[m][2 * n], a[m], b[0], b[1]);
                    mma16<T>(r.s[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
        if constexpr (ODD) {
            static_assert(!ODD || KEEPS_Q, "the last step of depth 8 is kept in registers");
            const uint32_t last = sk - lane_k() + threadIdx.x % 32 * LINE + STEPS * 32;
#pragma unroll
            for (int n = 0; n < KEYS / 32; ++n) {
                uint32_t b[4];
                ldmatrix4(b, last + n * 32 * LINE);
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        mma8<T>(r.s[m][4 * n + i], kept[m][STEPS][0], kept[m][STEPS][1], b[i]);
            }
        }
    }

    __device__ __forceinline__ void values() {
        const uint32_t last = sv - lane_v() + threadIdx.x % 32 * LINE + STEPS * 32;
#pragma unroll
        for (int two = 0; two < KEYS / 32; ++two) {
            uint32_t p[M][2][4];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    r.left_factor(m, 2 * two + k, p[m][k]);
                    mma16<T>(r.sum[m], p[m][k], element<T>::ONES, element<T>::ONES);
                }
#pragma unroll
            for (int k = 0; k < 2; ++k)
#pragma unroll
                for (int c = 0; c < D / 16; ++c) {
                    uint32_t b[4];
                    ldmatrix4_trans(b, sv + (2 * two + k) * 16 * LINE + c * 32);
#pragma unroll
                    for (int m = 0; m < M; ++m) {
                        mma16<T>(o[m][2 * c], p[m][k], b[0], b[1]);
                        mma16<T>(o[m][2 * c + 1], p[m][k], b[2], b[3]);
                    }
                }
            if constexpr (ODD) {
                uint32_t b[4];
                ldmatrix4_trans(b, last + two * 32 * LINE);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma16<T>(o[m][COLUMNS - 1], p[m][0], b[0], b[1]);
                    mma16<T>(o[m][COLUMNS - 1], p[m][1], b[2], b[3]);
                }
            }
        }
    }

    // The same where values are infinite or NaN and keys masked; rare, so a loop whose weights lie in local memory.
    __device__ __forceinline__ void special_values() {
        uint32_t p[KEYS / 16][M][4];
#pragma unroll
        for (int k = 0; k < KEYS / 16; ++k)
#pragma unroll
            for (int m = 0; m < M; ++m) {
                r.left_factor(m, k, p[k][m]);
                mma16<T>(r.sum[m], p[k][m], element<T>::ONES, element<T>::ONES);
            }
#pragma unroll 1
        for (int k = 0; k < KEYS / 16; ++k)
#pragma unroll
            for (int c = 0; c < (D + 15) / 16; ++c) {
                uint32_t b[4];
                if (c < D / 16)
                    ldmatrix4_trans(b, sv + k * 16 * LINE + c * 32);
                else
                    ldmatrix2_trans(b, sv - second_half() + k * 16 * LINE + c * 32);
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma16_special<T>(o[m][2 * c], p[k][m], b[0], b[1]);
                    if (c < D / 16)
                        mma16_special<T>(o[m][c < D / 16 ? 2 * c + 1 : 0], p[k][m], b[2], b[3]);
                }
            }
    }

    // Where a lane reads keys (two matrices of 8 keys, each of depth 16) and values (16 keys by 16 channels).
    __device__ __forceinline__ static uint32_t lane_k() {
        const int lane = threadIdx.x % 32;
        return (lane / 16 * 8 + lane % 8) * LINE + lane / 8 % 2 * 16;
    }
    __device__ __forceinline__ static uint32_t lane_v() {
        const int lane = threadIdx.x % 32;
        return lane % 16 * LINE + lane / 16 * 16;
    }

    // What lanes 16 to 31 read behind the others; where they have no matrix they repeat their addresses.
    __device__ __forceinline__ static uint32_t second_half() { return threadIdx.x % 32 / 16 * 16; }

    // True, for the whole warp, where the tile of values, which has landed, holds an infinity or a NaN.
    __device__ __forceinline__ bool finds_special() const {
        const uint32_t first = sv - lane_v() + threadIdx.x % 32 * LINE;
        uint32_t found = 0;
#pragma unroll 1
        for (int j = 0; j < KEYS / 32 * CHUNKS; ++j) {
            uint32_t w[4];
            asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                         : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                         : "r"(first + j / CHUNKS * 32 * LINE + j % CHUNKS * 16)
                         : "memory");
            for (int i = 0; i < 4; ++i)
                found |= not_finite<T>(w[i]);
        }
        return __any_sync(~0u, found != 0);
    }

    // One tile. LAST: no other follows, and it may end early.
    template <bool LAST> __device__ __forceinline__ void step(int64_t key) {
        constexpr bool TAIL = LAST || GENERAL;
        copies_land();
        __syncthreads(); // the keys are there, and everyone has done with the last values
        copy_v<TAIL>(key);
        scores();
        bool masks = false;
        float factor = scale;
        if constexpr (GENERAL) {
            masks = args.mask_kind != ATTUNE_KERNEL_MASK_NONE ||
                    (args.causal && key + KEYS - 1 > row + args.n_k - args.n_q);
            if (masks) {
                r.mask(args, h, scale, row + threadIdx.x / 32 * 16 * M, key);
                factor = args.mask_kind == ATTUNE_KERNEL_MASK_FLOAT ? 1.0f : scale;
            } else if (key + KEYS > keys)
                r.hide_tail(keys - key);
        } else if constexpr (LAST)
            r.hide_tail(keys - key);
        r.template weights<GENERAL>(factor);
        r.rescale(o);
        copies_land();
        __syncthreads(); // the values are there, and everyone has done with the keys
        const int64_t next = key + KEYS;
        if (GENERAL ? next < keys : !LAST) {
            if (GENERAL || next + KEYS > keys)
                copy_k<true>(next);
            else
                copy_k<false>(next);
        }
        if (GENERAL && masks && finds_special())
            special_values();
        else
            values();
    }

    __device__ __forceinline__ void store(int64_t chunk, int64_t chunks) {
        const int lane = threadIdx.x % 32;
        const bool whole = ((uintptr_t)args.out % 4 |
                            (uint64_t)(args.stride_out[0] | args.stride_out[1] | args.stride_out[2]) % 2) == 0;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int64_t at = row + threadIdx.x / 32 * 16 * M + 16 * m + 8 * half + lane / 4;
                if (at >= args.n_q)
                    continue;
                if (CHUNKED && args.chunk_k < args.n_k) {
                    float *to = partial(args, h, chunks, chunk, at);
#pragma unroll
                    for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
                        for (int i = 0; i < 2; ++i)
                            to[8 * c + lane % 4 * 2 + i] = o[m][c][2 * half + i];
                    if (lane % 4 == 0)
                        to[D] = r.top[m][half], to[D + 1] = r.sum[m][2 * half];
                    continue;
                }
                char *to = (char *)args.out + 2 * (h.batch * args.stride_out[0] + h.index * args.stride_out[1] +
                                                   at * args.stride_out[2]);
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c)
                    store_pair<T>(to + 16 * c + lane % 4 * 4, o[m][c][2 * half], o[m][c][2 * half + 1],
                                  r.sum[m][2 * half], true, !GENERAL || whole);
            }
    }

    __device__ __forceinline__ void run(float factor, unsigned char *shared) {
        constexpr int ROWS = 64 * M;
        const uint32_t blocks = (uint32_t)((args.n_q + ROWS - 1) / ROWS);
        const int64_t chunk = CHUNKED ? blockIdx.x / blocks : 0;
        row = (CHUNKED ? blockIdx.x % blocks : blockIdx.x) * ROWS;
        if (!find_head(args, &h))
            return;
        const int64_t first = CHUNKED ? chunk * args.chunk_k : 0;
        keys = CHUNKED && first + args.chunk_k < args.n_k ? first + args.chunk_k : args.n_k;
        if (GENERAL && args.causal) { // keys that no query of the block sees
            const int64_t seen = row + ROWS + args.n_k - args.n_q;
            keys = seen < keys ? (seen > first ? seen : first) : keys;
        }
        scale = fabsf(factor);
        negate = factor < 0;
        aligned = copies_of_16(args.k, args.stride_k) && copies_of_16(args.v, args.stride_v);

        const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * OWN + lane % OWN;
        const uint32_t base = shared_address(shared), k0 = base + ROWS * LINE, v0 = k0 + KEYS * LINE;
        sq = base + (threadIdx.x / 32 * 16 * M + lane % 16) * LINE + lane / 16 * 16;
        sk = k0 + lane_k();
        sv = v0 + lane_v();
        to_k = k0 + own * LINE + lane / OWN * 16;
        to_v = v0 + own * LINE + lane / OWN * 16;
        from_k = h.k + 2 * (first + own) * args.stride_k[2] + lane / OWN * 16;
        from_v = h.v + 2 * (first + own) * args.stride_v[2] + lane / OWN * 16;
        advance_k = 2 * KEYS * args.stride_k[2];
        advance_v = 2 * KEYS * args.stride_v[2];

        r.start();
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    o[m][c][i] = 0;
        if (first < keys) {
            copy_q(base);
            copy_k<true>(first);
            if constexpr (KEEPS_Q) {
                copies_land();
                __syncwarp();
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int step = 0; step < STEPS + ODD; ++step)
                        read_q(m, step, kept[m][step]);
            }
            int64_t key = first;
#pragma unroll 1
            for (; key + (GENERAL ? 0 : KEYS) < keys; key += KEYS)
                step<false>(key);
            if constexpr (!GENERAL)
                step<true>(key);
        }
        store(chunk, CHUNKED ? gridDim.x / blocks : 1);
    }
};

#endif
