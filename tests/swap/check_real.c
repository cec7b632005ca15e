/* check_real.c: swaps of attune-cpu itself: beneath a real image, and many in one host. */
#include "rig.h"
#include <stdlib.h>

enum { STEPS = 3, SIDE = 64, UNITS = STEPS + 2 };

static attune_error error;
static attune_swap_report report;

static void draw(attune *with, attune_model *emoji, int at, const char *manifest, uint8_t *pixels) {
    attune_wish wish = {.struct_size = sizeof wish, .swap = ATTUNE_SWAP_STEP, .attention = "sdp-no-mem"};
    attune_request request = {.struct_size = sizeof request,
                              .prompt = "red apple",
                              .negative_prompt = "",
                              .memory_limit = UINT64_MAX,
                              .steps = STEPS,
                              .width = SIDE,
                              .height = SIDE,
                              .batch_size = 1,
                              .cfg_scale = 7,
                              .determinism = ATTUNE_DETERMINISM_REPEATABLE,
                              .seed = 5};
    attune_image image = {
        .struct_size = sizeof image, .width = SIDE, .height = SIDE, .stride = 3 * SIDE, .pixels = pixels};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_session_moves moves = {.struct_size = sizeof moves};
    attune_session *session = NULL;
    assert_ok(attune_session_open(emoji, &request, &wish, NULL, &session, NULL, NULL, &error), error);
    for (int unit = 0; !progress.done; ++unit) {
        if (unit == at)
            assert_ok(attune_swap(with, manifest, &report, &error), error);
        assert_ok(attune_session_step(session, NULL, &progress, &error), error);
    }
    assert_ok(attune_session_image(session, 0, &image, &error), error);
    assert_ok(attune_session_moved(session, &moves, &error), error);
    ck_assert_str_eq(moves.stayed, "");
    ck_assert_uint_eq(moves.moves, at >= 0);
    attune_session_close(session);
}

/* Between two builds of one version and arithmetic id, at every step boundary: the bytes of an undisturbed
 * run. */
START_TEST(test_session_real_image_through_a_swap) {
    const char *sources[2] = {real_build(), second_build()};
    uint8_t *alone = malloc(3 * SIDE * SIDE), *moved = malloc(3 * SIDE * SIDE);
    attune *real = rig_open();
    attune_model *emoji;
    report.struct_size = sizeof report;
    assert_ok(attune_load(real, sources[0], &error), error);
    assert_ok(attune_model_open(real, emoji_model(), NULL, NULL, &emoji, &error), error);
    draw(real, emoji, -1, NULL, alone);
    for (int at = 0; at < UNITS; ++at) {
        draw(real, emoji, at, sources[1 - at % 2], moved);
        ck_assert_msg(memcmp(moved, alone, 3 * SIDE * SIDE) == 0, "a swap before unit %d changed the picture",
                      at);
    }
    attune_model_close(emoji);
    attune_close(real);
    free(alone);
    free(moved);
}
END_TEST

/* attune-cpu leaves nothing behind, so its old builds are unmapped: a host swaps it more often than
 * generations may be parked, and holds at the end what it held at the start. */
START_TEST(test_swap_attune_cpu_many_times) {
    const char *sources[2] = {real_build(), second_build()};
    const unsigned swaps = SANITIZED ? 6 : 4 * ATTUNE_PARKED_MOST;
    attune *real = rig_open();
    report.struct_size = sizeof report;
    assert_ok(attune_load(real, sources[0], &error), error);
    assert_ok(attune_swap(real, sources[1], &report, &error), error); /* what is made once, is made */
    const holdings before = held_now();
    for (unsigned i = 0; i < swaps; ++i) {
        assert_ok(attune_swap(real, sources[i % 2], &report, &error), error);
        ck_assert_uint_eq(report.swapped, 1);
        ck_assert_uint_eq(attend_once(real), report.generation);
    }
    const holdings after = held_now();
    ck_assert_uint_eq(after.threads, before.threads);
    if (!SANITIZED) {
        ck_assert_uint_eq(in_state(real, "parked"), 0);
        ck_assert_uint_eq(after.descriptors, before.descriptors);
        ck_assert_uint_eq(after.copies, before.copies);
    }
    attune_close(real);
}
END_TEST

/* Each kernel of this processor gives the known answers, and the sampler's plugin is not asked for any. */
START_TEST(test_self_test_attune_cpu) {
#ifdef __x86_64__
    static const char *const masks[] = {"generic", "avx2", "avx512"};
#else
    static const char *const masks[] = {"generic", "neon", "neon"};
#endif
    attune *real = rig_open();
    report.struct_size = sizeof report;
    (void)setenv("ATTUNE_CPU_MASK", masks[_i], 1);
    assert_ok(attune_swap(real, real_build(), &report, &error), error);
    ck_assert_uint_eq(report.added, 2);
    ck_assert_msg(!strstr(rig_log(), "no known answer"), "%s", rig_log());
    attune_close(real);
}
END_TEST

TCase *real_cases(void) {
    TCase *cases = tcase_create("real");
    tcase_add_test(cases, test_session_real_image_through_a_swap);
    tcase_add_test(cases, test_swap_attune_cpu_many_times);
    tcase_add_loop_test(cases, test_self_test_attune_cpu, 0, 3);
    tcase_set_timeout(cases, 0);
    return cases;
}
