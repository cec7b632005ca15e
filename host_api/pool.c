/*
 * pool.c: parallel_for. A call is a job on its caller's stack, kept in a list while it has tasks to give
 * away; idle threads join the oldest job that has room. Its tasks lie in shares, one for each worker to begin
 * in; who is done with one helps in the next. A failure ends what has a higher number and nothing else, which
 * makes "the lowest failing task" well defined.
 */
#include "pool.h"
#include "fpenv.h"
#include "structs.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

/* How long to look out for work before sleeping, after work and after a wake: about what a futex wake costs,
 * so that the wait never costs more than twice the best that could have been done (ski rental). One request
 * often follows another at once. */
#define SPIN_NANOSECONDS 50000u

enum { MOST_SHARES = 16 };

/* A stretch of the tasks. In loop after loop a thread mostly meets the rows that it has in its cache. */
typedef struct share {
    _Alignas(64) atomic_uint_fast64_t next;
    uint64_t end;
} share;

typedef struct job {
    share share[MOST_SHARES];
    struct job *next_job; /* this and what follows up to `shares` never changes while the job is listed */
    attune_task task;
    void *context;
    uint32_t workers;
    uint32_t shares;
    atomic_uint_fast64_t limit; /* no task from here on starts: the lowest that failed, at first n */
    pthread_cond_t done;
    uint32_t joined;     /* worker numbers given out so far; under the pool's lock, as all but the atomics */
    atomic_uint running; /* threads inside besides the caller; changed under the lock */
    attune_code code;    /* of the task that `limit` names */
    bool waiting;        /* the caller sleeps on `done` */
    attune_error error;
} job;

struct attune_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    job *first; /* oldest first */
    uint32_t sleeping;
    uint32_t spinning;
    bool stop;
    atomic_uint published; /* counts jobs: what a spinning thread watches */
    atomic_uint indices;   /* given out to the threads */
    uint32_t threads;
    uint32_t started;
    pthread_t thread[];
};

/* Set while this thread runs tasks: a nested call runs inline under the same worker number. `index`: the
 * share that it begins in, 0 for a caller's thread, else the thread's own in every job. */
static _Thread_local struct {
    bool inside;
    uint32_t worker;
    uint32_t index;
} here;

static uint64_t now(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static attune_code failed_task(uint64_t task, attune_code code, attune_error *error) {
    if (error->code == ATTUNE_OK)
        (void)attune_fail(error, code, ATTUNE_DOMAIN, "parallel_for",
                          "task %llu failed (%s) and did not say why", (unsigned long long)task,
                          attune_code_name(code));
    return code;
}

static void record_failure(attune_pool *pool, job *work, uint64_t task, attune_code code,
                           attune_error *error) {
    (void)failed_task(task, code, error);
    (void)pthread_mutex_lock(&pool->lock);
    if (task < atomic_load_explicit(&work->limit, memory_order_relaxed)) {
        atomic_store_explicit(&work->limit, task, memory_order_relaxed);
        work->code = code;
        work->error = *error;
    }
    (void)pthread_mutex_unlock(&pool->lock);
}

static void run_tasks(attune_pool *pool, job *work, uint32_t worker) {
    attune_error error;
    uint64_t saved = attune_fpenv_default();
    here.inside = true;
    here.worker = worker;
    for (uint32_t i = 0; i < work->shares; ++i) {
        share *own = &work->share[(here.index + i) % work->shares];
        for (;;) {
            uint64_t task = atomic_fetch_add_explicit(&own->next, 1, memory_order_relaxed);
            if (task >= own->end || task >= atomic_load_explicit(&work->limit, memory_order_relaxed))
                break;
            error.code = ATTUNE_OK;
            ++attune_inside;
            attune_code code = work->task(work->context, task, worker, &error);
            --attune_inside;
            if (code)
                record_failure(pool, work, task, code, &error);
        }
    }
    here.inside = false;
    attune_fpenv_restore(saved);
}

static bool has_tasks(const job *work) {
    uint64_t limit = atomic_load_explicit(&work->limit, memory_order_relaxed);
    for (uint32_t i = 0; i < work->shares; ++i) {
        uint64_t next = atomic_load_explicit(&work->share[i].next, memory_order_relaxed);
        if (next < work->share[i].end && next < limit)
            return true;
    }
    return false;
}

/* Under the lock: the oldest job that can use one more thread. */
static job *find_job(attune_pool *pool) {
    for (job *work = pool->first; work; work = work->next_job)
        if (work->joined < work->workers && has_tasks(work))
            return work;
    return NULL;
}

/* Under the lock, which it drops while it works. */
static void help(attune_pool *pool, job *work) {
    uint32_t worker = work->joined++;
    atomic_fetch_add_explicit(&work->running, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&pool->lock);
    run_tasks(pool, work, worker);
    (void)pthread_mutex_lock(&pool->lock);
    /* Release: the caller may see 0 while it spins; it then takes the lock once more before it lets go of the
     * job. */
    if (atomic_fetch_sub_explicit(&work->running, 1, memory_order_release) == 1 && work->waiting)
        (void)pthread_cond_signal(&work->done);
}

/* Look out until a job is published (true) or the time is up (false). */
static bool spin_for_work(attune_pool *pool, unsigned seen) {
    uint64_t end = now() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < 16; ++i) {
            if (atomic_load_explicit(&pool->published, memory_order_relaxed) != seen)
                return true;
            relax();
        }
    } while (now() < end);
    return false;
}

static void *thread_main(void *argument) {
    attune_pool *pool = argument;
    bool look_out = true;
    here.index = 1 + atomic_fetch_add_explicit(&pool->indices, 1, memory_order_relaxed);
    (void)pthread_mutex_lock(&pool->lock);
    while (!pool->stop) {
        job *work = find_job(pool);
        if (work) {
            help(pool, work);
            look_out = true;
        } else if (look_out) {
            unsigned seen = atomic_load_explicit(&pool->published, memory_order_relaxed);
            ++pool->spinning;
            (void)pthread_mutex_unlock(&pool->lock);
            look_out = spin_for_work(pool, seen);
            (void)pthread_mutex_lock(&pool->lock);
            --pool->spinning;
        } else {
            ++pool->sleeping;
            (void)pthread_cond_wait(&pool->work, &pool->lock);
            --pool->sleeping;
            look_out = true;
        }
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return NULL;
}

attune_code attune_pool_create(uint32_t threads, attune_pool **out, attune_error *error) {
    attune_pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->thread[0]);
    if (!pool)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_open",
                           "no memory for a pool of %u threads", threads);
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->work, NULL);
    pool->threads = threads;
    /* Signals belong to the application's threads: its handlers must not run on ours. */
    sigset_t all, saved;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &saved);
    int failure = 0;
    for (uint32_t i = 0; i + 1 < threads && !failure; ++i) {
        failure = pthread_create(&pool->thread[i], NULL, thread_main, pool);
        if (!failure) {
            char name[16];
            (void)snprintf(name, sizeof name, "attune-%u", (i + 1) & 0xffff);
            (void)pthread_setname_np(pool->thread[i], name);
            ++pool->started;
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &saved, NULL);
    if (failure) {
        uint32_t started = pool->started;
        attune_pool_destroy(pool);
        (void)attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_open",
                          "could start %u of %u threads: %s", started + 1, threads, strerror(failure));
        attune_hint(error, "ask for fewer threads");
        if (error)
            error->native_code = failure;
        return ATTUNE_RESOURCE_EXHAUSTED;
    }
    *out = pool;
    return ATTUNE_OK;
}

void attune_pool_destroy(attune_pool *pool) {
    if (!pool)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    (void)pthread_cond_broadcast(&pool->work);
    (void)pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->started; ++i)
        (void)pthread_join(pool->thread[i], NULL);
    (void)pthread_cond_destroy(&pool->work);
    (void)pthread_mutex_destroy(&pool->lock);
    free(pool);
}

uint32_t attune_pool_threads(const attune_pool *pool) {
    return pool->threads;
}

_Thread_local unsigned attune_inside;

static attune_code run_inline(uint64_t n, attune_task task, void *context, uint32_t worker,
                              attune_error *error) {
    attune_error local;
    for (uint64_t i = 0; i < n; ++i) {
        local.code = ATTUNE_OK;
        attune_code code = task(context, i, worker, &local);
        if (code) {
            (void)failed_task(i, code, &local);
            if (error)
                *error = local;
            return code;
        }
    }
    return ATTUNE_OK;
}

/* List the job and wake as many threads as it can use and are not awake already. */
static void publish(attune_pool *pool, job *work) {
    (void)pthread_mutex_lock(&pool->lock);
    job **last = &pool->first;
    while (*last)
        last = &(*last)->next_job;
    *last = work;
    uint32_t wake = work->workers - 1;
    wake = wake > pool->spinning ? wake - pool->spinning : 0;
    wake = wake < pool->sleeping ? wake : pool->sleeping;
    atomic_fetch_add_explicit(&pool->published, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < wake; ++i)
        (void)pthread_cond_signal(&pool->work);
}

/* Take the job off the list, so that nobody joins any more, and wait for those who are inside. */
static void withdraw(attune_pool *pool, job *work) {
    (void)pthread_mutex_lock(&pool->lock);
    job **link = &pool->first;
    while (*link != work)
        link = &(*link)->next_job;
    *link = work->next_job;
    if (atomic_load_explicit(&work->running, memory_order_relaxed) > 0) {
        (void)pthread_mutex_unlock(&pool->lock);
        uint64_t end = now() + SPIN_NANOSECONDS;
        do {
            for (int i = 0; i < 16 && atomic_load_explicit(&work->running, memory_order_acquire) > 0; ++i)
                relax();
        } while (atomic_load_explicit(&work->running, memory_order_acquire) > 0 && now() < end);
        (void)pthread_mutex_lock(&pool->lock);
        work->waiting = true;
        while (atomic_load_explicit(&work->running, memory_order_relaxed) > 0)
            (void)pthread_cond_wait(&work->done, &pool->lock);
    }
    (void)pthread_mutex_unlock(&pool->lock);
}

static attune_code run_shared(attune_pool *pool, uint32_t workers, uint64_t n, attune_task task,
                              void *context, attune_error *error) {
    job work;
    work.next_job = NULL;
    work.task = task;
    work.context = context;
    work.workers = workers;
    work.joined = 1; /* the caller is worker 0 */
    work.shares = workers < MOST_SHARES ? workers : MOST_SHARES;
    uint64_t start = 0;
    for (uint32_t i = 0; i < work.shares; ++i) {
        atomic_init(&work.share[i].next, start);
        start += n / work.shares + (i < n % work.shares);
        work.share[i].end = start;
    }
    atomic_init(&work.limit, n);
    atomic_init(&work.running, 0);
    work.waiting = false;
    (void)pthread_cond_init(&work.done, NULL);
    work.code = ATTUNE_OK;
    publish(pool, &work);
    run_tasks(pool, &work, 0);
    withdraw(pool, &work);
    (void)pthread_cond_destroy(&work.done);
    if (work.code && error)
        *error = work.error;
    return work.code;
}

attune_code attune_pool_run(void *context, const attune_stream *stream, uint64_t n, attune_task task,
                            void *task_context, attune_error *error) {
    attune_pool *pool = context;
    if (!stream || stream->workers == 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "parallel_for",
                           "the stream has no workers: only a CPU stream runs tasks");
    if (!task || n > INT64_MAX)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "parallel_for",
                           "no task, or 2^63 tasks or more");
    if (here.inside)
        return run_inline(n, task, task_context, here.worker, error);
    uint64_t workers = stream->workers < pool->threads ? stream->workers : pool->threads;
    if (workers > n)
        workers = n;
    if (workers > 1)
        return run_shared(pool, (uint32_t)workers, n, task, task_context, error);
    uint64_t saved = attune_fpenv_default();
    here.inside = true;
    here.worker = 0;
    attune_code code = run_inline(n, task, task_context, 0, error);
    here.inside = false;
    attune_fpenv_restore(saved);
    return code;
}
