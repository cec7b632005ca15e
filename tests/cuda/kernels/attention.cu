// attention.cu: FlashAttention-2 in fp16 or bf16 on tensor cores, as small as it can be and still use all that the
// plugin's kernels use: mma.sync, ldmatrix plain and transposed, double-buffered cp.async with zero fill, ragged tails.
// It shows the emulator whole; it is not the kernel that ships.
// Algorithm: Dao, "FlashAttention-2", 2023, algorithm 1. Q, K, V, O are (B*H, N, D), contiguous.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

enum { ROWS = 64, KEYS = 64, THREADS = 128 };

template <typename T> __device__ uint32_t pack(float low, float high);
template <> __device__ uint32_t pack<__half>(float low, float high) {
    __half2 h = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&h);
}
template <> __device__ uint32_t pack<__nv_bfloat16>(float low, float high) {
    __nv_bfloat162 h = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&h);
}

template <typename T> __device__ void mma(float c[4], const uint32_t a[4], const uint32_t b[2]);
#if __CUDA_ARCH__ >= 800
#define MMA(type)                                                                                              \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "  \
                 "{%8,%9}, {%0,%1,%2,%3};"                                                                     \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
template <> __device__ void mma<__half>(float c[4], const uint32_t a[4], const uint32_t b[2]) { MMA("f16"); }
template <> __device__ void mma<__nv_bfloat16>(float c[4], const uint32_t a[4], const uint32_t b[2]) { MMA("bf16"); }
#else
template <> __device__ void mma<__half>(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    for (int k = 0; k < 2; ++k)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
}
template <> __device__ void mma<__nv_bfloat16>(float c[4], const uint32_t a[4], const uint32_t b[2]) { __trap(); }
#endif

__device__ void ldmatrix4(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)) : "memory");
}

__device__ void ldmatrix2(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"((uint32_t)__cvta_generic_to_shared(row)) : "memory");
}

__device__ void ldmatrix2_trans(uint32_t r[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1]) : "r"((uint32_t)__cvta_generic_to_shared(row)) : "memory");
}

// 16 bytes to shared memory; zeros where the row does not exist.
__device__ void copy16(void *to, const void *from, bool there) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
#else
    *reinterpret_cast<int4 *>(to) = there ? *reinterpret_cast<const int4 *>(from) : make_int4(0, 0, 0, 0);
#endif
}

__device__ void commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N> __device__ void wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
#endif
}

template <typename T, int D, int STRIDE>
__device__ void load_tile(T *tile, const T *from, int first, int rows) {
    for (int i = threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        const int row = i / (D / 8), column = i % (D / 8) * 8;
        const bool there = first + row < rows;
        copy16(tile + row * STRIDE + column, from + (size_t)(there ? first + row : 0) * D + column, there);
    }
}

template <typename T, int D>
__device__ void attention(const T *q, const T *k, const T *v, T *out, int nq, int nk, float scale) {
    constexpr int DK = (D + 15) / 16 * 16; // head size, padded to the depth of one mma
    constexpr int STRIDE = DK + 8;         // rows 16 bytes further each: ldmatrix without bank conflicts
    extern __shared__ __align__(16) unsigned char shared[];
    T *sq = reinterpret_cast<T *>(shared), *sk = sq + ROWS * STRIDE, *sv = sk + 2 * KEYS * STRIDE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * ROWS;
    q += (size_t)blockIdx.y * nq * D, out += (size_t)blockIdx.y * nq * D;
    k += (size_t)blockIdx.y * nk * D, v += (size_t)blockIdx.y * nk * D;

    if (DK > D) // the padding columns of every tile, once
        for (int i = threadIdx.x; i < 5 * ROWS; i += THREADS)
            *reinterpret_cast<int4 *>(sq + i * STRIDE + D) = make_int4(0, 0, 0, 0);
    load_tile<T, D, STRIDE>(sq, q, first, nq);
    load_tile<T, D, STRIDE>(sk, k, 0, nk);
    load_tile<T, D, STRIDE>(sv, v, 0, nk);
    commit();

    uint32_t fq[DK / 16][4];
    float o[DK / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    const int tiles = (nk + KEYS - 1) / KEYS;
    for (int tile = 0; tile < tiles; ++tile) {
        const T *ck = sk + tile % 2 * KEYS * STRIDE, *cv = sv + tile % 2 * KEYS * STRIDE;
        if (tile + 1 < tiles) {
            load_tile<T, D, STRIDE>(sk + (tile + 1) % 2 * KEYS * STRIDE, k, (tile + 1) * KEYS, nk);
            load_tile<T, D, STRIDE>(sv + (tile + 1) % 2 * KEYS * STRIDE, v, (tile + 1) * KEYS, nk);
            commit();
            wait<1>();
        } else
            wait<0>();
        __syncthreads();
        if (tile == 0)
#pragma unroll
            for (int d = 0; d < DK / 16; ++d)
                ldmatrix4(fq[d], sq + (warp * 16 + lane % 16) * STRIDE + d * 16 + lane / 16 * 8);

        float s[KEYS / 8][4] = {};
#pragma unroll
        for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
            for (int d = 0; d < DK / 16; ++d) {
                uint32_t fk[2];
                ldmatrix2(fk, ck + (n * 8 + lane % 8) * STRIDE + d * 16 + lane / 8 % 2 * 8);
                mma<T>(s[n], fq[d], fk);
            }
        if ((tile + 1) * KEYS > nk) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (tile * KEYS + n * 8 + lane % 4 * 2 + i % 2 >= nk)
                        s[n][i] = -INFINITY;
        }
        float correction[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float best = top[half];
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n)
                best = fmaxf(best, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            best = fmaxf(best, __shfl_xor_sync(~0u, best, 1));
            best = fmaxf(best, __shfl_xor_sync(~0u, best, 2));
            correction[half] = exp2f((top[half] - best) * scale);
            top[half] = best;
            sum[half] *= correction[half];
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    s[n][i] = exp2f((s[n][i] - best) * scale);
                    sum[half] += s[n][i];
                }
        }
#pragma unroll
        for (int d = 0; d < DK / 8; ++d)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                o[d][i] *= correction[i / 2];
#pragma unroll
        for (int n = 0; n < KEYS / 16; ++n) {
            const uint32_t fp[4] = {pack<T>(s[2 * n][0], s[2 * n][1]), pack<T>(s[2 * n][2], s[2 * n][3]),
                                    pack<T>(s[2 * n + 1][0], s[2 * n + 1][1]), pack<T>(s[2 * n + 1][2], s[2 * n + 1][3])};
#pragma unroll
            for (int d = 0; d < DK / 8; ++d) {
                uint32_t fv[2];
                ldmatrix2_trans(fv, cv + (n * 16 + lane % 16) * STRIDE + d * 8);
                mma<T>(o[d], fp, fv);
            }
        }
        __syncthreads();
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
        sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
        const int row = first + warp * 16 + half * 8 + lane / 4;
        if (row < nq)
#pragma unroll
            for (int d = 0; d < D / 8; ++d)
                *reinterpret_cast<uint32_t *>(out + (size_t)row * D + d * 8 + lane % 4 * 2) =
                    pack<T>(o[d][2 * half] / sum[half], o[d][2 * half + 1] / sum[half]);
    }
}

// scale is that of the scores times log2(e): the kernel's exponentials are powers of two.
#define KERNEL(name, T, D)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                      \
        name##_##D(const T *q, const T *k, const T *v, T *out, int nq, int nk, float scale) {                  \
        attention<T, D>(q, k, v, out, nq, nk, scale);                                                          \
    }
KERNEL(attention_f16, __half, 40)
KERNEL(attention_f16, __half, 64)
KERNEL(attention_f16, __half, 80)
KERNEL(attention_f16, __half, 128)
KERNEL(attention_bf16, __nv_bfloat16, 64)
