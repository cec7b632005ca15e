/* check_commands.c: sample_host on a device: the CPU's bytes, the bench. On hardware too (make check-gpu). */
#include "tests/cuda/suite.h"
#include "tests/kernels/cases.h"
#include "tests/support/run.h"

#include "attune/tensor.h"
#include "sample_host/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define assert_has(text, part) ck_assert_msg(strstr(text, part) != NULL, "\"%s\" lacks \"%s\"", text, part)

void suite_put_array(const char *name, int64_t tokens, uint64_t seed) {
    char path[4096];
    attune_error error;
    const int64_t shape[4] = {1, 2, tokens, 40};
    float *values = malloc((size_t)tokens * 80 * sizeof *values);
    ck_assert_ptr_nonnull(values);
    for (int64_t i = 0; i < tokens * 80; ++i)
        values[i] = random_float(&seed);
    const attune_tensor t =
        attune_tensor_view(values, ATTUNE_F32, (attune_device_id){ATTUNE_DEVICE_CPU, 0, {0}}, 4, shape);
    (void)snprintf(path, sizeof path, "%s/%s.npy", run_folder(), name);
    ck_assert_msg(npy_write(path, &t, &error) == ATTUNE_OK, "%s", error.message);
    free(values);
}

START_TEST(attention_on_the_device_gives_the_cpus_bytes) {
    suite_put_array("q", 70, 1);
    suite_put_array("k", 130, 2);
    suite_put_array("v", 130, 3);
    run_result r = run("$HOST attention --q q.npy --k k.npy --v v.npy -o cpu.npy --attention sdp-no-mem && "
                       "$HOST attention --q q.npy --k k.npy --v v.npy -o gpu.npy --attention sdp-no-mem "
                       "--device cuda:0 --explain && cmp cpu.npy gpu.npy");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    assert_has(r.err, "* sdp-no-mem   attune-cuda          chosen: asked for by name");
    run_free(&r);
    r = run("$HOST attention --q q.npy --k k.npy --v v.npy -o any.npy --vendor nvidia --json");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    assert_has(r.out, "\"plugin\": \"attune-cuda\"");
    run_free(&r);
    run_fails("$HOST attention --q q.npy --k k.npy --v v.npy -o none.npy --device cuda:7", 3,
              "device cuda:7 was asked for");
}
END_TEST

START_TEST(bench_attention_runs_on_the_device) {
    run_result r = run("$HOST bench attention --device cuda --dtype float16 --shape 1,2,33,20,40 --json");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    json_t *reply = run_json(&r), *results = json_object_get(reply, "results"), *one;
    size_t i, timed = 0;
    json_array_foreach(results, i, one) {
        ck_assert_str_eq(json_string_value(json_object_get(one, "dtype")), "float16");
        timed += json_object_get(one, "milliseconds") != NULL;
    }
    ck_assert_uint_eq(timed, 4);
    json_decref(reply);
    run_free(&r);
    run_fails("$HOST bench attention --dtype int8", 2, "none of float32, float16, bfloat16");
}
END_TEST

TCase *command_cases(void) {
    TCase *c = tcase_create("commands");
    tcase_add_test(c, attention_on_the_device_gives_the_cpus_bytes);
    tcase_add_test(c, bench_attention_runs_on_the_device);
    return c;
}
