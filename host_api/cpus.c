/* cpus.c: how many threads this process may keep busy: affinity mask and cgroup quota. */
#include "cpus.h"
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_text(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t length = fread(text, 1, size - 1, file);
    text[length] = 0;
    (void)fclose(file);
    return length > 0;
}

static uint32_t whole_cpus(long long quota, long long period) {
    if (quota <= 0 || period <= 0)
        return 0;
    long long cpus = quota / period + (quota % period != 0);
    return cpus > UINT32_MAX ? 0 : (uint32_t)cpus;
}

/* The quota of one group's folder, 0 = none. */
static uint32_t folder_quota(const char *folder, bool v2) {
    char path[PATH_MAX + 32], text[64];
    long long quota = 0, period = 0;
    if (v2) {
        (void)snprintf(path, sizeof path, "%s/cpu.max", folder);
        return read_text(path, text, sizeof text) && sscanf(text, "%lld %lld", &quota, &period) == 2
                   ? whole_cpus(quota, period)
                   : 0;
    }
    (void)snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!read_text(path, text, sizeof text) || sscanf(text, "%lld", &quota) != 1)
        return 0;
    (void)snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!read_text(path, text, sizeof text) || sscanf(text, "%lld", &period) != 1)
        return 0;
    return whole_cpus(quota, period);
}

/* The smallest quota from `group` (such as "/user.slice/app") up to the mount point, 0 = none. */
static uint32_t path_quota(const char *mount, const char *group, bool v2) {
    char folder[PATH_MAX];
    uint32_t least = 0;
    int length = snprintf(folder, sizeof folder, "%s%s", mount, group);
    if (length < 0 || (size_t)length >= sizeof folder)
        return 0;
    size_t bottom = strlen(mount);
    for (;;) {
        uint32_t quota = folder_quota(folder, v2);
        if (quota && (!least || quota < least))
            least = quota;
        char *slash = strrchr(folder + bottom, '/');
        if (!slash)
            return least;
        *slash = 0;
    }
}

static bool names_cpu(const char *controllers) {
    char list[256];
    (void)snprintf(list, sizeof list, ",%s,", controllers);
    return strstr(list, ",cpu,") != NULL;
}

uint32_t attune_cpus_quota(const char *membership, const char *root) {
    uint32_t least = 0;
    while (*membership) {
        char line[PATH_MAX], mount[PATH_MAX];
        size_t length = strcspn(membership, "\n");
        (void)snprintf(line, sizeof line, "%.*s", (int)(length < sizeof line ? length : sizeof line - 1),
                       membership);
        membership += length + (membership[length] == '\n');
        /* "0::/path" is version 2; "4:cpu,cpuacct:/path" is version 1 */
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *controllers++ = 0;
        *group++ = 0;
        bool v2 = !*controllers && strcmp(line, "0") == 0;
        if (!v2 && !names_cpu(controllers))
            continue;
        int written = snprintf(mount, sizeof mount, "%s%s", root, v2 ? "" : "/cpu");
        if (written < 0 || (size_t)written >= sizeof mount)
            continue;
        uint32_t quota = path_quota(mount, group, v2);
        if (quota && (!least || quota < least))
            least = quota;
    }
    return least;
}

static uint32_t affinity_count(void) {
    /* The kernel refuses a mask that is smaller than its own, so grow until it fits. */
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set)
            return 1;
        size_t size = CPU_ALLOC_SIZE(cpus);
        if (sched_getaffinity(0, size, set) == 0) {
            int count = CPU_COUNT_S(size, set);
            CPU_FREE(set);
            return count > 0 ? (uint32_t)count : 1;
        }
        CPU_FREE(set);
    }
    return 1;
}

uint32_t attune_cpus_allowed(void) {
    char membership[8192];
    uint32_t cpus = affinity_count();
    uint32_t quota = 0;
    if (read_text("/proc/self/cgroup", membership, sizeof membership))
        quota = attune_cpus_quota(membership, "/sys/fs/cgroup");
    return quota && quota < cpus ? quota : cpus;
}
