/*
 * numeric.h: the arithmetic of PTX that C has no operator for, as functions of one lane that compilers
 * vectorise. Sources: PTX ISA 9.0, section 9.7 (instructions); IEEE 754-2019 for the conversions.
 */
#ifndef CUDA_EMULATOR_NUMERIC_H
#define CUDA_EMULATOR_NUMERIC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef float f32;
typedef double f64;

static inline u32 bits_of(f32 x) {
    u32 u;
    memcpy(&u, &x, 4);
    return u;
}

static inline f32 float_of(u32 u) {
    f32 x;
    memcpy(&x, &u, 4);
    return x;
}

static inline u64 bits_of_f64(f64 x) {
    u64 u;
    memcpy(&u, &x, 8);
    return u;
}

static inline f64 double_of(u64 u) {
    f64 x;
    memcpy(&x, &u, 8);
    return x;
}

/* Subnormals become zeros of the same sign. */
static inline f32 ftz(f32 x) {
    const u32 u = bits_of(x);
    return float_of((u & 0x7f800000u) ? u : u & 0x80000000u);
}

/* binary16 in the low half of u. Exact: the exponent is rescaled by one multiplication. */
static inline f32 half_to_float(u32 u) {
    const u32 magnitude = (u & 0x7fffu) << 13;
    const u32 scaled = bits_of(float_of(magnitude) * float_of(0x77800000u)); /* 2^112 */
    return float_of(scaled | (magnitude >= 0x0f800000u ? 0x7f800000u : 0) | (u & 0x8000u) << 16);
}

/* Round to nearest even; NaN becomes PTX's canonical 0x7fff. */
static inline u32 float_to_half(f32 x) {
    const u32 u = bits_of(x), magnitude = u & 0x7fffffffu, sign = u >> 16 & 0x8000u;
    const u32 small = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u; /* the addition rounds at 2^-24 */
    const u32 normal = (magnitude + 0xc8000fffu + (magnitude >> 13 & 1)) >> 13;
    const u32 finite = magnitude < 0x38800000u ? small : normal;
    const u32 value = magnitude >= 0x477ff000u ? 0x7c00u : finite;
    return magnitude > 0x7f800000u ? 0x7fffu : value | sign;
}

/* Toward zero. */
static inline u32 float_to_half_rz(f32 x) {
    const u32 u = bits_of(x), magnitude = u & 0x7fffffffu, sign = u >> 16 & 0x8000u;
    if (magnitude > 0x7f800000u)
        return 0x7fffu;
    if (magnitude == 0x7f800000u)
        return sign | 0x7c00u;
    if (magnitude >= 0x47800000u)
        return sign | 0x7bffu;
    if (magnitude >= 0x38800000u)
        return sign | (magnitude - 0x38000000u) >> 13;
    return sign | (u32)(float_of(magnitude) * 16777216.0f);
}

static inline f32 bf16_to_float(u32 u) {
    return float_of(u << 16);
}

static inline u32 float_to_bf16(f32 x) {
    const u32 u = bits_of(x);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16;
}

static inline u32 float_to_bf16_rz(f32 x) {
    const u32 u = bits_of(x);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : u >> 16;
}

/* min and max drop a NaN where the other operand is a number, and order -0 below +0 (PTX ISA 9.0, 9.7.3). */
static inline f32 min_f32(f32 x, f32 y) {
    const f32 less = x < y ? x : y, zeros = float_of(bits_of(x) | bits_of(y));
    const f32 ordered = x == y ? zeros : less;
    return x != x ? (y != y ? float_of(0x7fffffffu) : y) : (y != y ? x : ordered);
}

static inline f32 max_f32(f32 x, f32 y) {
    const f32 more = x > y ? x : y, zeros = float_of(bits_of(x) & bits_of(y));
    const f32 ordered = x == y ? zeros : more;
    return x != x ? (y != y ? float_of(0x7fffffffu) : y) : (y != y ? x : ordered);
}

/* C leaves open which zero fmin and fmax give; the manual orders -0 below +0. */
static inline f64 min_f64(f64 x, f64 y) {
    return x == y ? (signbit(x) ? x : y) : fmin(x, y);
}

static inline f64 max_f64(f64 x, f64 y) {
    return x == y ? (signbit(x) ? y : x) : fmax(x, y);
}

static inline f32 min_nan_f32(f32 x, f32 y) {
    return x != x || y != y ? float_of(0x7fffffffu) : min_f32(x, y);
}

static inline f32 max_nan_f32(f32 x, f32 y) {
    return x != x || y != y ? float_of(0x7fffffffu) : max_f32(x, y);
}

/* 2^x to about 1 ulp: x = n + f, f in [-1/2, 1/2], and a polynomial for 2^f. ex2.approx promises 2^-22
 * relative. */
static inline f32 ex2_f32(f32 x) {
    const f32 bounded = x < -160.0f ? -160.0f : x > 130.0f ? 130.0f : x;
    const f32 shifted = bounded + 12582912.0f; /* 1.5 * 2^23: the sum's low bits are the rounded integer */
    const f32 f = bounded - (shifted - 12582912.0f);
    const s32 n = (s32)(bits_of(shifted) - 0x4b400000u);
    f32 p = 1.5252734e-5f; /* ln(2)^k / k! for k = 7 ... 0 */
    p = p * f + 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    const s32 half = n / 2; /* two factors: 2^n itself may be subnormal or above the range */
    const f32 scaled = p * float_of((u32)(half + 127) << 23) * float_of((u32)(n - half + 127) << 23);
    return x != x ? float_of(0x7fffffffu) : scaled;
}

/* Float to integer saturates, and NaN becomes 0 (PTX ISA 9.0, 9.7.9.21 cvt). `x` is already rounded. */
static inline s32 to_s32(f64 x) {
    return x != x ? 0 : x <= -2147483648.0 ? INT32_MIN : x >= 2147483647.0 ? INT32_MAX : (s32)x;
}

static inline u32 to_u32(f64 x) {
    return x != x || x <= 0 ? 0 : x >= 4294967295.0 ? UINT32_MAX : (u32)x;
}

static inline s64 to_s64(f64 x) {
    return x != x ? 0 : x <= -0x1p63 ? INT64_MIN : x >= 0x1p63 ? INT64_MAX : (s64)x;
}

static inline u64 to_u64(f64 x) {
    return x != x || x <= 0 ? 0 : x >= 0x1p64 ? UINT64_MAX : (u64)x;
}

/* Shifts clamp at the register's width (PTX ISA 9.0, 9.7.8.8). */
static inline u32 shl_32(u32 x, u32 n) {
    return n > 31 ? 0 : x << n;
}

static inline u64 shl_64(u64 x, u32 n) {
    return n > 63 ? 0 : x << n;
}

static inline u32 shr_u32(u32 x, u32 n) {
    return n > 31 ? 0 : x >> n;
}

static inline u64 shr_u64(u64 x, u32 n) {
    return n > 63 ? 0 : x >> n;
}

static inline s32 shr_s32(s32 x, u32 n) {
    return x >> (n > 31 ? 31 : n);
}

static inline s64 shr_s64(s64 x, u32 n) {
    return x >> (n > 63 ? 63 : n);
}

static inline u32 funnel_l(u32 low, u32 high, u32 n) {
    return (u32)(((u64)high << 32 | low) << n >> 32);
}

static inline u32 funnel_r(u32 low, u32 high, u32 n) {
    return (u32)(((u64)high << 32 | low) >> n);
}

static inline u64 mul_hi_u64(u64 x, u64 y) {
    return (u64)((unsigned __int128)x * y >> 64);
}

static inline s64 mul_hi_s64(s64 x, s64 y) {
    return (s64)((__int128)x * y >> 64);
}

/* prmt in its default mode (PTX ISA 9.0, 9.7.9.7): bit 3 of a selector copies the byte's sign. */
static inline u32 permute(u32 low, u32 high, u32 selectors) {
    const u64 bytes = (u64)high << 32 | low;
    u32 d = 0;
    for (u32 i = 0; i < 4; ++i) {
        const u32 selector = selectors >> (4 * i);
        u32 byte = (u32)(bytes >> (8 * (selector & 7))) & 0xffu;
        if (selector & 8)
            byte = byte & 0x80u ? 0xffu : 0;
        d |= byte << (8 * i);
    }
    return d;
}

/* Bit-field extract and insert (PTX ISA 9.0, 9.7.1.20 and 21): position and length are bytes, clamped. */
static inline u32 extract_u32(u32 x, u32 position, u32 length) {
    position &= 255, length &= 255;
    const u32 moved = position > 31 ? 0 : x >> position;
    return length > 31 ? moved : moved & ((1u << length) - 1);
}

static inline s32 extract_s32(s32 x, u32 position, u32 length) {
    position &= 255, length &= 255;
    if (!length)
        return 0;
    const u32 last = position + length - 1 > 31 ? 31 : position + length - 1, sign = (u32)x >> last & 1;
    const u32 bits = extract_u32((u32)x, position, length);
    const u32 valid = position > 31 ? 0 : last - position + 1;
    return (s32)(valid > 31 || !sign ? bits : bits | ~0u << valid);
}

static inline u32 insert_u32(u32 field, u32 into, u32 position, u32 length) {
    position &= 255, length &= 255;
    if (position > 31 || !length)
        return into;
    const u32 mask = (length > 31 ? ~0u : (1u << length) - 1) << position;
    return (into & ~mask) | (field << position & mask);
}

static inline u32 reverse_bits(u32 x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}

/* lop3: bit i of the table is the result for the inputs' bits (a, b, c) = i (PTX ISA 9.0, 9.7.8.6). */
static inline u32 logic3(u32 a, u32 b, u32 c, u32 table) {
    u32 d = 0;
    for (u32 i = 0; i < 8; ++i)
        d |= (table >> i & 1 ? ~0u : 0) & (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return d;
}

/* Both halves of a packed pair. */
#define PAIR(low, high) ((u32)(low) | (u32)(high) << 16)
#define PAIR_HALF(expression_of_low, expression_of_high)                                                     \
    PAIR(float_to_half(expression_of_low), float_to_half(expression_of_high))
#define LOW(u)   half_to_float(u)
#define HIGH(u)  half_to_float((u) >> 16)
#define BLOW(u)  bf16_to_float((u)&0xffffu)
#define BHIGH(u) bf16_to_float((u) >> 16)

/* Fused multiply-add of binary16 by way of binary64: at most 65 bits are needed of 53, so a tie that only the
 * lost bits would break may round the other way; no kernel's tolerance sees it. */
static inline u32 fma_half(u32 x, u32 y, u32 z) {
    return float_to_half((f32)((f64)half_to_float(x) * (f64)half_to_float(y) + (f64)half_to_float(z)));
}

static inline u32 fma_bf16(u32 x, u32 y, u32 z) {
    return float_to_bf16((f32)((f64)bf16_to_float(x & 0xffff) * (f64)bf16_to_float(y & 0xffff) +
                               (f64)bf16_to_float(z & 0xffff)));
}

#endif
