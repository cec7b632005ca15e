/* end.c: the end of a generation: quiesce, destroy, unmap or park, in a thread of its own. */
#include "loader.h"
#include "registry.h"
#include <stdlib.h>
#include <time.h>

/* What the thread and the one who waits for it share; freed by the last of the two. */
typedef struct attune_burial {
    attune_generation *generation;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    bool abandoned; /* nobody waits any more */
} burial;

/* Out of the list and freed, or kept there as parked. Drops the generation's hold on the host. */
static void forget(attune_generation *generation) {
    attune *host = generation->host;
    attune_registry *registry = &host->registry;
    (void)pthread_mutex_lock(&registry->lock);
    if (generation->parked) {
        ++registry->parked;
        atomic_store(&generation->state, ATTUNE_STATE_PARKED);
    } else {
        attune_generation **at = &registry->all;
        while (*at && *at != generation)
            at = &(*at)->next;
        if (*at)
            *at = generation->next;
    }
    bool parked = generation->parked;
    free(generation->burial);
    generation->burial = NULL;
    (void)pthread_mutex_unlock(&registry->lock);
    if (!parked)
        free(generation);
    attune_host_drop(host);
}

static void free_burial(burial *work) {
    (void)pthread_cond_destroy(&work->changed);
    (void)pthread_mutex_destroy(&work->lock);
    free(work);
}

static void *bury(void *argument) {
    burial *work = argument;
    attune_generation *generation = work->generation;
    attune_loader_unload(generation);
    (void)pthread_mutex_lock(&work->lock);
    work->done = true;
    bool abandoned = work->abandoned;
    (void)pthread_cond_signal(&work->changed);
    (void)pthread_mutex_unlock(&work->lock);
    if (abandoned) {
        attune_log(&generation->host->logger, ATTUNE_LOG_INFO, generation->id,
                   "generation %llu is quiet at last", (unsigned long long)generation->number);
        free_burial(work);
    }
    forget(generation);
    return NULL;
}

/* Wait for the thread, or give up: then it goes on alone. */
static void wait_for(burial *work, pthread_t thread, uint32_t milliseconds) {
    attune_generation *generation = work->generation; /* while !done: afterwards it may be gone */
    struct timespec until;
    int late = 0;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t wait = (uint64_t)until.tv_nsec + (uint64_t)milliseconds * 1000000u;
    until.tv_sec += (time_t)(wait / 1000000000u);
    until.tv_nsec = (long)(wait % 1000000000u);
    (void)pthread_mutex_lock(&work->lock);
    while (!work->done && !late)
        late = pthread_cond_timedwait(&work->changed, &work->lock, &until);
    if (!work->done) {
        work->abandoned = true;
        atomic_store(&generation->state, ATTUNE_STATE_STUCK);
        attune_log(&generation->host->logger, ATTUNE_LOG_ERROR, generation->id,
                   "quiesce of generation %llu has not come back after %u ms: it stays loaded, and nothing "
                   "new runs on it",
                   (unsigned long long)generation->number, milliseconds);
    }
    bool joined = !work->abandoned;
    (void)pthread_mutex_unlock(&work->lock);
    if (joined) {
        (void)pthread_join(thread, NULL);
        free_burial(work);
    } else
        (void)pthread_detach(thread);
}

/* A thread of its own, so that a quiesce that hangs takes no request with it; false where there is none. */
static bool bury_apart(attune_generation *generation) {
    burial *work = generation->burial;
    pthread_condattr_t monotonic;
    pthread_t thread;
    uint32_t milliseconds = generation->host->quiesce_wait;
    generation->burial = NULL;
    work->generation = generation;
    (void)pthread_mutex_init(&work->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&work->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    if (pthread_create(&thread, NULL, bury, work) != 0) {
        free_burial(work);
        return false;
    }
    wait_for(work, thread, milliseconds);
    return true;
}

struct attune_burial *attune_burial_new(void) {
    return calloc(1, sizeof(burial));
}

void attune_generation_release(attune_generation *generation) {
    if (!generation || atomic_fetch_sub_explicit(&generation->leases, 1, memory_order_acq_rel) != 1)
        return;
    if (generation->instance && bury_apart(generation))
        return;
    attune_loader_unload(generation);
    forget(generation);
}
