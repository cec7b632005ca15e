/*
 * tests/kernels/plugin_host.h: a plugin loaded by its entry, and a host for it made of nothing but the four
 * services: memory that counts and can run out, a pool of threads per call, a clock that the test sets.
 */
#ifndef ATTUNE_TEST_KERNELS_PLUGIN_HOST_H
#define ATTUNE_TEST_KERNELS_PLUGIN_HOST_H

#include "attune/attention.h"
#include "attune/device.h"

typedef struct plugin_host {
    attune_host host;
    attune_memory_service memory;
    attune_log_service log;
    attune_parallel_service parallel;
    attune_clock_service clock;
    uint64_t now;        /* what the clock says */
    int64_t allocations; /* not yet freed */
    char said[256];      /* the last line of the log */
    int32_t memory_is_out;
    const char *without; /* a service that this host lacks */
    attune_plugin_entry_function entry;
    const attune_plugin *plugin;
    void *instance;
    const attune_attention_interface *attention;
    const attune_device_interface *device;
    attune_device_id id; /* of the first device */
} plugin_host;

/* Open the library and set up the services; no instance yet. */
void plugin_host_open(plugin_host *host);
/* The same, with an instance and its two tables. */
void plugin_host_start(plugin_host *host);
/* The same two with another library of the build folder, such as "attune-cuda.so"; `id` is then that of its
 * first device. */
void plugin_host_open_library(plugin_host *host, const char *name);
void plugin_host_start_library(plugin_host *host, const char *name);
/* Destroy the instance and check that nothing is left allocated. */
void plugin_host_stop(plugin_host *host);
/* A stream of `workers` threads: what parallel_for of this host expects. */
attune_stream plugin_host_stream(const plugin_host *host, uint32_t workers);

#endif
