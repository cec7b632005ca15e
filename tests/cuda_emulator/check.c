/*
 * check.c: reports, and the shadow of shared memory that finds races, uninitialised reads and missing waits.
 *
 * For every two bytes of shared memory ("granule") the shadow keeps who wrote last and who read last, as
 * epoch << 16 | thread << 6 | sync << 2 | flags. The epoch counts the block's barriers: what happened in an
 * older epoch is ordered before now. Within an epoch, two threads of a warp are ordered only by
 * bar.warp.sync, which `sync` counts; two threads of different warps not at all. A single-byte access by
 * another thread to the same granule is not told apart, so races between bytes of one granule are not
 * reported.
 */
#include "tests/cuda_emulator/exec.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { ATOMIC = 1 /* of a writer */, MANY_WARPS = 1, MANY_LANES = 2 /* of a reader */ };
#define EPOCH_POISON 0xffffu
enum { EPOCH_FIRST = 2, EPOCH_LAST = 0xfffe, MAX_REPORTS = 256 };

/* ---- reports ---- */

static pthread_mutex_t report_lock = PTHREAD_MUTEX_INITIALIZER;
static cuda_emulator_report kept[MAX_REPORTS];
static size_t kept_count;

const char *cuda_emulator_check_name(int check) {
    static const char *const names[] = {
#define X(name, text, meaning) text,
        CUDA_EMULATOR_CHECKS(X)
#undef X
    };
    return check >= 0 && check < CUDA_EMULATOR_CHECK_COUNT ? names[check] : NULL;
}

size_t cuda_emulator_reports(cuda_emulator_report *reports, size_t capacity) {
    pthread_mutex_lock(&report_lock);
    const size_t count = kept_count;
    for (size_t i = 0; i < count && i < capacity; ++i)
        reports[i] = kept[i];
    pthread_mutex_unlock(&report_lock);
    return count;
}

void cuda_emulator_clear_reports(void) {
    pthread_mutex_lock(&report_lock);
    kept_count = 0;
    pthread_mutex_unlock(&report_lock);
}

static void split_thread(const exec_launch *l, u32 index, u32 thread[3]) {
    thread[0] = index % l->block[0];
    thread[1] = index / l->block[0] % l->block[1];
    thread[2] = index / l->block[0] / l->block[1];
}

void exec_fail(exec_block *b, const exec_warp *w, u32 loc, int lane, enum cuda_emulator_check check,
               const char *format, ...) {
    exec_launch *l = b->launch;
    b->failed = true;
    int expected = 0;
    if (!atomic_compare_exchange_strong(&l->failed, &expected, 1 + (int)check))
        return; /* one report a launch: what follows an error is often only its consequence */
    cuda_emulator_report r = {.check = check};
    char where[96];
    ptx_describe_location(l->kernel->module, loc, where, sizeof where);
    char *colon = strrchr(where, ':');
    if (colon) {
        r.line = atoi(colon + 1);
        snprintf(r.file, sizeof r.file, "%.*s", (int)(colon - where), where);
    }
    snprintf(r.kernel, sizeof r.kernel, "%s", l->kernel->name);
    memcpy(r.block, b->index, sizeof r.block);
    split_thread(l, w->index * LANES + (u32)(lane < 0 ? __builtin_ctz(w->live ? w->live : 1) : lane),
                 r.thread);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r.message, sizeof r.message, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&report_lock);
    if (kept_count < MAX_REPORTS)
        kept[kept_count++] = r;
    pthread_mutex_unlock(&report_lock);
    if (!getenv("ATTUNE_EMULATOR_QUIET"))
        fprintf(stderr, "cuda emulator: %s: %s: kernel %s, %s, block (%u,%u,%u), thread (%u,%u,%u)\n",
                cuda_emulator_check_name(check), r.message, r.kernel, where, r.block[0], r.block[1],
                r.block[2], r.thread[0], r.thread[1], r.thread[2]);
}

/* ---- the shadow ---- */

size_t shadow_granules(u32 shared_bytes) {
    return shared_bytes / 2 + 1;
}

void shadow_clear(exec_block *b) {
    const size_t n = shadow_granules(b->launch->shared_bytes);
    memset(b->writer, 0, n * sizeof *b->writer);
    memset(b->reader, 0, n * sizeof *b->reader);
    b->epoch = EPOCH_FIRST;
}

void shadow_barrier(exec_block *b) {
    if (b->epoch++ < EPOCH_LAST - 1)
        return;
    const size_t n =
        shadow_granules(b->launch->shared_bytes); /* the epochs are used up: begin again, all is older */
    for (size_t g = 0; g < n; ++g) {
        b->reader[g] = 0;
        if (b->writer[g] && b->writer[g] >> 16 != EPOCH_POISON)
            b->writer[g] = 1u << 16;
    }
    b->epoch = EPOCH_FIRST;
}

static u32 thread_of(u32 record) {
    return record >> 6 & 1023;
}

static u32 record_of(const exec_block *b, const exec_warp *w, int lane) {
    return b->epoch << 16 | (w->index * LANES + (u32)lane) << 6 | (w->sync & 15) << 2;
}

/* Is a record of this epoch by another thread ordered before `me`? Within a warp, by a warp barrier. */
static bool ordered(u32 record, u32 me) {
    return thread_of(record) / LANES == thread_of(me) / LANES && (record >> 2 & 15) != (me >> 2 & 15);
}

static bool race(exec_block *b, exec_warp *w, u32 loc, int lane, u32 address, const char *mine,
                 const char *theirs, u32 record) {
    u32 other[3];
    split_thread(b->launch, thread_of(record), other);
    exec_fail(b, w, loc, lane, CUDA_EMULATOR_RACE,
              "a %s of shared byte %u and a %s by thread (%u,%u,%u) with no barrier between them", mine,
              address, theirs, other[0], other[1], other[2]);
    return false;
}

static bool in_flight(exec_block *b, exec_warp *w, u32 loc, int lane, u32 address, const char *what) {
    exec_fail(b, w, loc, lane, CUDA_EMULATOR_ASYNC_COPY,
              "a %s of shared byte %u, where a cp.async has not been waited for", what, address);
    return false;
}

static bool read_slowly(exec_block *b, exec_warp *w, u32 loc, int lane, u32 first, u32 end, u32 me) {
    for (u32 g = first; g < end; ++g) {
        const u32 record = b->writer[g];
        if (record == 0) {
            exec_fail(b, w, loc, lane, CUDA_EMULATOR_SHARED_UNINITIALISED, "shared byte %u was never written",
                      g * 2);
            return false;
        }
        if (record >> 16 == EPOCH_POISON)
            return in_flight(b, w, loc, lane, g * 2, "read");
        if (record >> 16 == b->epoch && thread_of(record) != thread_of(me) && !ordered(record, me))
            return race(b, w, loc, lane, g * 2, "read", record & ATOMIC ? "atomic write" : "write", record);
    }
    return true;
}

bool shadow_read(exec_block *b, exec_warp *w, u32 loc, int lane, u32 address, u32 size) {
    const u32 first = address / 2, end = (address + size + 1) / 2, me = record_of(b, w, lane),
              epoch = b->epoch;
    u32 doubtful = 0;
    for (u32 g = first; g < end; ++g)
        doubtful |= (b->writer[g] - 1 >=
                     (epoch << 16) - 1); /* never written (wraps), or in this epoch, or in flight */
    if (doubtful && !read_slowly(b, w, loc, lane, first, end, me))
        return false;
    for (u32 g = first; g < end; ++g) {
        const u32 old = b->reader[g];
        const u32 flag = thread_of(old) / LANES != thread_of(me) / LANES ? MANY_WARPS
                         : thread_of(old) != thread_of(me)               ? MANY_LANES
                                                                         : 0;
        b->reader[g] = old >> 16 != epoch ? me : me | (old & 3) | flag;
    }
    return true;
}

bool shadow_write(exec_block *b, exec_warp *w, u32 loc, int lane, u32 address, u32 size,
                  enum shadow_kind kind) {
    const u32 first = address / 2, end = (address + size + 1) / 2, me = record_of(b, w, lane);
    const bool atomic = kind == SHADOW_ATOMIC;
    for (u32 g = first; g < end; ++g) {
        const u32 written = b->writer[g], read = b->reader[g];
        if (atomic && written == 0)
            return read_slowly(b, w, loc, lane, g, g + 1, me);
        if (written >> 16 == EPOCH_POISON)
            return in_flight(b, w, loc, lane, g * 2, "write");
        if (written >> 16 == b->epoch && thread_of(written) != thread_of(me) && !ordered(written, me) &&
            kind != SHADOW_SAME && !(atomic && written & ATOMIC) && size > 1)
            return race(b, w, loc, lane, g * 2, "write", "write", written);
        const bool other_reader = read & MANY_WARPS || (read & MANY_LANES && !ordered(read, me)) ||
                                  (thread_of(read) != thread_of(me) && !ordered(read, me));
        if (read >> 16 == b->epoch && other_reader && size > 1)
            return race(b, w, loc, lane, g * 2, "write", "read", read);
        b->writer[g] = me | (atomic ? ATOMIC : 0);
    }
    return true;
}

void shadow_poison(exec_block *b, const exec_warp *w, int lane, u32 address, u32 size) {
    for (u32 g = address / 2; g < (address + size + 1) / 2; ++g)
        b->writer[g] = EPOCH_POISON << 16 | (w->index * LANES + (u32)lane) << 6;
}

void shadow_land(exec_block *b, const exec_warp *w, int lane, u32 address, u32 size) {
    const u32 me = record_of(b, w, lane);
    for (u32 g = address / 2; g < (address + size + 1) / 2; ++g)
        b->writer[g] = me;
}
