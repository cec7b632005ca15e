/*
 * kernels/cpu/vector_avx512.h: the vector type of the kernel templates, 16 floats in AVX-512 (F, BW, DQ, VL).
 * One such file per ISA, all with the same names; attention_tile.h says what each does.
 */
#ifndef ATTUNE_KERNELS_CPU_VECTOR_AVX512_H
#define ATTUNE_KERNELS_CPU_VECTOR_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define WIDTH 16

typedef __m512 vec;

static inline vec v_zero(void) {
    return _mm512_setzero_ps();
}
static inline vec v_set1(float x) {
    return _mm512_set1_ps(x);
}
static inline vec v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
/* Held in a register: read from memory anew, it would cost a load for each use. */
static inline void v_keep(vec *x) {
    __asm__("" : "+v"(*x));
}
static inline void v_store(float *p, vec x) {
    _mm512_storeu_ps(p, x);
}
/* Past the caches; p is aligned to the vector. Other threads see it after v_stream_end. */
static inline void v_stream(float *p, vec x) {
    _mm512_stream_ps(p, x);
}
static inline void v_stream_end(void) {
    _mm_sfence();
}
static inline vec v_load_part(const float *p, int n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void v_store_part(float *p, vec x, int n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
}
/* 16-bit floats, any alignment to 2. */
static inline vec v_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline vec v_load_bf16(const uint16_t *p) {
    const __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
static inline vec v_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}
static inline vec v_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}
static inline vec v_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}
static inline vec v_div(vec a, vec b) {
    return _mm512_div_ps(a, b);
}
static inline vec v_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
}
static inline vec v_min(vec a, vec b) {
    return _mm512_min_ps(a, b);
}
static inline vec v_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline vec v_select_equal(vec a, vec b, vec yes, vec no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), no, yes);
}
static inline vec v_select_nan(vec a, vec yes, vec no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), no, yes);
}
static inline int v_any_not_equal(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ) != 0;
}

typedef vec power;

static inline vec v_exp2_split(vec t, power *n) {
    *n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return v_sub(t, *n);
}
static inline vec v_exp2_scale(vec p, power n) {
    return _mm512_scalef_ps(p, n);
}
static inline vec v_at_least(vec t, vec low, vec x) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(t, low, _CMP_NLT_UQ), x);
}

/* 16 x 16: pairs of rows interleaved, then pairs of pairs, then the four 128-bit quarters exchanged twice. */
static inline void v_transpose(vec x[WIDTH]) {
    vec y[WIDTH];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[i], x[i + 1]));
        const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(x[i], x[i + 1]));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(x[i + 2], x[i + 3]));
        const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(x[i + 2], x[i + 3]));
        y[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        y[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        y[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        y[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const vec a = _mm512_shuffle_f32x4(y[i], y[i + 4], 0x88),
                  b = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0x88);
        const vec c = _mm512_shuffle_f32x4(y[i], y[i + 4], 0xdd),
                  d = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0xdd);
        x[i] = _mm512_shuffle_f32x4(a, b, 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
        x[i + 4] = _mm512_shuffle_f32x4(c, d, 0x88);
        x[i + 12] = _mm512_shuffle_f32x4(c, d, 0xdd);
    }
}

/* The columns of WIDTH rows of WIDTH floats. Four rows' quarters are put together while they are loaded, so
 * that only exchanges within quarters are left. */
static inline void v_load_transposed(const float *p, int64_t stride, vec x[WIDTH]) {
#pragma GCC unroll 4
    for (int c = 0; c < 16; c += 4) {
        vec y[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const float *const q = p + i * stride + c;
            y[i] = _mm512_castps128_ps512(_mm_loadu_ps(q));
            y[i] = _mm512_insertf32x4(y[i], _mm_loadu_ps(q + 4 * stride), 1);
            y[i] = _mm512_insertf32x4(y[i], _mm_loadu_ps(q + 8 * stride), 2);
            y[i] = _mm512_insertf32x4(y[i], _mm_loadu_ps(q + 12 * stride), 3);
        }
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(y[0], y[1]));
        const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(y[0], y[1]));
        const __m512d d = _mm512_castps_pd(_mm512_unpacklo_ps(y[2], y[3]));
        const __m512d e = _mm512_castps_pd(_mm512_unpackhi_ps(y[2], y[3]));
        x[c] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, d));
        x[c + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, d));
        x[c + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, e));
        x[c + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, e));
    }
}

#endif
