/* check_devices.c: attune.device/1 of attune-cuda, and what becomes of each call of CUDA's that fails. */
#include "tests/cuda/device_call.h"
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const attune_device_interface *device;

START_TEST(devices_are_described) {
    plugin_host host;
    attune_device_info info[2] = {{.struct_size = sizeof *info}, {.struct_size = sizeof *info}};
    void *memory;
    setenv("ATTUNE_EMULATOR_DEVICES", "2", 1);
    setenv("ATTUNE_EMULATOR_MEMORY", "2G", 1);
    plugin_host_start_library(&host, "attune-cuda.so");
    device = host.device;
    ck_assert_uint_eq(device->count(host.instance), 2);
    ck_assert_uint_eq(host.attention->count(host.instance), 8);
    ck_assert_int_eq(device->alloc(host.instance, 1, 1 << 20, &memory, NULL), ATTUNE_OK);
    for (uint32_t i = 0; i < 2; ++i)
        ck_assert_int_eq(device->describe(host.instance, i, &info[i], NULL), ATTUNE_OK);
    ck_assert_str_eq(info[0].name, "cuda:0");
    ck_assert_str_eq(info[1].name, "cuda:1");
    ck_assert_str_eq(info[1].vendor, "NVIDIA");
    ck_assert_str_eq(info[1].capability, "8.6");
    ck_assert_str_eq(info[1].label, "Attune emulated GPU, PCI 0000:02:00.0");
    ck_assert_int_ne(memcmp(info[0].id.uuid, info[1].id.uuid, sizeof info[0].id.uuid), 0);
    ck_assert_uint_eq(info[1].memory_total, 2ull << 30);
    ck_assert_uint_eq(info[0].memory_free - info[1].memory_free, 1 << 20); /* read when it was asked for */
    ck_assert_uint_eq((uintptr_t)memory % info[1].alignment, 0);
    attune_error error;
    ck_assert_int_eq(device->describe(host.instance, 2, &info[0], &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_str_eq(error.message, "device 2 does not exist (there are 2)");
    ck_assert_int_eq(device->alloc(host.instance, 0, 4ull << 30, &memory, &error), ATTUNE_RESOURCE_EXHAUSTED);
    ck_assert_msg(strstr(error.message, "cuda:0: no memory for 4294967296 bytes: ") != NULL, "%s",
                  error.message);
    ck_assert_int_eq(error.native_code, cudaErrorMemoryAllocation);
    int current = -1;
    OK(cudaGetDevice(&current));
    ck_assert_int_eq(current, 0); /* the caller's own device is put back */
    OK(cudaGetLastError());       /* and no error is left behind in the runtime */
    device->free(host.instance, 1, memory);
}
END_TEST

/* A stream of the second device copies what the first device's stream has written, in the order of an event.
 */
START_TEST(events_order_streams_of_two_devices) {
    enum { BYTES = 4096 };
    plugin_host host;
    attune_stream streams[2] = {{.struct_size = sizeof *streams}, {.struct_size = sizeof *streams}};
    void *memory[2], *event;
    char from[BYTES], to[BYTES] = {0};
    memset(from, 7, sizeof from);
    setenv("ATTUNE_EMULATOR_DEVICES", "2", 1);
    plugin_host_start_library(&host, "attune-cuda.so");
    device = host.device;
    for (uint32_t i = 0; i < 2; ++i) {
        ck_assert_int_eq(device->stream_create(host.instance, i, &streams[i], NULL), ATTUNE_OK);
        ck_assert_int_eq(device->alloc(host.instance, i, BYTES, &memory[i], NULL), ATTUNE_OK);
    }
    ck_assert_int_eq(device->event_create(host.instance, 0, &event, NULL), ATTUNE_OK);
    ck_assert_int_eq(
        device->copy(host.instance, &streams[0], memory[0], from, BYTES, ATTUNE_COPY_TO_DEVICE, NULL),
        ATTUNE_OK);
    ck_assert_int_eq(device->event_record(host.instance, event, &streams[0], NULL), ATTUNE_OK);
    ck_assert_int_eq(device->event_wait(host.instance, event, &streams[1], NULL), ATTUNE_OK);
    ck_assert_int_eq(
        device->copy(host.instance, &streams[1], memory[1], memory[0], BYTES, ATTUNE_COPY_WITHIN, NULL),
        ATTUNE_OK);
    ck_assert_int_eq(
        device->copy(host.instance, &streams[1], to, memory[1], BYTES, ATTUNE_COPY_FROM_DEVICE, NULL),
        ATTUNE_OK);
    ck_assert_int_eq(device->stream_synchronize(host.instance, &streams[1], NULL), ATTUNE_OK);
    ck_assert_mem_eq(from, to, BYTES);
    attune_error error;
    ck_assert_int_eq(device->copy(host.instance, &streams[1], to, memory[1], BYTES, 7, &error),
                     ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(device->copy(host.instance, &streams[1], (char *)memory[1] + 1, from, BYTES,
                                  ATTUNE_COPY_TO_DEVICE, &error),
                     ATTUNE_INVALID_ARGUMENT);
    device->event_destroy(host.instance, event);
    for (uint32_t i = 0; i < 2; ++i) {
        device->free(host.instance, i, memory[i]);
        device->stream_destroy(host.instance, &streams[i]);
    }
    plugin_host_stop(&host);
    ck_assert_uint_eq(cuda_emulator_streams() + cuda_emulator_events() + cuda_emulator_libraries(), 0);
}
END_TEST

/* No driver, no device, a device that is too old: create says why and what to do, and leaves nothing. */
static const struct {
    const char *variable, *value, *message, *hint;
    int native;
} unusable[] = {{"ATTUNE_EMULATOR_NO_DRIVER", "1",
                 "no NVIDIA driver, or one that is too old for CUDA 13: error 35", "driver 580", 35},
                {"ATTUNE_EMULATOR_DEVICES", "0", "CUDA finds no GPU: error 100", "is a GPU there", 100},
                {"ATTUNE_EMULATOR_CC", "6.1",
                 "cuda:0 (Attune emulated GPU) has compute capability 6.1; CUDA 13 serves 7.5 and newer",
                 "Turing", 0}};

START_TEST(what_cannot_be_used_is_refused) {
    plugin_host host;
    const attune_plugin *plugin;
    uint32_t abi = ATTUNE_ABI_VERSION;
    void *instance = NULL;
    attune_error error;
    setenv(unusable[_i].variable, unusable[_i].value, 1);
    plugin_host_open_library(&host, "attune-cuda.so");
    ck_assert_int_eq(host.entry(&abi, &plugin), ATTUNE_OK);
    ck_assert_int_eq(plugin->create(&host.host, &instance, &error), ATTUNE_UNAVAILABLE);
    ck_assert_msg(strstr(error.message, unusable[_i].message) == error.message, "%s", error.message);
    ck_assert_msg(strstr(error.hint, unusable[_i].hint) != NULL, "%s", error.hint);
    ck_assert_int_eq(error.native_code, unusable[_i].native);
    ck_assert_ptr_null(instance);
    ck_assert_int_eq(host.allocations, 0);
}
END_TEST

/* ---- each call that fails ---- */

/* All that a request does, by `math` (cuBLAS and a kernel) or a kernel that needs much shared memory. What
 * was made is given back whatever fails; 0 and `error` filled where something did. */
typedef struct trial {
    plugin_host host;
    uint32_t gpu;
    attune_stream stream;
    void *memory, *workspace, *event;
    attune_error error;
    float out[64];
} trial;

enum { TOKENS = 4, HEAD = 16, VALUES = TOKENS * HEAD, BACKENDS = 4 };

static int good(trial *t, attune_code code) {
    if (code == ATTUNE_OK)
        return 1;
    ck_assert_msg(t->error.code == code && *t->error.message, "code %d without a message", code);
    return 0;
}

static attune_attention_problem small_problem(const attune_device_id *id) {
    const int64_t stride[4] = {VALUES, VALUES, HEAD, 1};
    attune_attention_problem p = {.struct_size = sizeof p,
                                  .batch = 1,
                                  .heads_q = 1,
                                  .heads_kv = 1,
                                  .n_q = TOKENS,
                                  .n_k = TOKENS,
                                  .d_qk = HEAD,
                                  .d_v = HEAD,
                                  .dtype = ATTUNE_F32,
                                  .budget = UINT64_MAX,
                                  .device = *id};
    memcpy(p.stride_q, stride, sizeof stride);
    memcpy(p.stride_k, stride, sizeof stride);
    memcpy(p.stride_v, stride, sizeof stride);
    memcpy(p.stride_out, stride, sizeof stride);
    return p;
}

/* One attention of backend `index` on arrays that lie one after another. */
static int attend(trial *t, uint32_t index) {
    const int64_t shape[4] = {1, 1, TOKENS, HEAD};
    attune_tensor at[4];
    float *const memory = t->memory;
    const attune_attention_problem problem = small_problem(&t->host.id);
    attune_attention_answer answer = {.struct_size = sizeof answer};
    for (int i = 0; i < 4; ++i)
        at[i] = attune_tensor_view(memory + (ptrdiff_t)i * VALUES, ATTUNE_F32, t->host.id, 4, shape);
    if (!good(t, t->host.attention->query(t->host.instance, index, &problem, &answer, &t->error)))
        return 0;
    ck_assert_msg(answer.code == ATTUNE_OK, "%s", answer.reason);
    if (answer.workspace &&
        !good(t, device->alloc(t->host.instance, t->gpu, answer.workspace, &t->workspace, &t->error)))
        return 0;
    const attune_attention_args args = {.struct_size = sizeof args,
                                        .q = &at[0],
                                        .k = &at[1],
                                        .v = &at[2],
                                        .out = &at[3],
                                        .workspace = t->workspace,
                                        .workspace_bytes = answer.workspace};
    return good(t, t->host.attention->run(t->host.instance, index, &problem, answer.plan, &args, &t->stream,
                                          NULL, &t->error));
}

static int work(trial *t, uint32_t index) {
    float values[3 * VALUES];
    attune_device_info info = {.struct_size = sizeof info};
    void *const instance = t->host.instance;
    for (int i = 0; i < 3 * VALUES; ++i)
        values[i] = (float)(i % 7 - 3);
    return good(t, device->describe(instance, t->gpu, &info, &t->error)) &&
           good(t, device->stream_create(instance, t->gpu, &t->stream, &t->error)) &&
           good(t, device->event_create(instance, t->gpu, &t->event, &t->error)) &&
           good(t, device->alloc(instance, t->gpu, sizeof values + sizeof t->out, &t->memory, &t->error)) &&
           good(t, device->copy(instance, &t->stream, t->memory, values, sizeof values, ATTUNE_COPY_TO_DEVICE,
                                &t->error)) &&
           attend(t, index) && good(t, device->event_record(instance, t->event, &t->stream, &t->error)) &&
           good(t, device->event_wait(instance, t->event, &t->stream, &t->error)) &&
           good(t, device->copy(instance, &t->stream, t->out, (float *)t->memory + (ptrdiff_t)3 * VALUES,
                                sizeof t->out, ATTUNE_COPY_FROM_DEVICE, &t->error)) &&
           good(t, device->stream_synchronize(instance, &t->stream, &t->error));
}

/* From create to destroy. */
static int request(trial *t, uint32_t index) {
    uint32_t abi = ATTUNE_ABI_VERSION;
    attune_device_info info = {.struct_size = sizeof info};
    memset(t, 0, sizeof *t);
    t->gpu = index / BACKENDS;
    t->stream.struct_size = sizeof t->stream;
    plugin_host_open_library(&t->host, "attune-cuda.so");
    ck_assert_int_eq(t->host.entry(&abi, &t->host.plugin), ATTUNE_OK);
    if (!good(t, t->host.plugin->create(&t->host.host, &t->host.instance, &t->error)))
        return 0;
    device = t->host.plugin->get_interface(t->host.instance, ATTUNE_DEVICE_INTERFACE);
    t->host.attention = t->host.plugin->get_interface(t->host.instance, ATTUNE_ATTENTION_INTERFACE);
    int done = good(t, device->describe(t->host.instance, t->gpu, &info, &t->error));
    t->host.id = info.id;
    done = done && work(t, index);
    if (t->stream.native && !done) /* what was enqueued may still use what is freed now */
        (void)device->stream_synchronize(t->host.instance, &t->stream, NULL);
    device->free(t->host.instance, t->gpu, t->workspace);
    device->free(t->host.instance, t->gpu, t->memory);
    device->event_destroy(t->host.instance, t->event);
    device->stream_destroy(t->host.instance, &t->stream);
    const attune_code quiet = t->host.plugin->quiesce(t->host.instance, &t->error);
    t->host.plugin->destroy(t->host.instance);
    ck_assert_int_eq(t->host.allocations, 0);
    return done && good(t, quiet);
}

/* A call that gives something back and fails has not given it back. */
static int gives_back(const char *call) {
    static const char *const names[] = {"cudaFree", "cudaStreamDestroy", "cudaEventDestroy",
                                        "cudaLibraryUnload"};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        if (strcmp(call, names[i]) == 0)
            return 1;
    return 0;
}

static void assert_left_out(const trial *t) {
    ck_assert_msg(strstr(t->host.said, "cuda:") == t->host.said && strstr(t->host.said, " is left out: "),
                  "%s", t->host.said);
    ck_assert_str_eq(t->error.message, "device 1 does not exist (there are 1)");
}

enum { CALLS = 64, KINDS = 3 }; /* more calls than a request makes */
/* sdp-no-mem, math, and sdp-no-mem of the second GPU, which is not the current one */
static const uint32_t kinds[KINDS] = {0, 3, BACKENDS};

START_TEST(every_call_may_fail_once) {
    char fail[32];
    trial first, second;
    const int nth = _i / KINDS + 1;
    (void)snprintf(fail, sizeof fail, "%d", nth);
    setenv("ATTUNE_EMULATOR_DEVICES", "2", 1);
    setenv("ATTUNE_EMULATOR_FAIL", fail, 1);
    const int done = request(&first, kinds[_i % KINDS]);
    const char *call = cuda_emulator_failed_call();
    ck_assert_msg(nth < CALLS || !call, "%d calls are not all", CALLS);
    if (!call) { /* the request makes fewer */
        ck_assert_int_eq(done, 1);
        return;
    }
    if (!gives_back(call)) {
        size_t free_now, total;
        ck_assert_msg(cuda_emulator_streams() + cuda_emulator_events() + cuda_emulator_libraries() == 0,
                      "%s failed: %zu streams, %zu events, %zu libraries are left", call,
                      cuda_emulator_streams(), cuda_emulator_events(), cuda_emulator_libraries());
        for (int gpu = 0; gpu < 2; ++gpu) {
            OK(cudaSetDevice(gpu));
            OK(cudaMemGetInfo(&free_now, &total));
            ck_assert_uint_eq(free_now, total);
        }
        OK(cudaSetDevice(0));
    }
    if (!done) {
        /* of two GPUs one that cannot be read is left out, and the plugin says so where it is asked for */
        const int gone = strcmp(call, "cudaGetDeviceProperties") == 0;
        const char *said = gone ? first.host.said : first.error.message;
        ck_assert_msg(strstr(said, "error 2)") || strstr(said, "status"), "%s failed: %s", call, said);
        if (gone)
            assert_left_out(&first);
    }
    ck_assert_msg(cudaGetLastError() == cudaSuccess, "%s failed, and the runtime still says so", call);
    ck_assert_msg(request(&second, kinds[_i % KINDS]), "after %s failed once: %s", call,
                  second.error.message);
    if (done)
        ck_assert_mem_eq(first.out, second.out, sizeof first.out);
    ck_assert_uint_eq(cuda_emulator_busy_unloads(), 0);
}
END_TEST

/* ---- what run does not do ---- */

static const char *const names[] = {"sdp-no-mem", "sdp", "xformers", "math"};

/* A copy waits on the stream; what is in pinned memory says whether anybody has waited for the stream or the
 * device since. Streams of the emulator run when they are waited for. */
START_TEST(run_only_enqueues) {
    plugin_host host;
    device_way way;
    attention_case c = {.batch = 1,
                        .heads_q = 2,
                        .heads_kv = 2,
                        .n_q = 20,
                        .n_k = 300,
                        .d_qk = 40,
                        .d_v = 40,
                        .amplitude = 1,
                        .seed = 3,
                        .storage = ATTUNE_KERNEL_F16};
    uint32_t *pinned;
    size_t before, after, total;
    void *word = suite_device(&(uint32_t){7}, 4);
    OK(cudaMallocHost((void **)&pinned, 4));
    device_way_open(&way, &host, names[_i], ATTUNE_DETERMINISM_NONE);
    attention_arrays a = arrays_make(&c);
    device_run(&a.stored, &way); /* its kernels are loaded */
    device_call call;
    device_call_open(&call, &a.stored, &way);
    *pinned = 1;
    OK(cudaMemcpyAsync(pinned, word, 4, cudaMemcpyDeviceToHost, way.stream.native));
    OK(cudaMemGetInfo(&before, &total));
    for (int i = 0; i < 3; ++i)
        device_call_run(&call);
    OK(cudaMemGetInfo(&after, &total));
    ck_assert_uint_eq(after, before);
    ck_assert_uint_eq(*pinned, 1);
    device_call_close(&call);
    ck_assert_uint_eq(*pinned, 7);
    OK(cudaFreeHost(pinned));
    OK(cudaFree(word));
    arrays_free(&a);
    device_way_close(&way);
}
END_TEST

TCase *device_cases(void) {
    TCase *c = tcase_create("devices");
    tcase_add_test(c, devices_are_described);
    tcase_add_test(c, events_order_streams_of_two_devices);
    tcase_add_loop_test(c, what_cannot_be_used_is_refused, 0, (int)(sizeof unusable / sizeof *unusable));
    tcase_add_loop_test(c, run_only_enqueues, 0, (int)(sizeof names / sizeof *names));
    tcase_add_loop_test(c, every_call_may_fail_once, 0, CALLS * KINDS);
    return c;
}
