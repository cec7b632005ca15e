/* tests/kernels/check_norms.c: norms and activations: every kernel's bits against the reference's, and the
 * reference against double. */
#include "kernels/arithmetic.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/storage.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 32 };

/* n floats in +-amplitude around an offset; every 7th value of a sown array is a special one. */
static float *make_floats(uint64_t *random, int64_t n, float amplitude, float offset, int sown) {
    static const float special[] = {NAN, INFINITY, -INFINITY, -0.0f, 0x1p-149f, -0x1p-130f, 3e38f};
    float *x = malloc(((size_t)n + GUARD) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (int64_t i = 0; i < n + GUARD; ++i)
        x[i] = random_float(random) * amplitude + offset;
    for (int64_t i = 0; sown && i < n; ++i)
        if (random_int(random, 0, 6) == 0)
            x[i] = special[random_int(random, sown > 1 ? 0 : 3, 5 + (sown > 1))];
    return x;
}

static void same(const char *isa, uint64_t seed, const float *want, const float *got, int64_t n) {
    for (int64_t i = 0; i < n + GUARD; ++i)
        if (memcmp(want + i, got + i, sizeof *want) != 0)
            ck_abort_msg("%s, seed %lu: %ld is %a, the reference %a", isa, (unsigned long)seed, (long)i,
                         (double)got[i], (double)want[i]);
}

/* Flush-to-zero, denormals-are-zero and rounding up: what a kernel must neither see nor change. */
static uint64_t disturb(void) {
    const uint64_t before = attune_fp_enter();
#if defined(__x86_64__)
    attune_fp_leave(0x1F80 | 0x8040 | 0x4000);
#else
    attune_fp_leave(1u << 24 | 1u << 22);
#endif
    return before;
}

static void undisturb(uint64_t before) {
    const uint64_t now = attune_fp_enter();
#if defined(__x86_64__)
    const int kept = (now & ~0x3full) == (0x1F80 | 0x8040 | 0x4000);
#else
    const int kept = now == (1u << 24 | 1u << 22);
#endif
    attune_fp_leave(before);
    ck_assert_msg(kept, "a kernel changed its caller's floating-point environment");
}

/* Each phase's tasks, the last first. */
static void run_group(const attune_norm_f32_kernel *k, const attune_group_norm_f32 *a) {
    const uint64_t floats = attune_group_norm_f32_workspace(a);
    float *workspace = malloc((floats + GUARD) * sizeof *workspace);
    ck_assert_ptr_nonnull(workspace);
    memset(workspace, 0xff, (floats + GUARD) * sizeof *workspace);
    const uint64_t before = disturb();
    for (int phase = 0; phase < ATTUNE_NORM_PHASES; ++phase)
        for (uint64_t task = (uint64_t)a->batch * k->group_tasks(a, phase); task-- > 0;)
            k->group_run(a, phase, task, workspace);
    undisturb(before);
    for (uint64_t i = floats; i < floats + GUARD; ++i)
        ck_assert(attune_bits_of(workspace[i]) == 0xffffffffu);
    free(workspace);
}

static attune_group_norm_f32 random_group(uint64_t *random, uint64_t seed) {
    const int64_t per_group = random_int(random, 1, 11), groups = random_int(random, 1, 24);
    attune_group_norm_f32 a = {.batch = random_int(random, 1, 3),
                               .pixels = random_int(random, 1, seed % 4 ? 300 : 9000),
                               .channels = per_group * groups,
                               .groups = groups,
                               .eps = seed % 2 ? 1e-5f : 1e-6f,
                               .silu = (int32_t)(seed / 2 % 2)};
    return a;
}

START_TEST(group_norm_bits) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
        uint64_t random = seed + 1;
        attune_group_norm_f32 a = random_group(&random, seed);
        const int64_t image = a.pixels * a.channels, n = a.batch * image;
        const float offset = seed % 3 ? 0.0f : 50.0f;
        float *x =
            make_floats(&random, n, seed % 5 ? 1.0f : 1e-38f, offset, seed % 6 == 5 ? 2 : seed % 6 == 4);
        float *scale = make_floats(&random, a.channels, 1.0f, 0.0f, seed % 2 != 0),
              *shift = make_floats(&random, a.channels, 1.0f, 0.0f, seed % 2 != 0);
        float *want = make_floats(&random, n, 1.0f, 0.0f, 0), *got = make_floats(&random, n, 1.0f, 0.0f, 0);
        memcpy(got + n, want + n, GUARD * sizeof *got);
        a.x = x, a.scale = scale, a.shift = shift, a.out = want;
        attune_group_norm_f32_reference(&a);
        for (int isa = 0; isa <= (int)attune_cpu_detect(); ++isa) {
            attune_cpu_kernels k;
            attune_cpu_dispatch((attune_cpu_isa)isa, &k);
            a.out = got;
            run_group(k.norm_f32, &a);
            same(k.norm_f32->isa, seed, want, got, n);
            attune_group_norm_f32 last = a; /* the last image alone, in place */
            memcpy(got, x, (size_t)n * sizeof *x);
            last.batch = 1;
            last.x = last.out = got + (a.batch - 1) * image;
            run_group(k.norm_f32, &last);
            same(k.norm_f32->isa, seed, want + (a.batch - 1) * image, last.out, image);
        }
        free(x), free(scale), free(shift), free(want), free(got);
    }
}
END_TEST

START_TEST(layer_norm_bits) {
    for (uint64_t seed = 0; seed < 80; ++seed) {
        uint64_t random = seed + 1;
        attune_layer_norm_f32 a = {.rows = random_int(&random, 1, 50),
                                   .channels = random_int(&random, 1, seed % 3 ? 70 : 1400),
                                   .eps = 1e-5f};
        const int64_t n = a.rows * a.channels;
        float *x = make_floats(&random, n, seed % 5 ? 1.0f : 1e-38f, seed % 4 ? 0.0f : 50.0f,
                               seed % 6 == 5 ? 2 : seed % 6 == 4);
        float *scale = make_floats(&random, a.channels, 1.0f, 0.0f, seed % 2 != 0),
              *shift = make_floats(&random, a.channels, 1.0f, 0.0f, seed % 2 != 0);
        float *want = make_floats(&random, n, 1.0f, 0.0f, 0), *got = make_floats(&random, n, 1.0f, 0.0f, 0);
        memcpy(got + n, want + n, GUARD * sizeof *got);
        a.x = x, a.scale = scale, a.shift = shift, a.out = want;
        attune_layer_norm_f32_reference(&a);
        a.out = got;
        for (int isa = 0; isa <= (int)attune_cpu_detect(); ++isa) {
            attune_cpu_kernels k;
            attune_cpu_dispatch((attune_cpu_isa)isa, &k);
            memset(got, 0xff, (size_t)n * sizeof *got);
            const uint64_t before = disturb();
            for (uint64_t task = k.norm_f32->layer_tasks(&a); task-- > 0;)
                k.norm_f32->layer_run(&a, task);
            undisturb(before);
            same(k.norm_f32->isa, seed, want, got, n);
        }
        free(x), free(scale), free(shift), free(want), free(got);
    }
}
END_TEST

/* 500,000 pixels of 4 channels around an offset of 3 deviations. 4e-6: x * factor and the addend are about 6
 * and rounded once each (4e-7 together); the sums' chains of 64 are off by a few 2^-24 of their terms. */
START_TEST(large_groups_are_accurate) {
    uint64_t random = 5;
    attune_group_norm_f32 a = {.batch = 1, .pixels = 500000, .channels = 4, .groups = 1, .eps = 1e-6f};
    const int64_t n = a.pixels * a.channels;
    static const float ones[4] = {1, 1, 1, 1}, zeros[4] = {0};
    float *x = make_floats(&random, n, 1.7f, 3.0f, 0), *out = make_floats(&random, n, 1.0f, 0.0f, 0);
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

/* Every 977th float, all signs and sizes, NaN and infinities: 4.4 million of them. */
static float *make_arguments(int64_t *n) {
    *n = 0;
    float *x = malloc(((size_t)UINT32_MAX / 977 + 2 + GUARD) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 977)
        x[(*n)++] = attune_float_of((uint32_t)bits);
    return x;
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
    float *x = make_arguments(&n);
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

START_TEST(activation_bits) {
    int64_t n;
    float *x = make_arguments(&n), *want = malloc((size_t)(n + GUARD) * sizeof *want),
          *got = malloc((size_t)(n + GUARD) * sizeof *got);
    ck_assert(want && got);
    const attune_activation_f32_kernel *r = &attune_activation_f32_generic;
    for (int isa = 1; isa <= (int)attune_cpu_detect(); ++isa) {
        attune_cpu_kernels kernels;
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        const attune_activation_f32_kernel *k = kernels.activation_f32;
        void (*const functions[][2])(const float *, int64_t, float *) = {
            {r->silu, k->silu}, {r->gelu, k->gelu}, {r->quick_gelu, k->quick_gelu}};
        for (int f = 0; f < 5; ++f) {
            memset(want, 0xff, (size_t)(n + GUARD) * sizeof *want);
            memset(got, 0xff, (size_t)(n + GUARD) * sizeof *got);
            const uint64_t before = disturb();
            for (int own = 0; own < 2; ++own) {
                const attune_activation_f32_kernel *table = own ? k : r;
                float *out = own ? got : want;
                if (f < 3)
                    functions[f][own](x, n, out);
                else if (f == 3) /* rows of 1001, the gate from behind */
                    table->geglu(x, 1001, x + n / 2, 1001, n / 2 / 1001, 1001, out, 1001);
                else
                    table->add(x, x + n / 2, n / 2, out);
            }
            undisturb(before);
            same(k->isa, (uint64_t)f, want, got, n);
        }
    }
    free(x), free(want), free(got);
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
