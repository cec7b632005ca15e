/* check_session.c: sessions through a swap: pin, step, what may not be moved to, and a real image's bytes. */
#include "rig.h"

static attune_error error;
static attune_swap_report report;

typedef struct painted {
    uint8_t pixels[48];
    attune_session_moves moves;
    attune_attention_record record[8];
    uint32_t records;
} painted;

/* One picture, with a swap to `manifest` before step `at` (−1: none). */
static painted paint(attune *host, attune_model *model, attune_wish wish, int at, const char *manifest) {
    painted out = {.moves = {.struct_size = sizeof out.moves}};
    attune_request request = {.struct_size = sizeof request,
                              .prompt = "a fixture",
                              .memory_limit = UINT64_MAX,
                              .steps = 3,
                              .batch_size = 1};
    attune_image image = {
        .struct_size = sizeof image, .width = 4, .height = 4, .stride = 12, .pixels = out.pixels};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_session *session = NULL;
    assert_ok(attune_session_open(model, &request, &wish, NULL, &session, NULL, NULL, &error), error);
    for (int step = 0; !progress.done; ++step) {
        if (step == at)
            assert_ok(attune_swap(host, manifest, &report, &error), error);
        assert_ok(attune_session_step(session, NULL, &progress, &error), error);
    }
    assert_ok(attune_session_image(session, 0, &image, &error), error);
    assert_ok(attune_session_moved(session, &out.moves, &error), error);
    for (out.records = 0; out.records < 8; ++out.records) {
        out.record[out.records].struct_size = sizeof out.record[0];
        if (attune_session_attention(session, out.records, &out.record[out.records], NULL))
            break;
    }
    attune_session_close(session);
    return out;
}

static attune *host;
static attune_model *model;
static const char *manifests[2];

static void set_up(void) {
    report = (attune_swap_report){.struct_size = sizeof report};
    host = rig_open();
    manifests[0] = put_plain(fixture_folder(), "plain", PUT_RENAMED);
    manifests[1] = put_plain(fixture_folder(), "plain_b", PUT_RENAMED);
    assert_ok(attune_load(host, manifests[0], &error), error);
    assert_ok(attune_load(host, fixture_plugins("painter", NULL), &error), error);
    assert_ok(attune_model_open(host, run_folder(), NULL, NULL, &model, &error), error);
}

static void tear_down(void) {
    attune_model_close(model);
    attune_close(host);
}

START_TEST(test_session_pin_stays) {
    attune_wish wish = {.struct_size = sizeof wish};
    painted alone = paint(host, model, wish, -1, NULL), moved = paint(host, model, wish, 1, manifests[1]);
    ck_assert_mem_eq(moved.pixels, alone.pixels, sizeof alone.pixels);
    ck_assert_uint_eq(moved.moves.moves, 0);
    ck_assert_uint_eq(moved.moves.generations, 1);
    ck_assert_uint_eq(moved.record[0].choice.generation, 1);
    ck_assert_uint_eq(serving(host), 3); /* 2 is the painter */
    ck_assert_uint_eq(in_state(host, "retired"), 0);
}
END_TEST

/* Before each step in turn: the same bytes, and the records say who served from where. */
START_TEST(test_session_step_moves) {
    attune_wish wish = {
        .struct_size = sizeof wish, .swap = ATTUNE_SWAP_STEP, .attention = "sdp-no-mem", .required = 1};
    painted alone = paint(host, model, wish, -1, NULL);
    for (int at = 0; at < 3; ++at) {
        uint64_t before = serving(host);
        painted moved = paint(host, model, wish, at, manifests[1 - at % 2]);
        ck_assert_mem_eq(moved.pixels, alone.pixels, sizeof alone.pixels);
        ck_assert_uint_eq(moved.moves.moves, 1);
        ck_assert_uint_eq(moved.moves.generations, at ? 2 : 1);
        ck_assert_uint_eq(moved.record[0].choice.generation, serving(host));
        ck_assert_uint_eq(moved.record[0].first_unit, (uint32_t)at);
        ck_assert_uint_eq(moved.record[0].calls, 3u - (unsigned)at);
        ck_assert_uint_eq(moved.records, at ? 4 : 2);
        if (at) {
            ck_assert_uint_eq(moved.record[2].choice.generation, before);
            ck_assert_uint_eq(moved.record[2].first_unit, 0);
            ck_assert_uint_eq(moved.record[2].calls, (unsigned)at);
        }
        ck_assert_uint_eq(in_state(host, "retired"), 0);
    }
}
END_TEST

/* `sdp` of the fixture is only repeatable: an image that asks for that class may not change builds half way.
 */
START_TEST(test_session_step_keeps_the_class) {
    attune_wish wish = {.struct_size = sizeof wish,
                        .swap = ATTUNE_SWAP_STEP,
                        .attention = "sdp",
                        .determinism = ATTUNE_DETERMINISM_REPEATABLE};
    painted moved = paint(host, model, wish, 1, manifests[1]);
    ck_assert_uint_eq(moved.moves.moves, 0);
    ck_assert_ptr_nonnull(strstr(moved.moves.stayed, "would change the bits"));
    wish.determinism = ATTUNE_DETERMINISM_NONE; /* who asks for nothing is moved, and told */
    moved = paint(host, model, wish, 1, manifests[0]);
    ck_assert_uint_eq(moved.moves.moves, 1);
    ck_assert_uint_eq(moved.moves.generations, 2);
    ck_assert_str_eq(moved.moves.stayed, "");
}
END_TEST

/* What was planned is kept: no build that needs more workspace, none that keeps less than was promised. */
START_TEST(test_session_step_keeps_the_plan) {
    const char *worse = put_plain(fixture_folder(), "plain_worse", PUT_RENAMED);
    attune_wish wish = {
        .struct_size = sizeof wish, .swap = ATTUNE_SWAP_STEP, .attention = "sdp-no-mem", .required = 1};
    painted moved = paint(host, model, wish, 1, worse);
    ck_assert_uint_eq(moved.moves.moves, 0);
    ck_assert_uint_eq(moved.records, 2);
    ck_assert_ptr_nonnull(strstr(moved.moves.stayed, "needs 8192 bytes of workspace"));
    assert_ok(attune_swap(host, manifests[0], &report, &error), error);
    wish.attention = "sdp";
    moved = paint(host, model, wish, 1, worse);
    ck_assert_uint_eq(moved.moves.moves, 0);
    ck_assert_uint_eq(moved.records, 2);
    ck_assert_ptr_nonnull(strstr(moved.moves.stayed, "keeps none, the session promised repeatable"));
}
END_TEST

/* ---- from sdp to sdp-no-mem: the new build no longer has the backend that was asked for ---- */

static const char *put_pair(void) {
    const char *folder = fixture_folder();
    json_t *manifest = put_library(folder, "plain_pair", PUT_RENAMED);
    fixture_set(manifest, "libraries.0.attention.1.determinism", json_string("portable"));
    fixture_set(manifest, "libraries.0.attention.1.arithmetic", json_string("fixture-f64-1"));
    return put_manifest(folder, manifest);
}

static const char *put_single(void) {
    const char *folder = fixture_folder();
    json_t *manifest = put_library(folder, "plain_single", PUT_RENAMED);
    fixture_set(manifest, "libraries.0.attention.1", NULL);
    return put_manifest(folder, manifest);
}

/* The record of sdp before step `at`, and of sdp-no-mem from there on. */
static void check_mixed(const painted *made, uint32_t at, uint64_t before) {
    ck_assert_uint_eq(made->moves.moves, 1);
    ck_assert_uint_eq(made->moves.generations, 2);
    ck_assert_uint_eq(made->records, 4);
    for (int i = 0; i < 4; ++i) {
        const attune_attention_record *record = &made->record[i];
        ck_assert_str_eq(record->choice.backend, i < 2 ? "sdp-no-mem" : "sdp");
        ck_assert_uint_eq(record->choice.generation, i < 2 ? serving(host) : before);
        ck_assert_uint_eq(record->first_unit, i < 2 ? at : 0);
        ck_assert_uint_eq(record->calls, i < 2 ? 3 - at : at);
        ck_assert_msg((*record->choice.fallback != 0) == (i < 2), "\"%s\"", record->choice.fallback);
    }
}

/* Of one arithmetic id: at each step the bytes of an undisturbed run, and the records name both backends. */
START_TEST(test_session_step_to_another_backend) {
    const char *pair = put_pair(), *single = put_single();
    attune_wish wish = {.struct_size = sizeof wish,
                        .swap = ATTUNE_SWAP_STEP,
                        .attention = "sdp",
                        .determinism = ATTUNE_DETERMINISM_REPEATABLE};
    assert_ok(attune_swap(host, pair, &report, &error), error);
    painted alone = paint(host, model, wish, -1, NULL);
    for (uint32_t at = 1; at < 3; ++at) {
        uint64_t before = serving(host);
        painted moved = paint(host, model, wish, (int)at, single);
        ck_assert_mem_eq(moved.pixels, alone.pixels, sizeof alone.pixels);
        check_mixed(&moved, at, before);
        assert_ok(attune_swap(host, pair, &report, &error), error);
    }
    wish.required = 1; /* a backend that must be it is not left */
    painted stayed = paint(host, model, wish, 1, single);
    ck_assert_uint_eq(stayed.moves.moves, 0);
    ck_assert_ptr_nonnull(strstr(stayed.moves.stayed, "sdp"));
}
END_TEST

/* Of two arithmetic ids: only an image that asks for no class is moved. */
START_TEST(test_session_step_to_another_arithmetic) {
    const char *single = put_single();
    attune_wish wish = {.struct_size = sizeof wish,
                        .swap = ATTUNE_SWAP_STEP,
                        .attention = "sdp",
                        .determinism = ATTUNE_DETERMINISM_REPEATABLE};
    painted moved = paint(host, model, wish, 1, single);
    ck_assert_uint_eq(moved.moves.moves, 0);
    ck_assert_ptr_nonnull(strstr(moved.moves.stayed, "would change the bits"));
    assert_ok(attune_swap(host, manifests[0], &report, &error), error);
    uint64_t before = serving(host);
    wish.determinism = ATTUNE_DETERMINISM_NONE;
    moved = paint(host, model, wish, 1, single);
    check_mixed(&moved, 1, before);
}
END_TEST

START_TEST(test_session_swap_policy_is_checked) {
    attune_wish wish = {.struct_size = sizeof wish, .swap = 2};
    attune_request request = {.struct_size = sizeof request, .prompt = "x", .steps = 1, .batch_size = 1};
    attune_session *session = NULL;
    ck_assert_int_eq(attune_session_open(model, &request, &wish, NULL, &session, NULL, NULL, &error),
                     ATTUNE_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(error.message, "swap policy 2"));
    attune_session_moves moves = {.struct_size = sizeof moves};
    ck_assert_int_eq(attune_session_moved(NULL, &moves, &error), ATTUNE_INVALID_ARGUMENT);
}
END_TEST

TCase *session_swap_cases(void) {
    TCase *cases = tcase_create("sessions");
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_test(cases, test_session_pin_stays);
    tcase_add_test(cases, test_session_step_moves);
    tcase_add_test(cases, test_session_step_keeps_the_class);
    tcase_add_test(cases, test_session_step_keeps_the_plan);
    tcase_add_test(cases, test_session_step_to_another_backend);
    tcase_add_test(cases, test_session_step_to_another_arithmetic);
    tcase_add_test(cases, test_session_swap_policy_is_checked);
    tcase_set_timeout(cases, 0);
    return cases;
}
