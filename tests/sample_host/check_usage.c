/* check_usage.c: options, help, exit statuses. */
#include "suite.h"
#include "tests/support/fixture_plugins.h"
#include "tests/support/run.h"

#include <string.h>

#define fails(arguments, status, text) run_fails("\"$HOST\" " arguments, status, text)

START_TEST(wrong_usage_is_one_line_and_status_2) {
    fails("txt2img apple --stepz 3", 2, "unknown option --stepz; did you mean --steps?");
    fails("txt2imgs apple", 2, "did you mean txt2img?");
    fails("bench nothing", 2, "sample_host bench attention");
    fails("study", 2, "sample_host study determinism");
    fails("study everything", 2, "study what? \"everything\"");
    fails("txt2img", 2, "a prompt is missing");
    fails("txt2img red apple", 2, "put the prompt in quotes");
    fails("txt2img apple --steps", 2, "--steps needs a value");
    fails("txt2img apple --steps many", 2, "--steps: \"many\" is no number");
    fails("txt2img apple --steps 0", 2, "outside 1 to 1000");
    fails("txt2img apple --seed -7", 2, "no seed");
    fails("txt2img apple --seed 1x", 2, "no seed");
    fails("txt2img apple --seed 18446744073709551615", 2, "no seed");
    fails("txt2img apple --cfg-scale nan", 2, "--cfg-scale nan");
    fails("txt2img apple --subseed x", 2, "--subseed x is no seed");
    fails("txt2img apple --subseed-strength 1.1", 2, "no number from 0 to 1");
    fails("txt2img apple --randn-source GPU", 2, "CPU and NV are possible");
    fails("txt2img apple --clip-skip 0", 2, "--clip-skip 0 is less than 1");
    fails("txt2img apple --batch-size 0", 2, "--batch-size 0");
    fails("txt2img apple --batch-count 0", 2, "--batch-count 0");
    fails("txt2img apple --steps \"\"", 2, "--steps: \"\" is no number");
    fails("txt2img apple --steps ' 5'", 2, "--steps: \" 5\" is no number");
    fails("txt2img apple --steps 5x", 2, "--steps: \"5x\" is no number");
    fails("txt2img apple --steps 99999999999", 2, "--steps: \"99999999999\" is no number");
    fails("txt2img apple --width 0", 2, "--width 0 is less than 8");
    fails("txt2img apple --width 64 --width 0", 2, "--width 0 is less than 8");
    fails("txt2img apple --height 0", 2, "--height 0 is less than 8");
    fails("txt2img apple --height \"\"", 2, "--height: \"\" is no number");
    fails("txt2img apple --batch-count=", 2, "--batch-count: \"\" is no number");
    fails("txt2img apple --cfg-scale \"\"", 2, "--cfg-scale  is no number");
    fails("txt2img apple --quiet=yes", 2, "--quiet=yes");
    fails("txt2img apple --threads 0", 2, "--threads 0 is less than 1");
    fails("txt2img apple --threads \"\"", 2, "--threads: \"\" is no number");
    fails("txt2img apple --threads -1", 2, "--threads -1 is less than 1");
    fails("txt2img apple --threads 1025", 2, "outside 1 to 1024");
    fails("txt2img apple --determinism total", 2, "none, repeatable, invariant, portable");
    fails("txt2img apple --memory-limit much", 2, "512M or 8G");
    fails("txt2img apple --min-memory much", 2, "512M or 8G");
    fails("txt2img apple -o picture.jpg", 2, "as PNG");
    fails("plugins extra", 2, "unexpected argument");
    fails("txt2img apple -o \"\"", 2, "file name");
    fails("txt2img apple -o -", 2, "/dev/stdout");
    fails("attention --q x.npy", 2, "--k is missing");
    fails("attention --q x --k x --v x -o y --scale big", 2, "--scale big");
    fails("bench attention --shape 1,2,3", 2, "B,H,Nq,Nk,D");
    fails("study determinism a b", 2, "put the prompt in quotes");
    fails("study determinism --images 0", 2, "--images 0 is outside 1 to 10000");
    fails("study determinism --runs 0", 2, "--runs 0 is outside 1 to 10000");
    fails("study determinism --threads 1,0", 2, "--threads 1,0 is no list");
    fails("study determinism --threads 1,2000", 2, "from 1 to 1024");
    fails("study determinism --threads 1:2", 2, "--threads 1:2 is no list");
    fails("study determinism --batch-sizes 2,", 2, "--batch-sizes 2, is no list");
    fails("study determinism --batch-sizes 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", 2, "at most 16");
    fails("study determinism --steps 0", 2, "outside 1 to 1000");
    fails("study determinism --seed x", 2, "--seed x is no seed");
    fails("study determinism --backends sdp --attention sdp", 2, "name backends in one place");
}
END_TEST

START_TEST(unknown_names_are_named) {
    fails("txt2img apple --attention spd", 2, "did you mean sdp?");
    fails("txt2img apple --attention-required nothing", 2, "no attention backend is called");
    fails("-q txt2img", 2, "unknown command");
    fails("study determinism --backends sdp,spd", 2, "did you mean sdp?");
    fails("txt2img apple -q --sampler \"Euler b\"", 2, "DPM++ 2M");
    fails("study determinism -q --sampler \"Euler b\"", 2, "DPM++ 2M");
    fails("txt2img apple -q --scheduler Carras", 2, "Karras");
    fails("txt2img apple --device gpu", 2, "no device name");
}
END_TEST

START_TEST(sizes_must_be_multiples_of_8) {
    fails("txt2img apple -q --width 100", 2, "96");
    fails("txt2img apple -q --height 129", 2, "128");
}
END_TEST

START_TEST(what_nobody_can_serve_is_status_3) {
    fails("txt2img apple -q --attention-required None --memory-limit 8300000", 3, "this request needs");
    fails("txt2img apple -q --device cuda:0", 3, "cuda:0");
    fails("txt2img apple -q --vendor NoSuchVendor", 3, "NoSuchVendor");
    fails("txt2img apple -q --min-memory 900000G", 3, "are asked for");
    fails("txt2img apple -q --determinism invariant --attention-required sub-quadratic "
          "--sub-quad-chunk-threshold 50",
          3, "keeps determinism class repeatable, invariant is asked for");
    fails("txt2img apple -q --memory-limit 100K", 3, "this request needs");
}
END_TEST

START_TEST(help_names_every_option) {
    static const char *const words[] = {"--steps",
                                        "--sampler",
                                        "--scheduler",
                                        "--cfg-scale",
                                        "--seed",
                                        "--subseed",
                                        "--subseed-strength",
                                        "--randn-source",
                                        "--clip-skip",
                                        "--width",
                                        "--height",
                                        "--batch-size",
                                        "--batch-count",
                                        "--model",
                                        "--model-config",
                                        "--output",
                                        "--negative-prompt",
                                        "--plugin",
                                        "--device",
                                        "--threads",
                                        "--determinism",
                                        "--attention",
                                        "--explain",
                                        "--json",
                                        "--memory-limit",
                                        "--quiet",
                                        "--vendor",
                                        "--min-memory",
                                        "--attention-required"};
    run_result r = run("\"$HOST\" txt2img --help");
    ck_assert_int_eq(r.status, 0);
    ck_assert_str_eq(r.err, "");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; ++i)
        ck_assert_msg(strstr(r.out, words[i]) != NULL, "--help lacks %s:\n%s", words[i], r.out);
    run_free(&r);
    r = run("\"$HOST\" --help && \"$HOST\" plugins --help && \"$HOST\" attention --help && \"$HOST\" bench "
            "attention --help");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.out, "--shape"));
    ck_assert_ptr_nonnull(strstr(r.out, "--mask"));
    run_free(&r);
    r = run("\"$HOST\"");
    ck_assert_int_eq(r.status, 2);
    run_free(&r);
    r = run("\"$HOST\" --version");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.out, "sample_host "));
    run_free(&r);
}
END_TEST

START_TEST(the_backend_is_announced_as_in_the_webui) {
    run_result r = run("\"$HOST\" txt2img 'red apple' --steps 1 --seed 1 --attention sdp --explain -o f.png");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.err, "Applying attention optimization: sdp... done.\n"));
    ck_assert_ptr_nonnull(strstr(r.err, "* sdp"));
    ck_assert_ptr_nonnull(strstr(r.err, "sdp-no-mem"));
    ck_assert_str_eq(r.out, "f.png\n");
    run_free(&r);
}
END_TEST

START_TEST(plugins_lists_what_scripts_rely_on) {
    run_result r = run("\"$HOST\" plugins --json");
    ck_assert_int_eq(r.status, 0);
    json_t *json = run_json(&r), *plugin, *device, *backend;
    size_t i, k, n, backends = 0, others = 0;
    json_array_foreach(json_object_get(json, "plugins"), i, plugin) {
        ck_assert(json_is_string(json_object_get(plugin, "id")) &&
                  json_is_string(json_object_get(plugin, "version")));
        ck_assert(json_is_string(json_object_get(plugin, "path")) &&
                  json_is_integer(json_object_get(plugin, "generation")));
        if (strcmp(json_string_value(json_object_get(plugin, "id")), "attune-cuda") == 0) {
            ++others; /* by what build and machine have; tests/cuda has its tests */
            continue;
        }
        ck_assert_str_eq(json_string_value(json_object_get(plugin, "state")), "active");
        ck_assert(json_is_null(json_object_get(plugin, "refused")));
        json_array_foreach(json_object_get(plugin, "devices"), k, device) {
            json_int_t total = json_integer_value(json_object_get(device, "memory_total"));
            json_int_t free_now = json_integer_value(json_object_get(device, "memory_free"));
            ck_assert(total > 1 << 20 && free_now > 0 && free_now <= total);
            ck_assert_str_eq(json_string_value(json_object_get(device, "name")), "cpu");
            ck_assert_str_ne(json_string_value(json_object_get(device, "vendor")), "");
            json_array_foreach(json_object_get(device, "backends"), n, backend) {
                ++backends;
                ck_assert(json_is_array(json_object_get(backend, "aliases")));
                ck_assert(json_is_integer(json_object_get(backend, "priority")));
                ck_assert_str_eq(json_string_value(json_object_get(backend, "determinism")), "portable");
                const char *arithmetic = json_string_value(json_object_get(backend, "arithmetic"));
                ck_assert(strcmp(arithmetic, "attune-f32-1") == 0 ||
                          strcmp(arithmetic, "attune-f32-full-1") == 0 ||
                          strcmp(arithmetic, "attune-f32-chunked-1") == 0);
            }
        }
    }
    ck_assert_uint_eq(json_array_size(json_object_get(json, "plugins")) - others, 2);
    ck_assert_uint_eq(backends, 6);
    json_decref(json);
    run_free(&r);
    r = run("\"$HOST\" plugins");
    ck_assert_ptr_nonnull(strstr(r.out, "sdp-no-mem"));
    ck_assert_ptr_nonnull(strstr(r.out, "memory"));
    run_free(&r);
}
END_TEST

/* A backend whose shared library is not there is listed, and said to serve nobody. */
START_TEST(plugins_says_what_a_backend_lacks) {
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.attention.1.requires", json_pack("[s]", "libnowhere.so.7"));
    const char *path = fixture_install(fixture_folder(), manifest);
    run_result r = run("\"$HOST\" plugins --json --plugin %s", path);
    json_t *json = run_json(&r);
    const json_t *backends = fixture_get(json, "plugins.0.devices.0.backends");
    ck_assert_uint_eq(json_array_size(backends), 2);
    for (size_t i = 0; i < 2; ++i) {
        const json_t *one = json_array_get(backends, i), *lacks = json_object_get(one, "lacks");
        if (strcmp(json_string_value(json_object_get(one, "name")), "sdp") == 0)
            ck_assert_str_eq(json_string_value(lacks), "libnowhere.so.7");
        else
            ck_assert(json_is_null(lacks));
    }
    json_decref(json);
    run_free(&r);
    r = run("\"$HOST\" plugins --plugin %s | grep -c 'not served: lacks libnowhere.so.7$'", path);
    ck_assert_str_eq(r.out, "1\n");
    run_free(&r);
}
END_TEST

START_TEST(plugins_obeys_the_hard_filters) {
    run_result r = run("\"$HOST\" plugins --device cpu && ! \"$HOST\" plugins --device cuda:0 && \"$HOST\" "
                       "plugins --vendor Nobody");
    ck_assert_int_eq(r.status, 3);
    ck_assert_ptr_nonnull(strstr(r.err, "no device passes"));
    run_free(&r);
}
END_TEST

START_TEST(a_mask_caps_the_isa_and_a_wrong_one_is_refused) {
    run_result r = run("ATTUNE_CPU_MASK=generic \"$HOST\" plugins");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.out, "generic"));
    run_free(&r);
    r = run("ATTUNE_CPU_MASK=avx1024 \"$HOST\" txt2img apple -q");
    ck_assert_int_ne(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.err, "avx1024"));
    run_free(&r);
}
END_TEST

START_TEST(bench_attention_reports_each_backend_and_refusal) {
    run_result r =
        run("\"$HOST\" bench attention --shape 1,2,64,77,40 --shape 1,1,16,16,8 --json --threads 1");
    ck_assert_msg(r.status == 0, "%s", r.err);
    json_t *json = run_json(&r), *results = json_object_get(json, "results"), *entry;
    size_t i;
    ck_assert_uint_eq(json_array_size(results), 2 * 6);
    json_array_foreach(results, i, entry) {
        json_t *ms = json_object_get(entry, "milliseconds");
        double low = json_real_value(json_object_get(ms, "min")),
               mid = json_real_value(json_object_get(ms, "median"));
        ck_assert(low > 0 && low <= mid && mid <= json_real_value(json_object_get(ms, "max")));
        ck_assert(json_real_value(json_object_get(entry, "gflops")) > 0);
        ck_assert_int_eq((int)json_integer_value(json_object_get(entry, "threads")), 1);
        ck_assert(json_is_integer(json_object_get(entry, "workspace_bytes")) &&
                  json_is_string(json_object_get(entry, "isa")));
        ck_assert_uint_eq(json_array_size(json_object_get(entry, "shape")), 5);
    }
    json_decref(json);
    run_free(&r);
    r = run("\"$HOST\" bench attention --shape 1,2,64,77,40 --attention math --memory-limit 1K --json");
    json = run_json(&r);
    entry = json_array_get(json_object_get(json, "results"), 0);
    ck_assert(json_is_string(json_object_get(entry, "refused")));
    ck_assert_ptr_null(json_object_get(entry, "milliseconds"));
    json_decref(json);
    run_free(&r);
}
END_TEST

TCase *usage_cases(void) {
    TCase *cases = tcase_create("usage");
    tcase_add_test(cases, wrong_usage_is_one_line_and_status_2);
    tcase_add_test(cases, unknown_names_are_named);
    tcase_add_test(cases, sizes_must_be_multiples_of_8);
    tcase_add_test(cases, what_nobody_can_serve_is_status_3);
    tcase_add_test(cases, help_names_every_option);
    tcase_add_test(cases, the_backend_is_announced_as_in_the_webui);
    tcase_add_test(cases, plugins_lists_what_scripts_rely_on);
    tcase_add_test(cases, plugins_says_what_a_backend_lacks);
    tcase_add_test(cases, plugins_obeys_the_hard_filters);
    tcase_add_test(cases, a_mask_caps_the_isa_and_a_wrong_one_is_refused);
    tcase_add_test(cases, bench_attention_reports_each_backend_and_refusal);
    return cases;
}
