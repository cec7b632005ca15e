/*
 * kernels/cpu/vector_avx2.h: the vector type of the kernel templates, 8 floats in AVX2 and FMA. One such file
 * per ISA, all with the same names; attention_tile.h says what each does.
 */
#ifndef ATTUNE_KERNELS_CPU_VECTOR_AVX2_H
#define ATTUNE_KERNELS_CPU_VECTOR_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define WIDTH 8

typedef __m256 vec;

static inline vec v_zero(void) {
    return _mm256_setzero_ps();
}
static inline vec v_set1(float x) {
    return _mm256_set1_ps(x);
}
static inline vec v_load(const float *p) {
    return _mm256_loadu_ps(p);
}
/* Held in a register: read from memory anew, it would cost a load for each use. */
static inline void v_keep(vec *x) {
    __asm__("" : "+x"(*x));
}
static inline void v_store(float *p, vec x) {
    _mm256_storeu_ps(p, x);
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
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vec v_load_bf16(const uint16_t *p) {
    const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
static inline vec v_add(vec a, vec b) {
    return _mm256_add_ps(a, b);
}
static inline vec v_sub(vec a, vec b) {
    return _mm256_sub_ps(a, b);
}
static inline vec v_mul(vec a, vec b) {
    return _mm256_mul_ps(a, b);
}
static inline vec v_div(vec a, vec b) {
    return _mm256_div_ps(a, b);
}
static inline vec v_max(vec a, vec b) {
    return _mm256_max_ps(a, b);
}
static inline vec v_min(vec a, vec b) {
    return _mm256_min_ps(a, b);
}
static inline vec v_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline vec v_select_equal(vec a, vec b, vec yes, vec no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
static inline vec v_select_nan(vec a, vec yes, vec no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
static inline int v_any_not_equal(vec a, vec b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)) != 0;
}

/* n is the exponent in its place. The conversion rounds to nearest even; for NaN it gives INT32_MIN, whose
 * low bits shift out. */
typedef __m256i power;

static inline vec v_exp2_split(vec t, power *n) {
    const __m256i whole = _mm256_cvtps_epi32(t);
    *n = _mm256_slli_epi32(whole, 23);
    return v_sub(t, _mm256_cvtepi32_ps(whole));
}
static inline vec v_exp2_scale(vec p, power n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n));
}
static inline vec v_at_least(vec t, vec low, vec x) {
    return _mm256_and_ps(_mm256_cmp_ps(t, low, _CMP_NLT_UQ), x);
}

/* 8 x 8: pairs of rows interleaved, then pairs of pairs, then the two 128-bit halves exchanged. */
static inline void v_transpose(vec x[WIDTH]) {
    vec y[WIDTH];
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[i], x[i + 1]));
        const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(x[i], x[i + 1]));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(x[i + 2], x[i + 3]));
        const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(x[i + 2], x[i + 3]));
        y[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        y[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        y[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        y[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        x[i] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x31);
    }
}

/* The columns of WIDTH rows of WIDTH floats. */
static inline void v_load_transposed(const float *p, int64_t stride, vec x[WIDTH]) {
    for (int i = 0; i < WIDTH; ++i)
        x[i] = v_load(p + i * stride);
    v_transpose(x);
}

#endif
