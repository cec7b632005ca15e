/*
 * kernels/cpu/vector_math.h: exp, the normal distribution's tail and the activations of arithmetic id
 * `attune-f32-1` on vectors, for loops over arrays and for the epilogues of products. The bits are those of
 * kernels/reference/activation.c. Include a vector_ISA.h first; attention_tile.h says what its operations do.
 *
 * [any] All in the floating-point environment of attune_fp_enter. What is stored goes through v_stored.
 */
#ifndef ATTUNE_KERNELS_CPU_VECTOR_MATH_H
#define ATTUNE_KERNELS_CPU_VECTOR_MATH_H

#include "kernels/arithmetic.h"

/* As results are stored: no -0 and one NaN. */
static inline vec v_stored(vec x) {
    return v_select_nan(x, v_set1(__builtin_nanf("")), v_add(x, v_zero()));
}

/* -|x|; NaN stays NaN. */
static inline vec v_minus_abs(vec x) {
    return v_min(v_sub(v_zero(), x), x);
}

/* 2^(t + rest), t <= 0 and |rest| far below 1: +0 where t < ATTUNE_EXP_MIN. */
static inline vec v_power_of_two(vec t, vec rest) {
    power n;
    const vec f = v_add(v_exp2_split(t, &n), rest);
    vec p = v_fma(v_set1(ATTUNE_EXP_C6), f, v_set1(ATTUNE_EXP_C5));
    p = v_fma(p, f, v_set1(ATTUNE_EXP_C4));
    p = v_fma(p, f, v_set1(ATTUNE_EXP_C3));
    p = v_fma(p, f, v_set1(ATTUNE_EXP_C2));
    p = v_fma(p, f, v_set1(ATTUNE_EXP_C1));
    p = v_fma(p, f, v_set1(1.0f));
    return v_at_least(t, v_set1(ATTUNE_EXP_MIN), v_exp2_scale(p, n));
}

/* e^z for z <= 0 and NaN. */
static inline vec v_exp(vec z) {
    const vec log2e = v_set1(ATTUNE_LOG2E_F32), t = v_mul(z, log2e);
    const vec lost = v_fma(z, log2e, v_sub(v_zero(), t));
    return v_power_of_two(t, v_fma(z, v_set1(ATTUNE_LOG2E_LOW), lost));
}

/* (1 - erf(a / sqrt 2)) / 2 for a = -minus_a >= 0 and NaN. */
static inline vec v_tail(vec minus_a) {
    const vec half = v_set1(-0.5f * ATTUNE_LOG2E_F32), square = v_mul(minus_a, minus_a);
    const vec lost = v_fma(minus_a, minus_a, v_sub(v_zero(), square)), t = v_mul(square, half);
    vec rest = v_fma(square, half, v_sub(v_zero(), t));
    rest = v_fma(square, v_set1(-0.5f * ATTUNE_LOG2E_LOW), rest);
    rest = v_fma(lost, half, rest);
    const vec u = v_div(v_set1(1.0f), v_fma(minus_a, v_set1(-ATTUNE_TAIL_SLOPE), v_set1(1.0f)));
    vec q = v_fma(v_set1(ATTUNE_TAIL_Q9), u, v_set1(ATTUNE_TAIL_Q8));
    q = v_fma(q, u, v_set1(ATTUNE_TAIL_Q7));
    q = v_fma(q, u, v_set1(ATTUNE_TAIL_Q6));
    q = v_fma(q, u, v_set1(ATTUNE_TAIL_Q5));
    q = v_fma(q, u, v_set1(ATTUNE_TAIL_Q4));
    q = v_fma(q, u, v_set1(ATTUNE_TAIL_Q3));
    q = v_fma(q, u, v_set1(ATTUNE_TAIL_Q2));
    q = v_fma(q, u, v_set1(ATTUNE_TAIL_Q1));
    q = v_fma(q, u, v_set1(ATTUNE_TAIL_Q0));
    return v_mul(v_mul(q, u), v_power_of_two(t, rest));
}

/* x sigmoid(s), s of x's sign. */
static inline vec v_times_sigmoid(vec x, vec s) {
    const vec one = v_set1(1.0f), negative = v_minus_abs(s), w = v_exp(negative);
    return v_div(v_mul(x, v_select_equal(negative, s, w, one)), v_add(one, w));
}

static inline vec v_silu(vec x) {
    return v_times_sigmoid(x, x);
}

static inline vec v_quick_gelu(vec x) {
    return v_times_sigmoid(x, v_mul(x, v_set1(ATTUNE_QUICK_GELU)));
}

static inline vec v_gelu(vec x) {
    const vec negative = v_minus_abs(x), tail = v_tail(negative);
    return v_mul(x, v_select_equal(negative, x, tail, v_sub(v_set1(1.0f), tail)));
}

#endif
