/*
 * check_math_f64.c: our double functions against the C library's long double ones, which carry 11 bits more,
 * and their bits, which must be the same with every compiler, option and CPU.
 */
#include "kernels/reference/math_f64.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { SAMPLES = 100000 };

/* Rounding once costs half an ulp; what the functions are off before it is below a hundredth. The long double
 * reference adds 2^-11 of its own. */
static const double limit_ulp = 0.51;

typedef double (*function)(double);
typedef long double (*reference)(long double);

/* A xorshift generator (Marsaglia 2003): the same samples everywhere. */
static uint64_t state;
static double uniform(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53;
}

static void setup(void) {
    state = 88172645463325252u;
}

static void compare(const char *name, double x, double got, long double want) {
    int exponent;
    (void)frexpl(want, &exponent);
    long double ulp = ldexpl(1, (exponent < -1021 ? -1021 : exponent) - 53);
    long double error = fabsl((long double)got - want) / ulp;
    ck_assert_msg(error <= (long double)limit_ulp, "%s(%a) = %a is %Lg ulp off", name, x, got, error);
}

static void sweep(const char *name, function own, reference libm, double low, double high) {
    for (int i = 0; i < SAMPLES; i++) {
        double x = low + (high - low) * uniform();
        compare(name, x, own(x), libm(x));
    }
}

START_TEST(exp_is_exact_to_the_last_bit) {
    sweep("exp", attune_exp_f64, expl, -708, 709.7);
    sweep("exp", attune_exp_f64, expl, -1, 1);
    sweep("exp", attune_exp_f64, expl, -1e-9, 1e-9);
    ck_assert(attune_exp_f64(0) == 1 && attune_exp_f64(-0.0) == 1);
    ck_assert(attune_exp_f64(710) == INFINITY && attune_exp_f64(INFINITY) == INFINITY);
    ck_assert(attune_exp_f64(-746) == 0 && attune_exp_f64(-INFINITY) == 0 && attune_exp_f64(-1e300) == 0);
    ck_assert(attune_exp_f64(-744.5) == 0x1p-1074); /* a subnormal */
    ck_assert(isnan(attune_exp_f64(NAN)));
}
END_TEST

START_TEST(log_is_exact_to_the_last_bit) {
    sweep("log", attune_log_f64, logl, 0.5, 2);
    sweep("log", attune_log_f64, logl, 1 - 1e-6, 1 + 1e-6);
    sweep("log", attune_log_f64, logl, 0x1p-24, 1); /* Box-Muller's radii */
    for (int e = -1074; e < 1024; e++)
        for (int i = 0; i < 64; i++) {
            double x = ldexp(1 + uniform(), e);
            if (x > 0 && x < INFINITY)
                compare("log", x, attune_log_f64(x), logl(x));
        }
    ck_assert(attune_log_f64(1) == 0 && attune_log_f64(0) == -INFINITY &&
              attune_log_f64(INFINITY) == INFINITY);
    ck_assert(isnan(attune_log_f64(-1)) && isnan(attune_log_f64(NAN)));
}
END_TEST

START_TEST(log1p_is_exact_to_the_last_bit) {
    sweep("log1p", attune_log1p_f64, log1pl, -0.9999999, 3);
    sweep("log1p", attune_log1p_f64, log1pl, -1e-3, 1e-3);
    for (int e = -1074; e < 1024; e++)
        for (int i = 0; i < 32; i++) {
            double x = ldexp(1 + uniform(), e);
            compare("log1p", x, attune_log1p_f64(x), log1pl(x));
            if (x < 1)
                compare("log1p", -x, attune_log1p_f64(-x), log1pl(-x));
        }
    ck_assert(attune_log1p_f64(0) == 0 && attune_log1p_f64(-1) == -INFINITY);
    ck_assert(attune_log1p_f64(INFINITY) == INFINITY);
    ck_assert(isnan(attune_log1p_f64(-1.5)) && isnan(attune_log1p_f64(NAN)));
}
END_TEST

START_TEST(sine_and_cosine_are_exact_to_the_last_bit) {
    const double ranges[] = {1e-4, 0.8, 6.2831854, 1000, 0x1p20};
    for (int r = 0; r < 5; r++) {
        sweep("sin", attune_sin_f64, sinl, -ranges[r], ranges[r]);
        sweep("cos", attune_cos_f64, cosl, -ranges[r], ranges[r]);
    }
    for (int n = 1; n < 600000; n += 7) { /* next to the zeros */
        double x = n * 1.5707963267948966;
        compare("sin", x, attune_sin_f64(x), sinl(x));
        compare("cos", x, attune_cos_f64(x), cosl(x));
    }
    ck_assert(attune_sin_f64(0) == 0 && signbit(attune_sin_f64(-0.0)) && attune_cos_f64(0) == 1);
    ck_assert(attune_sin_f64(1e-300) == 1e-300 && attune_cos_f64(1e-300) == 1);
    ck_assert(isnan(attune_sin_f64(0x1p21)) && isnan(attune_cos_f64(INFINITY)) && isnan(attune_sin_f64(NAN)));
}
END_TEST

START_TEST(pow_is_exact_to_the_last_bit) {
    static const double powers[] = {7, 1.0 / 7, 0.5, -1, 2, 1.0 / 3, 100.5, -33.25};
    for (size_t p = 0; p < sizeof powers / sizeof powers[0]; p++)
        for (int i = 0; i < SAMPLES; i++) {
            double x = 0.001 + 20 * uniform();
            compare("pow", x, attune_pow_f64(x, powers[p]), powl(x, powers[p]));
        }
    ck_assert(attune_pow_f64(2, 10) == 1024 && attune_pow_f64(1, 1e300) == 1);
    ck_assert(attune_pow_f64(0, 0) == 1 && attune_pow_f64(0, 2) == 0 && attune_pow_f64(0, -2) == INFINITY);
    ck_assert(attune_pow_f64(10, 400) == INFINITY && attune_pow_f64(10, -400) == 0);
    ck_assert(attune_pow_f64(INFINITY, 2) == INFINITY && attune_pow_f64(INFINITY, -2) == 0);
    ck_assert(attune_pow_f64(0.5, INFINITY) == 0 && attune_pow_f64(2, INFINITY) == INFINITY);
    ck_assert(attune_pow_f64(0x1p-1074, 0.5) == 0x1p-537);
    ck_assert(isnan(attune_pow_f64(-2, 2)) && isnan(attune_pow_f64(NAN, 1)) && isnan(attune_pow_f64(2, NAN)));
}
END_TEST

/* FNV-1a over the bits of 10,000 results of each function. */
START_TEST(bits_are_fixed) {
    static const struct {
        function own;
        double low, high;
    } rows[] = {{attune_exp_f64, -700, 700},
                {attune_log_f64, 0, 100},
                {attune_log1p_f64, -1, 5},
                {attune_sin_f64, -1000, 1000},
                {attune_cos_f64, -1000, 1000}};
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        for (int i = 0; i < 10000; i++) {
            double y = rows[r].own(rows[r].low + (rows[r].high - rows[r].low) * uniform());
            double base = 15 * uniform(), power = 7 * uniform();
            double z = attune_pow_f64(base, power);
            uint64_t bits[2];
            memcpy(bits, &y, sizeof y);
            memcpy(bits + 1, &z, sizeof z);
            for (int b = 0; b < 128; b += 8)
                hash = (hash ^ (bits[b / 64] >> b % 64 & 0xff)) * 0x100000001b3u;
        }
    ck_assert_msg(hash == 0x9dde3454125a97d6u, "0x%016llx", (unsigned long long)hash);
}
END_TEST

TCase *math_f64_cases(void) {
    TCase *cases = tcase_create("math_f64");
    tcase_set_timeout(cases, 0);
    tcase_add_checked_fixture(cases, setup, NULL);
    tcase_add_test(cases, exp_is_exact_to_the_last_bit);
    tcase_add_test(cases, log_is_exact_to_the_last_bit);
    tcase_add_test(cases, log1p_is_exact_to_the_last_bit);
    tcase_add_test(cases, sine_and_cosine_are_exact_to_the_last_bit);
    tcase_add_test(cases, pow_is_exact_to_the_last_bit);
    tcase_add_test(cases, bits_are_fixed);
    return cases;
}
