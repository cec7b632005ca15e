/* check_study.c: `study determinism` finds out a backend that sums in order of arrival, and nothing where
 * none is promised otherwise. */
#include "kernels/cpu/dispatch.h"
#include "picture.h"
#include "sample_host/study_difference.h"
#include "suite.h"
#include "tests/support/fixture_plugins.h"
#include "tests/support/run.h"

#include <stdlib.h>
#include <string.h>

/* One picture of the embedded model, 5 times: the fixture's race shows in some pixels of what two threads
 * make (at 64 x 64 it may show in none). */
#define SMALL "--images 1 --runs 5 --batch-sizes 1 --isa '' --width 128 --height 128"
#define TINY  "--model \"$S/tests/golden/data/tiny\""

static json_t *study(const char *arguments, int status, run_result *r) {
    *r = run("\"$HOST\" study determinism --json %s", arguments);
    ck_assert_msg(r->status == status, "%s: status %d, expected %d\n%s%s", arguments, r->status, status,
                  r->out, r->err);
    return run_json(r);
}

/* The i-th backend of a reply, and a row of it by name. */
static json_t *backend_of(json_t *reply, size_t i, const char *name) {
    json_t *entry = json_array_get(json_object_get(reply, "backends"), i);
    ck_assert_msg(entry != NULL, "no backend %zu", i);
    ck_assert_str_eq(json_string_value(json_object_get(entry, "backend")), name);
    return entry;
}

static json_t *row_of(json_t *entry, const char *variation) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(entry, "variations"), i, row) {
        if (strcmp(json_string_value(json_object_get(row, "variation")), variation) == 0)
            return row;
    }
    ck_abort_msg("no row %s", variation);
    return NULL;
}

static int number(json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_integer(value), "%s is no whole number", key);
    return (int)json_integer_value(value);
}

static void expect_text(json_t *object, const char *key, const char *text) {
    const char *value = json_string_value(json_object_get(object, key));
    ck_assert_msg(value && strstr(value, text), "%s is %s, expected %s", key, value ? value : "missing",
                  text);
}

START_TEST(differences_are_counted_exactly) {
    const uint8_t a[] = {0, 0, 0, 255, 10, 10, 7, 8, 9, 1, 1, 1},
                  b[] = {0, 0, 3, 0, 10, 10, 7, 8, 9, 2, 0, 1};
    const uint8_t expected[] = {0, 0, 3, 255, 0, 0, 0, 0, 0, 1, 1, 0};
    uint8_t absolute[12];
    difference d = difference_of(a, b, 4, absolute);
    ck_assert_uint_eq(d.pixels, 3);
    ck_assert_uint_eq(d.largest, 255);
    ck_assert_double_eq(d.mean, 260.0 / 12);
    ck_assert_mem_eq(absolute, expected, 12);
    d = difference_of(a, a, 4, absolute);
    ck_assert(d.pixels == 0 && d.largest == 0 && d.mean == 0);
    d = difference_of(a + 6, b + 6, 2, absolute);
    ck_assert(d.pixels == 1 && d.largest == 1);
    ck_assert(difference_scale(0) == 1 && difference_scale(1) == 255 && difference_scale(2) == 127 &&
              difference_scale(128) == 1 && difference_scale(255) == 1);
}
END_TEST

/* A difference picture shows as many pixels as were counted, the largest at its brightest. */
static void check_picture(json_t *row, const char *name) {
    picture p = read_picture(name);
    int pixels = 0, brightest = 0;
    for (size_t i = 0; i < (size_t)p.width * p.height; ++i) {
        int most = 0;
        for (size_t k = 3 * i; k < 3 * i + 3; ++k)
            most = p.pixels[k] > most ? p.pixels[k] : most;
        pixels += most > 0;
        brightest = most > brightest ? most : brightest;
    }
    char times[32];
    (void)snprintf(times, sizeof times, ", times %d\n", number(row, "scale"));
    ck_assert_ptr_nonnull(strstr(p.parameters, times));
    ck_assert_int_eq(pixels, number(row, "pixels"));
    ck_assert_int_eq(brightest % number(row, "scale"), 0);
    ck_assert_int_gt(brightest, 127);
    free_picture(&p);
}

START_TEST(sums_in_order_of_arrival_are_found_out) {
    char arguments[5000];
    run_result r;
    const char *manifest = fixture_plugins("racers", NULL);
    (void)snprintf(arguments, sizeof arguments, SMALL " --threads 2 --plugin '%s' --backends racy -o .",
                   manifest);
    json_t *reply = study(arguments, 0, &r), *racy = backend_of(reply, 0, "racy"),
           *row = row_of(racy, "runs");
    ck_assert(json_is_false(json_object_get(row, "promised")));
    ck_assert_int_eq(number(row, "comparisons"), 4);
    ck_assert_int_gt(number(row, "differ"), 0);
    ck_assert_int_gt(number(row, "largest"), 0);
    ck_assert(json_number_value(json_object_get(row, "mean")) > 0);
    ck_assert_int_eq(number(json_object_get(row, "worst"), "threads"), 2);
    ck_assert_int_gt(number(json_object_get(row, "worst"), "run"), 1);
    expect_text(racy, "verdict", "differs between runs (");
    expect_text(json_object_get(racy, "determinism"), "attention", "none");
    expect_text(json_object_get(racy, "determinism"), "picture", "none");
    expect_text(row, "output", "./racy-runs.png");
    check_picture(row, "racy-runs.png");
    json_decref(reply);
    run_free(&r);

    /* one thread has one order: only what two threads made can differ; and a class keeps the backend out */
    (void)snprintf(arguments, sizeof arguments, SMALL " --threads 1,2 --plugin '%s' --backends racy",
                   manifest);
    reply = study(arguments, 0, &r);
    row = row_of(backend_of(reply, 0, "racy"), "runs");
    ck_assert_int_eq(number(row, "comparisons"), 8);
    ck_assert(number(row, "differ") > 0 && number(row, "differ") <= 4);
    json_decref(reply);
    run_free(&r);
    (void)snprintf(arguments, sizeof arguments,
                   SMALL " --plugin '%s' --backends racy --determinism repeatable", manifest);
    reply = study(arguments, 3, &r);
    expect_text(backend_of(reply, 0, "racy"), "refused", "repeatable is asked for");
    json_decref(reply);
    run_free(&r);
}
END_TEST

START_TEST(a_broken_promise_is_an_error) {
    run_result r =
        run("\"$HOST\" study determinism " SMALL " --threads 2 --plugin '%s' --backends boaster,sdp; S=$?; "
            "ls *.png; exit $S",
            fixture_plugins("racers", NULL));
    ck_assert_msg(r.status == 1, "%s%s", r.out, r.err);
    ck_assert_ptr_nonnull(strstr(r.err,
                                 "error: boaster (fixture-racers 1.0.0) broke its promise: class repeatable, "
                                 "but the picture differs between runs ("));
    ck_assert_ptr_nonnull(strstr(r.err, "--output FOLDER writes the differences"));
    ck_assert_ptr_nonnull(strstr(r.out, "runs       BROKEN        4"));
    ck_assert_ptr_nonnull(strstr(r.out, "same bits in all 6 comparisons")); /* sdp, after it */
    ck_assert_ptr_null(strstr(r.out, ".png"));
    run_free(&r);
}
END_TEST

/* What attune-cpu's backends and the sampler promise is kept on both models. */
static void is_kept(const char *model) {
    static const char *const names[] = {"sdp-no-mem", "sdp", "xformers", "split", "sub-quadratic", "math"};
    char arguments[512];
    run_result r;
    (void)snprintf(
        arguments, sizeof arguments,
        "'red apple' %s --images 2 --runs 2 --threads 1,2 --batch-sizes 1,2,3 --steps 2 --seed 0 --width 64 "
        "--height 64 --sampler Euler",
        model);
    json_t *reply = study(arguments, 0, &r);
    ck_assert_uint_eq(json_array_size(json_object_get(reply, "backends")), 6);
    for (size_t i = 0; i < 6; ++i) {
        json_t *entry = backend_of(reply, i, names[i]), *runs = row_of(entry, "runs"),
               *threads = row_of(entry, "threads"), *batch = row_of(entry, "batch"),
               *memory = row_of(entry, "memory"), *isa = row_of(entry, "isa");
        expect_text(json_object_get(entry, "choice"), "backend", names[i]);
        expect_text(json_object_get(entry, "determinism"), "attention", "portable");
        expect_text(json_object_get(entry, "determinism"), "picture", "portable");
        expect_text(json_object_get(entry, "determinism"), "limited_by", "");
        ck_assert_int_eq(number(runs, "comparisons"), 4);
        ck_assert_int_eq(number(threads, "comparisons"), 2);
        ck_assert_int_eq(number(batch, "comparisons"), 10);
        ck_assert(json_is_true(json_object_get(runs, "promised")));
        ck_assert(json_is_true(json_object_get(threads, "promised")));
        ck_assert(json_is_true(json_object_get(batch, "promised")));
        ck_assert_int_eq(number(runs, "differ"), 0);
        ck_assert_int_eq(number(threads, "differ"), 0);
        ck_assert_int_eq(number(batch, "differ"), 0);
        ck_assert(json_is_true(json_object_get(memory, "promised")));
        ck_assert_int_eq(number(memory, "comparisons"), 4);
        ck_assert_int_eq(number(memory, "differ"), 0);
        ck_assert(json_is_true(json_object_get(isa, "promised")));
        ck_assert_int_eq(number(isa, "comparisons"), 2 * (int)attune_cpu_detect());
        ck_assert_int_eq(number(isa, "differ"), 0);
    }
    expect_text(reply, "prompt", "red apple");
    ck_assert_int_eq(number(reply, "seed"), 0);
    ck_assert_int_eq(number(reply, "images"), 2);
    ck_assert_int_eq(number(reply, "runs"), 2);
    ck_assert_uint_eq(json_array_size(json_object_get(reply, "threads")), 2);
    ck_assert_uint_eq(json_array_size(json_object_get(reply, "batch_sizes")), 3);
    json_decref(reply);
    run_free(&r);
}

START_TEST(the_classes_of_attune_cpu_are_kept) {
    is_kept("");
    is_kept(TINY);
}
END_TEST

/* A cap is one of the picture alone: where it changes nothing, nothing is compared, and an unknown one is
 * wrong usage. */
START_TEST(instruction_sets_are_listed) {
    run_result r;
    static const char best[] = TINY " " SMALL " --threads 1 --steps 1 --backends sdp --isa ";
    char arguments[512];
    attune_cpu_kernels kernels;
    attune_cpu_dispatch(attune_cpu_detect(), &kernels);
    (void)snprintf(arguments, sizeof arguments, "%s%s,generic", best, kernels.matmul_f32->isa);
    json_t *reply = study(arguments, 0, &r);
    ck_assert_int_eq(number(row_of(backend_of(reply, 0, "sdp"), "isa"), "comparisons"),
                     attune_cpu_detect() > ATTUNE_CPU_GENERIC);
    json_decref(reply);
    run_free(&r);
    run_fails("\"$HOST\" study determinism --isa generic,sse", 2, "\"sse\" is none of generic,");
    run_fails("\"$HOST\" study determinism --isa generic,generic", 2, "given twice");
    run_fails("\"$HOST\" study determinism --isa ,", 2, "\"\" is none of generic,");
}
END_TEST

START_TEST(a_backend_that_cannot_serve_is_a_row) {
    run_result r;
    char arguments[5000];
    const char *manifest = fixture_plugins("picky", NULL);
    (void)snprintf(arguments, sizeof arguments,
                   TINY " " SMALL " --threads 1 --steps 1 --plugin '%s' --backends picky,scaled-dot-product",
                   manifest);
    json_t *reply = study(arguments, 0, &r);
    expect_text(backend_of(reply, 0, "picky"), "refused", "runs on another device");
    ck_assert_ptr_null(json_object_get(backend_of(reply, 0, "picky"), "variations"));
    expect_text(backend_of(reply, 1, "sdp"), "verdict", "same bits in all 6 comparisons");
    json_decref(reply);
    run_free(&r);
    (void)snprintf(arguments, sizeof arguments,
                   TINY " " SMALL " --threads 1 --plugin '%s' --attention-required picky", manifest);
    reply = study(arguments, 3, &r);
    expect_text(json_object_get(reply, "error"), "message", "no backend could be studied: ");
    expect_text(json_object_get(reply, "error"), "message", "runs on another device");
    json_decref(reply);
    run_free(&r);
}
END_TEST

START_TEST(an_interrupted_study_ends) {
    run_result r = run("cd \"$(mktemp -d -p .)\"; \"$HOST\" study determinism -q --width 512 --height 512 "
                       "--steps 1000 -o . & P=$!; sleep 1; "
                       "kill -INT $P; wait $P; S=$?; ls -A; exit $S");
    ck_assert_msg(r.status == 130, "status %d\n%s", r.status, r.err);
    ck_assert_str_eq(r.out, "");
    run_free(&r);
}
END_TEST

START_TEST(help_shows_its_own_threads_only) {
    run_result r = run("\"$HOST\" study determinism --help");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.out, "--threads=LIST"));
    ck_assert_ptr_null(strstr(r.out, "--threads=N"));
    run_free(&r);
}
END_TEST

TCase *study_cases(void) {
    TCase *cases = tcase_create("study");
    tcase_add_test(cases, differences_are_counted_exactly);
    tcase_add_test(cases, sums_in_order_of_arrival_are_found_out);
    tcase_add_test(cases, a_broken_promise_is_an_error);
    tcase_add_test(cases, the_classes_of_attune_cpu_are_kept);
    tcase_add_test(cases, instruction_sets_are_listed);
    tcase_add_test(cases, a_backend_that_cannot_serve_is_a_row);
    tcase_add_test(cases, an_interrupted_study_ends);
    tcase_add_test(cases, help_shows_its_own_threads_only);
    return cases;
}
