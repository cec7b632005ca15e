/* tests/kernels/check_norms.c: norms and activations: every kernel's bits against the reference's, and the
 * reference against double. */
#include "kernels/activation.h"
#include "kernels/arithmetic.h"
#include "kernels/norm.h"
#include "tests/kernels/norm_cases.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>

START_TEST(group_norm_bits) {
    for (uint64_t seed = 0; seed < 60; ++seed)
        compare_group_norm(seed);
}
END_TEST

START_TEST(layer_norm_bits) {
    for (uint64_t seed = 0; seed < 80; ++seed)
        compare_layer_norm(seed);
}
END_TEST

START_TEST(activation_bits) {
    compare_activations(977);
}
END_TEST

/* 500,000 pixels of 4 channels around an offset of 3 deviations. 4e-6: x * factor and the addend are about 6
 * and rounded once each (4e-7 together); the sums' chains of 64 are off by a few 2^-24 of their terms. */
START_TEST(large_groups_are_accurate) {
    uint64_t random = 5;
    attune_group_norm_f32 a = {.batch = 1, .pixels = 500000, .channels = 4, .groups = 1, .eps = 1e-6f};
    const int64_t n = a.pixels * a.channels;
    static const float ones[4] = {1, 1, 1, 1}, zeros[4] = {0};
    float *x = norm_floats(&random, n, 1.7f, 3.0f, 0), *out = norm_floats(&random, n, 1.0f, 0.0f, 0);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; ++i)
        sum += (double)x[i];
    for (int64_t i = 0; i < n; ++i)
        squares += ((double)x[i] - sum / (double)n) * ((double)x[i] - sum / (double)n);
    const double mean = sum / (double)n, inverse = 1 / sqrt(squares / (double)n + 1e-6);
    a.x = x, a.out = out, a.scale = ones, a.shift = zeros;
    attune_group_norm_f32_reference(&a);
    for (int64_t i = 0; i < n; ++i)
        if (!(fabs(((double)x[i] - mean) * inverse - (double)out[i]) <= 4e-6))
            ck_abort_msg("%ld: %g, not %g", (long)i, (double)out[i], ((double)x[i] - mean) * inverse);
    free(x), free(out);
}
END_TEST

static double gelu_f64(double x) {
    return x * 0.5 * erfc(-x / sqrt(2));
}
static double silu_f64(double x) {
    return x > 0 ? x / (1 + exp(-x)) : x * exp(x) / (1 + exp(x));
}
static double quick_gelu_f64(double x) {
    const double s = x * (double)ATTUNE_QUICK_GELU;
    return x > 0 ? x / (1 + exp(-s)) : x * exp(s) / (1 + exp(s));
}

/* 1.5e-7 of max(1, |y|), 1.25 units of the last place of 1, is the whole function's rounding errors (measured
 * over the sample: 1.31e-7). Relative error where neither the result nor e^-|x| is near the end of the
 * range: 2.7 ulp SiLU, 5.5 ulp GELU (its tail's u = 1 / (1 + 3a/8) is rounded twice); quick GELU's 1.702 x is
 * rounded and costs |x| / 2 ulp more for negative x. */
START_TEST(activations_are_accurate) {
    static const struct {
        float (*own)(float);
        double (*exact)(double);
        double least, ulp;
    } f[] = {{attune_silu_f32_reference, silu_f64, -86.6, 2.8},
             {attune_gelu_f32_reference, gelu_f64, -13.1, 6.0},
             {attune_quick_gelu_f32_reference, quick_gelu_f64, -50.8, 66.0}};
    int64_t n;
    float *x = activation_arguments(977, &n);
    for (size_t k = 0; k < sizeof f / sizeof *f; ++k)
        for (int64_t i = 0; i < n; ++i) {
            if (!isfinite(x[i]))
                continue;
            const double want = f[k].exact((double)x[i]), off = fabs(want - (double)f[k].own(x[i]));
            int exponent;
            (void)frexp(want, &exponent);
            const double ulp = ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
            if (!(off <= 1.5e-7 * fmax(1.0, fabs(want))) ||
                ((double)x[i] > f[k].least && !(off <= f[k].ulp * ulp)))
                ck_abort_msg("function %zu of %a is off by %g, %g ulp", k, (double)x[i], off, off / ulp);
        }
    free(x);
}
END_TEST

START_TEST(activations_of_special_values) {
    float (*const f[])(float) = {attune_silu_f32_reference, attune_gelu_f32_reference,
                                 attune_quick_gelu_f32_reference};
    for (int i = 0; i < 3; ++i) {
        ck_assert(isnan(f[i](NAN)) && f[i](INFINITY) == INFINITY && isnan(f[i](-INFINITY)));
        ck_assert(f[i](0.0f) == 0.0f && f[i](-0.0f) == 0.0f && f[i](-3e38f) == 0.0f && f[i](3e38f) == 3e38f);
        ck_assert(f[i](0x1p-140f) == 0x1p-141f); /* subnormals are kept */
    }
    ck_assert(attune_exp_f32_reference(0.0f) == 1.0f && attune_exp_f32_reference(-INFINITY) == 0.0f);
    ck_assert(isnan(attune_exp_f32_reference(NAN)) && isnan(attune_tail_f32_reference(NAN)));
    ck_assert(attune_tail_f32_reference(INFINITY) == 0.0f);
}
END_TEST

TCase *norms_cases(void) {
    TCase *cases = tcase_create("norms");
    tcase_add_test(cases, group_norm_bits);
    tcase_add_test(cases, layer_norm_bits);
    tcase_add_test(cases, large_groups_are_accurate);
    tcase_add_test(cases, activations_are_accurate);
    tcase_add_test(cases, activation_bits);
    tcase_add_test(cases, activations_of_special_values);
    return cases;
}
