/* check_pool.c: parallel_for: every task once, worker numbers, nesting, errors, concurrent callers, FP
 * environment. */
#include "cases.h"
#include "host_api/fpenv.h"
#include "host_api/pool.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 4

static attune_pool *pool;

static void make_pool(void) {
    attune_error error;
    assert_ok(attune_pool_create(THREADS, &pool, &error), error);
}

static void end_pool(void) {
    attune_pool_destroy(pool);
}

static attune_stream stream(uint32_t workers) {
    return (attune_stream){.struct_size = sizeof(attune_stream), .workers = workers, .native = pool};
}

#define MOST 5000

typedef struct counts {
    atomic_uint done[MOST];
    atomic_uint busy[THREADS]; /* by worker number: 2 at once would be a shared number */
    atomic_uint shared;
    atomic_uint workers; /* bits */
    uint32_t workers_allowed;
    atomic_uint beyond;
} counts;

static attune_code count_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    counts *in = context;
    (void)error;
    if (worker >= in->workers_allowed) {
        atomic_fetch_add(&in->beyond, 1);
        return ATTUNE_OK;
    }
    if (atomic_fetch_add(&in->busy[worker], 1) != 0)
        atomic_fetch_add(&in->shared, 1);
    atomic_fetch_or(&in->workers, 1u << worker);
    atomic_fetch_add(&in->done[task], 1);
    for (volatile int i = 0; i < 20; ++i)
        continue;
    atomic_fetch_sub(&in->busy[worker], 1);
    return ATTUNE_OK;
}

START_TEST(test_pool_every_task_once) {
    static const uint64_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 64, 1000, MOST};
    attune_error error;
    for (uint32_t workers = 1; workers <= THREADS + 3; ++workers)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
            counts *in = calloc(1, sizeof *in);
            attune_stream cpu = stream(workers);
            in->workers_allowed = workers < THREADS ? workers : THREADS;
            assert_ok(attune_pool_run(pool, &cpu, sizes[s], count_task, in, &error), error);
            for (uint64_t i = 0; i < MOST; ++i)
                ck_assert_uint_eq(atomic_load(&in->done[i]), i < sizes[s]);
            ck_assert_uint_eq(atomic_load(&in->shared), 0);
            ck_assert_uint_eq(atomic_load(&in->beyond), 0);
            free(in);
        }
}
END_TEST

/* Two tasks that wait for each other end only where two threads really run at once. */
typedef struct meeting {
    atomic_uint arrived;
    uint32_t wanted;
} meeting;

static attune_code meet(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    meeting *in = context;
    (void)task;
    (void)worker;
    (void)error;
    atomic_fetch_add(&in->arrived, 1);
    while (atomic_load(&in->arrived) < in->wanted)
        (void)usleep(10);
    return ATTUNE_OK;
}

START_TEST(test_pool_really_parallel) {
    attune_error error;
    attune_stream cpu = stream(THREADS);
    for (int i = 0; i < 100; ++i) {
        meeting in = {0, THREADS};
        if (i % 10 == 0)
            (void)usleep(1000); /* long enough for the threads to fall asleep */
        assert_ok(attune_pool_run(pool, &cpu, THREADS, meet, &in, &error), error);
    }
}
END_TEST

typedef struct nest {
    attune_stream stream;
    meeting meeting; /* of the first tasks, so that several threads take part */
    atomic_uint wrong;
    atomic_uint inner;
} nest;

typedef struct nested {
    nest *outer;
    uint32_t worker;
    pthread_t thread;
    uint64_t next;
} nested;

static attune_code inner_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    nested *in = context;
    (void)error;
    if (task != in->next++ || worker != in->worker || !pthread_equal(in->thread, pthread_self()))
        atomic_fetch_add(&in->outer->wrong, 1);
    atomic_fetch_add(&in->outer->inner, 1);
    return ATTUNE_OK;
}

static attune_code outer_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    nest *out = context;
    nested in = {out, worker, pthread_self(), 0};
    if (task < out->meeting.wanted)
        (void)meet(&out->meeting, task, worker, error);
    return attune_pool_run(pool, &out->stream, 20, inner_task, &in, error);
}

START_TEST(test_pool_nested_inline_ascending) {
    attune_error error;
    nest out = {.stream = stream(THREADS), .meeting = {.wanted = THREADS}};
    assert_ok(attune_pool_run(pool, &out.stream, 50, outer_task, &out, &error), error);
    ck_assert_uint_eq(atomic_load(&out.wrong), 0);
    ck_assert_uint_eq(atomic_load(&out.inner), 1000);
    attune_stream single = stream(1); /* the serial path nests as well */
    out.stream = single;
    out.meeting.wanted = 0;
    assert_ok(attune_pool_run(pool, &single, 5, outer_task, &out, &error), error);
    ck_assert_uint_eq(atomic_load(&out.wrong), 0);
}
END_TEST

typedef struct failing {
    uint64_t first; /* this task and all after it fail */
    atomic_uint run;
    uint64_t silent; /* this one without words */
} failing;

static attune_code mark_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    atomic_uint *done = context;
    (void)worker;
    (void)error;
    atomic_fetch_add(&done[task], 1);
    return ATTUNE_OK;
}

static attune_code fail_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    failing *in = context;
    (void)worker;
    atomic_fetch_add(&in->run, 1);
    if (task == in->first)
        (void)usleep(200); /* later ones fail earlier */
    if (task == in->silent)
        return ATTUNE_ABORTED;
    return task < in->first
               ? ATTUNE_OK
               : attune_fail(error, ATTUNE_DATA_LOSS, "test", "task", "task %llu", (unsigned long long)task);
}

/* More threads than a job has shares: every task once, the lowest error, whoever helps where. */
START_TEST(test_pool_of_many_threads) {
    static const uint32_t sizes[] = {16, 17, 40};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        static atomic_uint done[MOST];
        attune_error error;
        attune_pool *large;
        assert_ok(attune_pool_create(sizes[i], &large, &error), error);
        attune_stream cpu = {.struct_size = sizeof cpu, .workers = sizes[i], .native = large};
        for (uint64_t n = 1; n <= MOST; n = n * 3 + 1) {
            memset(done, 0, sizeof done);
            assert_ok(attune_pool_run(large, &cpu, n, mark_task, done, &error), error);
            for (uint64_t task = 0; task < n; ++task)
                ck_assert_uint_eq(atomic_load(&done[task]), 1);
        }
        for (uint64_t first = 0; first < MOST; first = first * 3 + 1) {
            failing in = {.first = first, .silent = UINT64_MAX};
            char text[32];
            (void)snprintf(text, sizeof text, "task %llu", (unsigned long long)first);
            assert_fails(attune_pool_run(large, &cpu, MOST, fail_task, &in, &error), error, ATTUNE_DATA_LOSS,
                         text);
            ck_assert_str_eq(error.message, text);
            ck_assert_uint_le(atomic_load(&in.run), first + 1 + sizes[i] * sizes[i]);
        }
        attune_pool_destroy(large);
    }
}
END_TEST

typedef struct both {
    meeting meeting;
    uint64_t slow;
} both;

static attune_code fail_both(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    both *in = context;
    (void)meet(&in->meeting, task, worker, error);
    if (task == in->slow)
        (void)usleep(5000);
    return attune_fail(error, ATTUNE_DATA_LOSS, "test", "task", "task %llu", (unsigned long long)task);
}

/* The lowest task that failed is told, whoever was first; the rest is skipped. */
START_TEST(test_pool_lowest_error) {
    attune_error error;
    for (uint32_t workers = 1; workers <= THREADS; ++workers)
        for (uint64_t first = 0; first < 40; first += 3) {
            failing in = {.first = first, .silent = UINT64_MAX};
            char text[32];
            attune_stream cpu = stream(workers);
            (void)snprintf(text, sizeof text, "task %llu", (unsigned long long)first);
            assert_fails(attune_pool_run(pool, &cpu, 100000, fail_task, &in, &error), error, ATTUNE_DATA_LOSS,
                         text);
            ck_assert_str_eq(error.message, text);
            ck_assert_uint_lt(atomic_load(&in.run), 100000);
        }
    for (uint64_t slow = 0; slow < 2; ++slow) { /* both run; whichever fails last, the lower one is told */
        both in = {.meeting = {.wanted = 2}, .slow = slow};
        attune_stream two = stream(2);
        assert_fails(attune_pool_run(pool, &two, 2, fail_both, &in, &error), error, ATTUNE_DATA_LOSS,
                     "task 0");
    }
    failing quiet = {.first = UINT64_MAX, .silent = 3};
    attune_stream cpu = stream(2);
    assert_fails(attune_pool_run(pool, &cpu, 10, fail_task, &quiet, &error), error, ATTUNE_ABORTED,
                 "task 3 failed");
    ck_assert_int_eq(attune_pool_run(pool, &cpu, 10, fail_task, &quiet, NULL), ATTUNE_ABORTED);
}
END_TEST

START_TEST(test_pool_bad_arguments) {
    attune_error error;
    attune_stream none = stream(0), cpu = stream(1);
    assert_fails(attune_pool_run(pool, &none, 1, count_task, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "workers");
    assert_fails(attune_pool_run(pool, NULL, 1, count_task, NULL, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "stream");
    assert_fails(attune_pool_run(pool, &cpu, 1, NULL, NULL, &error), error, ATTUNE_INVALID_ARGUMENT, "task");
    assert_fails(attune_pool_run(pool, &cpu, UINT64_MAX, count_task, NULL, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "2^63");
}
END_TEST

/* A sum over all tasks, by callers that share the pool. */
static attune_code add_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    (void)worker;
    (void)error;
    atomic_fetch_add_explicit((atomic_uint_fast64_t *)context, task + 1, memory_order_relaxed);
    return ATTUNE_OK;
}

static void *many_calls(void *argument) {
    uint32_t workers = *(const uint32_t *)argument;
    attune_stream cpu = stream(workers);
    for (uint64_t i = 0; i < 2000; ++i) {
        atomic_uint_fast64_t sum = 0;
        uint64_t n = i % 37;
        if (attune_pool_run(pool, &cpu, n, add_task, &sum, NULL) != ATTUNE_OK ||
            atomic_load(&sum) != n * (n + 1) / 2)
            return (void *)1;
    }
    return NULL;
}

START_TEST(test_pool_concurrent_callers) {
    pthread_t threads[6];
    static const uint32_t workers[6] = {1, 2, 3, 4, 4, 8};
    for (int i = 0; i < 6; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, many_calls, (void *)&workers[i]), 0);
    for (int i = 0; i < 6; ++i) {
        void *bad;
        (void)pthread_join(threads[i], &bad);
        ck_assert_ptr_null(bad);
    }
}
END_TEST

START_TEST(test_pool_many_tiny_loops) {
    uint32_t workers = THREADS;
    for (int i = 0; i < 10; ++i)
        ck_assert_ptr_null(many_calls(&workers));
}
END_TEST

#if defined(__x86_64__)
#define DEFAULT_CSR 0x1f80u
#define CSR_CONTROL 0xffc0u /* all but the exception flags */

static attune_code check_fp(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    /* a denormal product is 0 under FTZ, a denormal operand 0 under DAZ; rounding up makes 1 + tiny larger
     * than 1 */
    volatile float small = 1e-38f, denormal = 1e-41f, one = 1.0f, tiny = 1e-30f;
    (void)task;
    (void)worker;
    (void)error;
    if ((_mm_getcsr() & CSR_CONTROL) != DEFAULT_CSR || small * 0.01f == 0 || denormal * 2 == 0 ||
        one + tiny != 1.0f)
        atomic_fetch_add((atomic_uint *)context, 1);
    return ATTUNE_OK;
}

/* Breaks the rule that a task leaves the environment alone: the next loop and the caller must not see it. */
static attune_code spoil_fp(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    (void)context;
    (void)task;
    (void)worker;
    (void)error;
    _mm_setcsr(_mm_getcsr() | 0x8040);
    return ATTUNE_OK;
}

/* The caller has FTZ, DAZ and round-up set, as applications do; tasks do not see it, and the caller gets it
 * back. */
START_TEST(test_pool_floating_point_environment) {
    const unsigned odd = DEFAULT_CSR | 0x8000 | 0x0040 | 0x4000;
    atomic_uint wrong = 0;
    unsigned before = _mm_getcsr();
    for (uint32_t workers = 1; workers <= THREADS; ++workers) {
        attune_stream cpu = stream(workers);
        _mm_setcsr(odd);
        attune_code code = attune_pool_run(pool, &cpu, 64, spoil_fp, NULL, NULL);
        unsigned spoilt = _mm_getcsr();
        code |= attune_pool_run(pool, &cpu, 64, check_fp, &wrong, NULL);
        unsigned after = _mm_getcsr();
        _mm_setcsr(before);
        ck_assert_int_eq(code, ATTUNE_OK);
        ck_assert_uint_eq(spoilt, odd);
        ck_assert_uint_eq(after, odd);
    }
    ck_assert_uint_eq(atomic_load(&wrong), 0);
}
END_TEST

/* Threads that are made by a caller with FTZ inherit it: tasks must not. */
START_TEST(test_pool_threads_inherit_nothing) {
    attune_pool *made;
    attune_error error;
    atomic_uint wrong = 0;
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    attune_code code = attune_pool_create(THREADS, &made, &error);
    _mm_setcsr(before);
    ck_assert_int_eq(code, ATTUNE_OK);
    attune_stream cpu = {.struct_size = sizeof cpu, .workers = THREADS, .native = made};
    assert_ok(attune_pool_run(made, &cpu, 1000, check_fp, &wrong, &error), error);
    ck_assert_uint_eq(atomic_load(&wrong), 0);
    attune_pool_destroy(made);
}
END_TEST
#endif

static atomic_uint handled;

static void on_signal(int number) {
    (void)number;
    atomic_fetch_add(&handled, 1);
}

/* A signal to the process that the application blocks stays pending: no thread of the pool takes it. */
START_TEST(test_pool_signals_are_the_applications) {
    sigset_t blocked;
    ck_assert_ptr_ne(signal(SIGUSR1, on_signal), SIG_ERR);
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGUSR1);
    attune_stream cpu = stream(THREADS);
    ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, &blocked, NULL), 0);
    ck_assert_int_eq(kill(getpid(), SIGUSR1), 0);
    for (int i = 0; i < 50; ++i) {
        atomic_uint_fast64_t sum = 0;
        ck_assert_int_eq(attune_pool_run(pool, &cpu, 100, add_task, &sum, NULL), ATTUNE_OK);
    }
    (void)usleep(20000); /* time in which a sleeping thread would have taken it */
    ck_assert_uint_eq(atomic_load(&handled), 0);
    ck_assert_int_eq(pthread_sigmask(SIG_UNBLOCK, &blocked, NULL), 0);
    ck_assert_uint_eq(atomic_load(&handled), 1);
}
END_TEST

/* Idle threads sleep soon: a pool that rests costs (almost) no processor time. */
START_TEST(test_pool_rests) {
    struct timespec start, end;
    uint32_t workers = THREADS;
    ck_assert_ptr_null(many_calls(&workers));
    (void)usleep(20000);
    ck_assert_int_eq(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start), 0);
    (void)usleep(200000);
    ck_assert_int_eq(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end), 0);
    double used = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9;
    ck_assert_msg(used < 0.05, "%g s of processor time in 0.2 s of rest",
                  used); /* three spinning threads: 0.4 s and more */
}
END_TEST

TCase *pool_cases(void) {
    TCase *cases = tcase_create("pool");
    tcase_add_checked_fixture(cases, make_pool, end_pool);
    tcase_add_test(cases, test_pool_every_task_once);
    tcase_add_test(cases, test_pool_really_parallel);
    tcase_add_test(cases, test_pool_nested_inline_ascending);
    tcase_add_test(cases, test_pool_lowest_error);
    tcase_add_test(cases, test_pool_of_many_threads);
    tcase_add_test(cases, test_pool_bad_arguments);
    tcase_add_test(cases, test_pool_concurrent_callers);
    tcase_add_test(cases, test_pool_many_tiny_loops);
#if defined(__x86_64__)
    tcase_add_test(cases, test_pool_floating_point_environment);
    tcase_add_test(cases, test_pool_threads_inherit_nothing);
#endif
    tcase_add_test(cases, test_pool_signals_are_the_applications);
    tcase_add_test(cases, test_pool_rests);
    tcase_set_timeout(cases, 0);
    return cases;
}
