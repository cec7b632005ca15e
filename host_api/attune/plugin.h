/*
 * attune/plugin.h: the one symbol that a plugin exports, and the services that a host offers it.
 *
 * Order of calls: attune_plugin_entry → create → get_interface … calls into interfaces … → quiesce → destroy.
 * One library copy may hold several instances. After `destroy` of the last instance the host may unmap the
 * library.
 */
#ifndef ATTUNE_PLUGIN_H
#define ATTUNE_PLUGIN_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * An order of work on a device. On a CPU it is the request's execution context: `native` is the host's pool
 * and work is done when a call returns. On a GPU `native` is the vendor's stream (cudaStream_t) and calls
 * only enqueue. One request uses it at a time.
 */
typedef struct attune_stream {
    uint32_t struct_size;
    uint32_t workers; /* CPU: how many threads parallel_for may use, ≥ 1; 0 elsewhere */
    attune_device_id device;
    void *native;
    void *owner; /* the host's: what keeps the library loaded that made the stream; plugins leave it alone */
} attune_stream;

/* What a caller may ask of a call while it runs; passed per call, never global. All fields may be 0. */
typedef struct attune_control {
    uint32_t struct_size;
    uint32_t reserved;
    void *context;
    int32_t (*cancelled)(void *context); /* [any] not 0: stop soon, return CANCELLED. Must not block. */
    uint64_t
        deadline; /* clock service's nanoseconds, 0 = none; passed: stop soon, return DEADLINE_EXCEEDED */
} attune_control;

/* Service "attune.memory/1": memory on the CPU, counted per plugin and by tag. [any], does not block. */
typedef struct attune_memory_service {
    uint32_t struct_size;
    uint32_t reserved;
    /* `bytes` aligned to 64, not cleared; NULL when memory or the plugin's limit is used up (bytes = 0 is
     * served too). `tag` is static text such as "weights", "activations". The caller owns it until free. */
    void *(*alloc)(void *context, uint64_t bytes, const char *tag);
    void (*free)(void *context, void *memory); /* NULL is allowed */
    void *context;
} attune_memory_service;

/* Service "attune.log/1". [any] One line without a newline; the host decides where it goes. */
enum { ATTUNE_LOG_DEBUG = 0, ATTUNE_LOG_INFO = 1, ATTUNE_LOG_WARNING = 2, ATTUNE_LOG_ERROR = 3 };
typedef struct attune_log_service {
    uint32_t struct_size;
    uint32_t reserved;
    void (*log)(void *context, int32_t level, const char *message);
    void *context;
} attune_log_service;

/* One task of parallel_for: `task` in [0, n), `worker` in [0, stream->workers). Not OK ends the loop early.
 */
typedef attune_code (*attune_task)(void *context, uint64_t task, uint32_t worker, attune_error *error);

/* Service "attune.parallel/1". */
typedef struct attune_parallel_service {
    uint32_t struct_size;
    uint32_t reserved;
    /*
     * Run tasks 0 … n−1, each once, on at most stream->workers threads, the caller among them; returns when
     * all are done. Two running tasks never share a worker number. Nested calls run inline, ascending, under
     * the outer worker's number. Concurrent callers share the pool. Tasks run with the default floating-point
     * environment (MXCSR 0x1F80). After an error no task with a higher number starts, and that of the
     * lowest-numbered task that fails is returned. How work is cut into tasks never depends on workers where
     * the class is `invariant` or above.
     */
    attune_code (*parallel_for)(void *context, const attune_stream *stream, uint64_t n, attune_task task,
                                void *task_context, attune_error *error);
    void *context;
} attune_parallel_service;

/* Service "attune.clock/1". [any] Monotonic nanoseconds from an arbitrary start. */
typedef struct attune_clock_service {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t (*now)(void *context);
    void *context;
} attune_clock_service;

/* What a host offers a plugin; outlives every instance that was created with it. */
typedef struct attune_host {
    uint32_t struct_size;
    uint32_t abi; /* the version that attune_plugin_entry agreed on */
    void *context;
    /* [any] A service by id ("attune.memory/1"), or NULL. Owned by the host. The four above are always there.
     */
    const void *(*get_service)(const struct attune_host *host, const char *id);
} attune_host;

/* A plugin's table; static data of the library. */
typedef struct attune_plugin {
    uint32_t struct_size;
    uint32_t abi;        /* the version that this table follows */
    const char *id;      /* "attune-cpu": must equal the manifest's */
    const char *version; /* "1.0.0" (semver) */
    const char *vendor;
    const char *licence; /* SPDX */
    /* [any] Make an instance. No threads, no device work beyond looking. Errors: UNAVAILABLE (the machine
     * lacks what is needed, with what to do), RESOURCE_EXHAUSTED. */
    attune_code (*create)(const attune_host *host, void **instance, attune_error *error);
    /* [any] An interface's table by id ("attune.attention/1") or NULL. Owned by the plugin, valid until
     * destroy. */
    const void *(*get_interface)(void *instance, const char *id);
    /* Called once, after the last lease has ended, in a thread of its own (where none is to be had, in the
     * one that gave the last lease back): thread-local state of create is not there. No other call into this
     * instance runs or follows, but destroy. Wait until no enqueued work refers to this instance. May block;
     * after 5 s the host goes on without it (docs/abi.md, rule 56). */
    attune_code (*quiesce)(void *instance, attune_error *error);
    /* In the same thread, after quiesce, also where that failed. Free everything of this instance. Every
     * model and session was closed before. */
    void (*destroy)(void *instance);
} attune_plugin;
ATTUNE_STATIC_ASSERT(sizeof(attune_plugin) == 72, "attune_plugin is part of the ABI");
ATTUNE_STATIC_ASSERT(sizeof(attune_stream) == 48, "attune_stream is part of the ABI");
ATTUNE_STATIC_ASSERT(sizeof(attune_control) == 32, "attune_control is part of the ABI");

/*
 * The only exported symbol. In: *abi = the newest version that the host speaks. Out: *abi = the newest that
 * both speak, *out = the table that follows it. [any], no side effects. Errors: UNIMPLEMENTED where they
 * share none (*abi = the plugin's oldest).
 */
#define ATTUNE_PLUGIN_ENTRY "attune_plugin_entry"
typedef attune_code (*attune_plugin_entry_function)(uint32_t *abi, const attune_plugin **out);

#ifdef __cplusplus
}
#endif
#endif
