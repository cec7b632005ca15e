/*
 * services.h: what the host offers this plugin, looked up once.
 */
#ifndef ATTUNE_SAMPLER_SERVICES_H
#define ATTUNE_SAMPLER_SERVICES_H

#include "attune/plugin.h"
#include "plugin/sampler/domain.h"

/* The host's four services; they outlive every instance. [any] */
typedef struct services {
    const attune_memory_service *memory;
    const attune_log_service *log;
    const attune_parallel_service *parallel;
    const attune_clock_service *clock;
} services;

/* [any] Host memory for `count` items of `size` bytes, cleared; NULL when it is used up or the product
 * overflows. */
static inline void *services_clear_alloc(const services *host, uint64_t count, uint64_t size,
                                         const char *tag) {
    uint64_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX)
        return NULL;
    void *memory = host->memory->alloc(host->memory->context, bytes, tag);
    return memory ? memset(memory, 0, (size_t)bytes) : NULL;
}

static inline void services_free(const services *host, void *memory) {
    host->memory->free(host->memory->context, memory);
}

/* [any] RESOURCE_EXHAUSTED for an allocation that failed. */
static inline attune_code services_no_memory(const char *what, uint64_t bytes, attune_error *error) {
    return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, what,
                       "no memory for %s (%llu bytes)", what, (unsigned long long)bytes);
}

#endif
