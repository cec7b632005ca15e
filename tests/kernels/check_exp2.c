/* tests/kernels/check_exp2.c: exp2 of arithmetic id attune-f32-1: against a double oracle, and of the vector
 * kernels. */
#include "kernels/arithmetic.h"
#include "kernels/cpu/dispatch.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Every ~1000th float of [-126, 0], and the neighbourhood of every integer and of every tie. */
enum { NEAR = 5 };

static float *make_arguments(size_t *count) {
    float *t = malloc(sizeof *t * 1400000);
    ck_assert_ptr_nonnull(t);
    size_t n = 0;
    for (uint32_t bits = 0x80000000u; bits <= 0xc2fc0000u; bits += 997) /* -0 to -126 */
        memcpy(&t[n++], &bits, sizeof bits);
    for (int half = 0; half <= 252; ++half) {
        float x = -0.5f * (float)half;
        for (int i = 0; i < NEAR; ++i)
            x = nextafterf(x, -INFINITY);
        for (int i = 0; i <= 2 * NEAR; ++i, x = nextafterf(x, INFINITY))
            if (x <= 0.0f && x >= ATTUNE_EXP2_MIN)
                t[n++] = x;
    }
    *count = n;
    return t;
}

/* 2 ulp: 1.6 from the polynomial (9.3e-8), the rest from roundings; measured over every f: 1.94795. */
START_TEST(against_double) {
    size_t count;
    float *t = make_arguments(&count);
    ck_assert_uint_gt(count, 1000000);
    double worst = 0.0;
    for (size_t i = 0; i < count; ++i) {
        const double want = exp2((double)t[i]), got = (double)attune_exp2_f32_reference(t[i]);
        int exponent;
        (void)frexp(want, &exponent);
        const double error = fabs(got - want) / ldexp(1.0, exponent - 24);
        if (!(error <= 2.0)) /* an assertion writes to a file: not in a loop of a million */
            ck_abort_msg("exp2(%a) is off by %g ulp", (double)t[i], error);
        worst = error > worst ? error : worst;
    }
    ck_assert_msg(worst > 1.9, "the worst error is %g ulp: the sample no longer reaches it", worst);
    free(t);
}
END_TEST

START_TEST(boundaries) {
    ck_assert(attune_exp2_f32_reference(0.0f) == 1.0f);
    ck_assert(attune_exp2_f32_reference(-0.0f) == 1.0f);
    ck_assert(attune_exp2_f32_reference(-0x1p-149f) == 1.0f);
    for (int n = 0; n <= 126; ++n)
        ck_assert(attune_exp2_f32_reference((float)-n) == ldexpf(1.0f, -n));
    static const float below[] = {-126.00001f, -127.0f, -149.0f, -150.0f, -1e10f, -0x1p100f, -INFINITY};
    const uint32_t zero = 0;
    for (size_t i = 0; i < sizeof below / sizeof *below; ++i) {
        const float got = attune_exp2_f32_reference(below[i]);
        ck_assert_msg(memcmp(&got, &zero, 4) == 0, "exp2(%a) is %a, not +0", (double)below[i], (double)got);
    }
    ck_assert(isnan(attune_exp2_f32_reference(NAN)));
    ck_assert(isnan(attune_exp2_f32_reference(-NAN)));
}
END_TEST

/* No weight above 1: the sum of weights cannot overflow. */
START_TEST(at_most_one) {
    for (uint32_t bits = 0x80000000u; bits <= 0xbf800000u; bits += 251) {
        float t;
        memcpy(&t, &bits, sizeof t);
        if (!(attune_exp2_f32_reference(t) <= 1.0f))
            ck_abort_msg("exp2(%a) is above 1", (double)t);
    }
}
END_TEST

/*
 * The kernels' own exp2, seen through attention: two keys with scores 0 and t, values 0 and 1, so out = p /
 * (1 + p) with p = 2^t. Below -25 that is p itself. c is 1 with this scale, so that scores are exactly t.
 */
START_TEST(vector_kernels) {
    size_t count;
    float *t = make_arguments(&count), key[2] = {0.0f, 1.0f}, value[2] = {0.0f, 1.0f};
    float *want = malloc(count * sizeof *want), *got = malloc(count * sizeof *got);
    ck_assert(want && got);
    const int64_t n = (int64_t)count;
    attune_attention_f32 a = {.batch = 1,
                              .heads_q = 1,
                              .heads_kv = 1,
                              .n_q = n,
                              .n_k = 2,
                              .d_qk = 1,
                              .d_v = 1,
                              .q = t,
                              .k = key,
                              .v = value,
                              .out = want,
                              .scale = 0x1.62e43p-1f,
                              .stride_q = {n, n, 1, 1},
                              .stride_k = {2, 2, 1, 1},
                              .stride_v = {2, 2, 1, 1},
                              .stride_out = {n, n, 1, 1}};
    ck_assert(attune_attention_f32_factor(a.scale, 1) == 1.0f);
    attune_attention_f32_reference(&a);
    a.out = got;
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && kernel_at(isa); ++isa) {
        memset(got, 0xff, count * sizeof *got);
        run_kernel(kernel_at(isa), &a);
        for (size_t i = 0; i < count; ++i)
            if (memcmp(want + i, got + i, 4) != 0)
                ck_abort_msg("%s: t = %a gives %a, the reference %a", kernel_at(isa)->isa, (double)t[i],
                             (double)got[i], (double)want[i]);
    }
    free(t);
    free(want);
    free(got);
}
END_TEST

TCase *exp2_cases(void) {
    TCase *cases = tcase_create("exp2");
    tcase_add_test(cases, against_double);
    tcase_add_test(cases, boundaries);
    tcase_add_test(cases, at_most_one);
    tcase_add_test(cases, vector_kernels);
    return cases;
}
