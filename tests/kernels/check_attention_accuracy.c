/* tests/kernels/check_attention_accuracy.c: the arithmetic is right, not only equal: against a softmax in
 * double precision and against the golden files. */
#include "attune/tensor.h"
#include "kernels/cpu/dispatch.h"
#include "sample_host/npy.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/oracle.h"
#include "tests/kernels/suite.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Values lie in [-1, 1]. 1e-5: sums of at most 200 weights, each step off by 2^-24, plus exp2's 0.8 ulp, stay
 * below 2e-5 / 2 even where every rounding falls one way. To it comes what float scores cost: a score of
 * magnitude m is off by up to (d + 3) 2^-24 m, in practice its square root's, and moves its weight by that
 * share; 8 of 2^-24 is more than was ever seen.
 */
static void compare_in_double(const attention_case *c) {
    attention_arrays a = arrays_make(c);
    double *want = malloc((size_t)c->d_v * sizeof *want);
    ck_assert_ptr_nonnull(want);
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && kernel_at(isa); ++isa) {
        arrays_reset_out(&a);
        run_kernel(kernel_at(isa), &a.args);
        for (int64_t row = 0; row < c->batch * c->heads_q * c->n_q; ++row) {
            const int64_t i = row % c->n_q, h = row / c->n_q % c->heads_q, b = row / c->n_q / c->heads_q;
            const double tolerance = 1e-5 + 8.0 * 0x1p-24 * oracle_row(&a.args, b, h, i, want);
            const float *got =
                a.out + b * a.args.stride_out[0] + h * a.args.stride_out[1] + i * a.args.stride_out[2];
            for (int64_t d = 0; d < c->d_v; ++d) {
                const double error = fabs((double)got[d] - want[d]);
                if (!(error <= tolerance))
                    ck_abort_msg("seed %lu row %ld channel %ld: %g, in double %g (+-%g)",
                                 (unsigned long)c->seed, (long)row, (long)d, (double)got[d], want[d],
                                 tolerance);
            }
        }
    }
    free(want);
    arrays_free(&a);
}

START_TEST(in_double) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
        attention_case c = random_case(5000 + seed);
        compare_in_double(&c);
    }
}
END_TEST

/*
 * How the error grows with the number of keys: l and o are chains of n roundings, each of at most half a last
 * place, that go either way: their sum grows as sqrt(n), not as n. Values lie in [1/2, 1], so that nothing
 * cancels; 6 is for the weights' own 0.8 ulp and the end's two roundings. With 32768 keys the bound of a
 * drift that always goes one way would be 170 times as much.
 */
START_TEST(error_grows_as_the_root) {
    enum { MOST = 32768, ROWS = 8, SIZE = 4 };
    attention_case c = {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = ROWS, .n_k = MOST, .seed = 11};
    c.d_qk = c.d_v = SIZE, c.amplitude = 1.0f;
    attention_arrays a = arrays_make(&c);
    for (int64_t i = 0; i < MOST * SIZE; ++i)
        a.v[i] = 0.75f + 0.25f * a.v[i];
    for (int64_t n = 128; n <= MOST; n *= 4) {
        double worst = 0.0, want[SIZE];
        a.args.n_k = n;
        attune_attention_f32_reference(&a.args);
        for (int64_t row = 0; row < ROWS; ++row) {
            (void)oracle_row(&a.args, 0, 0, row, want);
            for (int64_t d = 0; d < SIZE; ++d)
                worst = fmax(worst, fabs((double)a.out[row * SIZE + d] - want[d]));
        }
        ck_assert_msg(worst <= (6.0 + sqrt((double)n)) * 0x1p-24, "%ld keys: %g, %g last places", (long)n,
                      worst, worst * 0x1p24);
    }
    arrays_free(&a);
}
END_TEST

/* Computed on paper: c is 1 with this scale, so the scores 0, -1, -2, -2 give the weights 1, 1/2, 1/4, 1/4,
 * whose sum is 2. The second query is half the first: scores 0, -1/2, -1, -1, but it does not see the first,
 * second and third key: its weight is 1 whatever the score. */
START_TEST(on_paper) {
    float q[2] = {-1.0f, -0.5f}, k[4] = {0, 1, 2, 2}, v[4] = {1, 2, 4, 8}, out[2];
    uint8_t mask[8] = {1, 1, 1, 1, 0, 0, 0, 1};
    attune_attention_f32 a = {
        .batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 2, .n_k = 4, .d_qk = 1, .d_v = 1};
    a.q = q, a.k = k, a.v = v, a.out = out, a.mask = mask, a.scale = 0x1.62e43p-1f;
    a.mask_kind = ATTUNE_KERNEL_MASK_BOOL;
    a.stride_q[2] = a.stride_k[2] = a.stride_v[2] = a.stride_out[2] = 1;
    a.stride_mask[2] = 4, a.stride_mask[3] = 1;
    attune_attention_f32_reference(&a);
    ck_assert(out[0] == (1.0f + 1.0f + 1.0f + 2.0f) / 2.0f && out[1] == 8.0f);
    mask[0] = mask[1] = 0; /* -2 twice, the larger weight is 1: (4 + 8) / 2 */
    attune_attention_f32_reference(&a);
    ck_assert(out[0] == 6.0f);
    a.mask_kind = ATTUNE_KERNEL_MASK_NONE, a.causal = 1, v[2] = 0.0f, v[1] = 3.0f, v[0] = 0.25f;
    k[2] = 1.0f; /* query 0 sees three: weights 1, 1/2, 1/2 */
    attune_attention_f32_reference(&a);
    ck_assert(out[0] == (0.25f + 1.5f) / 2.0f);
}
END_TEST

static npy_array read_array(const char *name) {
    char path[1024];
    attune_error error;
    npy_array array;
    const char *source = getenv("ATTUNE_SOURCE");
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/%s", source ? source : ".", name);
    memset(&array, 0, sizeof array);
    ck_assert_msg(npy_read(path, &array, &error) == ATTUNE_OK, "%s", error.message);
    ck_assert_int_eq(array.tensor.ndim, 4);
    return array;
}

static void copy_stride(int64_t to[4], const attune_tensor *from) {
    for (int i = 0; i < 4; ++i)
        to[i] = from->shape[i] == 1 ? 0 : from->stride[i];
}

/* 1e-5 where scores stay below about 20, and as above for larger ones: the files were computed in double,
 * then rounded. */
static void compare_with_file(const json_t *one) {
    const json_t *files = json_object_get(one, "files"), *mask_name = json_object_get(files, "mask");
    npy_array q = read_array(json_string_value(json_object_get(files, "q")));
    npy_array k = read_array(json_string_value(json_object_get(files, "k")));
    npy_array v = read_array(json_string_value(json_object_get(files, "v")));
    npy_array want = read_array(json_string_value(json_object_get(files, "out"))), mask;
    memset(&mask, 0, sizeof mask);
    attune_attention_f32 a;
    memset(&a, 0, sizeof a);
    a.batch = q.tensor.shape[0], a.heads_q = q.tensor.shape[1], a.heads_kv = k.tensor.shape[1];
    a.n_q = q.tensor.shape[2], a.n_k = k.tensor.shape[2], a.d_qk = q.tensor.shape[3],
    a.d_v = v.tensor.shape[3];
    a.q = q.tensor.data, a.k = k.tensor.data, a.v = v.tensor.data;
    memcpy(a.stride_q, q.tensor.stride, sizeof a.stride_q);
    memcpy(a.stride_k, k.tensor.stride, sizeof a.stride_k);
    memcpy(a.stride_v, v.tensor.stride, sizeof a.stride_v);
    memcpy(a.stride_out, want.tensor.stride, sizeof a.stride_out);
    a.scale = (float)json_number_value(json_object_get(one, "scale"));
    a.causal = json_is_true(json_object_get(one, "causal"));
    if (json_is_string(mask_name)) {
        mask = read_array(json_string_value(mask_name));
        a.mask = mask.tensor.data;
        a.mask_kind = mask.tensor.dtype.bits == 8 ? ATTUNE_KERNEL_MASK_BOOL : ATTUNE_KERNEL_MASK_FLOAT;
        copy_stride(a.stride_mask, &mask.tensor);
    }
    const size_t count = (size_t)(a.batch * a.heads_q * a.n_q * a.d_v);
    float *out = malloc(count * sizeof *out);
    ck_assert_ptr_nonnull(out);
    a.out = out;
    const double most = json_number_value(json_object_get(one, "max_abs_score"));
    ck_assert(most > 0.0);
    ck_assert(attune_dtype_equal(want.tensor.dtype, ATTUNE_F32));
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && kernel_at(isa); ++isa) {
        run_kernel(kernel_at(isa), &a);
        for (size_t i = 0; i < count; ++i) {
            const double expected = (double)((const float *)want.tensor.data)[i],
                         error = fabs((double)out[i] - expected);
            if (!(error <= 1e-5 + 8.0 * 0x1p-24 * 4.0 * most))
                ck_abort_msg("%s, %s, float %zu: %g, the file has %g",
                             json_string_value(json_object_get(one, "stem")), kernel_at(isa)->isa, i,
                             (double)out[i], expected);
        }
    }
    free(out);
    npy_free(&q), npy_free(&k), npy_free(&v), npy_free(&want), npy_free(&mask);
}

START_TEST(golden_files) {
    char path[1024];
    const char *source = getenv("ATTUNE_SOURCE");
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/attention_cases.json", source ? source : ".");
    json_t *all = json_load_file(path, 0, NULL);
    ck_assert_msg(json_array_size(all) >= 9, "%s: not the list of cases", path);
    for (size_t i = 0; i < json_array_size(all); ++i)
        compare_with_file(json_array_get(all, i));
    json_decref(all);
}
END_TEST

TCase *attention_accuracy_cases(void) {
    TCase *cases = tcase_create("attention accuracy");
    tcase_add_test(cases, in_double);
    tcase_add_test(cases, error_grows_as_the_root);
    tcase_add_test(cases, on_paper);
    tcase_add_test(cases, golden_files);
    return cases;
}
