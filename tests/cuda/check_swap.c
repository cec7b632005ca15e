/* check_swap.c: two builds of attune-cuda take each other's place while work is on streams: the old code and
 * its kernels stay until that work is done, then nothing of it is left in the runtime. */
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"
#include "tests/kernels/cases.h"
#include "tests/support/fixture_plugins.h"
#include "tests/support/run.h"

#include "attune/host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DONE(call)                                                                                           \
    do {                                                                                                     \
        attune_error error;                                                                                  \
        memset(&error, 0, sizeof error);                                                                     \
        const attune_code code = (call);                                                                     \
        ck_assert_msg(code == ATTUNE_OK, "%s: %s (%s)", #call, error.message, error.hint);                   \
    } while (0)

enum { TOKENS = 48, HEAD = 40, VALUES = TOKENS * HEAD, BYTES = VALUES * 4, THREADS = 3, SWAPS = 20 };

static attune *host;
static attune_device_id gpu;
static float input[VALUES], wanted[VALUES];

/* A folder with this build of attune-cuda and its manifest. */
static const char *put_build(const char *file) {
    static char paths[2][4096];
    static int next;
    char *path = paths[next++ % 2];
    const char *folder = fixture_folder();
    run_result r =
        run("cp $B/%s %s/attune-cuda.so && $B/tools/fill_manifest $S/manifest.json %s %s/manifest.json "
            "attune-cpu attune-sampler-cpu",
            file, folder, folder, folder);
    ck_assert_msg(r.status == 0, "%s", r.err);
    run_free(&r);
    (void)snprintf(path, sizeof paths[0], "%s/manifest.json", folder);
    return path;
}

/* A host with the first build, its device, one input and the output that the reference gives. */
static void set_up(const char *manifest) {
    const attune_options options = {
        .struct_size = sizeof options, .threads = 2, .plugin_dir = "/nonexistent"};
    attune_device_info info = {.struct_size = sizeof info};
    uint64_t state = 5;
    (void)unsetenv("ATTUNE_PLUGIN_PATH");
    DONE(attune_open(&options, &host, &error));
    DONE(attune_load(host, manifest, &error));
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    DONE(attune_snapshot_device(snapshot, 0, 0, &info, &error));
    attune_snapshot_release(snapshot);
    gpu = info.id;
    for (int i = 0; i < VALUES; ++i)
        input[i] = random_float(&state);
    const attune_attention_f32 a = {.batch = 1,
                                    .heads_q = 1,
                                    .heads_kv = 1,
                                    .n_q = TOKENS,
                                    .n_k = TOKENS,
                                    .d_qk = HEAD,
                                    .d_v = HEAD,
                                    .q = input,
                                    .k = input,
                                    .v = input,
                                    .out = wanted,
                                    .stride_q = {VALUES, VALUES, HEAD, 1},
                                    .stride_k = {VALUES, VALUES, HEAD, 1},
                                    .stride_v = {VALUES, VALUES, HEAD, 1},
                                    .stride_out = {VALUES, VALUES, HEAD, 1}};
    attune_attention_f32_reference(&a);
}

/* Device arrays of one request: the input, and behind it the output. */
typedef struct request {
    attune_stream stream;
    attune_buffer *buffer;
    float *memory;
    attune_tensor in, out;
} request;

static void view(request *r, float *memory) {
    const int64_t shape[4] = {1, 1, TOKENS, HEAD};
    r->in = attune_tensor_view(memory, ATTUNE_F32, gpu, 4, shape);
    r->out = attune_tensor_view(memory + VALUES, ATTUNE_F32, gpu, 4, shape);
}

static void request_open(request *r) {
    void *memory;
    memset(r, 0, sizeof *r);
    r->stream.struct_size = sizeof r->stream;
    DONE(attune_stream_create(host, &gpu, 0, &r->stream, &error));
    DONE(attune_buffer_create(host, &gpu, 2 * BYTES, &r->buffer, &memory, &error));
    r->memory = memory;
    view(r, memory);
    DONE(attune_stream_copy(&r->stream, memory, input, BYTES, ATTUNE_COPY_TO_DEVICE, &error));
}

/* Binds to whatever serves now; the views need no memory yet. */
static attune_binding *bind(uint64_t *generation) {
    const attune_wish wish = {.struct_size = sizeof wish, .attention = "sdp-no-mem", .required = 1};
    attune_choice *choice = calloc(1, sizeof *choice);
    attune_attention_problem problem;
    attune_binding *binding;
    request r;
    view(&r, (float *)(uintptr_t)4096);
    choice->struct_size = sizeof *choice;
    DONE(attune_attention_problem_init(&problem, &r.in, &r.in, &r.in, NULL, &r.out, &error));
    DONE(attune_choose(host, &wish, &problem, choice, &binding, &error));
    *generation = choice->generation;
    free(choice);
    return binding;
}

static void enqueue(request *r, attune_binding *binding) {
    const attune_attention_args args = {
        .struct_size = sizeof args, .q = &r->in, .k = &r->in, .v = &r->in, .out = &r->out};
    DONE(attune_attend(binding, &args, &r->stream, NULL, &error));
}

/* Waits, compares, closes. */
static int request_close(request *r) {
    float out[VALUES];
    DONE(attune_stream_copy(&r->stream, out, r->memory + VALUES, BYTES, ATTUNE_COPY_FROM_DEVICE, &error));
    DONE(attune_stream_synchronize(&r->stream, &error));
    attune_buffer_release(r->buffer);
    attune_stream_destroy(&r->stream);
    return memcmp(out, wanted, sizeof out) == 0;
}

static uint32_t in_state(const char *state) {
    uint32_t count = 0;
    attune_generation_info info = {.struct_size = sizeof info};
    for (uint32_t i = 0; attune_generation_at(host, i, &info, NULL) == ATTUNE_OK; ++i)
        count += strcmp(info.plugin.state, state) == 0;
    return count;
}

START_TEST(old_kernels_stay_until_their_work_is_done) {
    const char *first = put_build("attune-cuda.so"), *second = put_build("tests/cuda/attune-cuda-b.so");
    attune_swap_report report = {.struct_size = sizeof report};
    uint64_t generation;
    request r;
    set_up(first);
    attune_binding *binding = bind(&generation);
    DONE(attune_swap(host, second, &report, &error));
    ck_assert_uint_eq(report.swapped, 1);
    ck_assert_uint_eq(report.replaced, generation);
    const size_t before = cuda_emulator_libraries(); /* the new build's, where its known answers have run */
    request_open(&r);                                /* of the new build, as its stream is */
    enqueue(&r, binding);                            /* by the old build's kernel */
    ck_assert_uint_eq(cuda_emulator_libraries(), before + 1);
    ck_assert_uint_eq(in_state("retired"), 1);
    attune_binding_release(binding); /* the last lease: the work that is still on the stream is waited for */
    ck_assert_uint_eq(in_state("retired"), 0);
    ck_assert_uint_eq(cuda_emulator_libraries(), before);
    ck_assert_uint_eq(cuda_emulator_busy_unloads(), 0);
    ck_assert_int_eq(request_close(&r), 1);
    attune_close(host);
    ck_assert_uint_eq(cuda_emulator_libraries() + cuda_emulator_streams() + cuda_emulator_events(), 0);
    ck_assert_uint_eq(cuda_emulator_registered(), 0);
}
END_TEST

static atomic_int stop;
static atomic_uint wrong, requests;

/* Requests whose stream, arrays and backend may each be of another generation; the backend is let go before
 * its work is done. */
static void *keep_asking(void *argument) {
    uint64_t generation;
    while (!atomic_load(&stop)) {
        request r;
        attune_binding *binding = bind(&generation);
        request_open(&r);
        enqueue(&r, binding);
        enqueue(&r, binding);
        attune_binding_release(binding);
        atomic_fetch_add(&wrong, !request_close(&r));
        atomic_fetch_add(&requests, 1);
    }
    return argument;
}

START_TEST(a_storm_of_swaps) {
    const char *manifests[2] = {put_build("attune-cuda.so"), put_build("tests/cuda/attune-cuda-b.so")};
    attune_swap_report report = {.struct_size = sizeof report};
    pthread_t threads[THREADS];
    size_t total, free_before, free_after;
    set_up(manifests[0]);
    OK(cudaMemGetInfo(&free_before, &total));
    for (int i = 0; i < THREADS; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, keep_asking, NULL), 0);
    for (int i = 1; i <= SWAPS; ++i) {
        const unsigned seen = atomic_load(&requests);
        while (atomic_load(&requests) == seen) /* each build serves */
            (void)sched_yield();
        DONE(attune_swap(host, manifests[i % 2], &report, &error));
        ck_assert_uint_eq(report.swapped, 1);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; ++i)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    ck_assert_uint_eq(in_state("retired") + in_state("stuck"), 0);
    ck_assert_uint_eq(cuda_emulator_streams() + cuda_emulator_events() + cuda_emulator_busy_unloads(), 0);
    OK(cudaMemGetInfo(&free_after, &total));
    ck_assert_uint_eq(free_after, free_before);
    attune_close(host);
    ck_assert_uint_eq(cuda_emulator_libraries() + cuda_emulator_registered(), 0);
    ck_assert_uint_eq(cuda_emulator_reports(NULL, 0), 0);
}
END_TEST

TCase *swap_cases(void) {
    TCase *c = tcase_create("swap");
    tcase_add_test(c, old_kernels_stay_until_their_work_is_done);
    tcase_add_test(c, a_storm_of_swaps);
    return c;
}
