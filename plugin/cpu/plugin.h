/*
 * plugin/cpu/plugin.h: what the files of attune-cpu share: the instance and its tables.
 */
#ifndef ATTUNE_PLUGIN_CPU_H
#define ATTUNE_PLUGIN_CPU_H

#include "attune/attention.h"
#include "attune/device.h"
#include "kernels/cpu/dispatch.h"

#define CPU_PLUGIN_ID "attune-cpu"
#define CPU_ALIGNMENT 64u /* of device memory and workspaces: a cache line, and an AVX-512 register */

/* Immutable after create, so that every [any] function may read it without a lock. */
typedef struct cpu_instance {
    const attune_memory_service *memory;
    const attune_parallel_service *parallel;
    const attune_clock_service *clock;
    attune_cpu_kernels kernels;
    attune_device_id device;
    uint64_t memory_total; /* bytes that this process may use; 0 = unknown */
    char vendor[32];
    char label[64];
} cpu_instance;

extern const attune_device_interface cpu_device_table;
extern const attune_attention_interface cpu_attention_table;

/* [any] Vendor and product name from cpuid, and a UUID made of them and, where `root`/etc/machine-id exists,
 * of that: the same at every start, different on different machines as far as they can be told apart. Fills
 * device, vendor and label. */
void cpu_identify(cpu_instance *cpu, const char *root);

/* [any] Whether a struct that says `size` holds all of what this plugin knows (`needed`); fills `error` where
 * not. */
int cpu_struct_fits(uint32_t size, size_t needed, const char *where, attune_error *error);

#endif
