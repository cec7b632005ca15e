/* check_attend.c: running a binding: what is checked before a plugin sees it, workspaces, streams, results.
 */
#include "cases.h"
#include "host_api/choose.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#define TOKENS 12
#define SIZE   (2 * 2 * TOKENS * 8)

static attune *host;
static attune_error error;
static attune_device_id cpu;
static attune_stream stream;
static float data[4][SIZE];
static attune_tensor q, k, v, out;
static attune_attention_problem problem;
static attune_binding *binding;
static attune_attention_args args;

static void fill(void) {
    q = filled(data[0], 2, 2, TOKENS, 8, 1);
    k = filled(data[1], 2, 2, TOKENS, 8, 2);
    v = filled(data[2], 2, 2, TOKENS, 8, 3);
    out = filled(data[3], 2, 2, TOKENS, 8, 4);
    args = (attune_attention_args){sizeof args, 0, &q, &k, &v, NULL, &out, NULL, 0};
}

static attune_binding *bind_to(const char *backend, const attune_tensor *mask, uint32_t workers) {
    attune_wish wish = {.struct_size = sizeof wish, .attention = backend, .required = 1};
    attune_binding *made;
    assert_ok(attune_attention_problem_init(&problem, &q, &k, &v, mask, &out, &error), error);
    problem.workers = workers;
    assert_ok(attune_choose(host, &wish, &problem, NULL, &made, &error), error);
    return made;
}

static void open_plain(void) {
    host = open_with("plain", "racy", NULL);
    assert_ok(attune_cpu_device(host, &cpu, &error), error);
    assert_ok(attune_stream_create(host, &cpu, 0, &stream, &error), error);
    fill();
    binding = bind_to("sdp", NULL, 2);
}

static void close_plain(void) {
    attune_binding_release(binding);
    attune_stream_destroy(&stream);
    attune_close(host);
}

/* softmax(q·k/√8 + mask) v in double, straight from the definition. */
static double expected(int b, int h, int i, int c, const float *mask) {
    double scores[TOKENS], most = -INFINITY, total = 0, sum = 0;
    for (int j = 0; j < TOKENS; ++j) {
        scores[j] = 0;
        for (int x = 0; x < 8; ++x)
            scores[j] += (double)data[0][((b * 2 + h) * TOKENS + i) * 8 + x] *
                         data[1][((b * 2 + h) * TOKENS + j) * 8 + x];
        scores[j] = scores[j] / sqrt(8) + (mask ? mask[j] : 0);
        most = fmax(most, scores[j]);
    }
    for (int j = 0; j < TOKENS; ++j) {
        total += exp(scores[j] - most);
        sum += exp(scores[j] - most) * data[2][((b * 2 + h) * TOKENS + j) * 8 + c];
    }
    return sum / total;
}

/* 1e-6: one float rounding of values below 1 (6e-8), and the racy fixture's float sums of 12 terms (12 ·
 * 6e-8). */
static void check_result(const float *mask) {
    for (int b = 0; b < 2; ++b)
        for (int h = 0; h < 2; ++h)
            for (int i = 0; i < TOKENS; ++i)
                for (int c = 0; c < 8; ++c) {
                    double got = data[3][((b * 2 + h) * TOKENS + i) * 8 + c];
                    ck_assert_msg(fabs(got - expected(b, h, i, c, mask)) <= 1e-6, "(%d, %d, %d, %d): %g", b,
                                  h, i, c, got);
                }
}

START_TEST(test_attend_result) {
    assert_ok(attune_attend(binding, &args, &stream, NULL, &error), error);
    check_result(NULL);
}
END_TEST

/* An old plugin, and one of tomorrow, serve on this host (tests/abi/README.md). */
START_TEST(test_abi_frozen) {
    static const char *const files[] = {"frozen.so", "longer.so"};
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.path", json_string(files[_i]));
    close_plain(); /* instead of today's */
    host = open_host();
    assert_ok(attune_load(host, fixture_install(fixture_folder(), manifest), &error), error);
    assert_ok(attune_cpu_device(host, &cpu, &error), error);
    assert_ok(attune_stream_create(host, &cpu, 0, &stream, &error), error);
    fill();
    for (int i = 0; i < 2; ++i) {
        binding = bind_to(i ? "sdp" : "sdp-no-mem", NULL, 2);
        assert_ok(attune_attend(binding, &args, &stream, NULL, &error), error);
        check_result(NULL);
        attune_binding_release(binding);
    }
    attune_device_info info = {.struct_size = sizeof info};
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    assert_ok(attune_snapshot_device(snapshot, 0, 0, &info, &error), error);
    ck_assert_str_eq(info.name, "cpu");
    attune_snapshot_release(snapshot);
    attune_stream_destroy(&stream);
    attune_close(host);
    open_plain();
}
END_TEST

/* Right up to rounding, in whatever order. */
START_TEST(test_attend_racy) {
    attune_binding *racy = bind_to("racy", NULL, 2);
    for (int i = 0; i < 20; ++i) {
        fill();
        assert_ok(attune_attend(racy, &args, &stream, NULL, &error), error);
        check_result(NULL);
    }
    attune_binding_release(racy);
}
END_TEST

/* The same mask of one axis in problem and call: the host broadcasts it. */
START_TEST(test_attend_mask_broadcast) {
    float values[TOKENS];
    for (int i = 0; i < TOKENS; ++i)
        values[i] = (float)i / 4 - 1;
    const int64_t shape[1] = {TOKENS};
    attune_tensor mask = attune_tensor_view(values, ATTUNE_F32, cpu, 1, shape);
    attune_binding *masked = bind_to("sdp-no-mem", &mask, 2);
    args.mask = &mask;
    assert_ok(attune_attend(masked, &args, &stream, NULL, &error), error);
    check_result(values);
    args.mask = NULL;
    assert_fails(attune_attend(masked, &args, &stream, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "a mask is not given");
    args.mask = &mask;
    assert_fails(attune_attend(binding, &args, &stream, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "a mask is given");
    attune_binding_release(masked);
}
END_TEST

static void refuse(const char *text) {
    assert_fails(attune_attend(binding, &args, &stream, NULL, &error), error, ATTUNE_INVALID_ARGUMENT, text);
    fill();
}

START_TEST(test_attend_validates) {
    static float more[2][2 * SIZE];
    q = filled(more[0], 2, 2, TOKENS + 1, 8, 1);
    refuse("q is (2, 2, 13, 8), the problem says (2, 2, 12, 8)");
    k.stride[2] = 16;
    k.bytes = 2 * sizeof data[1];
    k.data = more[1];
    refuse("k has stride 16 on axis 2, the problem says 8");
    v.dtype = ATTUNE_F16;
    refuse("v is float16, the problem says float32");
    out.device.type = ATTUNE_DEVICE_CUDA;
    refuse("out is not on the problem's device, and nothing is copied implicitly");
    v.bytes = 1535;
    refuse("v (2, 2, 12, 8) needs 1536 bytes by its strides, it has 1535");
    out.data = data[1];
    refuse("out overlaps an input");
    args.struct_size = 3;
    refuse("attune_attention_args.struct_size is 3");
    args.reserved = 1;
    refuse("reserved");
    args.k = NULL;
    refuse("k is NULL");
    assert_fails(attune_attend(binding, &args, NULL, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "attune_stream is NULL");
    assert_fails(attune_attend(NULL, &args, &stream, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "binding is NULL");
}
END_TEST

/* Where an axis has one element its stride means nothing, and the plugin gets the problem's. */
START_TEST(test_attend_stride_of_one) {
    q = filled(data[0], 1, 2, TOKENS, 8, 1);
    k = filled(data[1], 1, 2, TOKENS, 8, 2);
    v = filled(data[2], 1, 2, TOKENS, 8, 3);
    out = filled(data[3], 1, 2, TOKENS, 8, 4);
    attune_binding *single = bind_to("sdp", NULL, 2);
    q.stride[0] = 12345;
    assert_ok(attune_attend(single, &args, &stream, NULL, &error), error);
    attune_binding_release(single);
}
END_TEST

START_TEST(test_attend_streams) {
    attune_stream other = stream;
    other.workers = 3;
    assert_fails(attune_attend(binding, &args, &other, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "set problem.workers");
    other = stream;
    other.native = &other;
    assert_fails(attune_attend(binding, &args, &other, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "attune_stream_create");
    other = stream;
    other.device.type = ATTUNE_DEVICE_CUDA;
    assert_fails(attune_attend(binding, &args, &other, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "another device");
    assert_ok(attune_stream_create(host, &cpu, 1, &other, &error), error);
    ck_assert_uint_eq(other.workers, 1);
    assert_ok(attune_attend(binding, &args, &other, NULL, &error), error);
    attune_stream_destroy(&other);
    assert_ok(attune_stream_create(host, &cpu, 100, &other, &error), error);
    ck_assert_uint_eq(other.workers, 2);
    attune_stream_destroy(&other);
    const attune_device_id gpu = {.type = ATTUNE_DEVICE_CUDA};
    assert_fails(attune_stream_create(host, &gpu, 0, &other, &error), error, ATTUNE_UNAVAILABLE,
                 "no loaded plugin drives this device");
}
END_TEST

START_TEST(test_attend_workspace) {
    _Alignas(64) static uint8_t workspace[4096 + 64];
    attune_memory_usage before = {.struct_size = sizeof before}, after = before;
    assert_ok(attune_memory(host, "fixture-plain", &before, &error), error);
    args.workspace = workspace;
    args.workspace_bytes = 4096;
    assert_ok(attune_attend(binding, &args, &stream, NULL, &error), error);
    check_result(NULL);
    args.workspace_bytes = 4095;
    assert_fails(attune_attend(binding, &args, &stream, NULL, &error), error, ATTUNE_RESOURCE_EXHAUSTED,
                 "has 4095 bytes, sdp needs 4096");
    args.workspace_bytes = 4096;
    args.workspace = workspace + 4;
    assert_fails(attune_attend(binding, &args, &stream, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "aligned to 64");
    /* without one the host provides it, keeps it for the next call, and counts it as the plugin's */
    args.workspace = NULL;
    assert_ok(attune_attend(binding, &args, &stream, NULL, &error), error);
    assert_ok(attune_attend(binding, &args, &stream, NULL, &error), error);
    assert_ok(attune_memory(host, "fixture-plain", &after, &error), error);
    ck_assert_uint_eq(after.current, before.current + 4096);
    attune_binding_release(binding);
    binding = NULL;
    assert_ok(attune_memory(host, "fixture-plain", &after, &error), error);
    ck_assert_uint_eq(after.current, before.current);
}
END_TEST

static int32_t always(void *context) {
    (void)context;
    return 1;
}

START_TEST(test_attend_cancel) {
    attune_control control = {.struct_size = sizeof control, .cancelled = always};
    assert_fails(attune_attend(binding, &args, &stream, &control, &error), error, ATTUNE_CANCELLED,
                 "cancelled");
    control.struct_size = 0;
    assert_fails(attune_attend(binding, &args, &stream, &control, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "attune_control");
}
END_TEST

static void *attend_often(void *argument) {
    float values[SIZE];
    attune_tensor own = filled(values, 2, 2, TOKENS, 8, 9);
    attune_attention_args call = {sizeof call, 0, &q, &k, &v, NULL, &own, NULL, 0};
    attune_stream mine;
    if (attune_stream_create(host, &cpu, 0, &mine, NULL))
        return argument;
    for (int i = 0; i < 50; ++i)
        if (attune_attend(binding, &call, &mine, NULL, NULL) || memcmp(values, data[3], sizeof values) != 0)
            return argument;
    attune_stream_destroy(&mine);
    return NULL;
}

/* Several threads run one binding at once, each with a workspace and a stream of its own. */
START_TEST(test_attend_concurrently) {
    pthread_t threads[3];
    assert_ok(attune_attend(binding, &args, &stream, NULL, &error), error);
    for (int i = 0; i < 3; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, attend_often, host), 0);
    for (int i = 0; i < 3; ++i) {
        void *bad;
        (void)pthread_join(threads[i], &bad);
        ck_assert_ptr_null(bad);
    }
}
END_TEST

/* On a device that only enqueues: the host's own workspace lives until the work is done, and late errors are
 * told. */
START_TEST(test_attend_enqueued) {
    attune *gpu_host = open_with("plain", "gpu", NULL);
    attune *saved = host;
    attune_stream gpu_stream;
    attune_device_id gpu = {ATTUNE_DEVICE_CUDA, 0, {'G', 'P', 'U', '-', 'f', 'i', 'x', 't', 'u', 'r', 'e'}};
    host = gpu_host;
    q.device = k.device = v.device = out.device = gpu;
    attune_binding *bound = bind_to("sdp", NULL, 0);
    assert_ok(attune_stream_create(host, &gpu, 0, &gpu_stream, &error), error);
    assert_ok(attune_attend(bound, &args, &gpu_stream, NULL, &error), error);
    check_result(NULL);
    assert_fails(attune_attend(bound, &args, &stream, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "another device");
    _Alignas(256) static uint8_t workspace[2048];
    args.workspace = workspace + 64;
    args.workspace_bytes = 1024;
    assert_fails(attune_attend(bound, &args, &gpu_stream, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "aligned to 256");
    attune_binding_release(bound);
    static float unlucky[4][13 * 4];
    q = filled(unlucky[0], 1, 1, 4, 13, 1);
    k = filled(unlucky[1], 1, 1, 4, 13, 1);
    v = filled(unlucky[2], 1, 1, 4, 13, 1);
    out = filled(unlucky[3], 1, 1, 4, 13, 1);
    q.device = k.device = v.device = out.device = gpu;
    bound = bind_to("sdp", NULL, 0);
    args.workspace = NULL;
    assert_fails(attune_attend(bound, &args, &gpu_stream, NULL, &error), error, ATTUNE_INTERNAL,
                 "a late error");
    attune_binding_release(bound);
    attune_stream_destroy(&gpu_stream);
    attune_close(gpu_host);
    host = saved;
}
END_TEST

TCase *attend_cases(void) {
    TCase *cases = tcase_create("attend");
    tcase_add_checked_fixture(cases, open_plain, close_plain);
    tcase_add_test(cases, test_attend_result);
    tcase_add_loop_test(cases, test_abi_frozen, 0, 2);
    tcase_add_test(cases, test_attend_racy);
    tcase_add_test(cases, test_attend_mask_broadcast);
    tcase_add_test(cases, test_attend_validates);
    tcase_add_test(cases, test_attend_stride_of_one);
    tcase_add_test(cases, test_attend_streams);
    tcase_add_test(cases, test_attend_workspace);
    tcase_add_test(cases, test_attend_cancel);
    tcase_add_test(cases, test_attend_concurrently);
    tcase_add_test(cases, test_attend_enqueued);
    tcase_set_timeout(cases, 0);
    return cases;
}
