/*
 * kernels/cpu/vector_generic.h: the vector type of the kernel templates, 4 floats in the vector extension of
 * gcc and clang, for any processor (on x86-64: SSE2). One such file per ISA, all with the same names;
 * attention_tile.h says what each does.
 */
#ifndef ATTUNE_KERNELS_CPU_VECTOR_GENERIC_H
#define ATTUNE_KERNELS_CPU_VECTOR_GENERIC_H

#include <stdint.h>
#include <string.h>

#define WIDTH 4

typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_bits __attribute__((vector_size(16)));

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
 * nothing overflows and nothing is subnormal. The sum is rounded to odd: towards zero, and its last bit set
 * where anything was lost. 53 bits are more than twice a float's, so rounding that to float, subnormals and
 * infinity included, is rounding the exact value once (Boldo & Melquiond, Emulation of a FMA and correctly
 * rounded sums, 2008). What the nearest sum lost is Knuth's TwoSum; its product with the sum has the sign
 * that says whether the nearest lies away from zero, is 0 where nothing was lost, and NaN for infinities,
 * which stay as they are.
 */
typedef float vec_half __attribute__((vector_size(8)));
typedef double vec_wide __attribute__((vector_size(16)));
typedef int64_t vec_wide_bits __attribute__((vector_size(16)));

static inline vec_half v_fma_half(vec_wide a, vec_wide b, vec_wide c) {
    const vec_wide product = a * b, sum = product + c, part = sum - product;
    const vec_wide lost = (product - (sum - part)) + (c - part), side = lost * sum;
    const vec_wide_bits away = side < 0.0, inexact = away | (side > 0.0);
    const vec_wide_bits odd = ((vec_wide_bits)sum + away) | (inexact & 1);
    return __builtin_convertvector((vec_wide)odd, vec_half);
}
static inline vec_wide v_low(vec x) {
    return __builtin_convertvector(((vec_half){x[0], x[1]}), vec_wide);
}
static inline vec_wide v_high(vec x) {
#ifdef __clang__
    return v_low(__builtin_shufflevector(x, x, 2, 3, 2, 3));
#else
    return v_low(__builtin_shuffle(x, (vec_bits){2, 3, 2, 3}));
#endif
}
static inline vec v_fma(vec a, vec b, vec c) {
    const vec_half low = v_fma_half(v_low(a), v_low(b), v_low(c));
    const vec_half high = v_fma_half(v_high(a), v_high(b), v_high(c));
    return (vec){low[0], low[1], high[0], high[1]};
}

static inline vec v_select_equal(vec a, vec b, vec yes, vec no) {
    return v_select(a == b, yes, no);
}
static inline vec v_select_nan(vec a, vec yes, vec no) {
    return v_select(a != a, yes, no);
}
static inline int v_any_not_equal(vec a, vec b) {
    const vec_wide_bits differ = (vec_wide_bits)(a != b);
    return (differ[0] | differ[1]) != 0;
}

/* n is the float 2^n. Above 2^23 floats are whole numbers, so that the sum rounds t to the nearest even one
 * and holds it in its low bits. */
typedef vec power;

static inline vec v_exp2_split(vec t, power *n) {
    const vec magic = v_set1(0x1.8p23f), sum = t + magic;
    *n = (vec)(((vec_bits)sum << 23) + (127 << 23));
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

#endif
