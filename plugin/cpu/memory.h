/*
 * plugin/cpu/memory.h: how much memory this process may use: the machine's, limited by its control groups.
 */
#ifndef ATTUNE_PLUGIN_CPU_MEMORY_H
#define ATTUNE_PLUGIN_CPU_MEMORY_H

#include <stdint.h>

typedef struct cpu_memory {
    uint64_t total; /* bytes */
    uint64_t free;
} cpu_memory;

/*
 * [any] Reads ROOT/proc/meminfo (MemTotal, MemAvailable), then lowers both by the limits of the process's own
 * control group and all groups above it, of version 2 (memory.max, memory.current) and version 1
 * (memory.limit_in_bytes, memory.usage_in_bytes), as ROOT/proc/self/cgroup and ROOT/proc/self/mountinfo name
 * them. Page cache that the kernel can drop (inactive_file) counts as free, as it does in MemAvailable.
 * `root` is "" but in tests. Returns 0 where the machine's memory cannot be read; files of control groups
 * that are missing limit nothing.
 */
int cpu_memory_read(const char *root, cpu_memory *out);

#endif
