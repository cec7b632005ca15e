/*
 * services.h: what a host offers a plugin (plugin.h): counted memory, log, parallel_for, clock. One set per
 * loaded library, so that memory and messages carry its id.
 */
#ifndef HOST_API_SERVICES_H
#define HOST_API_SERVICES_H

#include "attune/plugin.h"
#include "pool.h"
#include <stdatomic.h>

/* Where messages go: the application's function, or nowhere. */
typedef struct attune_logger {
    void (*log)(void *context, int32_t level, const char *domain, const char *message);
    void *context;
} attune_logger;

/* [any] One line to the application; does nothing where it wants none. */
__attribute__((format(printf, 4, 5))) void attune_log(const attune_logger *logger, int32_t level,
                                                      const char *domain, const char *format, ...);

/* Bytes held now and the most so far. `parent`, where not NULL, counts the same bytes again (the host's
 * total). */
typedef struct attune_account {
    struct attune_account *parent;
    atomic_uint_fast64_t current;
    atomic_uint_fast64_t peak;
} attune_account;

#define ATTUNE_MAX_TAGS 16

/* Bytes held under one tag; the last of the table takes every tag that finds no room. */
typedef struct attune_tag_count {
    _Atomic(const char *) tag;
    atomic_uint_fast64_t current;
} attune_tag_count;

typedef struct attune_services {
    attune_host host; /* what the plugin gets: its context is this struct */
    attune_memory_service memory;
    attune_log_service log;
    attune_parallel_service parallel;
    attune_clock_service clock;
    const attune_logger *logger;
    attune_account account;
    attune_tag_count tags[ATTUNE_MAX_TAGS];
    char id[64];
} attune_services;

/* [main] Fill `services` for the library `id`. Pool, logger and total must outlive it; it must not move
 * afterwards. */
void attune_services_init(attune_services *services, const char *id, uint32_t abi, attune_pool *pool,
                          const attune_logger *logger, attune_account *total);

/* [any] plugin.h's alloc and free, for the host's own use on a plugin's account (workspaces). */
void *attune_services_alloc(void *services, uint64_t bytes, const char *tag);
void attune_services_free(void *services, void *memory);

/* [main] After destroy: say in the log what the plugin did not free, by tag. */
void attune_services_report_leaks(const attune_services *services);

/* [any] Monotonic nanoseconds: the clock service. */
uint64_t attune_services_now(void *context);

#endif
