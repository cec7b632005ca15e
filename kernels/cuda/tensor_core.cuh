// tensor_core.cuh: what the attention kernels of this folder use of tensor cores and asynchronous copies, and what
// stands in for it on compute capability 7.5, which has neither mma.m16n8k16 nor cp.async. Fragment layouts: PTX ISA
// 9.0, 9.7.14.5.7 (m16n8k8), 9.7.14.5.8 (m16n8k16) and 9.7.14.5.15 (ldmatrix); tests/cuda/check_fragments.c has them
// written out.
#ifndef ATTUNE_KERNELS_CUDA_TENSOR_CORE_CUH
#define ATTUNE_KERNELS_CUDA_TENSOR_CORE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#define INLINE static __device__ __forceinline__

// Of each storage type: a pair of ones, a pair's exponents, its mantissas, and the NaN that is stored.
template <typename T> struct element;
template <> struct element<__half> {
    static constexpr uint32_t ONES = 0x3c003c00, EXPONENTS = 0x7c007c00, NOT_A_NUMBER = 0x7e00;
};
template <> struct element<__nv_bfloat16> {
    static constexpr uint32_t ONES = 0x3f803f80, EXPONENTS = 0x7f807f80, NOT_A_NUMBER = 0x7fc0;
};

template <typename T> INLINE uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}
template <> __device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

// Rules 6, 7 and 32 of docs/arithmetic.md: one NaN, no -0.
template <typename T> INLINE uint32_t pack_stored(float low, float high) {
    uint32_t pair = pack<T>(low, high), a = pair & 0xffff, b = pair >> 16;
    a = low != low ? element<T>::NOT_A_NUMBER : a == 0x8000 ? 0 : a;
    b = high != high ? element<T>::NOT_A_NUMBER : b == 0x8000 ? 0 : b;
    return a | b << 16;
}

INLINE float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// c += a b, one step of depth 8: a holds rows g and g + 8.
template <typename T> INLINE void mma8(float c[4], uint32_t a0, uint32_t a1, uint32_t b);
template <> __device__ __forceinline__ void mma8<__half>(float c[4], uint32_t a0, uint32_t a1, uint32_t b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
}
template <> __device__ __forceinline__ void mma8<__nv_bfloat16>(float c[4], uint32_t a0, uint32_t a1, uint32_t b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
#endif
}

// c += a b, one step of depth 16.
template <typename T> INLINE void mma16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    if constexpr (sizeof(T) == 2 && element<T>::ONES == element<__half>::ONES)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    mma8<T>(c, a[0], a[1], b0);
    mma8<T>(c, a[2], a[3], b1);
#endif
}

INLINE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Four 8x8 matrices; `row` is that of lane l: row l % 8 of matrix l / 8. Addresses are of the shared window.
INLINE void ldmatrix4(uint32_t r[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
INLINE void ldmatrix4_trans(uint32_t r[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
// Two; on compute capability 7.5 lanes 16 to 31 must give valid addresses, too (9.7.14.5.15).
INLINE void ldmatrix2(uint32_t r[2], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(row) : "memory");
}

INLINE void ldmatrix2_trans(uint32_t r[2], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
}

INLINE void store16(uint32_t to, int4 value) {
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
                 : "memory");
}

// 16 bytes to shared memory; both addresses are multiples of 16. It lands at copies_land.
INLINE void copy16(uint32_t to, const void *from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
#else
    store16(to, *reinterpret_cast<const int4 *>(from));
#endif
}

// The same from any address of 2 bytes: `count` elements, zeros up to 8.
INLINE void copy_elements(uint32_t to, const void *from, int count) {
#pragma unroll 1
    for (int i = 0; i < 8; ++i) {
        const uint16_t x = i < count ? ((const uint16_t *)from)[i] : (uint16_t)0;
        asm volatile("st.shared.b16 [%0], %1;" ::"r"(to + 2 * i), "h"(x) : "memory");
    }
}

INLINE void copies_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// The thread's own copies have landed; a barrier makes those of others seen.
INLINE void copies_land() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 0;" ::: "memory");
#endif
}

#endif
