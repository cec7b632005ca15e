/* tests/kernels/check_plugin_attention.c: attune.attention/1 of the plugin attune-cpu: tables, refusals,
 * runs. */
#include "tests/kernels/plugin_call.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

enum { BACKENDS = 6 };

static plugin_host host;

static void start(void) {
    plugin_host_start(&host);
}

static void stop(void) {
    plugin_host_stop(&host);
}

static const attention_case usual = {.batch = 2,
                                     .heads_q = 4,
                                     .heads_kv = 2,
                                     .n_q = 130,
                                     .n_k = 77,
                                     .d_qk = 40,
                                     .d_v = 24,
                                     .amplitude = 1.0f,
                                     .mask_axes = 15,
                                     .seed = 3};

/* ---- tables ---- */

START_TEST(describes_backends) {
    static const struct {
        const char *name, *aliases[ATTUNE_MAX_ALIASES], *arithmetic;
        int32_t priority;
    } table[BACKENDS] = {{"sdp-no-mem", {"sdp_no_mem"}, "attune-f32-1", 80},
                         {"sdp", {"scaled-dot-product"}, "attune-f32-1", 70},
                         {"xformers", {"memory-efficient"}, "attune-f32-1", 100},
                         {"split", {"Doggettx", "V1", "InvokeAI"}, "attune-f32-full-1", 90},
                         {"sub-quadratic", {"sub_quadratic"}, "attune-f32-chunked-1", 10},
                         {"math", {"None"}, "attune-f32-full-1", 0}};
    attune_error error;
    attune_attention_info info = {.struct_size = sizeof info};
    ck_assert_uint_eq(host.attention->count(host.instance), BACKENDS);
    for (uint32_t i = 0; i < BACKENDS; ++i) {
        ck_assert_int_eq(host.attention->describe(host.instance, i, &info, &error), ATTUNE_OK);
        ck_assert_str_eq(info.name, table[i].name);
        for (int k = 0; k < ATTUNE_MAX_ALIASES; ++k)
            ck_assert_str_eq(info.aliases[k], table[i].aliases[k] ? table[i].aliases[k] : "");
        ck_assert_str_eq(info.arithmetic, table[i].arithmetic);
        ck_assert_int_eq(info.priority, table[i].priority);
        ck_assert_int_eq(info.determinism, ATTUNE_DETERMINISM_PORTABLE);
        ck_assert_uint_eq(info.dtypes, ATTUNE_DTYPE_BIT_F32 | ATTUNE_DTYPE_BIT_F16 | ATTUNE_DTYPE_BIT_BF16);
        ck_assert_uint_eq(info.masks, 15);
        ck_assert(attune_device_same(&info.device, &host.id));
        ck_assert_uint_lt(strlen(info.label), sizeof info.label - 1); /* not cut */
    }
    ck_assert_int_eq(host.attention->describe(host.instance, BACKENDS, &info, &error), ATTUNE_OUT_OF_RANGE);
    info.struct_size = 8;
    ck_assert_int_eq(host.attention->describe(host.instance, 0, &info, &error), ATTUNE_INVALID_ARGUMENT);
}
END_TEST

START_TEST(answers) {
    call c;
    call_make(&c, &host, 0, &usual, 3);
    attune_attention_answer other = {.struct_size = sizeof other};
    ck_assert_str_eq(c.answer.reason, "");
    ck_assert_int_eq(c.answer.determinism, ATTUNE_DETERMINISM_PORTABLE);
    ck_assert_uint_eq(c.answer.workspace % 64, 0);
    ck_assert_uint_eq(c.answer.flops, 2ull * 2 * 4 * 130 * 77 * (40 + 24));
    ck_assert_uint_eq(c.answer.bytes_moved, 4ull * (2 * 4 * 130 + 2 * 2 * 77) * (40 + 24));
    ck_assert_uint_gt(c.answer.nanoseconds, 0);
    ck_assert_int_eq(host.attention->query(host.instance, 1, &c.problem, &other, NULL), ATTUNE_OK);
    ck_assert_uint_eq(other.nanoseconds,
                      c.answer.nanoseconds); /* one kernel: only the priority tells them apart */
    const uint64_t three = c.answer.workspace, tasks = c.answer.plan[2];
    c.problem.workers = 1;
    ck_assert_int_eq(host.attention->query(host.instance, 0, &c.problem, &other, NULL), ATTUNE_OK);
    ck_assert_uint_eq(other.workspace * 3, three);
    ck_assert_uint_eq(other.plan[2], tasks); /* the cut does not depend on the workers */
    c.problem.budget = other.workspace;
    ck_assert_int_eq(host.attention->query(host.instance, 0, &c.problem, &other, NULL), ATTUNE_OK);
    ck_assert_int_eq(other.code, ATTUNE_OK);
    call_free(&c);
}
END_TEST

/* ---- refusals: each changes one thing of a problem that is served ---- */

typedef void change(attune_attention_problem *);
static void change_dtype(attune_attention_problem *p) {
    p->dtype = (attune_dtype){ATTUNE_TYPE_FLOAT, 64, 1};
}
static void change_device(attune_attention_problem *p) {
    p->device.uuid[3] ^= 1;
}
static void change_device_type(attune_attention_problem *p) {
    p->device.type = ATTUNE_DEVICE_CUDA;
}
static void change_mask(attune_attention_problem *p) {
    p->mask = 3;
}
static void change_causal(attune_attention_problem *p) {
    p->causal = 2;
}
static void change_class(attune_attention_problem *p) {
    p->determinism = 4;
}
static void change_reserved(attune_attention_problem *p) {
    p->reserved = 1;
}
static void change_threshold(attune_attention_problem *p) {
    p->chunks.threshold = 101;
}
static void change_chunks_reserved(attune_attention_problem *p) {
    p->chunks.reserved = 1;
}
static void change_workers(attune_attention_problem *p) {
    p->workers = 0;
}
static void change_heads(attune_attention_problem *p) {
    p->heads_kv = 3;
}
static void change_scale_nan(attune_attention_problem *p) {
    p->scale = NAN;
}
static void change_scale_large(attune_attention_problem *p) {
    p->scale = 3e38f; /* finite, but not times log2(e) */
}
static void change_negative(attune_attention_problem *p) {
    p->stride_k[1] = -1;
}
static void change_overflow(attune_attention_problem *p) {
    p->stride_v[0] = INT64_MAX;
}
static void change_channel_q(attune_attention_problem *p) {
    p->stride_q[3] = 2;
}
static void change_channel_out(attune_attention_problem *p) {
    p->stride_out[3] = 2;
}
static void change_out_broadcast(attune_attention_problem *p) {
    p->stride_out[2] = 0;
}
static void change_out_overlap(attune_attention_problem *p) {
    p->stride_out[2] = p->d_v - 1;
}
static void change_budget(attune_attention_problem *p) {
    p->budget = 100;
}
static void change_size(attune_attention_problem *p) {
    p->d_qk = INT64_MAX / 8; /* q's strides need no more memory for it, the workspace does */
    p->stride_q[0] = p->stride_q[1] = p->stride_q[2] = p->stride_k[0] = p->stride_k[1] = p->stride_k[2] = 0;
    p->workers = UINT32_MAX;
}

static const struct {
    change *change;
    attune_code code;
    const char *says;
} refusals[] = {{change_dtype, ATTUNE_UNIMPLEMENTED, "unsupported is not"},
                {change_device, ATTUNE_FAILED_PRECONDITION, "another device"},
                {change_device_type, ATTUNE_FAILED_PRECONDITION, "type 2"},
                {change_mask, ATTUNE_UNIMPLEMENTED, "mask kind 3"},
                {change_causal, ATTUNE_INVALID_ARGUMENT, "causal is 2"},
                {change_class, ATTUNE_INVALID_ARGUMENT, "class 4"},
                {change_reserved, ATTUNE_INVALID_ARGUMENT, "reserved"},
                {change_threshold, ATTUNE_INVALID_ARGUMENT, "101 per cent"},
                {change_chunks_reserved, ATTUNE_INVALID_ARGUMENT, "reserved field of the chunks"},
                {change_workers, ATTUNE_INVALID_ARGUMENT, "workers is 0"},
                {change_heads, ATTUNE_INVALID_ARGUMENT, "4 query heads are not a multiple of 3"},
                {change_scale_nan, ATTUNE_INVALID_ARGUMENT, "scale nan"},
                {change_scale_large, ATTUNE_INVALID_ARGUMENT, "scale 3e+38"},
                {change_negative, ATTUNE_INVALID_ARGUMENT, "k's head stride -1"},
                {change_overflow, ATTUNE_OUT_OF_RANGE, "v's shape and strides overflow"},
                {change_channel_q, ATTUNE_UNIMPLEMENTED, "q's channel stride is 2"},
                {change_channel_out, ATTUNE_UNIMPLEMENTED, "out's channel stride is 2"},
                {change_out_broadcast, ATTUNE_INVALID_ARGUMENT, "out's elements overlap"},
                {change_out_overlap, ATTUNE_INVALID_ARGUMENT, "out's elements overlap"},
                {change_budget, ATTUNE_RESOURCE_EXHAUSTED, "the budget is 100"},
                {change_size, ATTUNE_OUT_OF_RANGE, "beyond 64 bits"}};
enum { REFUSALS = sizeof refusals / sizeof *refusals };

START_TEST(query_refusals) {
    call c;
    attune_error error;
    call_make(&c, &host, 0, &usual, 2);
    attune_attention_problem p = c.problem;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    refusals[_i].change(&p);
    ck_assert_int_eq(host.attention->query(host.instance, 0, &p, &answer, &error), ATTUNE_OK);
    ck_assert_msg(answer.code == refusals[_i].code && strstr(answer.reason, refusals[_i].says),
                  "refusal %d: %s, \"%s\"", _i, attune_code_name(answer.code), answer.reason);
    ck_assert_uint_eq(answer.workspace, 0);
    c.problem = p; /* and run says the same */
    c.stream.workers = 1;
    ck_assert_int_eq(call_run(&c, NULL, &error), refusals[_i].code);
    ck_assert_msg(strstr(error.message, refusals[_i].says) != NULL, "%s", error.message);
    call_free(&c);
}
END_TEST

START_TEST(query_errors) {
    call c;
    attune_error error;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    call_make(&c, &host, 0, &usual, 2);
    int64_t *const extents[] = {&c.problem.batch, &c.problem.heads_q, &c.problem.heads_kv, &c.problem.n_q,
                                &c.problem.n_k,   &c.problem.d_qk,    &c.problem.d_v};
    for (size_t i = 0; i < sizeof extents / sizeof *extents; ++i) {
        const int64_t before = *extents[i];
        *extents[i] = 0;
        ck_assert_int_eq(host.attention->query(host.instance, 0, &c.problem, &answer, &error),
                         ATTUNE_INVALID_ARGUMENT);
        *extents[i] = before;
    }
    ck_assert_int_eq(host.attention->query(host.instance, BACKENDS, &c.problem, &answer, &error),
                     ATTUNE_OUT_OF_RANGE);
    ck_assert_int_eq(host.attention->query(host.instance, 0, NULL, &answer, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(host.attention->query(host.instance, 0, &c.problem, NULL, &error),
                     ATTUNE_INVALID_ARGUMENT);
    answer.struct_size -= 8;
    ck_assert_int_eq(host.attention->query(host.instance, 0, &c.problem, &answer, &error),
                     ATTUNE_INVALID_ARGUMENT);
    answer.struct_size += 8;
    c.problem.struct_size -= 8;
    ck_assert_int_eq(host.attention->query(host.instance, 0, &c.problem, &answer, &error),
                     ATTUNE_INVALID_ARGUMENT);
    c.problem.struct_size += 400; /* a newer host's */
    ck_assert_int_eq(host.attention->query(host.instance, 0, &c.problem, &answer, &error), ATTUNE_OK);
    ck_assert_int_eq(answer.code, ATTUNE_OK);
    call_free(&c);
}
END_TEST

/* ---- runs ---- */

START_TEST(threads_do_not_show) {
    for (uint64_t seed = 0; seed < 24; ++seed) {
        attention_case from = random_case(3000 + seed);
        if (seed % 8 == 0)
            from.batch = 70, from.n_q = from.n_k = 16, from.mask_kind = 0;
        for (uint32_t workers = 1; workers <= 3; ++workers) {
            call c;
            attune_error error;
            call_make(&c, &host, 0, &from, workers);
            const size_t bytes = c.arrays.out_floats * sizeof(float);
            attune_attention_f32_reference(&c.arrays.args);
            float *want = malloc(bytes);
            ck_assert_ptr_nonnull(want);
            memcpy(want, c.arrays.out, bytes);
            arrays_reset_out(&c.arrays);
#ifdef __x86_64__
            _mm_setcsr(0x1F80 | 0xC040); /* the pool's threads inherit it */
#endif
            const attune_code code = call_run(&c, NULL, &error);
#ifdef __x86_64__
            _mm_setcsr(0x1F80);
#endif
            ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
            ck_assert_msg(memcmp(want, c.arrays.out, bytes) == 0, "seed %lu, %u workers: other bits",
                          (unsigned long)seed, workers);
            free(want);
            call_free(&c);
        }
    }
}
END_TEST

/* A stream with fewer workers than planned is served; one with more has no workspace for them. */
START_TEST(workers_of_the_stream) {
    call c;
    attune_error error;
    call_make(&c, &host, 0, &usual, 2);
    c.stream.workers = 1;
    ck_assert_int_eq(call_run(&c, NULL, &error), ATTUNE_OK);
    c.stream.workers = 3;
    ck_assert_int_eq(call_run(&c, NULL, &error), ATTUNE_INVALID_ARGUMENT);
    call_free(&c);
}
END_TEST

static void expect_refused(call *c, attune_code code, const char *says) {
    attune_error error;
    const size_t bytes = c->arrays.out_floats * sizeof(float);
    float *before = malloc(bytes);
    ck_assert_ptr_nonnull(before);
    memcpy(before, c->arrays.out, bytes);
    ck_assert_int_eq(call_run(c, NULL, &error), code);
    ck_assert_int_eq(memcmp(before, c->arrays.out, bytes), 0); /* nothing is touched */
    free(before);
    ck_assert_msg(strstr(error.message, says) != NULL, "\"%s\" does not say \"%s\"", error.message, says);
    ck_assert_str_eq(error.domain, "attune-cpu");
}

START_TEST(run_checks_tensors) {
    call c;
    attention_case from = usual;
    from.mask_kind = ATTUNE_MASK_FLOAT;
    call_make(&c, &host, 0, &from, 2);
    const attune_tensor q = c.q, out = c.out, mask = c.mask;
    c.args.q = NULL;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "q is missing");
    c.args.q = &c.q, c.q.ndim = 3;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "q has 3 dimensions");
    c.q = q, c.q.dtype = ATTUNE_F16;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "q is float16");
    c.q = q, c.q.device.type = ATTUNE_DEVICE_CUDA;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "another device");
    c.q = q, c.q.shape[2] += 1;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "axis 2 has extent 131");
    c.q = q, c.q.stride[1] += 1;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "axis 1 has stride");
    c.q = q, c.q.bytes -= 1;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "its shape and strides reach");
    c.q = q, c.q.data = (char *)q.data + 1;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "q is not aligned");
    c.q = q, c.q.data = NULL;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "q has 0 bytes");
    c.q = q, c.out.data = c.q.data, c.out.bytes = UINT64_MAX;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "out overlaps q");
    c.out = out;
    c.mask.data = (char *)out.data + out.bytes - 4; /* the first element of one, the last of the other */
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "out overlaps mask");
    c.mask = mask;
    void *workspace = c.args.workspace;
    c.args.workspace = (char *)out.data + (64 - (uintptr_t)out.data % 64); /* aligned, within out */
    ck_assert_uint_gt(c.answer.workspace, 0);
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "the workspace overlaps out");
    c.args.workspace = workspace, c.args.mask = NULL;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "mask is missing");
    c.args.mask = &c.mask, c.mask.dtype = ATTUNE_BOOL;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "mask is bool");
    c.mask = mask, c.mask.bytes -= 4;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "mask has");
    call_free(&c);
    call_make(&c, &host, 0, &usual, 2);
    c.args.mask = &c.q;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "a mask is given");
    call_free(&c);
}
END_TEST

START_TEST(run_checks_plan_and_workspace) {
    call c;
    attune_error error;
    call_make(&c, &host, 0, &usual, 2);
    for (int i = 0; i < 4; ++i) {
        c.answer.plan[i] += 1;
        expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "the plan is not");
        c.answer.plan[i] -= 1;
    }
    if (c.answer.workspace > 0) {
        c.args.workspace_bytes -= 1;
        expect_refused(&c, ATTUNE_RESOURCE_EXHAUSTED, "the plan needs");
        c.args.workspace_bytes += 1;
        void *workspace = c.args.workspace;
        c.args.workspace = (char *)workspace + 4;
        expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "not aligned to 64");
        c.args.workspace = NULL;
        expect_refused(&c, ATTUNE_RESOURCE_EXHAUSTED, "the workspace has 0");
        c.args.workspace = workspace;
    }
    ck_assert_int_eq(
        host.attention->run(host.instance, 0, NULL, c.answer.plan, &c.args, &c.stream, NULL, &error),
        ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(
        host.attention->run(host.instance, 0, &c.problem, NULL, &c.args, &c.stream, NULL, &error),
        ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(
        host.attention->run(host.instance, 0, &c.problem, c.answer.plan, NULL, &c.stream, NULL, &error),
        ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(
        host.attention->run(host.instance, 0, &c.problem, c.answer.plan, &c.args, NULL, NULL, &error),
        ATTUNE_INVALID_ARGUMENT);
    c.args.struct_size -= 8;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "struct_size");
    c.args.struct_size += 8;
    c.stream.struct_size = 4;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "struct_size");
    c.stream.struct_size = sizeof c.stream + 16;
    ck_assert_int_eq(call_run(&c, NULL, &error), ATTUNE_OK);
    ck_assert_int_eq(host.attention->run(host.instance, BACKENDS, &c.problem, c.answer.plan, &c.args,
                                         &c.stream, NULL, &error),
                     ATTUNE_OUT_OF_RANGE);
    call_free(&c);
}
END_TEST

/* numpy's way of a broadcast mask: extents of 1 where the problem's stride is 0. */
START_TEST(broadcast_mask_of_extent_one) {
    call c;
    attune_error error;
    attention_case from = usual;
    from.mask_kind = ATTUNE_MASK_BOOL, from.mask_axes = 8;
    call_make(&c, &host, 0, &from, 1);
    c.mask.shape[0] = c.mask.shape[1] = c.mask.shape[2] = 1;
    ck_assert_int_eq(call_run(&c, NULL, &error), ATTUNE_OK);
    c.mask.shape[3] = 1;
    expect_refused(&c, ATTUNE_INVALID_ARGUMENT, "mask's axis 3 has extent 1");
    call_free(&c);
}
END_TEST

static int32_t cancel_after(void *context) {
    int *left = context;
    return --*left < 0;
}

START_TEST(cancel_and_deadline) {
    call c;
    attune_error error;
    attention_case from = usual;
    from.n_k = 600; /* a tile per task */
    call_make(&c, &host, 0, &from, 1);
    ck_assert_uint_gt(c.answer.plan[2], 8);
    int left = 3;
    attune_control control = {.struct_size = sizeof control, .context = &left, .cancelled = cancel_after};
    ck_assert_int_eq(call_run(&c, &control, &error), ATTUNE_CANCELLED);
    ck_assert_int_eq(left, -1); /* asked before each task: three were done, none after the fourth question */
    ck_assert_int_eq(error.code, ATTUNE_CANCELLED);
    control = (attune_control){.struct_size = sizeof control, .deadline = 1000};
    host.now = 999;
    ck_assert_int_eq(call_run(&c, &control, &error), ATTUNE_OK);
    host.now = 1000;
    ck_assert_int_eq(call_run(&c, &control, &error), ATTUNE_DEADLINE_EXCEEDED);
    control.struct_size = 8;
    ck_assert_int_eq(call_run(&c, &control, &error), ATTUNE_INVALID_ARGUMENT);
    call_free(&c);
}
END_TEST

TCase *plugin_attention_cases(void) {
    TCase *cases = tcase_create("plugin attention");
    tcase_add_checked_fixture(cases, start, stop);
    tcase_add_test(cases, describes_backends);
    tcase_add_test(cases, answers);
    tcase_add_loop_test(cases, query_refusals, 0, REFUSALS);
    tcase_add_test(cases, query_errors);
    tcase_add_test(cases, threads_do_not_show);
    tcase_add_test(cases, workers_of_the_stream);
    tcase_add_test(cases, run_checks_tensors);
    tcase_add_test(cases, run_checks_plan_and_workspace);
    tcase_add_test(cases, broadcast_mask_of_extent_one);
    tcase_add_test(cases, cancel_and_deadline);
    return cases;
}
