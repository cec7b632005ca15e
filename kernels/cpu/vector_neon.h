/*
 * kernels/cpu/vector_neon.h: the vector type of the kernel templates, 4 floats in AArch64's Advanced SIMD.
 * One such file per ISA, all with the same names; attention_tile.h says what each does.
 */
#ifndef ATTUNE_KERNELS_CPU_VECTOR_NEON_H
#define ATTUNE_KERNELS_CPU_VECTOR_NEON_H

#include "kernels/storage.h"

#include <arm_neon.h>
#include <string.h>

#define WIDTH 4

typedef float32x4_t vec;

static inline vec v_zero(void) {
    return vdupq_n_f32(0.0f);
}
static inline vec v_set1(float x) {
    return vdupq_n_f32(x);
}
static inline vec v_load(const float *p) {
    return vld1q_f32(p);
}
/* Held in a register: read from memory anew, it would cost a load for each use. */
static inline void v_keep(vec *x) {
    __asm__("" : "+w"(*x));
}
static inline void v_store(float *p, vec x) {
    vst1q_f32(p, x);
}
static inline vec v_load_part(const float *p, int n) {
    float whole[WIDTH] = {0};
    memcpy(whole, p, (size_t)n * sizeof(float));
    return v_load(whole);
}
static inline void v_store_part(float *p, vec x, int n) {
    float whole[WIDTH];
    v_store(whole, x);
    memcpy(p, whole, (size_t)n * sizeof(float));
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
    return vaddq_f32(a, b);
}
static inline vec v_sub(vec a, vec b) {
    return vsubq_f32(a, b);
}
static inline vec v_mul(vec a, vec b) {
    return vmulq_f32(a, b);
}
static inline vec v_div(vec a, vec b) {
    return vdivq_f32(a, b);
}
/* FMAX and FMIN would keep a NaN of either side. */
static inline vec v_max(vec a, vec b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vec v_min(vec a, vec b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline vec v_fma(vec a, vec b, vec c) {
    return vfmaq_f32(c, a, b);
}
static inline vec v_select_equal(vec a, vec b, vec yes, vec no) {
    return vbslq_f32(vceqq_f32(a, b), yes, no);
}
static inline vec v_select_nan(vec a, vec yes, vec no) {
    return vbslq_f32(vceqq_f32(a, a), no, yes);
}
static inline int v_any_not_equal(vec a, vec b) {
    return vminvq_u32(vceqq_f32(a, b)) == 0;
}

/* n is the exponent in its place; NaN's is 0. */
typedef int32x4_t power;

static inline vec v_exp2_split(vec t, power *n) {
    const int32x4_t whole = vcvtnq_s32_f32(t);
    *n = vshlq_n_s32(whole, 23);
    return v_sub(t, vcvtq_f32_s32(whole));
}
static inline vec v_exp2_scale(vec p, power n) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), n));
}
static inline vec v_at_least(vec t, vec low, vec x) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), vcltq_f32(t, low)));
}

/* 4 x 4: pairs of rows interleaved, then their halves exchanged. */
static inline void v_transpose(vec x[WIDTH]) {
    const float32x4x2_t a = vtrnq_f32(x[0], x[1]), b = vtrnq_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    x[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    x[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    x[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

/* The columns of WIDTH rows of WIDTH floats. */
static inline void v_load_transposed(const float *p, int64_t stride, vec x[WIDTH]) {
    for (int i = 0; i < WIDTH; ++i)
        x[i] = v_load(p + i * stride);
    v_transpose(x);
}

#endif
