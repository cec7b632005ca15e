/* check_noise.c: torch.randn from the goldens, and the noise's own bits. */
#include "plugin/sampler/noise.h"
#include "tests/sampler/goldens.h"
#include "tests/sampler/suite.h"

#include <math.h>
#include <stdlib.h>

static const uint64_t seeds[] = {0, 123456789012345};

/*
 * torch's logarithm, sine and cosine of floats are off by an ulp or two and the product with the radius (up
 * to 5.8) is rounded: 7.2e-7 was the most over 6.4 million values. The formula in double, rounded once at the
 * end, is 1.4e-6 off; so a wrong rounding place is seen as well as a wrong uniform or pair.
 */
static const double tolerance = 1e-6;

static void compare(const float *got, const npy_array *golden) {
    const float *want = golden->tensor.data;
    size_t n = golden_count(golden);
    if (n < 16) /* double all the way, rounded once: the same value */
        for (size_t i = 0; i < n; i++)
            ck_assert_msg(got[i] == want[i], "n %zu, element %zu: %.9g, torch %.9g", n, i, (double)got[i],
                          (double)want[i]);
    else
        for (size_t i = 0; i < n; i++)
            ck_assert_msg(fabs((double)got[i] - (double)want[i]) <= tolerance,
                          "n %zu, element %zu: %.9g, torch %.9g", n, i, (double)got[i], (double)want[i]);
}

static void draw_and_compare(noise_generator *generator, const npy_array *golden) {
    size_t n = golden_count(golden);
    float *got = malloc((n + 1) * sizeof *got);
    got[n] = 12345;
    noise_normal(generator, got, n);
    ck_assert(got[n] == 12345); /* nothing behind the end */
    compare(got, golden);
    free(got);
}

START_TEST(fresh_draws_are_torchs) {
    static const int lengths[] = {1, 15, 16, 17, 65536};
    for (size_t s = 0; s < 2; s++)
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            npy_array golden =
                golden_read(ATTUNE_F32, 1, "noise_seed_%llu_n_%d", (unsigned long long)seeds[s], lengths[i]);
            noise_generator generator;
            noise_seed(&generator, NOISE_CPU, seeds[s]);
            draw_and_compare(&generator, &golden);
            npy_free(&golden);
        }
}
END_TEST

/* "mixed" needs the kept second value of a pair to survive a long draw. */
START_TEST(draws_in_a_row_are_torchs) {
    static const struct {
        const char *stem;
        int lengths[5];
    } rows[] = {{"draws", {1024, 1024, 1024, 20, 0}}, {"mixed", {5, 20, 3, 16, 1}}};
    for (size_t s = 0; s < 2; s++)
        for (size_t r = 0; r < 2; r++) {
            noise_generator generator;
            noise_seed(&generator, NOISE_CPU, seeds[s]);
            for (int i = 0; i < 5 && rows[r].lengths[i]; i++) {
                npy_array golden =
                    golden_read(ATTUNE_F32, 1, "noise_seed_%llu_%s_%d_n_%d", (unsigned long long)seeds[s],
                                rows[r].stem, i, rows[r].lengths[i]);
                draw_and_compare(&generator, &golden);
                npy_free(&golden);
            }
        }
}
END_TEST

START_TEST(seed_counts_modulo_2_to_32) {
    noise_generator a, b, c;
    noise_seed(&a, NOISE_CPU, 7);
    noise_seed(&b, NOISE_CPU, 7 + ((uint64_t)1 << 32));
    noise_seed(&c, NOISE_CPU, 8);
    float x[64], y[64], z[64];
    noise_normal(&a, x, 64);
    noise_normal(&b, y, 64);
    noise_normal(&c, z, 64);
    ck_assert(memcmp(x, y, sizeof x) == 0);
    ck_assert(memcmp(x, z, sizeof x) != 0);
    noise_generator copy = a; /* a copy goes on as the original does */
    noise_normal(&a, x, 5);
    noise_normal(&copy, y, 5);
    noise_normal(&a, x + 5, 59);
    noise_normal(&copy, y + 5, 59);
    ck_assert(memcmp(x, y, sizeof x) == 0);
}
END_TEST

/* The bits are the same with every compiler, option and CPU: FNV-1a over 100,007 values and 9 more. */
START_TEST(bits_are_fixed) {
    size_t n = 100007;
    float *values = malloc((n + 9) * sizeof *values);
    noise_generator generator;
    noise_seed(&generator, NOISE_CPU, 20240229);
    noise_normal(&generator, values, n);
    noise_normal(&generator, values + n, 9);
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < (n + 9) * sizeof *values; i++)
        hash = (hash ^ ((const unsigned char *)values)[i]) * 0x100000001b3u;
    free(values);
    ck_assert_msg(hash == 0xdf5f006d84e5dcc2u, "0x%016llx", (unsigned long long)hash);
}
END_TEST

/* The web UI computes in double as well and rounds once: half an ulp of float, and where the two logarithms'
 * or sines' last bits decide, one more. */
static void compare_nv(const float *got, const npy_array *golden) {
    const float *want = golden->tensor.data;
    for (size_t i = 0; i < golden_count(golden); i++)
        ck_assert_msg(fabs((double)got[i] - (double)want[i]) <= 0x1p-23 * fabs((double)want[i]),
                      "element %zu: %.9g, golden %.9g", i, (double)got[i], (double)want[i]);
}

START_TEST(nv_noise_is_philox) {
    noise_generator generator;
    float got[1000];
    npy_array golden = golden_read(ATTUNE_F32, 2, "noise_nv_seed_0_3x4");
    noise_seed(&generator, NOISE_NV, 0);
    noise_normal(&generator, got, 12);
    ck_assert(got[0] == -0.92466259f); /* the web UI's own test vector */
    compare_nv(got, &golden);
    npy_free(&golden);
    for (size_t s = 0; s < 2; s++) {
        golden = golden_read(ATTUNE_F32, 1, "noise_nv_seed_%llu_n_1000", (unsigned long long)seeds[s]);
        noise_seed(&generator, NOISE_NV, seeds[s]);
        noise_normal(&generator, got, 1000);
        compare_nv(got, &golden);
        npy_free(&golden);
        /* CUDA's float32 arithmetic: the angle is rounded to 2.4e-7, the radius is up to 5.8 */
        golden = golden_read(ATTUNE_F32, 1, "noise_nv_seed_%llu_n_1000_f32", (unsigned long long)seeds[s]);
        for (size_t i = 0; i < 1000; i++)
            ck_assert(fabs((double)got[i] - (double)((const float *)golden.tensor.data)[i]) <= 2e-6);
        npy_free(&golden);
        golden = golden_read(ATTUNE_F32, 2, "noise_nv_seed_%llu_draws", (unsigned long long)seeds[s]);
        noise_seed(&generator, NOISE_NV, seeds[s]);
        for (int i = 0; i < 4; i++)
            noise_normal(&generator, got + (ptrdiff_t)20 * i, 20);
        compare_nv(got, &golden);
        npy_free(&golden);
    }
}
END_TEST

TCase *noise_cases(void) {
    TCase *cases = tcase_create("noise");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, fresh_draws_are_torchs);
    tcase_add_test(cases, draws_in_a_row_are_torchs);
    tcase_add_test(cases, seed_counts_modulo_2_to_32);
    tcase_add_test(cases, bits_are_fixed);
    tcase_add_test(cases, nv_noise_is_philox);
    return cases;
}
