/* check_storm.c: swaps under load. A swap counts when a picture was being painted on the old generation after
 * the new one was published. */
#include "rig.h"
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS = 8 };

/* What is painted in a storm. */
typedef struct picture {
    const char *prompt;
    uint32_t steps, side;
} picture;

static attune *host;
static attune_model *model;
static picture subject;
static int painters; /* so many of the threads paint, the first of them by the policy step */
static uint8_t *undisturbed;
static atomic_int stop;
static atomic_uint_fast64_t slots[THREADS];
static atomic_uint_fast64_t requests, wrong, unnamed;
static atomic_uint_fast64_t outlived; /* the newest generation that was replaced beneath a picture */
static atomic_uint counted;

static size_t picture_bytes(void) {
    return 3 * (size_t)subject.side * subject.side;
}

/* Whether a generation that still serves somebody was replaced. */
static bool is_retired(uint64_t generation) {
    attune_generation_info info = {.struct_size = sizeof info};
    for (uint32_t i = 0; attune_generation_at(host, i, &info, NULL) == ATTUNE_OK; ++i)
        if (info.plugin.generation == generation)
            return strcmp(info.plugin.state, "retired") == 0;
    return false;
}

/* Each swap counts once. Called while the picture's session is open. */
static void count_swap(uint64_t generation) {
    uint64_t before = atomic_load(&outlived);
    if (!is_retired(generation))
        return;
    while (before < generation && !atomic_compare_exchange_weak(&outlived, &before, generation))
        continue;
    if (before < generation)
        atomic_fetch_add(&counted, 1);
}

static bool paint(uint32_t policy, uint8_t *pixels, uint64_t *generation, atomic_uint_fast64_t *slot) {
    attune_wish wish = {.struct_size = sizeof wish, .swap = policy, .attention = "sdp-no-mem", .required = 1};
    attune_request request = {.struct_size = sizeof request,
                              .prompt = subject.prompt,
                              .negative_prompt = "",
                              .memory_limit = UINT64_MAX,
                              .determinism = ATTUNE_DETERMINISM_REPEATABLE,
                              .steps = subject.steps,
                              .width = subject.side,
                              .height = subject.side,
                              .batch_size = 1,
                              .cfg_scale = 7};
    attune_image image = {.struct_size = sizeof image,
                          .width = subject.side,
                          .height = subject.side,
                          .stride = 3 * subject.side,
                          .pixels = pixels};
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
    *generation = record->choice.generation;
    if (slot && !code)
        count_swap(*generation);
    if (!code)
        code = attune_session_image(session, 0, &image, NULL);
    attune_session_close(session);
    if (slot)
        atomic_store(slot, 0);
    free(record);
    return code == ATTUNE_OK;
}

static void *work(void *argument) {
    atomic_uint_fast64_t *slot = argument;
    bool follows = slot == slots; /* what serves it changes beneath it, so it is never counted */
    uint8_t *pixels = calloc(1, picture_bytes());
    while (!atomic_load(&stop)) {
        uint64_t generation;
        if (slot - slots < painters) {
            bool good = paint(follows ? ATTUNE_SWAP_STEP : ATTUNE_SWAP_PIN, pixels, &generation,
                              follows ? NULL : slot);
            if (!good || memcmp(pixels, undisturbed, picture_bytes()) != 0)
                atomic_fetch_add(&wrong, 1);
        } else {
            generation = attend_once(host);
            if (!generation)
                atomic_fetch_add(&wrong, 1);
        }
        if (generation == 0)
            atomic_fetch_add(&unnamed, 1);
        atomic_fetch_add(&requests, 1);
    }
    free(pixels);
    return NULL;
}

/* Whether a picture is being painted on it. */
static bool runs_on(uint64_t generation) {
    bool found = false;
    for (int i = 0; i < painters; ++i)
        found |= atomic_load(&slots[i]) == generation;
    return found;
}

/* A thread that was joined may be listed for a moment. */
static holdings settled(unsigned threads) {
    holdings now = held_now();
    for (int i = 0; i < 1000 && now.threads > threads; ++i) {
        (void)usleep(10000);
        now = held_now();
    }
    return now;
}

/* `wanted` counted swaps between two builds, each as soon as a picture is at work on the build that goes.
 * `room` is what the heap may grow by. */
static void storm(const char *const manifests[2], unsigned wanted, ptrdiff_t room) {
    attune_error error;
    attune_swap_report report = {.struct_size = sizeof report};
    pthread_t threads[THREADS];
    uint64_t generation;
    unsigned swaps = 0;
    atomic_store(&stop, 0);
    atomic_store(&counted, 0);
    atomic_store(&outlived, 0);
    atomic_store(&requests, 0);
    undisturbed = calloc(1, picture_bytes());
    ck_assert(paint(ATTUNE_SWAP_PIN, undisturbed, &generation, NULL));
    for (int i = 0; i < 4; ++i) /* what is made once, is made */
        assert_ok(attune_swap(host, manifests[1 - i % 2], &report, &error), error);
    attune_memory_usage memory = {.struct_size = sizeof memory}, then = memory;
    (void)attune_memory(host, NULL, &memory, NULL);
    holdings before = held_now();
    size_t heap = mallinfo2().uordblks;
    for (int i = 0; i < THREADS; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &slots[i]), 0);
    while (atomic_load(&counted) < wanted) {
        while (!runs_on(report.generation) && !atomic_load(&wrong))
            (void)usleep(100);
        ck_assert_uint_eq(atomic_load(&wrong), 0);
        ck_assert_msg(swaps < 10 * wanted + 100, "%u swaps, and only %u beneath a picture", swaps,
                      atomic_load(&counted));
        assert_ok(attune_swap(host, manifests[1 - swaps % 2], &report, &error), error);
        ck_assert_uint_eq(report.swapped, 1);
        ++swaps;
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; ++i)
        (void)pthread_join(threads[i], NULL);
    if (swaps % 2) /* end where it began */
        assert_ok(attune_swap(host, manifests[1 - swaps % 2], &report, &error), error);
    holdings after = settled(before.threads);
    ptrdiff_t grown = (ptrdiff_t)(mallinfo2().uordblks - heap);
    (void)attune_memory(host, NULL, &then, NULL);
    printf("storm: %u swaps, %u beneath a picture, %llu requests\n", swaps, atomic_load(&counted),
           (unsigned long long)atomic_load(&requests));
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    ck_assert_uint_eq(atomic_load(&unnamed), 0);
    ck_assert_uint_eq(after.threads, before.threads);
    ck_assert_uint_eq(then.current, memory.current);
    if (!SANITIZED) {
        ck_assert_uint_eq(after.descriptors, before.descriptors);
        ck_assert_uint_eq(after.copies, before.copies);
        ck_assert_uint_eq(in_state(host, "parked"), 0);
        ck_assert_msg(grown < room, "the heap has grown by %td bytes", grown);
    }
    ck_assert_uint_eq(in_state(host, "retired"), 0);
    attune_model_close(model);
    attune_close(host);
    free(undisturbed);
}

START_TEST(test_swap_storm) {
    attune_error error;
    const char *manifests[2] = {put_plain(fixture_folder(), "plain", PUT_RENAMED),
                                put_plain(fixture_folder(), "plain_b", PUT_RENAMED)};
    host = rig_open();
    subject = (picture){"a fixture", 3, 4};
    painters = 2;
    assert_ok(attune_load(host, manifests[0], &error), error);
    assert_ok(attune_load(host, fixture_plugins("painter", NULL), &error), error);
    assert_ok(attune_model_open(host, run_folder(), NULL, NULL, &model, &error), error);
    /* a generation that were lost would cost 20 KiB with its tables, a thousand of them 20 MiB */
    storm(manifests, SANITIZED ? how_many(60, 60) : how_many(1000, 1000), 256 * 1024);
}
END_TEST

/* Images of the real sampler, by attune-cpu, beside the attention calls. */
START_TEST(test_swap_storm_of_real_images) {
    attune_error error;
    const char *manifests[2] = {real_build(), second_build()};
    unsigned wanted = SANITIZED ? how_many(4, 60) : how_many(12, 100);
    host = rig_open();
    subject = (picture){"red apple", 6, 64};
    painters = 4;
    assert_ok(attune_load(host, manifests[0], &error), error);
    assert_ok(attune_model_open(host, emoji_model(), NULL, NULL, &model, &error), error);
    storm(manifests, wanted, 1 << 20);
}
END_TEST

TCase *storm_cases(void) {
    TCase *cases = tcase_create("storm");
    tcase_add_test(cases, test_swap_storm);
    tcase_add_test(cases, test_swap_storm_of_real_images);
    tcase_set_timeout(cases, 0);
    return cases;
}
