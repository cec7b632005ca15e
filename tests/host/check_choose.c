/* check_choose.c: which backend serves, and what is said about the others. */
#include "cases.h"
#include "host_api/choose.h"
#include <stdlib.h>

static attune *host;
static attune_attention_problem problem;
static attune_choice choice;
static attune_wish wish;
static attune_error error;

/* A problem of one head of `head` channels on the CPU. */
static void ask(int64_t head) {
    problem = (attune_attention_problem){.struct_size = sizeof problem,
                                         .batch = 1,
                                         .heads_q = 1,
                                         .heads_kv = 1,
                                         .n_q = 16,
                                         .n_k = 16,
                                         .d_qk = head,
                                         .d_v = head,
                                         .dtype = {ATTUNE_TYPE_FLOAT, 32, 1},
                                         .budget = UINT64_MAX,
                                         .device = {.type = ATTUNE_DEVICE_CPU},
                                         .workers = 1,
                                         .stride_q = {16 * head, 16 * head, head, 1},
                                         .stride_k = {16 * head, 16 * head, head, 1},
                                         .stride_v = {16 * head, 16 * head, head, 1},
                                         .stride_out = {16 * head, 16 * head, head, 1}};
    wish = (attune_wish){.struct_size = sizeof wish};
    memset(&choice, 0, sizeof choice);
    choice.struct_size = sizeof choice;
}

static void end_host(void) {
    attune_close(host);
}

static const attune_candidate *row(const char *backend) {
    for (uint32_t i = 0; i < choice.candidates; ++i)
        if (strcmp(choice.candidate[i].backend, backend) == 0)
            return &choice.candidate[i];
    ck_abort_msg("no candidate %s", backend);
    return NULL;
}

/* Every candidate has a reason, and at most one is chosen: always. */
static void check_rows(void) {
    uint32_t chosen = 0;
    for (uint32_t i = 0; i < choice.candidates; ++i) {
        ck_assert_msg(*choice.candidate[i].reason, "%s has no reason", choice.candidate[i].backend);
        if (choice.candidate[i].chosen) {
            ck_assert_str_eq(choice.candidate[i].backend, choice.backend);
            ck_assert_str_eq(choice.candidate[i].plugin, choice.plugin);
            ++chosen;
        }
    }
    ck_assert_uint_eq(chosen, *choice.backend ? 1 : 0);
}

static void expect(const char *backend) {
    assert_ok(attune_choose(host, &wish, &problem, &choice, NULL, &error), error);
    ck_assert_str_eq(choice.backend, backend);
    check_rows();
}

static void expect_failure(attune_code code, const char *text) {
    assert_fails(attune_choose(host, &wish, &problem, &choice, NULL, &error), error, code, text);
    ck_assert_str_eq(choice.backend, "");
    check_rows();
}

static void expect_reason(const char *backend, const char *text) {
    ck_assert_msg(strcmp(row(backend)->reason, text) == 0, "%s: \"%s\", expected \"%s\"", backend,
                  row(backend)->reason, text);
}

START_TEST(test_choose_fastest) {
    host = open_with("plain", "racy", NULL);
    ask(40);
    expect("sdp");
    ck_assert_str_eq(choice.plugin, "fixture-plain");
    ck_assert_str_eq(choice.version, "1.2.3");
    ck_assert_str_eq(choice.arithmetic, "fixture-f64-2");
    ck_assert_str_eq(choice.isa, "generic");
    ck_assert_str_eq(choice.fallback, "");
    ck_assert_int_eq(choice.determinism, ATTUNE_DETERMINISM_REPEATABLE);
    ck_assert_uint_eq(choice.generation, 1);
    ck_assert_uint_eq(choice.workspace, 4096);
    ck_assert_uint_eq(choice.candidates, 3);
    expect_reason("sdp", "chosen: fastest of 3 that can serve");
    expect_reason("racy", "not chosen: estimated at 3 ms, sdp at 1 ms");
    ck_assert_uint_eq(row("racy")->nanoseconds, 3000000);
    ck_assert_int_eq(row("sdp-no-mem")->determinism, ATTUNE_DETERMINISM_PORTABLE);
    ck_assert_int_eq(row("sdp-no-mem")->code, ATTUNE_OK);
}
END_TEST

START_TEST(test_choose_by_name_and_alias) {
    host = open_with("plain", "racy", NULL);
    ask(40);
    wish.attention = "sdp-no-mem";
    expect("sdp-no-mem");
    expect_reason("sdp-no-mem", "chosen: asked for by name");
    expect_reason("sdp", "not chosen: sdp-no-mem was asked for");
    ck_assert_str_eq(choice.fallback, "");
    wish.attention = "scaled-dot-product";
    expect("sdp");
    wish.attention = "racy";
    wish.required = 1;
    expect("racy");
    ck_assert_int_eq(choice.determinism, ATTUNE_DETERMINISM_NONE);
}
END_TEST

/* A fallback is never silent, whatever its cause. */
START_TEST(test_choose_fallback_is_explained) {
    host = open_with("plain", "picky", NULL);
    ask(512);
    wish.attention = "picky-attention";
    expect("sdp");
    ck_assert_str_eq(choice.fallback, "asked picky-attention, got sdp because head size 512 is above 256");
    expect_reason("picky", "refused: head size 512 is above 256");
    ck_assert_int_eq(row("picky")->code, ATTUNE_OUT_OF_RANGE);
    expect_reason("sdp", "chosen: fastest of 2 that can serve");
    ask(40);
    wish.attention = "xformers";
    expect("picky");
    ck_assert_str_eq(choice.fallback, "asked xformers, got picky because no loaded plugin offers it");
    wish.attention = "sdp-no-men";
    expect("picky");
    ck_assert_str_eq(
        choice.fallback,
        "asked sdp-no-men, got picky because no loaded plugin offers it (did you mean sdp-no-mem?)");
}
END_TEST

START_TEST(test_choose_required_never_falls_back) {
    host = open_with("plain", "picky", NULL);
    ask(512);
    wish.attention = "picky";
    wish.required = 1;
    expect_failure(ATTUNE_UNAVAILABLE, "nearest is picky (fixture-picky): head size 512 is above 256");
    ck_assert_str_eq(error.hint,
                     "sdp (fixture-plain) can serve this and keeps repeatable; do not require picky");
    expect_reason("sdp", "not chosen: picky was required");
    wish.attention = "pick";
    expect_failure(
        ATTUNE_NOT_FOUND,
        "no loaded plugin offers the attention backend \"pick\"; known are: sdp-no-mem, sdp, picky");
    ck_assert_str_eq(error.hint, "did you mean picky?");
    wish.attention = NULL;
    assert_fails(attune_choose(host, &wish, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "without a backend's name");
}
END_TEST

START_TEST(test_choose_determinism) {
    host = open_with("racy", "plain", "picky", NULL);
    ask(40);
    wish.determinism = ATTUNE_DETERMINISM_REPEATABLE;
    expect("picky");
    expect_reason("racy", "refused: keeps determinism class none, repeatable is asked for");
    wish.determinism = ATTUNE_DETERMINISM_PORTABLE;
    expect("sdp-no-mem");
    expect_reason("sdp-no-mem", "chosen: the only one of 4 that can serve");
    ck_assert_int_eq(choice.determinism, ATTUNE_DETERMINISM_PORTABLE);
    wish.attention = "racy";
    expect("sdp-no-mem");
    ck_assert_str_eq(
        choice.fallback,
        "asked racy, got sdp-no-mem because keeps determinism class none, portable is asked for");
    wish.required = 1;
    expect_failure(ATTUNE_UNAVAILABLE,
                   "racy (fixture-racy): keeps determinism class none, portable is asked for");
    /* the wish's class is written over the problem's */
    ask(40);
    problem.determinism = ATTUNE_DETERMINISM_PORTABLE;
    expect("picky");
    assert_ok(attune_choose(host, NULL, &problem, &choice, NULL, &error), error);
    ck_assert_str_eq(choice.backend, "sdp-no-mem");
    wish.determinism = 9;
    assert_fails(attune_choose(host, &wish, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "class 9");
}
END_TEST

/* Where nobody keeps the class, the hint says who keeps what. */
START_TEST(test_choose_determinism_nobody) {
    host = open_with("racy", "picky", NULL);
    ask(40);
    wish.determinism = ATTUNE_DETERMINISM_INVARIANT;
    expect_failure(ATTUNE_UNAVAILABLE, "invariant is asked for");
    ck_assert_str_eq(error.hint, "racy (fixture-racy) keeps none; picky (fixture-picky) keeps repeatable");
}
END_TEST

START_TEST(test_choose_shape_filters) {
    host = open_with("picky", NULL);
    ask(40);
    problem.dtype = ATTUNE_F16;
    expect_failure(ATTUNE_UNAVAILABLE, "float16 is not supported");
    ask(40);
    problem.mask = ATTUNE_MASK_BOOL;
    expect_failure(ATTUNE_UNAVAILABLE, "a bool mask is not supported");
    problem.mask = ATTUNE_MASK_FLOAT;
    expect("picky");
    problem.causal = 1;
    expect_failure(ATTUNE_UNAVAILABLE, "causal attention is not supported");
    ask(256);
    expect("picky");
    problem.d_v = 257;
    expect_failure(ATTUNE_UNAVAILABLE, "head size 257 is above 256");
}
END_TEST

START_TEST(test_choose_budget) {
    host = open_with("plain", NULL);
    ask(40);
    wish.memory_limit = 4096;
    expect("sdp");
    wish.memory_limit = 4095;
    expect("sdp-no-mem");
    expect_reason("sdp", "refused: needs 4 KiB of workspace, the budget is 3.999 KiB");
    ck_assert_int_eq(row("sdp")->code, ATTUNE_RESOURCE_EXHAUSTED);
    wish.attention = "sdp";
    wish.required = 1;
    expect_failure(ATTUNE_UNAVAILABLE, "needs 4 KiB of workspace");
    ask(40);
    problem.budget = 0;
    expect("sdp"); /* written over by the wish's 0 = any */
    assert_ok(attune_choose(host, NULL, &problem, &choice, NULL, &error), error);
    ck_assert_str_eq(choice.backend, "sdp-no-mem");
}
END_TEST

START_TEST(test_choose_device_vendor_memory) {
    host = open_with("plain", "gpu", NULL);
    ask(40);
    expect("sdp");
    ck_assert_str_eq(choice.plugin, "fixture-plain");
    expect_reason("sdp-no-mem", "not chosen: estimated at 2 ms, sdp at 1 ms");
    ck_assert_str_eq(choice.candidate[2].reason,
                     "refused: runs on cuda:0, the tensors are on cpu, and nothing is copied implicitly");
    wish.device = "cuda:0";
    expect_failure(ATTUNE_UNAVAILABLE, "the tensors are on cpu");
    problem.device =
        (attune_device_id){ATTUNE_DEVICE_CUDA, 0, {'G', 'P', 'U', '-', 'f', 'i', 'x', 't', 'u', 'r', 'e'}};
    expect("sdp");
    ck_assert_str_eq(choice.plugin, "fixture-gpu");
    ck_assert_str_eq(choice.candidate[0].reason, "refused: runs on cpu, device cuda:0 was asked for");
    wish.vendor = "nvidia";
    expect("sdp");
    wish.vendor = "AMD";
    expect_failure(ATTUNE_UNAVAILABLE, "its device is from NVIDIA, vendor AMD was asked for");
    wish.vendor = NULL;
    wish.min_memory = UINT64_C(6) << 30;
    expect("sdp");
    wish.min_memory += 1;
    expect_failure(ATTUNE_UNAVAILABLE, "cuda:0 has 6 GiB of memory, 6 GiB are asked for");
    wish.min_memory = 0;
    problem.device.uuid[15] = 1; /* same kind, another card */
    expect_failure(ATTUNE_UNAVAILABLE, "runs on cuda:0, the tensors are on a device that no plugin drives");
    problem.device = (attune_device_id){.type = ATTUNE_DEVICE_CPU, .uuid = {1}};
    wish.device = NULL;
    expect_failure(ATTUNE_UNAVAILABLE, "carry another CPU's id (attune_cpu_device gives the right one)");
    wish.device = "tpu:7";
    expect_failure(ATTUNE_UNAVAILABLE, "device tpu:7 was asked for");
}
END_TEST

/* A table that answers more than it promised is found out and loses, though it claims to be fastest. */
START_TEST(test_choose_answers_are_checked) {
    host = open_with("liar", "plain", NULL);
    ask(40);
    expect("sdp");
    expect_reason("liar", "refused: answers class 3, its table says repeatable");
    ck_assert_int_eq(row("liar")->code, ATTUNE_INTERNAL);
}
END_TEST

START_TEST(test_choose_nothing_loaded) {
    host = open_host();
    ask(40);
    expect_failure(ATTUNE_UNAVAILABLE, "no attention backend is loaded");
    ck_assert_uint_eq(choice.candidates, 0);
    wish.attention = "sdp";
    wish.required = 1;
    expect_failure(ATTUNE_NOT_FOUND, "known are: none");
}
END_TEST

START_TEST(test_choose_bad_problem) {
    host = open_with("plain", NULL);
    ask(40);
    problem.heads_kv = 0;
    assert_fails(attune_choose(host, NULL, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "below 1");
    ask(40);
    problem.reserved = 1;
    assert_fails(attune_choose(host, NULL, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "reserved");
    ask(40);
    problem.chunks.threshold = 101;
    assert_fails(attune_choose(host, NULL, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "101 per cent");
    ask(40);
    problem.chunks.reserved = 1;
    assert_fails(attune_choose(host, NULL, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "reserved field of the chunks");
    ask(40);
    wish.chunks.threshold = 102;
    assert_fails(attune_choose(host, &wish, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "102 per cent");
    wish.chunks.threshold = 0;
    problem.struct_size = 8;
    assert_fails(attune_choose(host, NULL, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "struct_size");
    ask(40);
    problem.scale = (float)(0.0 / 0.0 * (problem.batch - 1 + 1));
    assert_fails(attune_choose(host, NULL, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "scale");
    ask(40);
    choice.struct_size = 0;
    assert_fails(attune_choose(host, NULL, &problem, &choice, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "attune_choice");
    assert_fails(attune_choose(host, &wish, NULL, NULL, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "NULL");
    wish.required = 2;
    assert_fails(attune_choose(host, &wish, &problem, NULL, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "neither 0 nor 1");
}
END_TEST

/* ---- ties, with pretended generations: costs and priorities that no fixture has ---- */

static struct {
    const char *plugin, *name;
    int32_t priority;
    uint64_t nanoseconds;
} made[4];

static attune_code answer(void *instance, uint32_t index, const attune_attention_problem *asked,
                          attune_attention_answer *out, attune_error *failure) {
    (void)index;
    (void)asked;
    (void)failure;
    out->code = ATTUNE_OK;
    out->nanoseconds = made[(uintptr_t)instance - 1].nanoseconds;
    return ATTUNE_OK;
}

/* The name of the plugin that wins among `count` of `made`. */
static const char *winner(uint32_t count) {
    static const attune_attention_interface table = {sizeof table, 0, NULL, NULL, answer, NULL};
    static attune_generation generations[4];
    static attune_attention_info infos[4];
    static uint64_t memory_min[4];
    static char lacks[4][ATTUNE_LIBRARY_NAME];
    attune_snapshot *snapshot = calloc(1, sizeof *snapshot + 4 * sizeof snapshot->generation[0]);
    ck_assert_ptr_nonnull(snapshot);
    ask(40);
    memset(generations, 0, sizeof generations);
    snapshot->count = count;
    for (uint32_t i = 0; i < count; ++i) {
        infos[i] = (attune_attention_info){.struct_size = sizeof infos[i],
                                           .priority = made[i].priority,
                                           .dtypes = ATTUNE_DTYPE_BIT_F32,
                                           .masks = 15,
                                           .device = {.type = ATTUNE_DEVICE_CPU}};
        (void)snprintf(infos[i].name, sizeof infos[i].name, "%s", made[i].name);
        (void)snprintf(generations[i].id, sizeof generations[i].id, "%s", made[i].plugin);
        generations[i].attention = &table;
        generations[i].attention_count = 1;
        generations[i].backends = &infos[i];
        generations[i].memory_min = &memory_min[i];
        generations[i].lacks = &lacks[i];
        generations[i].instance = (void *)(uintptr_t)(i + 1);
        snapshot->generation[i] = &generations[i];
    }
    assert_ok(attune_choose_from(snapshot, &wish, &problem, &choice, NULL, &error), error);
    free(snapshot);
    check_rows();
    return choice.plugin;
}

static void candidate(int i, const char *plugin, const char *name, int32_t priority, uint64_t nanoseconds) {
    made[i].plugin = plugin;
    made[i].name = name;
    made[i].priority = priority;
    made[i].nanoseconds = nanoseconds;
}

START_TEST(test_choose_ties) {
    host = NULL;
    /* cost beats priority beyond 5 %, and priority decides within */
    candidate(0, "a", "fast", 1, 1000);
    candidate(1, "b", "slow", 99, 1051);
    ck_assert_str_eq(winner(2), "a");
    expect_reason("slow", "not chosen: estimated at 1.05 us, fast at 1 us");
    candidate(1, "b", "slow", 99, 1050);
    ck_assert_str_eq(winner(2), "b");
    expect_reason("slow", "chosen: priority 99, of 2 that are equally fast (within 5 %)");
    expect_reason("fast", "not chosen: as fast, but priority 1 is below 99 of slow");
    /* what counts is the distance to the fastest, so a chain of small steps leads nowhere */
    candidate(2, "c", "slower", 100, 1090);
    ck_assert_str_eq(winner(3), "b");
    /* then the name, then the plugin, whatever the order of loading */
    candidate(0, "z", "beta", 5, 1000);
    candidate(1, "y", "alpha", 5, 1000);
    candidate(2, "x", "alpha", 5, 1000);
    ck_assert_str_eq(winner(3), "x");
    ck_assert_str_eq(choice.backend, "alpha");
    expect_reason("beta", "not chosen: as fast and of equal priority, but \"alpha\" (x) sorts first");
    /* no estimate comes last, and two without one are equal */
    candidate(0, "a", "unknown", 99, 0);
    candidate(1, "b", "known", 1, UINT64_C(1) << 40);
    ck_assert_str_eq(winner(2), "b");
    candidate(1, "b", "known", 1, 0);
    ck_assert_str_eq(winner(2), "a");
}
END_TEST

/* More backends than the list holds: the chosen one is in it all the same. */
START_TEST(test_choose_long_list) {
    static const attune_attention_interface table = {sizeof table, 0, NULL, NULL, answer, NULL};
    static attune_attention_info infos[40];
    static uint64_t memory_min[40];
    static char lacks[40][ATTUNE_LIBRARY_NAME];
    static attune_generation generation;
    attune_snapshot *snapshot = calloc(1, sizeof *snapshot + sizeof snapshot->generation[0]);
    ck_assert_ptr_nonnull(snapshot);
    host = NULL;
    ask(40);
    candidate(0, "p", "x", 0, 5);
    generation.attention = &table;
    generation.attention_count = 40;
    generation.backends = infos;
    generation.memory_min = memory_min;
    generation.lacks = lacks;
    generation.instance = (void *)1;
    for (int i = 0; i < 40; ++i) {
        infos[i] = (attune_attention_info){
            .priority = i, .dtypes = 1, .masks = 15, .device = {.type = ATTUNE_DEVICE_CPU}};
        (void)snprintf(infos[i].name, sizeof infos[i].name, "backend-%d", i);
    }
    snapshot->generation[0] = &generation;
    snapshot->count = 1;
    assert_ok(attune_choose_from(snapshot, &wish, &problem, &choice, NULL, &error), error);
    free(snapshot);
    ck_assert_uint_eq(choice.candidates, ATTUNE_MAX_CANDIDATES);
    ck_assert_str_eq(choice.backend, "backend-39");
    ck_assert_uint_eq(row("backend-39")->chosen, 1);
    check_rows();
}
END_TEST

START_TEST(test_did_you_mean) {
    static const char names[][32] = {"sdp", "sdp-no-mem", "xformers", "sub-quadratic"};
    host = NULL;
    ck_assert_str_eq(attune_did_you_mean("spd-no-mem", names[0], 32, 4), "sdp-no-mem");
    ck_assert_str_eq(attune_did_you_mean("XFORMER", names[0], 32, 4), "xformers");
    ck_assert_str_eq(attune_did_you_mean("sdpp", names[0], 32, 4), "sdp");
    ck_assert_ptr_null(attune_did_you_mean("doggettx", names[0], 32, 4));
    ck_assert_ptr_null(
        attune_did_you_mean("a name that is longer than any backend has ever had", names[0], 32, 4));
    ck_assert_ptr_null(attune_did_you_mean("sdp", names[0], 32, 0));
}
END_TEST

TCase *choose_cases(void) {
    TCase *cases = tcase_create("choose");
    tcase_add_checked_fixture(cases, NULL, end_host);
    tcase_add_test(cases, test_choose_fastest);
    tcase_add_test(cases, test_choose_by_name_and_alias);
    tcase_add_test(cases, test_choose_fallback_is_explained);
    tcase_add_test(cases, test_choose_required_never_falls_back);
    tcase_add_test(cases, test_choose_determinism);
    tcase_add_test(cases, test_choose_determinism_nobody);
    tcase_add_test(cases, test_choose_shape_filters);
    tcase_add_test(cases, test_choose_budget);
    tcase_add_test(cases, test_choose_device_vendor_memory);
    tcase_add_test(cases, test_choose_answers_are_checked);
    tcase_add_test(cases, test_choose_nothing_loaded);
    tcase_add_test(cases, test_choose_bad_problem);
    tcase_add_test(cases, test_choose_ties);
    tcase_add_test(cases, test_choose_long_list);
    tcase_add_test(cases, test_did_you_mean);
    tcase_set_timeout(cases, 0);
    return cases;
}
