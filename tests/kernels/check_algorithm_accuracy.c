/* tests/kernels/check_algorithm_accuracy.c: how far each arithmetic is from attention in double, and how that
 * grows with the number of keys. The references stand for their kernels, which have their bits. */
#include "tests/kernels/cases.h"
#include "tests/kernels/oracle.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const int arithmetics[] = {ATTUNE_ATTENTION_PANELS, ATTUNE_ATTENTION_MATRIX, ATTUNE_ATTENTION_CHUNKS};
enum { ARITHMETICS = sizeof arithmetics / sizeof *arithmetics };

/* The largest error of a case's output beyond what float scores explain, 2^-21 of the largest sum of
 * |scale q k| (check_attention_accuracy.c says why). */
static double largest_error(const attention_case *c, int algorithm, int positive) {
    attention_arrays a = arrays_make(c);
    for (int64_t i = 0; positive && i < c->batch * c->heads_kv * c->n_k * c->d_v; ++i)
        a.v[i] = 0.5f + 0.5f * fabsf(a.v[i]);
    double *want = malloc((size_t)c->d_v * sizeof *want), most = 0.0;
    ck_assert_ptr_nonnull(want);
    reference_of(algorithm)(&a.args);
    for (int64_t row = 0; row < c->batch * c->heads_q * c->n_q; ++row) {
        const int64_t i = row % c->n_q, h = row / c->n_q % c->heads_q, b = row / c->n_q / c->heads_q;
        const double explained = 0x1p-21 * oracle_row(&a.args, b, h, i, want);
        const float *got =
            a.out + b * a.args.stride_out[0] + h * a.args.stride_out[1] + i * a.args.stride_out[2];
        for (int64_t d = 0; d < c->d_v; ++d) {
            const double error = fabs((double)got[d] - want[d]) - explained;
            most = error > most || error != error ? error : most;
        }
    }
    free(want);
    arrays_free(&a);
    return most;
}

/* 1e-5 as for the online softmax: sums of at most 300 weights, whatever their order. */
START_TEST(in_double) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
        attention_case c = random_case(51000 + seed);
        c.chunk_k = 1 + (int64_t)(seed * 7 % 90);
        const double error = largest_error(&c, arithmetics[_i], 0);
        ck_assert_msg(error <= 1e-5, "arithmetic %d, seed %lu: off by %g", _i, (unsigned long)seed, error);
    }
}
END_TEST

/*
 * Weights about equal and values between 1/2 and 1: sums grow with each key, and each addition rounds by at
 * most 2^-24 of its sum. Roundings lean to neither side, so that a chain of n is off by about sqrt(n) of
 * them; twice that is allowed. A chunked sum has two short chains, of C and n / C: at 16384 keys the others
 * would fail its bound.
 */
START_TEST(error_grows_with_the_keys) {
    static const int64_t keys[] = {64, 1024, 16384};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i) {
        attention_case c = {.batch = 1,
                            .heads_q = 1,
                            .heads_kv = 1,
                            .n_q = 4,
                            .n_k = keys[i],
                            .d_qk = 8,
                            .d_v = 8,
                            .amplitude = 0.05f,
                            .seed = 9};
        c.chunk_k = (int64_t)sqrt((double)keys[i]);
        const double n = _i == 2 ? 2.0 * (double)c.chunk_k : (double)keys[i];
        const double error = largest_error(&c, arithmetics[_i], 1), bound = 2.0 * sqrt(n) * 0x1p-24;
        ck_assert_msg(error <= bound, "arithmetic %d, %ld keys: off by %g, allowed %g", _i, (long)keys[i],
                      error, bound);
    }
}
END_TEST

TCase *algorithm_accuracy_cases(void) {
    TCase *cases = tcase_create("algorithm accuracy");
    tcase_add_loop_test(cases, in_double, 0, ARITHMETICS);
    tcase_add_loop_test(cases, error_grows_with_the_keys, 0, ARITHMETICS);
    return cases;
}
