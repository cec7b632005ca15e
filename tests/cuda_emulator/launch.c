/*
 * launch.c: a grid's blocks over threads, a block's warps between barriers one after another, in order: what
 * a kernel computes does not depend on how many threads run it, unless its blocks race.
 */
#include "tests/cuda_emulator/exec.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ATTUNE_CPU_MASK caps the instruction set, as for the CPU's kernels. */
static exec_run *choose(void) {
#if defined(__x86_64__)
    const char *mask = getenv("ATTUNE_CPU_MASK");
    const bool generic = mask && strcmp(mask, "generic") == 0, avx2 = mask && strcmp(mask, "avx2") == 0;
    if (generic)
        return exec_run_generic;
    if (!avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return exec_run_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return exec_run_avx2;
#endif
    return exec_run_generic;
}

static void fill(exec_warp *w, u32 place, u32 value) {
    if (place == NO_REGISTER)
        return;
    u32 *r = exec_u32(w, place);
    for (int l = 0; l < LANES; ++l)
        r[l] = value;
}

/* Constants and what is the same for all blocks: once, for registers have places of their own for them. */
static void prepare_registers(const exec_launch *l, exec_warp *w) {
    const ptx_kernel *k = l->kernel;
    for (size_t i = 0; i < k->register_count; ++i) {
        const ptx_register *r = &k->registers[i];
        if (r->kind == KIND_CONSTANT_32)
            fill(w, r->place, (u32)r->value);
        if (r->kind == KIND_CONSTANT_64)
            for (int lane = 0; lane < LANES; ++lane)
                exec_u64(w, r->place)[lane] = r->value;
    }
    for (int axis = 0; axis < 3; ++axis) {
        fill(w, k->special[SPECIAL_NTID_X + axis], l->block[axis]);
        fill(w, k->special[SPECIAL_NCTAID_X + axis], l->grid[axis]);
    }
    fill(w, k->special[SPECIAL_WARPID], w->index);
    fill(w, k->special[SPECIAL_SHARED_SIZE], l->shared_dynamic);
    for (u32 lane = 0; lane < LANES; ++lane) {
        const u32 thread = w->index * LANES + lane, bit = 1u << lane;
        const u32 values[] = {lane, w->index, bit, bit | (bit - 1), bit - 1, ~(bit - 1), ~(bit | (bit - 1))};
        const u32 ids[] = {thread % l->block[0], thread / l->block[0] % l->block[1],
                           thread / l->block[0] / l->block[1]};
        for (int s = 0; s < 7; ++s)
            if (k->special[SPECIAL_LANEID + s] != NO_REGISTER)
                exec_u32(w, k->special[SPECIAL_LANEID + s])[lane] = values[s];
        for (int axis = 0; axis < 3; ++axis)
            if (k->special[SPECIAL_TID_X + axis] != NO_REGISTER)
                exec_u32(w, k->special[SPECIAL_TID_X + axis])[lane] = ids[axis];
    }
}

static void begin_warp(exec_block *b, exec_warp *w) {
    const exec_launch *l = b->launch;
    const u32 threads = l->block[0] * l->block[1] * l->block[2], first = w->index * LANES;
    w->live = w->active = threads - first >= LANES ? ~0u : (1u << (threads - first)) - 1;
    w->pc = 0;
    w->rejoin = -1;
    w->depth = w->sync = 0;
    w->state = WARP_RUNS;
    w->instructions = 0;
    if (l->kernel->local_bytes)
        for (u32 lane = 0; lane < LANES; ++lane)
            memset(w->local + ((size_t)lane * 2 + 1) * l->kernel->local_bytes, 0, l->kernel->local_bytes);
    memset(w->defined, 0xff, l->kernel->lines * sizeof *w->defined);
    for (size_t i = 0; i < l->kernel->register_count;
         ++i) /* the others are surely written before they are read */
        if (l->kernel->registers[i].tracked)
            w->defined[l->kernel->registers[i].place] = 0;
    for (int axis = 0; axis < 3; ++axis)
        fill(w, l->kernel->special[SPECIAL_CTAID_X + axis], b->index[axis]);
    for (int lane = 0; lane < LANES; ++lane)
        w->copies[lane].count = w->copies[lane].groups = 0;
}

/* All warps wait or are done: let those go on whose barrier is complete. False where none is. */
static bool pass_barrier(exec_block *b) {
    const u32 threads = b->launch->block[0] * b->launch->block[1] * b->launch->block[2];
    const exec_warp *waiting = NULL;
    for (u32 n = 0; n < b->warp_count; ++n) {
        const exec_warp *w = &b->warps[n];
        if (w->state != WARP_WAITS)
            continue;
        waiting = w;
        u32 here = 0;
        for (u32 m = 0; m < b->warp_count; ++m)
            if (b->warps[m].state == WARP_WAITS && b->warps[m].barrier == w->barrier)
                here += b->warps[m].barrier_threads ? LANES : (u32)__builtin_popcount(b->warps[m].live);
        const u32 expected = w->barrier_threads ? w->barrier_threads : threads;
        if (here < expected)
            continue;
        const u32 id = w->barrier;
        for (u32 m = 0; m < b->warp_count; ++m)
            if (b->warps[m].state == WARP_WAITS && b->warps[m].barrier == id)
                b->warps[m].state = WARP_RUNS;
        shadow_barrier(b);
        return true;
    }
    if (waiting) {
        u32 here = 0;
        for (u32 m = 0; m < b->warp_count; ++m)
            here += b->warps[m].state == WARP_WAITS && b->warps[m].barrier == waiting->barrier
                        ? (u32)__builtin_popcount(b->warps[m].live)
                        : 0;
        exec_fail(b, waiting, waiting->barrier_loc, -1, CUDA_EMULATOR_BARRIER,
                  "%u threads wait at barrier %u; the others ended or wait elsewhere", here,
                  waiting->barrier);
    }
    return false;
}

static void run_block(exec_block *b, exec_run *run) {
    const exec_launch *l = b->launch;
    if (l->checks && l->shared_bytes) {
        shadow_clear(b);
        memset(b->shared, 0xff, l->shared_bytes);
    } else {
        b->epoch = 2;
    }
    b->failed = false;
    for (u32 n = 0; n < b->warp_count; ++n)
        begin_warp(b, &b->warps[n]);
    do
        for (u32 n = 0; n < b->warp_count && !b->failed; ++n)
            if (b->warps[n].state == WARP_RUNS)
                run(b, &b->warps[n]);
    while (!b->failed && pass_barrier(b));
}

/* ---- blocks over threads ---- */

typedef struct team {
    exec_launch *launch;
    exec_run *run;
    _Atomic u64 next;
    pthread_mutex_t lock;
    bool out_of_memory;
} team;

static void free_block(exec_block *b) {
    for (u32 n = 0; b->warps && n < b->warp_count; ++n) {
        exec_warp *w = &b->warps[n];
        free(w->registers);
        free(w->defined);
        free(w->local);
        for (int lane = 0; lane < LANES; ++lane)
            free(w->copies[lane].items);
    }
    free(b->warps);
    free(b->shared);
    free(b->writer);
    free(b->reader);
}

static bool make_block(exec_block *b, exec_launch *l) {
    const u32 threads = l->block[0] * l->block[1] * l->block[2];
    const size_t granules = shadow_granules(l->shared_bytes), lines = l->kernel->lines ? l->kernel->lines : 1;
    *b = (exec_block){.launch = l, .warp_count = (threads + LANES - 1) / LANES};
    b->warps = calloc(b->warp_count, sizeof *b->warps);
    b->shared = aligned_alloc(128, (l->shared_bytes + 255u) / 128 * 128);
    b->writer = calloc(granules, sizeof *b->writer);
    b->reader = calloc(granules, sizeof *b->reader);
    bool ok = b->warps && b->shared && b->writer && b->reader;
    for (u32 n = 0; ok && n < b->warp_count; ++n) {
        exec_warp *w = &b->warps[n];
        w->block = b;
        w->index = n;
        w->registers = aligned_alloc(LINE, lines * LINE);
        w->defined = calloc(lines + 1, sizeof *w->defined);
        w->local = calloc((size_t)LANES * 2 + 1, l->kernel->local_bytes + 1);
        ok = w->registers && w->defined && w->local;
        if (ok) {
            memset(w->registers, 0xff, lines * LINE);
            prepare_registers(l, w);
        }
    }
    return ok;
}

static void add_counters(cuda_emulator_counters *to, const cuda_emulator_counters *from) {
    to->instructions += from->instructions;
    to->mma += from->mma;
    to->shared_requests += from->shared_requests;
    to->shared_waves += from->shared_waves;
    to->shared_ideal_waves += from->shared_ideal_waves;
    to->global_requests += from->global_requests;
    to->global_sectors += from->global_sectors;
    to->global_ideal_sectors += from->global_ideal_sectors;
}

static void *work(void *context) {
    team *t = context;
    exec_launch *l = t->launch;
    const u64 blocks = (u64)l->grid[0] * l->grid[1] * l->grid[2];
    exec_block b;
    const bool ok = make_block(&b, l);
    for (u64 n; ok && !atomic_load(&l->failed) && (n = atomic_fetch_add(&t->next, 1)) < blocks;) {
        b.index[0] = (u32)(n % l->grid[0]);
        b.index[1] = (u32)(n / l->grid[0] % l->grid[1]);
        b.index[2] = (u32)(n / l->grid[0] / l->grid[1]);
        run_block(&b, t->run);
    }
    pthread_mutex_lock(&t->lock);
    t->out_of_memory |= !ok;
    add_counters(&l->counters, &b.counters);
    pthread_mutex_unlock(&t->lock);
    free_block(&b);
    return NULL;
}

bool exec_grid(exec_launch *l) {
    enum { MAX_THREADS = 64 };
    team t = {.launch = l, .run = choose(), .lock = PTHREAD_MUTEX_INITIALIZER};
    const char *asked = getenv("ATTUNE_EMULATOR_THREADS");
    long threads = asked ? strtol(asked, NULL, 10) : sysconf(_SC_NPROCESSORS_ONLN);
    const u64 blocks = (u64)l->grid[0] * l->grid[1] * l->grid[2];
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    if ((u64)threads > blocks)
        threads = (long)blocks;
    pthread_t helpers[MAX_THREADS];
    long started = 0;
    while (started < threads - 1 && pthread_create(&helpers[started], NULL, work, &t) == 0)
        ++started;
    work(&t);
    for (long n = 0; n < started; ++n)
        pthread_join(helpers[n], NULL);
    ++l->counters.launches;
    if (t.out_of_memory)
        fprintf(stderr, "cuda emulator: out of memory for a block of %s\n", l->kernel->name);
    return !t.out_of_memory && !atomic_load(&l->failed);
}
