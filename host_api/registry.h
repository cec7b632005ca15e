/*
 * registry.h: what is loaded, as immutable snapshots. A generation is one load of one library: its private
 * copy, its instance and what its tables said. Snapshots, bindings, models and sessions lease generations; a
 * generation that left the current snapshot is retired, and is quiesced and destroyed by whoever gives back
 * its last lease.
 *
 * Replacing a library is one publish with a generation to add and one to drop: readers go on with the
 * snapshot that they hold, and nothing waits for them.
 */
#ifndef HOST_API_REGISTRY_H
#define HOST_API_REGISTRY_H

#include "attune/host.h"
#include "files.h"
#include "manifest.h"
#include "probe.h"
#include "services.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* PARKED: ended, but still mapped. STUCK: its quiesce has not come back. STAGED: not published yet. */
enum {
    ATTUNE_STATE_ACTIVE = 0,
    ATTUNE_STATE_REFUSED = 1,
    ATTUNE_STATE_RETIRED = 2,
    ATTUNE_STATE_STAGED = 3,
    ATTUNE_STATE_STUCK = 4,
    ATTUNE_STATE_PARKED = 5
};

/* How many generations of a host may be parked before a swap is refused. */
#define ATTUNE_PARKED_MOST 32u
/* How long whoever gives back the last lease waits for quiesce, in milliseconds. */
#define ATTUNE_QUIESCE_WAIT 5000u

typedef struct attune_generation {
    atomic_uint leases;
    atomic_int state;
    attune *host; /* held */
    uint64_t number;
    uint32_t abi;
    char id[64];
    char version[32];
    char vendor[64];
    char path[512];
    char refused[320];
    int32_t refused_code;
    char manifest[512];
    uint8_t sha256[32];
    const char *stage;     /* what is being done to load it: static text */
    char search_path[512]; /* where its code looks for shared libraries first; see elf_check.h */
    bool search_path_known;
    char unload_risk[96];           /* why it is parked rather than unmapped; "" = nothing found */
    struct attune_generation *next; /* in the registry's list of all */
    struct attune_burial *burial;   /* for its end, made at the start so that ending cannot fail */

    /* Of a library that was loaded (all NULL or 0 otherwise). */
    attune_copy copy;
    void *handle;
    bool unload_safe;
    bool parked; /* its code stays mapped until the process ends */
    attune_services services;
    const attune_plugin *plugin;
    void *instance;
    const attune_device_interface *device;
    attune_device_info *devices; /* as described when it was loaded */
    uint32_t device_count;
    const attune_attention_interface *attention;
    attune_attention_info *backends;
    uint64_t *memory_min;               /* of each backend, from the manifest */
    char (*lacks)[ATTUNE_LIBRARY_NAME]; /* of each: a shared library that it needs and that is not found */
    uint32_t attention_count;
    const attune_sampler_interface *sampler; /* NULL = none */
    attune_sampler_info sampler_info;
    uint64_t sampler_memory_min;
} attune_generation;

/* The stage between the checks of a file and its load: are the shared libraries there that it needs? */
#define ATTUNE_STAGE_LIBRARIES "libraries"

/* [any] Whether a refusal with `code`, at `stage`, says that this machine lacks what the library needs (an
 * instruction set, a shared library, a GPU) and not that something is wrong with the plugin. It is then no
 * warning where nobody asked for the library by name, and no refusal of the others beside it. */
bool attune_lacks_machine(const char *stage, attune_code code);

struct attune_snapshot {
    atomic_uint references;
    attune *host; /* held by whoever acquired it, not by the snapshot itself */
    uint32_t count;
    attune_generation *generation[]; /* leased */
};

typedef struct attune_registry {
    pthread_mutex_t lock;
    attune_snapshot *current; /* one reference is the registry's */
    attune_snapshot *closed;  /* empty; made at the start so that closing cannot fail */
    atomic_uint_fast64_t numbers;
    attune_generation *all; /* every generation that is not freed yet, newest first */
    uint32_t parked;        /* of these */
    bool is_closed;
} attune_registry;

/* A host. Handles hold it, so that a handle that outlives attune_close never points into freed memory. */
struct attune {
    atomic_uint references;
    attune_pool *pool;
    attune_logger logger;
    attune_account total; /* memory of all plugins */
    attune_registry registry;
    pthread_mutex_t load_lock; /* one load or swap at a time */
    attune_probes probes;      /* beneath load_lock */
    uint32_t parked_most;
    uint32_t quiesce_wait; /* milliseconds */
    char *plugin_dir;
    char *vocabulary; /* NULL = none */
};

/* [any] Hold a host, and drop it; the last drop stops the threads and frees it. */
void attune_host_hold(attune *host);
void attune_host_drop(attune *host);

/* [main] Errors: RESOURCE_EXHAUSTED. */
attune_code attune_registry_init(attune *host, attune_error *error);
/* [main] Retire all: afterwards every acquire gives an empty snapshot. */
void attune_registry_close(attune *host);
/* [main] Free the registry itself, after close. */
void attune_registry_free(attune_registry *registry);

/* [any] The first library that was refused, to name it where something is missing; NULL = none. */
const attune_generation *attune_snapshot_refused(const attune_snapshot *snapshot);

/* [any] A cleared generation with the next number, holding the host, with one lease that is the caller's;
 * NULL when memory is out. */
attune_generation *attune_generation_new(attune *host);
/* What end.c will need for it; NULL = no memory. */
struct attune_burial *attune_burial_new(void);
attune_generation *attune_generation_lease(attune_generation *generation);
/* [any] Give back a lease. The last one has a thread of its own quiesce and destroy the instance and park or
 * unmap the library, and waits for it, but no longer than the host's quiesce_wait: then the generation is
 * STUCK and stays in the list until quiesce comes back. */
void attune_generation_release(attune_generation *generation);

/* [any] Publish a snapshot with `add` (its lease is taken over on success) and without `drop`; either may be
 * NULL. Dropped is retired. Errors: RESOURCE_EXHAUSTED, CANCELLED (the host is closing): nothing has changed.
 */
attune_code attune_registry_publish(attune *host, attune_generation *add, attune_generation *drop,
                                    attune_error *error);

/* [any] Put a generation into the list of all, once its id, version and path are set. */
void attune_generation_list(attune_generation *generation);
/* [any] Of a listed generation, at whatever stage: number, id, version, path, state, and the refusal. */
void attune_generation_identity(const attune_generation *generation, attune_plugin_status *out);
/* [any] Fill a status from a published generation. */
void attune_generation_status(const attune_generation *generation, attune_plugin_status *out);

/* [any] Find an active device in a snapshot: by id, or by name where `id` is NULL. Returns its description as
 * of loading and, where wanted, who drives it under which index; NULL where there is none. */
const attune_device_info *attune_snapshot_find_device(const attune_snapshot *snapshot,
                                                      const attune_device_id *id, const char *name,
                                                      attune_generation **owner, uint32_t *index);

#endif
