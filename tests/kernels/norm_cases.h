/*
 * tests/kernels/norm_cases.h: norms and activations made for tests, and where every kernel's bits are
 * compared with the reference's, in the worst floating-point environment that a caller may have.
 */
#ifndef ATTUNE_TEST_KERNELS_NORM_CASES_H
#define ATTUNE_TEST_KERNELS_NORM_CASES_H

#include <stdint.h>

enum { NORM_GUARD = 32 };

/* n floats, and NORM_GUARD more, in +-amplitude around an offset; every 7th value of a sown array is a
 * special one, of a doubly sown one it may be NaN or infinite. The caller frees. */
float *norm_floats(uint64_t *random, int64_t n, float amplitude, float offset, int sown);
/* Every `step`-th float of any sign and size, NaN and infinities too; the caller frees. */
float *activation_arguments(uint64_t step, int64_t *n);

/* One random problem. */
void compare_group_norm(uint64_t seed);
void compare_layer_norm(uint64_t seed);
/* SiLU, GELU, quick GELU, GEGLU and sums over activation_arguments. */
void compare_activations(uint64_t step);

#endif
