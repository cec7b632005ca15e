/* cpus.h: how many threads this process may keep busy. */
#ifndef HOST_API_CPUS_H
#define HOST_API_CPUS_H

#include <stdint.h>

/* [any] CPUs that the affinity mask allows, limited by the cgroup's CPU quota (rounded up); at least 1. */
uint32_t attune_cpus_allowed(void);

/*
 * [any] The smallest CPU quota (rounded up to whole CPUs) that binds a process, or 0 for none. `membership`
 * is the text of /proc/self/cgroup, `root` where the cgroup file systems are mounted. Every level counts,
 * from the process's own group up to the root: version 2 as `cpu.max`, version 1 as `cpu.cfs_quota_us` over
 * `cpu.cfs_period_us` (Documentation/admin-guide/cgroup-v2.rst, Documentation/scheduler/sched-bwc.rst).
 */
uint32_t attune_cpus_quota(const char *membership, const char *root);

#endif
