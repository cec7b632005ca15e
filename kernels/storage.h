/*
 * kernels/storage.h: float16 and bfloat16 as storage, rules 6 to 8 and 32 of docs/arithmetic.md. Values widen
 * exactly; a float narrows to the nearest, ties to even, after which no -0 and only one NaN are left. Integer
 * arithmetic and one exact product or rounded sum each, written without branches so that compilers vectorise
 * loops over them.
 */
#ifndef ATTUNE_KERNELS_STORAGE_H
#define ATTUNE_KERNELS_STORAGE_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define ATTUNE_STORAGE static __host__ __device__ inline
#else
#define ATTUNE_STORAGE static inline
#endif

/* How arrays are stored; all sums are in float32. */
enum { ATTUNE_KERNEL_F32 = 0, ATTUNE_KERNEL_F16 = 1, ATTUNE_KERNEL_BF16 = 2 };

ATTUNE_STORAGE float attune_float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

ATTUNE_STORAGE uint32_t attune_bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* A half's exponent and mantissa in a float's place are 2^112 times too small, subnormal halves included; the
 * exponent of infinities and NaN becomes a float's largest. */
ATTUNE_STORAGE float attune_widen_f16(uint16_t half) {
    const uint32_t magnitude = half & 0x7fffu, sign = (half & 0x8000u) << 16;
    const uint32_t infinite = magnitude >= 0x7c00u ? 0x7f800000u : 0;
    return attune_float_of(attune_bits_of(attune_float_of(magnitude << 13) * 0x1p112f) | infinite | sign);
}

ATTUNE_STORAGE float attune_widen_bf16(uint16_t stored) {
    return attune_float_of((uint32_t)stored << 16);
}

/*
 * Below 2^-14 the sum with 1/2 has the half's last place as its own and rounds as it should. Elsewhere
 * rounding is an integer sum that may carry into the exponent, up to infinity's.
 */
ATTUNE_STORAGE uint16_t attune_narrow_f16(float x) {
    const uint32_t bits = attune_bits_of(x), magnitude = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
    const uint32_t small = attune_bits_of(attune_float_of(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
    uint32_t half = magnitude < 0x38800000u ? small : normal;
    half = magnitude >= 0x47800000u ? 0x7c00u : half; /* 65536 and more */
    half = half ? half | sign : 0;
    return (uint16_t)(magnitude > 0x7f800000u ? 0x7e00u : half);
}

ATTUNE_STORAGE uint16_t attune_narrow_bf16(float x) {
    const uint32_t bits = attune_bits_of(x), magnitude = bits & 0x7fffffffu;
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    const uint32_t nonzero = rounded & 0x7fffu ? rounded : 0;
    return (uint16_t)(magnitude > 0x7f800000u ? 0x7fc0u : nonzero);
}

#endif
