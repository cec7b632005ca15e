/*
 * kernels/reference/activation.c: docs/arithmetic.md in plain C: exp, the normal distribution's tail and the
 * activations of arithmetic id `attune-f32-1`.
 */
#include "kernels/activation.h"

#include "kernels/arithmetic.h"
#include "kernels/reference/stored.h"

#include <math.h>

/* 2^(t + rest), t <= 0 and |rest| far below 1. */
static float power_of_two(float t, float rest) {
    if (t != t)
        return t;
    if (t < ATTUNE_EXP_MIN)
        return 0.0f;
    const float n = rintf(t);
    const float f = (t - n) + rest;
    float p = ATTUNE_EXP_C6;
    p = fmaf(p, f, ATTUNE_EXP_C5);
    p = fmaf(p, f, ATTUNE_EXP_C4);
    p = fmaf(p, f, ATTUNE_EXP_C3);
    p = fmaf(p, f, ATTUNE_EXP_C2);
    p = fmaf(p, f, ATTUNE_EXP_C1);
    p = fmaf(p, f, 1.0f);
    return ldexpf(p, (int)n); /* exact: n >= -125 and p > 1/2, so the result is normal */
}

float attune_exp_f32_reference(float z) {
    const float t = z * ATTUNE_LOG2E_F32;
    float rest = fmaf(z, ATTUNE_LOG2E_F32, -t); /* what the product's rounding lost */
    rest = fmaf(z, ATTUNE_LOG2E_LOW, rest);
    return power_of_two(t, rest);
}

float attune_tail_f32_reference(float a) {
    const float square = a * a, lost = fmaf(a, a, -square);
    const float t = square * (-0.5f * ATTUNE_LOG2E_F32);
    float rest = fmaf(square, -0.5f * ATTUNE_LOG2E_F32, -t);
    rest = fmaf(square, -0.5f * ATTUNE_LOG2E_LOW, rest);
    rest = fmaf(lost, -0.5f * ATTUNE_LOG2E_F32, rest);
    const float u = 1.0f / fmaf(a, ATTUNE_TAIL_SLOPE, 1.0f);
    float q = ATTUNE_TAIL_Q9;
    q = fmaf(q, u, ATTUNE_TAIL_Q8);
    q = fmaf(q, u, ATTUNE_TAIL_Q7);
    q = fmaf(q, u, ATTUNE_TAIL_Q6);
    q = fmaf(q, u, ATTUNE_TAIL_Q5);
    q = fmaf(q, u, ATTUNE_TAIL_Q4);
    q = fmaf(q, u, ATTUNE_TAIL_Q3);
    q = fmaf(q, u, ATTUNE_TAIL_Q2);
    q = fmaf(q, u, ATTUNE_TAIL_Q1);
    q = fmaf(q, u, ATTUNE_TAIL_Q0);
    return (q * u) * power_of_two(t, rest);
}

/* x sigmoid(s), s of x's sign: neither e^-s nor e^s overflows when the exponent is not positive. */
static float times_sigmoid(float x, float s) {
    const float w = attune_exp_f32_reference(s > 0.0f ? -s : s);
    return (x * (s > 0.0f ? 1.0f : w)) / (1.0f + w);
}

float attune_silu_f32_reference(float x) {
    return times_sigmoid(x, x);
}

float attune_quick_gelu_f32_reference(float x) {
    return times_sigmoid(x, x * ATTUNE_QUICK_GELU);
}

float attune_gelu_f32_reference(float x) {
    const float tail = attune_tail_f32_reference(x > 0.0f ? x : -x);
    return x * (x > 0.0f ? 1.0f - tail : tail);
}
