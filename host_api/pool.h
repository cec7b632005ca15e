/*
 * pool.h: the threads behind the service attune.parallel/1. A pool of N threads is the caller and N − 1 of
 * its own, made once at attune_open; concurrent callers share them.
 */
#ifndef HOST_API_POOL_H
#define HOST_API_POOL_H

#include "attune/plugin.h"

typedef struct attune_pool attune_pool;

/* [any] Make a pool; starts threads − 1 threads with every signal blocked. `threads` ≥ 1. Errors:
 * RESOURCE_EXHAUSTED. */
attune_code attune_pool_create(uint32_t threads, attune_pool **out, attune_error *error);
/* [main] Stop and join the threads; no call may run in the pool, and not from one of its tasks. NULL is
 * allowed. */
void attune_pool_destroy(attune_pool *pool);
/* [any] The number that attune_pool_create was given. */
uint32_t attune_pool_threads(const attune_pool *pool);

/* How deep this thread is in a plugin's call or in a callback of the application's: 0 = not at all. From
 * inside nothing may be asked for that waits for such calls to end. */
extern _Thread_local unsigned attune_inside;

/* [any] plugin.h's parallel_for; `pool` is the service's context. Blocks until every task is done.
 * Errors: INVALID_ARGUMENT (no stream, no workers, n ≥ 2^63), else that of the lowest task that failed. */
attune_code attune_pool_run(void *pool, const attune_stream *stream, uint64_t n, attune_task task,
                            void *task_context, attune_error *error);

#endif
