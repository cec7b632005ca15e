/* peak.c: the float32 multiply-add rate that this machine reaches now, as a library for
 * common.py. Compiled for the processor that it runs on. */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#if defined(__AVX512F__)
enum { WIDTH = 16 };
#elif defined(__AVX__)
enum { WIDTH = 8 };
#else
enum { WIDTH = 4 };
#endif
/* More independent chains than a multiply-add's latency times the units; with two constants they fit in 16
 * registers. */
enum { CHAINS = 12, MAX_THREADS = 256 };
static const long steps = 2000000;

typedef float vec __attribute__((vector_size(4 * WIDTH)));

typedef struct worker {
    pthread_t thread;
    pthread_barrier_t *start;
    int cpu;
    double begin, end;
    vec sums;
} worker;

static double now(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static vec multiply_add(void) {
    vec x[CHAINS], a, b, all;
    for (int i = 0; i < WIDTH; ++i) {
        a[i] = 0.999f;
        b[i] = 1e-3f;
    }
    for (int i = 0; i < CHAINS; ++i)
        x[i] = b;
    for (long n = 0; n < steps; ++n) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; ++i)
            x[i] = x[i] * a + b;
    }
    all = x[0];
    for (int i = 1; i < CHAINS; ++i)
        all += x[i];
    return all;
}

static void *work(void *argument) {
    worker *const w = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)w->cpu, &set);
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    (void)pthread_barrier_wait(w->start);
    w->begin = now();
    w->sums = multiply_add();
    w->end = now();
    return NULL;
}

__attribute__((visibility("default"))) double fma_peak(int threads, const int *cpus);

/* [any] GFLOP/s of `threads` threads together, each on its CPU of `cpus`, for about 10 ms; 0 where they could
 * not be started. */
double fma_peak(int threads, const int *cpus) {
    worker workers[MAX_THREADS];
    pthread_barrier_t start;
    if (threads < 1 || threads > MAX_THREADS || pthread_barrier_init(&start, NULL, (unsigned)threads))
        return 0;
    for (int i = 0; i < threads; ++i) {
        workers[i] = (worker){.start = &start, .cpu = cpus[i]};
        /* The ones that did start wait at the barrier for ever: a process without threads has no figures
         * anyway. */
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            return 0;
    }
    double begin = 0, end = 0;
    for (int i = 0; i < threads; ++i) {
        (void)pthread_join(workers[i].thread, NULL);
        begin = i == 0 || workers[i].begin < begin ? workers[i].begin : begin;
        end = workers[i].end > end ? workers[i].end : end;
    }
    (void)pthread_barrier_destroy(&start);
    return 2e-9 * CHAINS * WIDTH * (double)steps * threads / (end - begin);
}
