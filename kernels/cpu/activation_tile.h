/*
 * kernels/cpu/activation_tile.h: the loops of kernels/activation.h, written once over a vector type. Each
 * activation_ISA.c includes a vector_ISA.h, then this file.
 */
#include "kernels/activation.h"
#include "kernels/arithmetic.h"
#include "kernels/cpu/vector_math.h"

#define INLINE static inline __attribute__((always_inline))

enum { SILU, GELU, QUICK_GELU };

INLINE vec activate(vec x, const int kind) {
    return v_stored(kind == SILU ? v_silu(x) : kind == GELU ? v_gelu(x) : v_quick_gelu(x));
}

INLINE void activate_all(const float *x, int64_t n, float *out, const int kind) {
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        v_store(out + i, activate(v_load(x + i), kind));
    if (i < n)
        v_store_part(out + i, activate(v_load_part(x + i, (int)(n - i)), kind), (int)(n - i));
}

/* The loops are not inlined into what sets the environment: see attune_fp_enter. */
__attribute__((noinline)) static void silu_all(const float *x, int64_t n, float *out) {
    activate_all(x, n, out, SILU);
}
__attribute__((noinline)) static void gelu_all(const float *x, int64_t n, float *out) {
    activate_all(x, n, out, GELU);
}
__attribute__((noinline)) static void quick_gelu_all(const float *x, int64_t n, float *out) {
    activate_all(x, n, out, QUICK_GELU);
}

__attribute__((noinline)) static void geglu_row(const float *a, const float *b, int64_t n, float *out) {
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        v_store(out + i, v_stored(v_mul(v_load(a + i), v_gelu(v_load(b + i)))));
    if (i < n) {
        const int rest = (int)(n - i);
        v_store_part(out + i, v_stored(v_mul(v_load_part(a + i, rest), v_gelu(v_load_part(b + i, rest)))),
                     rest);
    }
}

__attribute__((noinline)) static void add_all(const float *a, const float *b, int64_t n, float *out) {
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        v_store(out + i, v_stored(v_add(v_load(a + i), v_load(b + i))));
    if (i < n) {
        const int rest = (int)(n - i);
        v_store_part(out + i, v_stored(v_add(v_load_part(a + i, rest), v_load_part(b + i, rest))), rest);
    }
}

static void silu(const float *x, int64_t n, float *out) {
    const uint64_t environment = attune_fp_enter();
    silu_all(x, n, out);
    attune_fp_leave(environment);
}

static void gelu(const float *x, int64_t n, float *out) {
    const uint64_t environment = attune_fp_enter();
    gelu_all(x, n, out);
    attune_fp_leave(environment);
}

static void quick_gelu(const float *x, int64_t n, float *out) {
    const uint64_t environment = attune_fp_enter();
    quick_gelu_all(x, n, out);
    attune_fp_leave(environment);
}

static void geglu(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t rows,
                  int64_t channels, float *out, int64_t out_stride) {
    const uint64_t environment = attune_fp_enter();
    for (int64_t r = 0; r < rows; ++r)
        geglu_row(a + r * a_stride, b + r * b_stride, channels, out + r * out_stride);
    attune_fp_leave(environment);
}

static void add(const float *a, const float *b, int64_t n, float *out) {
    const uint64_t environment = attune_fp_enter();
    add_all(a, b, n, out);
    attune_fp_leave(environment);
}

/* The table of an activation_ISA.c. */
#define ACTIVATIONS(name)                                                                                    \
    { .isa = name, .silu = silu, .gelu = gelu, .quick_gelu = quick_gelu, .geglu = geglu, .add = add }
