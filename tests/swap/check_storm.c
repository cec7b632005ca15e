/* check_storm.c: swaps under load. A swap counts when a request was running on the old generation after the
 * new one was published. */
#include "rig.h"
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 8, PAINTERS = 2 };

static attune *host;
static attune_model *model;
static atomic_int stop;
static atomic_uint_fast64_t slots[THREADS];
static atomic_uint_fast64_t requests, wrong, unnamed;
static uint8_t undisturbed[48];

/* How many counted swaps: the whole storm, or a part where each library stays mapped. */
static unsigned wanted_swaps(void) {
    const char *asked = getenv("SWAPS");
    return asked ? (unsigned)strtoul(asked, NULL, 10) : SANITIZED ? 60 : 1000;
}

static bool paint(uint32_t policy, uint8_t pixels[48], uint64_t *generation, atomic_uint_fast64_t *slot) {
    attune_wish wish = {.struct_size = sizeof wish, .swap = policy, .attention = "sdp-no-mem", .required = 1};
    attune_request request = {.struct_size = sizeof request,
                              .prompt = "a fixture",
                              .memory_limit = UINT64_MAX,
                              .steps = 3,
                              .batch_size = 1};
    attune_image image = {
        .struct_size = sizeof image, .width = 4, .height = 4, .stride = 12, .pixels = pixels};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_attention_record *record = calloc(1, sizeof *record);
    attune_session *session = NULL;
    attune_code code = attune_session_open(model, &request, &wish, NULL, &session, NULL, NULL, NULL);
    record->struct_size = sizeof *record;
    while (!code && !progress.done) {
        code = attune_session_attention(session, 0, record, NULL);
        if (!code && slot)
            atomic_store(slot, record->choice.generation);
        if (!code)
            code = attune_session_step(session, NULL, &progress, NULL);
    }
    if (!code)
        code = attune_session_attention(session, 0, record, NULL);
    if (!code)
        code = attune_session_image(session, 0, &image, NULL);
    *generation = record->choice.generation;
    attune_session_close(session);
    if (slot)
        atomic_store(slot, 0);
    free(record);
    return code == ATTUNE_OK;
}

static void *work(void *argument) {
    atomic_uint_fast64_t *slot = argument;
    long number = slot - slots;
    while (!atomic_load(&stop)) {
        uint64_t generation;
        uint8_t pixels[48] = {0};
        if (number < PAINTERS) {
            bool good = paint(number == 0 ? ATTUNE_SWAP_STEP : ATTUNE_SWAP_PIN, pixels, &generation, slot);
            if (!good || memcmp(pixels, undisturbed, sizeof pixels) != 0)
                atomic_fetch_add(&wrong, 1);
        } else {
            generation = attend_once(host, slot);
            if (!generation)
                atomic_fetch_add(&wrong, 1);
        }
        if (generation == 0)
            atomic_fetch_add(&unnamed, 1);
        atomic_fetch_add(&requests, 1);
    }
    return NULL;
}

static bool runs_on(uint64_t generation) {
    bool found = false;
    for (int i = 0; i < THREADS; ++i)
        found |= atomic_load(&slots[i]) == generation;
    return found;
}

START_TEST(test_swap_storm) {
    attune_error error;
    attune_swap_report report = {.struct_size = sizeof report};
    const char *manifests[2] = {put_plain(fixture_folder(), "plain", PUT_RENAMED),
                                put_plain(fixture_folder(), "plain_b", PUT_RENAMED)};
    pthread_t threads[THREADS];
    uint64_t generation;
    unsigned counted = 0, swaps = 0, wanted = wanted_swaps();
    host = rig_open();
    host->parked_most = SANITIZED ? UINT32_MAX : ATTUNE_PARKED_MOST;
    assert_ok(attune_load(host, manifests[0], &error), error);
    assert_ok(attune_load(host, fixture_plugins("painter", NULL), &error), error);
    assert_ok(attune_model_open(host, run_folder(), NULL, NULL, &model, &error), error);
    ck_assert(paint(ATTUNE_SWAP_PIN, undisturbed, &generation, NULL));
    for (int i = 0; i < 4; ++i) /* what is made once, is made */
        assert_ok(attune_swap(host, manifests[1 - i % 2], &report, &error), error);
    attune_memory_usage memory = {.struct_size = sizeof memory}, then = memory;
    (void)attune_memory(host, NULL, &memory, NULL);
    holdings before = held_now();
    size_t heap = mallinfo2().uordblks;
    for (int i = 0; i < THREADS; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &slots[i]), 0);
    while (counted < wanted) {
        assert_ok(attune_swap(host, manifests[1 - swaps % 2], &report, &error), error);
        ck_assert_uint_eq(report.swapped, 1);
        counted += runs_on(report.replaced);
        ++swaps;
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; ++i)
        (void)pthread_join(threads[i], NULL);
    if (swaps % 2) /* end where it began */
        assert_ok(attune_swap(host, manifests[1 - swaps % 2], &report, &error), error);
    holdings after = held_now();
    size_t grown = mallinfo2().uordblks - heap;
    (void)attune_memory(host, NULL, &then, NULL);
    printf("storm: %u swaps, %u with a request on the old generation, %llu requests\n", swaps, counted,
           (unsigned long long)atomic_load(&requests));
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    ck_assert_uint_eq(atomic_load(&unnamed), 0);
    ck_assert_uint_eq(after.threads, before.threads);
    ck_assert_uint_eq(then.current, memory.current);
    if (!SANITIZED) {
        ck_assert_uint_eq(after.descriptors, before.descriptors);
        ck_assert_uint_eq(after.copies, before.copies);
        ck_assert_uint_eq(in_state(host, "parked"), 0);
        /* a generation that were lost would cost 20 KiB with its tables, a thousand of them 20 MiB */
        ck_assert_msg((ptrdiff_t)grown < 256 * 1024, "the heap has grown by %zd bytes", (ssize_t)grown);
    }
    ck_assert_uint_eq(in_state(host, "retired"), 0);
    attune_model_close(model);
    attune_close(host);
}
END_TEST

TCase *storm_cases(void) {
    TCase *cases = tcase_create("storm");
    tcase_add_test(cases, test_swap_storm);
    tcase_set_timeout(cases, 0);
    return cases;
}
