/*
 * kernels/cpu/vector_generic.h: the vector type of the kernel templates, 4 floats in the vector extension of
 * gcc and clang, for any processor (on x86-64: SSE2). One such file per ISA, all with the same names;
 * attention_tile.h says what each does.
 */
#ifndef ATTUNE_KERNELS_CPU_VECTOR_GENERIC_H
#define ATTUNE_KERNELS_CPU_VECTOR_GENERIC_H

#include "kernels/storage.h"

#include <float.h>
#include <stdint.h>
#include <string.h>

#define WIDTH 4

typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_bits __attribute__((vector_size(16)));
typedef uint32_t vec_whole __attribute__((vector_size(16))); /* sums that wrap */

static inline vec v_zero(void) {
    return (vec){0};
}
static inline vec v_set1(float x) {
    return (vec){x, x, x, x};
}
static inline vec v_load(const float *p) {
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}
/* Constants are cheap beside the fma below. */
static inline void v_keep(vec *x) {
    (void)x;
}
static inline void v_store(float *p, vec x) {
    memcpy(p, &x, sizeof x);
}
static inline vec v_load_part(const float *p, int n) {
    vec x = {0};
    memcpy(&x, p, (size_t)n * sizeof(float));
    return x;
}
static inline void v_store_part(float *p, vec x, int n) {
    memcpy(p, &x, (size_t)n * sizeof(float));
}
/* 16-bit floats, any alignment to 2. */
static inline vec v_load_f16(const uint16_t *p) {
    float x[WIDTH];
    for (int i = 0; i < WIDTH; ++i)
        x[i] = attune_widen_f16(p[i]);
    return v_load(x);
}
static inline vec v_load_bf16(const uint16_t *p) {
    float x[WIDTH];
    for (int i = 0; i < WIDTH; ++i)
        x[i] = attune_widen_bf16(p[i]);
    return v_load(x);
}
static inline vec v_add(vec a, vec b) {
    return a + b;
}
static inline vec v_sub(vec a, vec b) {
    return a - b;
}
static inline vec v_mul(vec a, vec b) {
    return a * b;
}
static inline vec v_div(vec a, vec b) {
    return a / b;
}
static inline vec v_select(vec_bits which, vec yes, vec no) {
    return (vec)(((vec_bits)yes & which) | ((vec_bits)no & ~which));
}
static inline vec v_max(vec a, vec b) {
    return v_select(a > b, a, b);
}
static inline vec v_min(vec a, vec b) {
    return v_select(a < b, a, b);
}

/*
 * The fused product and sum without the instruction, exactly. In double the product of two floats is exact,
 * nothing overflows and nothing is subnormal; what is left is to round product + c to float once.
 */
typedef float vec_half __attribute__((vector_size(8)));
typedef double vec_wide __attribute__((vector_size(16)));
typedef int64_t vec_wide_bits __attribute__((vector_size(16)));

static inline vec_wide v_low(vec x) {
    return __builtin_convertvector(((vec_half){x[0], x[1]}), vec_wide);
}
static inline vec_wide v_high(vec x) {
    return v_low(__builtin_shufflevector(x, x, 2, 3, 2, 3));
}
static inline vec v_narrow(vec_wide low, vec_wide high) {
    const vec_half a = __builtin_convertvector(low, vec_half), b = __builtin_convertvector(high, vec_half);
    return (vec){a[0], a[1], b[0], b[1]};
}
static inline int v_any(vec_bits which) {
    const vec_wide_bits bits = (vec_wide_bits)which;
    return (bits[0] | bits[1]) != 0;
}

/*
 * product + c rounded to odd: towards zero, and its last bit set where anything was lost. 53 bits are more
 * than twice a float's, so rounding that to float, subnormals and infinity included, is rounding the exact
 * value once (Boldo & Melquiond, Emulation of a FMA and correctly rounded sums, 2008). What the nearest sum
 * lost is Knuth's TwoSum; its product with the sum has the sign that says whether the nearest lies away from
 * zero, is 0 where nothing was lost, and NaN for infinities, which stay as they are.
 */
static inline vec_wide v_sum_to_odd(vec_wide product, vec_wide c) {
    const vec_wide sum = product + c, part = sum - product;
    const vec_wide lost = (product - (sum - part)) + (c - part), side = lost * sum;
    const vec_wide_bits away = side < 0.0, inexact = away | (side > 0.0);
    return (vec_wide)(((vec_wide_bits)sum + away) | (inexact & 1));
}
__attribute__((noinline, cold)) static vec v_fma_slowly(vec a, vec b, vec c) {
    return v_narrow(v_sum_to_odd(v_low(a) * v_low(b), v_low(c)),
                    v_sum_to_odd(v_high(a) * v_high(b), v_high(c)));
}

/* The nearest double rounds to the right float unless it lies midway between two: its last 29 bits are
 * 2^28, or the result is subnormal (or the least normal) and the middle is elsewhere. */
static inline vec v_fma(vec a, vec b, vec c) {
    const vec_wide low = v_low(a) * v_low(b) + v_low(c), high = v_high(a) * v_high(b) + v_high(c);
    const vec result = v_narrow(low, high);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const vec_bits last = __builtin_shufflevector((vec_bits)low, (vec_bits)high, 0, 2, 4, 6);
#else
    const vec_bits last = __builtin_shufflevector((vec_bits)low, (vec_bits)high, 1, 3, 5, 7);
#endif
    const vec magnitude = (vec)((vec_bits)result & INT32_MAX);
    const vec_bits unsure = (last << 3 == INT32_MIN) | (magnitude <= FLT_MIN);
    return __builtin_expect(v_any(unsure), 0) ? v_fma_slowly(a, b, c) : result;
}

static inline vec v_select_equal(vec a, vec b, vec yes, vec no) {
    return v_select(a == b, yes, no);
}
static inline vec v_select_nan(vec a, vec yes, vec no) {
    return v_select(a != a, yes, no);
}
static inline int v_any_not_equal(vec a, vec b) {
    return v_any(a != b);
}

/* n is the float 2^n. Above 2^23 floats are whole numbers, so that the sum rounds t to the nearest even one
 * and holds it in its low bits. */
typedef vec power;

static inline vec v_exp2_split(vec t, power *n) {
    const vec magic = v_set1(0x1.8p23f), sum = t + magic;
    *n = (vec)(((vec_whole)sum << 23) + (127u << 23));
    return t - (sum - magic);
}
static inline vec v_exp2_scale(vec p, power n) {
    return p * n;
}
static inline vec v_at_least(vec t, vec low, vec x) {
    return (vec)((vec_bits)x & ~(t < low));
}

static inline void v_transpose(vec x[WIDTH]) {
    vec y[WIDTH];
#ifdef __clang__
#pragma clang loop unroll(full)
#else
#pragma GCC unroll 4
#endif
    for (int i = 0; i < WIDTH; ++i)
        y[i] = (vec){x[0][i], x[1][i], x[2][i], x[3][i]};
    memcpy(x, y, sizeof y);
}

/* The columns of WIDTH rows of WIDTH floats. */
static inline void v_load_transposed(const float *p, int64_t stride, vec x[WIDTH]) {
    for (int i = 0; i < WIDTH; ++i)
        x[i] = v_load(p + i * stride);
    v_transpose(x);
}

#endif
