/* check_bench_image.c: `bench image` makes the pictures that it counts, with the backend that it names. */
#include "suite.h"
#include "tests/support/run.h"

#include <string.h>

#define TINY "--quick --model \"$S/tests/golden/data/tiny\" "

static json_t *bench(const char *options, int status) {
    run_result r = run("\"$HOST\" bench image --json -q %s", options);
    ck_assert_msg(r.status == status, "%s: status %d, expected %d\n%s", options, r.status, status, r.err);
    json_t *reply = run_json(&r);
    run_free(&r);
    return reply;
}

static json_t *only_result(json_t *reply) {
    json_t *results = json_object_get(reply, "results");
    ck_assert_uint_eq(json_array_size(results), 1);
    return json_array_get(results, 0);
}

START_TEST(one_backend) {
    json_t *reply = bench(TINY "--attention sdp_no_mem -o bench.svg", 0), *one = only_result(reply);
    json_t *seconds = json_object_get(one, "seconds"), *size = json_object_get(one, "size");
    ck_assert_str_eq(json_string_value(json_object_get(one, "backend")), "sdp-no-mem");
    ck_assert_str_eq(json_string_value(json_object_get(one, "plugin")), "attune-cpu");
    ck_assert_ptr_nonnull(json_string_value(json_object_get(one, "determinism")));
    ck_assert_int_eq(json_integer_value(json_object_get(one, "images")), 4);
    ck_assert_int_eq(json_integer_value(json_object_get(one, "steps")), 4);
    ck_assert_int_eq(json_integer_value(json_object_get(one, "runs")), 1);
    ck_assert_int_eq(json_integer_value(json_array_get(size, 0)), 768);
    ck_assert_int_eq(json_integer_value(json_array_get(size, 1)), 512);
    ck_assert_double_gt(json_real_value(json_object_get(seconds, "median")), 0);
    run_result plot =
        run("cat bench.svg; xmllint --version >/dev/null 2>&1 || exit 0; xmllint --noout bench.svg");
    char median[32];
    ck_assert_msg(plot.status == 0, "%s", plot.err);
    (void)snprintf(median, sizeof median, ">%.3g s</text>",
                   json_real_value(json_object_get(seconds, "median")));
    ck_assert_ptr_nonnull(strstr(plot.out, ">sdp-no-mem</text>"));
    ck_assert_ptr_nonnull(strstr(plot.out, median));
    ck_assert_ptr_nonnull(strstr(plot.out, " MiB</text>"));
    ck_assert_str_eq(plot.out + strlen(plot.out) - 7, "</svg>\n");
    run_free(&plot);
    /* more than one picture's pixels and the VAE's last layer of them, as floats */
    ck_assert_int_gt(json_integer_value(json_object_get(one, "peak_bytes")), 768 * 512 * (3 + 8 * 4));
    json_decref(reply);
}
END_TEST

START_TEST(a_backend_that_cannot_serve_is_a_row) {
    json_t *reply = bench(TINY "--attention sdp-no-mem --memory-limit 1M", 3), *one = only_result(reply);
    ck_assert_ptr_nonnull(strstr(json_string_value(json_object_get(one, "refused")), "this request needs"));
    ck_assert_ptr_null(json_object_get(one, "seconds"));
    json_decref(reply);
}
END_TEST

START_TEST(an_interrupted_bench_ends) {
    run_result r = run("\"$HOST\" bench image -q & P=$!; sleep 1; kill -INT $P; wait $P");
    ck_assert_msg(r.status == 130, "status %d\n%s", r.status, r.err);
    ck_assert_str_eq(r.out, "");
    ck_assert_msg(run_lines(r.err) == 1 && strstr(r.err, "interrupted"), "%s", r.err);
    run_free(&r);
    run_fails("\"$HOST\" bench image -q -o nowhere/bench.svg", 1, "nowhere");
    run_fails("\"$HOST\" bench image apple", 2, "unexpected argument \"apple\"");
}
END_TEST

TCase *bench_image_cases(void) {
    TCase *cases = tcase_create("bench_image");
#ifndef __SANITIZE_ADDRESS__ /* with which five pictures take minutes */
    tcase_add_test(cases, one_backend);
#else
    (void)one_backend;
#endif
    tcase_add_test(cases, a_backend_that_cannot_serve_is_a_row);
    tcase_add_test(cases, an_interrupted_bench_ends);
    return cases;
}
