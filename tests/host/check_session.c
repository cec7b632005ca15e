/* check_session.c: models and sessions: the binder, records, classes, memory, order of calls; with a
 * pretended sampler. */
#include "cases.h"

static attune *host;
static attune_model *model;
static attune_session *session;
static attune_error error;
static attune_wish wish;
static attune_request request;
static attune_session_plan plan;
static attune_choice choice;

static void open_model(void) {
    host = open_with("plain", "picky", "racy", "painter", NULL);
    wish = (attune_wish){.struct_size = sizeof wish};
    request = (attune_request){.struct_size = sizeof request,
                               .prompt = "a fixture",
                               .memory_limit = UINT64_MAX,
                               .steps = 3,
                               .batch_size = 1,
                               .seed = 7};
    plan = (attune_session_plan){.struct_size = sizeof plan};
    choice.struct_size = sizeof choice;
    session = NULL;
    assert_ok(attune_model_open(host, run_folder(), NULL, NULL, &model, &error), error);
}

static void close_model(void) {
    attune_session_close(session);
    attune_model_close(model);
    attune_close(host);
}

static void open_session(void) {
    assert_ok(attune_session_open(model, &request, &wish, NULL, &session, &plan, &choice, &error), error);
}

static attune_attention_record record(uint32_t i) {
    attune_attention_record out = {.struct_size = sizeof out};
    assert_ok(attune_session_attention(session, i, &out, &error), error);
    return out;
}

static void paint(uint8_t pixels[48]) {
    attune_progress progress = {.struct_size = sizeof progress};
    attune_image image = {
        .struct_size = sizeof image, .width = 4, .height = 4, .stride = 12, .pixels = pixels};
    while (!progress.done)
        assert_ok(attune_session_step(session, NULL, &progress, &error), error);
    ck_assert_uint_eq(progress.step, 3);
    assert_ok(attune_session_image(session, 0, &image, &error), error);
}

START_TEST(test_session_whole_picture) {
    uint8_t pixels[48] = {0}, preview[48] = {0};
    attune_image image = {
        .struct_size = sizeof image, .width = 4, .height = 4, .stride = 12, .pixels = preview};
    open_session();
    ck_assert_uint_eq(plan.units, 3);
    ck_assert_uint_eq(plan.seed, 7);
    ck_assert_str_eq(plan.limited_by, "its brush");
    ck_assert_int_eq(plan.determinism, ATTUNE_DETERMINISM_REPEATABLE);
    ck_assert_str_eq(choice.backend, "picky");
    paint(pixels);
    assert_ok(attune_session_preview(session, 0, NULL, &image, &error), error);
    ck_assert_mem_eq(pixels, preview, 48);
    assert_fails(attune_session_image(session, 1, &image, &error), error, ATTUNE_OUT_OF_RANGE,
                 "image 1 of 1");
    attune_progress progress = {.struct_size = sizeof progress};
    assert_fails(attune_session_step(session, NULL, &progress, &error), error, ATTUNE_FAILED_PRECONDITION,
                 "all steps are done");
    assert_ok(attune_session_image(session, 0, &image, &error),
              error); /* asking for too much spoils nothing */
}
END_TEST

/* A session may have fewer threads than the host's 2, never more. */
START_TEST(test_session_threads) {
    static const uint32_t asked[] = {0, 1, 9}, given[] = {2, 1, 2};
    for (int i = 0; i < 3; ++i) {
        attune_session_close(session);
        wish.threads = asked[i];
        open_session();
        ck_assert_uint_eq(record(0).problem.workers, given[i]);
    }
}
END_TEST

/* Equal problems share a binding; records come with the most arithmetic first and count calls. */
START_TEST(test_session_records) {
    uint8_t pixels[48];
    request.prompt = "a tall fixture";
    open_session();
    paint(pixels);
    attune_attention_record tall = record(0), self = record(1), cross = record(2);
    ck_assert_int_eq(tall.problem.d_qk, 512);
    ck_assert_uint_eq(tall.calls, 0);
    ck_assert_str_eq(tall.choice.backend, "sdp");
    ck_assert_int_eq(self.problem.n_k, 16);
    ck_assert_uint_eq(self.calls, 3);
    ck_assert_str_eq(self.choice.backend, "picky");
    ck_assert_int_eq(cross.problem.n_k, 4);
    ck_assert_uint_eq(cross.calls, 3);
    ck_assert_str_eq(choice.backend, "sdp"); /* that of the problem with the most arithmetic */
    attune_attention_record out = {.struct_size = sizeof out};
    assert_fails(attune_session_attention(session, 3, &out, &error), error, ATTUNE_OUT_OF_RANGE,
                 "record 3 of 3");
}
END_TEST

/* A backend that declines one shape loses that shape, and that is explained; required, it loses the image. */
START_TEST(test_session_fallback_per_problem) {
    request.prompt = "tall";
    wish.attention = "picky";
    open_session();
    ck_assert_str_eq(record(0).choice.fallback, "asked picky, got sdp because head size 512 is above 256");
    ck_assert_str_eq(record(1).choice.fallback, "");
    attune_session_close(session);
    session = NULL;
    wish.required = 1;
    assert_fails(attune_session_open(model, &request, &wish, NULL, &session, &plan, &choice, &error), error,
                 ATTUNE_UNAVAILABLE, "head size 512 is above 256");
    ck_assert_uint_eq(choice.candidates, 4);
    ck_assert_str_eq(choice.backend, "");
    request.prompt = "small";
    open_session();
}
END_TEST

/* Two requests of one model with different backends at the same time: the choice is per request. */
START_TEST(test_session_choice_per_request) {
    uint8_t a[48], b[48];
    attune_session *first;
    wish.attention = "sdp-no-mem";
    open_session();
    first = session;
    attune_attention_record one = record(0);
    wish.attention = "racy";
    open_session();
    ck_assert_str_eq(one.choice.backend, "sdp-no-mem");
    ck_assert_str_eq(record(0).choice.backend, "racy");
    paint(b);
    attune_session_close(session);
    session = first;
    paint(a);
    ck_assert_str_eq(record(0).choice.backend, "sdp-no-mem");
    for (int i = 0; i < 48; ++i) /* the same picture up to rounding: one grey level of 32 per unit */
        ck_assert_int_le(abs(a[i] - b[i]), 1);
}
END_TEST

START_TEST(test_session_determinism) {
    request.determinism = ATTUNE_DETERMINISM_REPEATABLE;
    wish.attention = "racy";
    open_session();
    ck_assert_str_eq(record(0).choice.backend, "picky");
    ck_assert_str_eq(record(0).choice.fallback,
                     "asked racy, got picky because keeps determinism class none, repeatable is asked for");
    attune_session_close(session);
    session = NULL;
    /* what attention keeps less limits the image, and the plan says so */
    request.determinism = ATTUNE_DETERMINISM_NONE;
    open_session();
    ck_assert_int_eq(plan.determinism, ATTUNE_DETERMINISM_NONE);
    ck_assert_str_eq(plan.limited_by, "attention by racy (fixture-racy)");
    attune_session_close(session);
    session = NULL;
    /* more than the sampler itself keeps is refused, with what limits it; the larger of request and wish
     * counts */
    wish.determinism = ATTUNE_DETERMINISM_PORTABLE;
    assert_fails(attune_session_open(model, &request, &wish, NULL, &session, &plan, &choice, &error), error,
                 ATTUNE_UNAVAILABLE,
                 "the sampler painter (fixture-painter) keeps repeatable, limited by its brush");
    ck_assert_uint_eq(choice.candidates, 0);
    attune_model *other;
    assert_fails(attune_model_open(host, run_folder(), &wish, NULL, &other, &error), error,
                 ATTUNE_UNAVAILABLE, "limited by its brush");
}
END_TEST

START_TEST(test_session_plan_is_checked) {
    request.prompt = "liar";
    assert_fails(attune_session_open(model, &request, NULL, NULL, &session, &plan, NULL, &error), error,
                 ATTUNE_INTERNAL, "plans class 3");
    request.prompt = "hungry";
    open_session();
    attune_session_close(session);
    session = NULL;
    wish.memory_limit = 1 << 20;
    assert_fails(attune_session_open(model, &request, &wish, NULL, &session, &plan, NULL, &error), error,
                 ATTUNE_RESOURCE_EXHAUSTED, "needs 1 GiB, the limit is 1 MiB");
    request.prompt = "modest";
    request.memory_limit = 100;
    wish.memory_limit = 0;
    assert_fails(attune_session_open(model, &request, &wish, NULL, &session, &plan, NULL, &error), error,
                 ATTUNE_RESOURCE_EXHAUSTED, "the limit is 100 bytes");
}
END_TEST

START_TEST(test_session_after_an_error) {
    attune_progress progress = {.struct_size = sizeof progress};
    uint8_t pixels[48];
    attune_image image = {
        .struct_size = sizeof image, .width = 4, .height = 4, .stride = 12, .pixels = pixels};
    request.prompt = "fail";
    open_session();
    assert_ok(attune_session_step(session, NULL, &progress, &error), error);
    assert_fails(attune_session_step(session, NULL, &progress, &error), error, ATTUNE_INTERNAL,
                 "the paint is dry");
    assert_fails(attune_session_step(session, NULL, &progress, &error), error, ATTUNE_FAILED_PRECONDITION,
                 "only close it");
    assert_fails(attune_session_image(session, 0, &image, &error), error, ATTUNE_FAILED_PRECONDITION,
                 "only close it");
}
END_TEST

static int32_t always(void *context) {
    (void)context;
    return 1;
}

START_TEST(test_session_cancel) {
    attune_control control = {.struct_size = sizeof control, .cancelled = always};
    attune_progress progress = {.struct_size = sizeof progress};
    open_session();
    assert_fails(attune_session_step(session, &control, &progress, &error), error, ATTUNE_CANCELLED,
                 "cancelled");
}
END_TEST

START_TEST(test_session_bad_requests) {
    request.struct_size = 8;
    assert_fails(attune_session_open(model, &request, &wish, NULL, &session, &plan, NULL, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "attune_request");
    request.struct_size = sizeof request;
    request.memory = 3;
    assert_fails(attune_session_open(model, &request, &wish, NULL, &session, &plan, NULL, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "reserved");
    request.memory = 0;
    request.determinism = 17;
    assert_fails(attune_session_open(model, &request, &wish, NULL, &session, &plan, NULL, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "class 17");
    request.determinism = 0;
    plan.struct_size = 0;
    assert_fails(attune_session_open(model, &request, &wish, NULL, &session, &plan, NULL, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "attune_session_plan");
}
END_TEST

START_TEST(test_model_describe_and_sampler) {
    attune_model_info info = {.struct_size = sizeof info};
    attune_sampler_info sampler = {.struct_size = sizeof sampler};
    attune_plugin_status status = {.struct_size = sizeof status};
    assert_ok(attune_model_describe(model, &info, &error), error);
    ck_assert_str_eq(info.kind, "Painting");
    assert_ok(attune_model_sampler(model, &sampler, &status, &error), error);
    ck_assert_str_eq(sampler.name, "painter");
    ck_assert_str_eq(status.id, "fixture-painter");
    ck_assert_str_eq(status.state, "active");
}
END_TEST

START_TEST(test_model_filters) {
    attune_model *other;
    assert_fails(attune_model_open(host, "/nonexistent", NULL, NULL, &other, &error), error, ATTUNE_NOT_FOUND,
                 "no such model");
    wish.device = "cuda:0";
    assert_fails(attune_model_open(host, run_folder(), &wish, NULL, &other, &error), error,
                 ATTUNE_UNAVAILABLE, "runs on cpu, device cuda:0 was asked for");
    wish.device = NULL;
    wish.vendor = "NVIDIA";
    assert_fails(attune_model_open(host, run_folder(), &wish, NULL, &other, &error), error,
                 ATTUNE_UNAVAILABLE, "its device is from Fixture, vendor NVIDIA was asked for");
    wish.vendor = "fixture";
    wish.device = "cpu";
    wish.min_memory = 1 << 20;
    assert_ok(attune_model_open(host, run_folder(), &wish, NULL, &other, &error), error);
    attune_model_close(other);
    attune *bare = open_with("plain", NULL);
    assert_fails(attune_model_open(bare, run_folder(), NULL, NULL, &other, &error), error, ATTUNE_UNAVAILABLE,
                 "no sampler plugin is loaded");
    attune_close(bare);
}
END_TEST

START_TEST(test_model_options) {
    attune_model *other;
    attune_model_options options = {.struct_size = sizeof options, .config = "mine.json"};
    assert_fails(attune_model_open_with(host, run_folder(), &options, NULL, NULL, &other, &error), error,
                 ATTUNE_UNIMPLEMENTED, "no configuration mine.json, no vocabulary at all");
    options.vocabulary = "words";
    assert_fails(attune_model_open_with(host, run_folder(), &options, &wish, NULL, &other, &error), error,
                 ATTUNE_UNIMPLEMENTED, "no vocabulary words");
    options.struct_size = 8;
    assert_fails(attune_model_open_with(host, run_folder(), &options, NULL, NULL, &other, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "attune_model_options");
    options = (attune_model_options){.struct_size = sizeof options};
    assert_ok(attune_model_open_with(host, run_folder(), &options, NULL, NULL, &other, &error), error);
    attune_model_close(other);
}
END_TEST

/* Sessions hold their model, models their plugin: closing in any order is safe. */
START_TEST(test_session_outlives_model_and_host) {
    uint8_t pixels[48];
    open_session();
    attune_model_close(model);
    attune_close(host);
    model = NULL;
    host = NULL;
    paint(pixels);
    attune_session_close(session);
    session = NULL;
}
END_TEST

TCase *session_cases(void) {
    TCase *cases = tcase_create("session");
    tcase_add_checked_fixture(cases, open_model, close_model);
    tcase_add_test(cases, test_session_whole_picture);
    tcase_add_test(cases, test_session_records);
    tcase_add_test(cases, test_session_threads);
    tcase_add_test(cases, test_session_fallback_per_problem);
    tcase_add_test(cases, test_session_choice_per_request);
    tcase_add_test(cases, test_session_determinism);
    tcase_add_test(cases, test_session_plan_is_checked);
    tcase_add_test(cases, test_session_after_an_error);
    tcase_add_test(cases, test_session_cancel);
    tcase_add_test(cases, test_session_bad_requests);
    tcase_add_test(cases, test_model_describe_and_sampler);
    tcase_add_test(cases, test_model_filters);
    tcase_add_test(cases, test_model_options);
    tcase_add_test(cases, test_session_outlives_model_and_host);
    tcase_set_timeout(cases, 0);
    return cases;
}
