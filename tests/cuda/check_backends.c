/* check_backends.c: what attune-cuda's backends compute, against attention in double; what they refuse. */
#include "tests/cuda/device_call.h"
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/kernels/oracle.h"

#include "attune/host.h"
#include "kernels/storage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const backends[] = {"sdp", "xformers", "math"};
static const char *const capabilities[] = {"7.5", "8.0", "9.0"};
enum { BACKENDS = 3, CAPABILITIES = 3, PROBLEMS = 40 };

static float widen(int storage, uint16_t bits) {
    return storage == ATTUNE_KERNEL_F16 ? attune_widen_f16(bits) : attune_widen_bf16(bits);
}

/* A value of `out` of the problem as it was stored. */
static double value_at(const attune_attention_f32 *a, int64_t at) {
    return a->storage == ATTUNE_KERNEL_F32 ? (double)((const float *)a->out)[at]
                                           : (double)widen(a->storage, ((const uint16_t *)a->out)[at]);
}

/* The largest error beyond what float scores explain (check_attention_accuracy.c says why 2^-21). */
static double largest_error(const attention_arrays *a) {
    const attune_attention_f32 *p = &a->args, *s = &a->stored;
    double *want = malloc((size_t)p->d_v * sizeof *want), most = 0.0;
    ck_assert_ptr_nonnull(want);
    for (int64_t row = 0; row < p->batch * p->heads_q * p->n_q; ++row) {
        const int64_t i = row % p->n_q, h = row / p->n_q % p->heads_q, b = row / p->n_q / p->heads_q;
        const double explained = 0x1p-21 * oracle_row(p, b, h, i, want);
        const int64_t at = b * s->stride_out[0] + h * s->stride_out[1] + i * s->stride_out[2];
        for (int64_t d = 0; d < p->d_v; ++d) {
            const double error = fabs(value_at(s, at + d) - want[d]) - explained;
            most = error > most || error != error ? error : most;
        }
    }
    free(want);
    return most;
}

/* Values lie in [-1, 1] and scores in about +-4. float32: 1e-5, as the references. 16 bits: 4u, u = 2^-11
 * (bfloat16 2^-8): `math` and the tensor-core kernels round weights and output (docs/cuda.md). */
static double tolerance(int storage) {
    return storage == ATTUNE_KERNEL_F32 ? 1e-5 : storage == ATTUNE_KERNEL_F16 ? 0x1p-9 : 0x1p-6;
}

START_TEST(backends_are_near_double) {
    const char *backend = backends[_i % BACKENDS], *capability = capabilities[_i / BACKENDS];
    plugin_host host;
    device_way way;
    setenv("ATTUNE_EMULATOR_CC", capability, 1);
    device_way_open(&way, &host, backend, ATTUNE_DETERMINISM_NONE);
    for (uint64_t seed = 0; seed < PROBLEMS; ++seed) {
        attention_case c = random_case(73000 + seed);
        c.storage = (int)(seed % 3);
        c.amplitude = c.amplitude > 4.0f ? 4.0f : c.amplitude;
        c.shift = (int)(seed % 5);
        attention_arrays a = arrays_make(&c);
        device_run(&a.stored, &way);
        const double error = largest_error(&a);
        ck_assert_msg(error <= tolerance(a.stored.storage), "%s on %s, problem %lu: off by %g", backend,
                      capability, (unsigned long)seed, error);
        arrays_free(&a);
    }
    ck_assert_uint_eq(cuda_emulator_reports(NULL, 0), 0);
    device_way_close(&way);
}
END_TEST

/* More heads than a grid's y and z have blocks; one key, so that the output is its value. (`sdp`:
 * check_tensor_cores.c.) */
START_TEST(many_heads_are_all_computed) {
    static const char *const names[] = {"sdp-no-mem", "xformers", "math"};
    const attention_case c = {.batch = 8200,
                              .heads_q = 8,
                              .heads_kv = 8,
                              .n_q = 1,
                              .n_k = 1,
                              .d_qk = 8,
                              .d_v = 8,
                              .amplitude = 1,
                              .storage = ATTUNE_KERNEL_F16,
                              .seed = 5};
    plugin_host host;
    device_way way;
    setenv("ATTUNE_EMULATOR_CHECKS", "0", 1);
    device_way_open(&way, &host, names[_i], ATTUNE_DETERMINISM_NONE);
    attention_arrays a = arrays_make(&c);
    device_run(&a.stored, &way);
    const uint16_t *out = a.stored.out, *values = a.stored.v;
    for (int64_t i = 0; i < c.batch * c.heads_q * c.d_v; ++i) /* -0 may be stored as 0 */
        ck_assert_msg(out[i] == values[i] || (out[i] == 0 && values[i] == 0x8000), "value %ld is %x, not %x",
                      (long)i, out[i], values[i]);
    arrays_free(&a);
    device_way_close(&way);
}
END_TEST

/* The answer for a problem that `change` has spoilt, as `backend` gives it. */
static attune_attention_answer ask(const char *backend, void (*change)(attune_attention_problem *)) {
    plugin_host host;
    device_way way;
    device_way_open(&way, &host, backend, ATTUNE_DETERMINISM_NONE);
    int64_t shape[4] = {2, 4, 32, 40};
    attune_tensor t = attune_tensor_view((void *)(uintptr_t)256, ATTUNE_F32, host.id, 4, shape);
    attune_tensor out = t;
    out.data = (char *)t.data + (1 << 20);
    attune_attention_problem problem;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    ck_assert_int_eq(attune_attention_problem_init(&problem, &t, &t, &t, NULL, &out, NULL), ATTUNE_OK);
    change(&problem);
    ck_assert_int_eq(host.attention->query(host.instance, way.backend, &problem, &answer, NULL), ATTUNE_OK);
    device_way_close(&way);
    return answer;
}

static void on_the_cpu(attune_attention_problem *p) {
    p->device.type = ATTUNE_DEVICE_CPU;
}

static void of_int8(attune_attention_problem *p) {
    p->dtype = (attune_dtype){ATTUNE_TYPE_INT, 8, 1};
}

static void strided_channels(attune_attention_problem *p) {
    p->stride_k[3] = 2;
}

static void overlapping_out(attune_attention_problem *p) {
    p->stride_out[2] = 0;
}

static void portable(attune_attention_problem *p) {
    p->determinism = ATTUNE_DETERMINISM_PORTABLE;
}

static void small_budget(attune_attention_problem *p) {
    p->budget = 4096;
}

static void overlapping_rows(attune_attention_problem *p) {
    p->stride_k[2] = 8;
}

static void too_many_blocks(attune_attention_problem *p) {
    p->batch = (int64_t)1 << 40;
}

static void infinite_scale(attune_attention_problem *p) {
    p->scale = 3e38f;
}

static const struct {
    const char *backend;
    void (*change)(attune_attention_problem *);
    attune_code code;
    const char *reason;
} refusals[] = {{"sdp", on_the_cpu, ATTUNE_FAILED_PRECONDITION, "than cuda:0; copy them first"},
                {"sdp", of_int8, ATTUNE_UNIMPLEMENTED, "is not supported (float32, float16, bfloat16 are)"},
                {"sdp-no-mem", strided_channels, ATTUNE_UNIMPLEMENTED, "k's channel stride is 2"},
                {"sdp-no-mem", overlapping_out, ATTUNE_INVALID_ARGUMENT, "out's elements overlap"},
                {"sdp", portable, ATTUNE_UNIMPLEMENTED, "keeps invariant, portable is asked for"},
                {"math", small_budget, ATTUNE_RESOURCE_EXHAUSTED, "bytes of workspace, the budget is 4096"},
                {"math", overlapping_rows, ATTUNE_UNIMPLEMENTED, "k's token stride is 8: cuBLAS takes rows"},
                {"sdp-no-mem", too_many_blocks, ATTUNE_OUT_OF_RANGE, "make more than 2147483647 blocks"},
                {"sdp-no-mem", infinite_scale, ATTUNE_INVALID_ARGUMENT, "is not a finite float32"}};

START_TEST(refusals_have_reasons) {
    const attune_attention_answer answer = ask(refusals[_i].backend, refusals[_i].change);
    ck_assert_msg(answer.code == refusals[_i].code && strstr(answer.reason, refusals[_i].reason), "%d: %s",
                  answer.code, answer.reason);
}
END_TEST

/* The same rule and words as the CPU's (plugin/layout.h): nothing that is read, and no workspace, may be
 * written. */
START_TEST(what_is_written_overlaps_nothing) {
    enum { Q, K, V, OUT, WORKSPACE, ARRAYS };
    static const char *const messages[] = {"out overlaps q", "out overlaps k", "out overlaps v",
                                           "the workspace overlaps out"};
    plugin_host host;
    device_way way;
    void *memory;
    attune_error error;
    attune_tensor at[4];
    device_way_open(&way, &host, "math", ATTUNE_DETERMINISM_NONE);
    const int64_t shape[4] = {1, 1, 16, 16};
    const ptrdiff_t step = 1024; /* bytes of each array */
    attune_attention_problem problem;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    ck_assert_int_eq(host.device->alloc(host.instance, 0, 64 << 20, &memory, NULL), ATTUNE_OK);
    for (int i = 0; i < 4; ++i)
        at[i] = attune_tensor_view((char *)memory + i * step, ATTUNE_F32, host.id, 4, shape);
    ck_assert_int_eq(attune_attention_problem_init(&problem, &at[Q], &at[K], &at[V], NULL, &at[OUT], NULL),
                     ATTUNE_OK);
    ck_assert_int_eq(host.attention->query(host.instance, way.backend, &problem, &answer, NULL), ATTUNE_OK);
    ck_assert_uint_gt(answer.workspace, 0);
    for (int i = 0; i < 5; ++i) {
        at[OUT].data = (char *)memory + OUT * step;
        if (i < OUT)
            at[OUT].data = (char *)at[i].data + (i == V ? step - 64 : 0);
        const attune_attention_args args = {.struct_size = sizeof args,
                                            .q = &at[Q],
                                            .k = &at[K],
                                            .v = &at[V],
                                            .out = &at[OUT],
                                            .workspace = (char *)memory + (i == 3 ? OUT : ARRAYS) * step,
                                            .workspace_bytes = answer.workspace};
        const attune_code code = host.attention->run(host.instance, way.backend, &problem, answer.plan, &args,
                                                     &way.stream, NULL, &error);
        ck_assert_int_eq(code, i < 4 ? ATTUNE_INVALID_ARGUMENT : ATTUNE_OK);
        if (i < 4)
            ck_assert_str_eq(error.message, messages[i]);
    }
    ck_assert_int_eq(host.device->stream_synchronize(host.instance, &way.stream, NULL), ATTUNE_OK);
    host.device->free(host.instance, 0, memory);
    device_way_close(&way);
}
END_TEST

TCase *backend_cases(void) {
    TCase *c = tcase_create("backends");
    tcase_add_loop_test(c, backends_are_near_double, 0, BACKENDS * CAPABILITIES);
    tcase_add_loop_test(c, many_heads_are_all_computed, 0, 3);
    tcase_add_test(c, what_is_written_overlaps_nothing);
    tcase_add_loop_test(c, refusals_have_reasons, 0, (int)(sizeof refusals / sizeof *refusals));
    return c;
}
