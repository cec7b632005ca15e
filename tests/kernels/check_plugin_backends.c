/* tests/kernels/check_plugin_backends.c: each backend of attune-cpu gives the bits of its arithmetic's
 * reference at any number of threads and in any legal budget, and its workspace says what it holds. */
#include "tests/kernels/plugin_call.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

enum { SDP_NO_MEM, SDP, XFORMERS, SPLIT, SUB_QUADRATIC, MATH, BACKENDS };
static const int algorithms[BACKENDS] = {ATTUNE_ATTENTION_PANELS,     ATTUNE_ATTENTION_PANELS,
                                         ATTUNE_ATTENTION_ROW_BLOCKS, ATTUNE_ATTENTION_SLICES,
                                         ATTUNE_ATTENTION_CHUNKS,     ATTUNE_ATTENTION_MATRIX};

static plugin_host host;

static void start(void) {
    plugin_host_start(&host);
}

static void stop(void) {
    plugin_host_stop(&host);
}

static const attention_case usual = {.batch = 2,
                                     .heads_q = 2,
                                     .heads_kv = 2,
                                     .n_q = 144,
                                     .n_k = 300,
                                     .d_qk = 40,
                                     .d_v = 40,
                                     .amplitude = 1.0f,
                                     .mask_axes = 15,
                                     .seed = 3};

/* Run with the worst floating-point environment a caller may have, which the host's threads inherit. */
static void run_and_check(call *c, const attention_case *from) {
    attune_error error;
    char who[64];
    (void)snprintf(who, sizeof who, "backend %u, %u workers,", c->backend, c->stream.workers);
    arrays_reset_out(&c->arrays);
#ifdef __x86_64__
    _mm_setcsr(0x1F80 | 0xC040); /* flush to zero, round up */
#endif
    const attune_code code = call_run(c, NULL, &error);
#ifdef __x86_64__
    _mm_setcsr(0x1F80);
#endif
    ck_assert_msg(code == ATTUNE_OK, "%s %s", who, error.message);
    arrays_check(&c->arrays, from, who);
}

START_TEST(threads_and_storage_do_not_show) {
    static const uint32_t workers[] = {1, 2, 3, 7};
    for (uint64_t seed = 0; seed < 12; ++seed) {
        attention_case from = random_case(41000 + seed);
        from.storage = (int)(seed % 3);
        if (seed % 6 == 0)
            from.batch = 70, from.n_q = from.n_k = 16, from.mask_kind = 0;
        from.chunk_k = (int64_t)sqrt((double)from.n_k); /* the default */
        for (size_t i = 0; i < sizeof workers / sizeof *workers; ++i) {
            call c;
            call_make(&c, &host, (uint32_t)_i, &from, workers[i]);
            arrays_expect(&c.arrays, reference_of(algorithms[_i]));
            run_and_check(&c, &from);
            call_free(&c);
        }
    }
}
END_TEST

/* Halves the budget until the backend declines; the workspace never exceeds it and the bits stay. */
START_TEST(budgets_do_not_show) {
    attention_case from = usual;
    from.chunk_k = 17; /* the square root of 300 */
    call c;
    call_make(&c, &host, (uint32_t)_i, &from, 2);
    arrays_expect(&c.arrays, reference_of(algorithms[_i]));
    run_and_check(&c, &from);
    const uint64_t most = c.answer.workspace;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    uint64_t least = most;
    for (c.problem.budget = most * 32; c.problem.budget > 0; c.problem.budget /= 2) {
        ck_assert_int_eq(host.attention->query(host.instance, c.backend, &c.problem, &answer, NULL),
                         ATTUNE_OK);
        if (answer.code == ATTUNE_RESOURCE_EXHAUSTED)
            break;
        call_ask(&c);
        ck_assert_uint_le(c.answer.workspace, c.problem.budget);
        least = c.answer.workspace;
        run_and_check(&c, &from);
    }
    ck_assert_int_eq(answer.code, ATTUNE_RESOURCE_EXHAUSTED);
    ck_assert((least < most) == (_i == SPLIT)); /* only its slices follow the budget */
    call_free(&c);
}
END_TEST

static uint64_t workspace(uint32_t backend, int64_t n_q, int64_t n_k, attune_chunks chunks) {
    attention_case from = usual;
    call c;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    call_make(&c, &host, backend, &from, 1);
    c.problem.n_q = n_q, c.problem.n_k = n_k; /* only asked about: the strides need not fit */
    c.problem.stride_out[1] = n_q * 40, c.problem.stride_out[0] = 2 * n_q * 40;
    c.problem.chunks = chunks;
    ck_assert_int_eq(host.attention->query(host.instance, backend, &c.problem, &answer, NULL), ATTUNE_OK);
    ck_assert_msg(answer.code == ATTUNE_OK, "%s", answer.reason);
    call_free(&c);
    return answer.workspace;
}

/* math holds every score; sub-quadratic a chunk by a chunk; xformers least; three of them nothing that grows.
 */
START_TEST(workspaces_say_what_is_held) {
    const attune_chunks none = {0};
    const uint64_t fixed = workspace(MATH, 144, 300, none) - 4 * 2 * 2 * 144 * (300 + 2);
    ck_assert_uint_le(fixed, 1 << 17);
    ck_assert_uint_eq(workspace(MATH, 1440, 4096, none), fixed + 4ull * 2 * 2 * 1440 * (4096 + 2));
    for (uint32_t i = SDP_NO_MEM; i <= XFORMERS; ++i) {
        ck_assert_uint_eq(workspace(i, 46080, 4096, none), workspace(i, 92160, 40960, none));
        ck_assert_uint_le(workspace(i, 92160, 40960, none), 1 << 20);
    }
    ck_assert_uint_lt(workspace(XFORMERS, 4096, 4096, none), workspace(SDP, 4096, 4096, none));
    const uint64_t chunked = workspace(SUB_QUADRATIC, 4608, 4096, (attune_chunks){.q = 960, .kv = 100});
    ck_assert_uint_eq(workspace(SUB_QUADRATIC, 4608, 4096, (attune_chunks){.q = 960, .kv = 1100}),
                      chunked + 4ull * 960 * 1000);
    ck_assert_uint_eq(workspace(SUB_QUADRATIC, 46080, 40960, (attune_chunks){.q = 960, .kv = 100}), chunked);
    ck_assert_uint_gt(chunked, workspace(SUB_QUADRATIC, 4608, 4096, (attune_chunks){.q = 192, .kv = 100}));
    ck_assert_uint_eq(workspace(SUB_QUADRATIC, 4608, 4096, none),
                      workspace(SUB_QUADRATIC, 4608, 4096, (attune_chunks){.q = 1024, .kv = 64}));
}
END_TEST

/* Every size of chunk against the reference; sizes beyond the problem are the whole of it. */
START_TEST(chunk_options) {
    static const uint32_t sizes[] = {1, 17, 64, 100, 128, 300, 4000000000u};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        attention_case from = usual;
        call c;
        from.chunk_k = sizes[i] < 300 ? sizes[i] : 300;
        call_make(&c, &host, SUB_QUADRATIC, &from, 2);
        c.problem.chunks = (attune_chunks){.q = sizes[(i + 3) % 7], .kv = sizes[i]};
        call_ask(&c);
        ck_assert_int_eq(c.answer.determinism, ATTUNE_DETERMINISM_PORTABLE);
        arrays_expect(&c.arrays, reference_of(ATTUNE_ATTENTION_CHUNKS));
        run_and_check(&c, &from);
        call_free(&c);
    }
}
END_TEST

/* 2 * 2 * 144 * 300 scores of 4 bytes are 691200: half of a budget of 1382400, and then one chunk, which is
 * the full softmax. The class says that memory shows, but for a single chunk, where it does not. */
START_TEST(threshold_of_the_budget) {
    attention_case from = usual;
    call c;
    from.chunk_k = 17;
    call_make(&c, &host, SUB_QUADRATIC, &from, 1);
    attention_reference *const chunked = reference_of(ATTUNE_ATTENTION_CHUNKS), *const full = reference_of(
                                                                                    ATTUNE_ATTENTION_MATRIX);
    c.problem.chunks = (attune_chunks){.q = 16, .threshold = 50};
    c.problem.budget = 1382400;
    call_ask(&c);
    ck_assert_int_eq(c.answer.determinism, ATTUNE_DETERMINISM_REPEATABLE);
    arrays_expect(&c.arrays, full);
    run_and_check(&c, &from);
    c.problem.budget -= 2;
    call_ask(&c);
    ck_assert_int_eq(c.answer.determinism, ATTUNE_DETERMINISM_REPEATABLE);
    arrays_expect(&c.arrays, chunked);
    run_and_check(&c, &from);
    c.problem.budget = UINT64_MAX; /* then it is the machine's memory, which is more than 1.4 MB */
    call_ask(&c);
    ck_assert_int_eq(c.answer.determinism, ATTUNE_DETERMINISM_REPEATABLE);
    arrays_expect(&c.arrays, full);
    run_and_check(&c, &from);
    c.problem.chunks.kv = 300;
    call_ask(&c);
    ck_assert_int_eq(c.answer.determinism, ATTUNE_DETERMINISM_PORTABLE);
    call_free(&c);
}
END_TEST

TCase *plugin_backends_cases(void) {
    TCase *cases = tcase_create("plugin backends");
    tcase_add_checked_fixture(cases, start, stop);
    tcase_add_loop_test(cases, threads_and_storage_do_not_show, 0, BACKENDS);
    tcase_add_loop_test(cases, budgets_do_not_show, 0, BACKENDS);
    tcase_add_test(cases, workspaces_say_what_is_held);
    tcase_add_test(cases, chunk_options);
    tcase_add_test(cases, threshold_of_the_budget);
    return cases;
}
