/*
 * exec.h: the state of a running kernel. A launch has blocks, a block has warps and shared memory, a warp has
 * a register file, of each register all 32 lanes side by side, so that one instruction is one loop that the
 * compiler vectorises.
 */
#ifndef CUDA_EMULATOR_EXEC_H
#define CUDA_EMULATOR_EXEC_H

#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/memory.h"
#include "tests/cuda_emulator/modes.h"
#include "tests/cuda_emulator/numeric.h"
#include "tests/cuda_emulator/ptx.h"

#include <stdatomic.h>

enum { MAX_WARPS = 32, MAX_STACK = 128 };

typedef struct exec_launch {
    const ptx_kernel *kernel;
    u32 grid[3], block[3];
    u32 shared_bytes; /* static and dynamic */
    u32 shared_dynamic;
    int device;
    unsigned char *parameters;
    bool checks, count;
    u64 instruction_limit; /* of a warp */
    atomic_int failed;     /* 0, or 1 + the first check that failed */
    cuda_emulator_counters counters;
} exec_launch;

/* One cp.async of one lane that has not landed. */
typedef struct exec_copy {
    u32 to, size, bytes; /* shared address; to write; to read, the rest is zero */
    u64 from;
    u32 group; /* 0: not committed */
    u32 loc;
} exec_copy;

typedef struct exec_copies { /* of a lane, in order */
    exec_copy *items;
    u32 count, capacity, groups; /* groups: committed so far */
} exec_copies;

typedef struct exec_path { /* lanes that wait to go on at pc, until they reach rejoin */
    int pc, rejoin;
    u32 mask;
} exec_path;

enum warp_state { WARP_RUNS, WARP_WAITS, WARP_DONE };

typedef struct exec_warp {
    struct exec_block *block;
    unsigned char *registers; /* lines of 128 bytes */
    u32 *defined;             /* per line: lanes that wrote it, noted for tracked registers only */
    unsigned char *local;     /* per lane local_bytes, then as many flags "written" */
    u32 index;                /* in the block */
    u32 live, active;         /* lanes that have not exited; lanes of the current path */
    int pc, rejoin;
    exec_path stack[MAX_STACK];
    u32 depth;
    u32 sync; /* warp barriers passed */
    enum warp_state state;
    u32 barrier, barrier_threads; /* which it waits for; 0: all */
    u32 barrier_loc;
    u64 instructions;
    exec_copies copies[LANES];
} exec_warp;

typedef struct exec_block {
    exec_launch *launch;
    u32 index[3];
    unsigned char *shared;
    u32 *writer, *reader; /* shadow of shared memory, check.c */
    u32 epoch;            /* barriers passed */
    u32 warp_count;
    exec_warp *warps;
    const device_range *recent; /* the last range that an address was found in */
    cuda_emulator_counters counters;
    bool failed;
} exec_block;

static inline u32 *exec_u32(const exec_warp *w, u32 place) {
    return (u32 *)(void *)(w->registers + (size_t)place * LINE);
}

static inline u64 *exec_u64(const exec_warp *w, u32 place) {
    return (u64 *)(void *)(w->registers + (size_t)place * LINE);
}

/* A check failed at an instruction: note it once per launch and stop the block. lane < 0: the whole warp. */
void exec_fail(exec_block *b, const exec_warp *w, u32 loc, int lane, enum cuda_emulator_check check,
               const char *format, ...) __attribute__((format(printf, 6, 7)));

/* exec_generic.c, exec_avx2.c, exec_avx512.c: run a warp until it waits, ends or fails. */
typedef void exec_run(exec_block *b, exec_warp *w);
exec_run exec_run_generic, exec_run_avx2, exec_run_avx512;

/* access.c: memory instructions, for the lanes of `lanes`. False where a check failed. */
bool exec_load(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes);
bool exec_store(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes);
bool exec_ldmatrix(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes);

/* atomics.c */
bool exec_atomic(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes);

/* copies.c */
bool exec_copy_issue(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes);
void exec_copy_commit(exec_warp *w, u32 lanes);
bool exec_copy_wait(exec_block *b, exec_warp *w, u32 lanes, u32 pending, bool uncommitted);

/* resolve an address of one lane to bytes of this process; NULL and a report where it is none. */
unsigned char *exec_resolve(exec_block *b, exec_warp *w, const ptx_instruction *i, int lane, u64 address,
                            u32 size, int *space);
u64 exec_address(const exec_warp *w, const ptx_instruction *i, u32 place, int lane, s64 offset, bool wide);

/* check.c: the shadow of shared memory. */
bool shadow_read(exec_block *b, exec_warp *w, u32 loc, int lane, u32 address, u32 size);
enum shadow_kind {
    SHADOW_WRITE,
    SHADOW_ATOMIC,
    SHADOW_SAME /* the value that is there already: no race of writes */
};
bool shadow_write(exec_block *b, exec_warp *w, u32 loc, int lane, u32 address, u32 size,
                  enum shadow_kind kind);
void shadow_poison(exec_block *b, const exec_warp *w, int lane, u32 address, u32 size);
void shadow_land(exec_block *b, const exec_warp *w, int lane, u32 address, u32 size);
void shadow_barrier(exec_block *b);
void shadow_clear(exec_block *b);
size_t shadow_granules(u32 shared_bytes);

/* counters.c: bank conflicts and sectors of one request. */
void count_shared(exec_block *b, const u64 *addresses, u32 lanes, u32 size);
void count_global(exec_block *b, const u64 *addresses, u32 lanes, u32 size);

/* launch.c: run all blocks; false where a check failed (it was reported). */
bool exec_grid(exec_launch *launch);

#endif
