/* plugin/cpu/memory.c: the machine's memory and its control groups' limits. Formats: proc(5), cgroups(7), and
 * the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. */
#include "plugin/cpu/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 4096
#define LINE_BYTES 8192

/* The file names of one version of control groups. */
typedef struct cgroup_version {
    const char *filesystem;
    const char *limit;
    const char *usage;
    const char *cache; /* key in memory.stat: what the kernel can drop, of the whole subtree */
} cgroup_version;

static const cgroup_version version_1 = {"cgroup", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                         "total_inactive_file"};
static const cgroup_version version_2 = {"cgroup2", "memory.max", "memory.current", "inactive_file"};

/* The number after "KEY " or "KEY:" at the start of a line; KEY NULL: the file's first number. 0 where there
 * is none. */
static int read_number(const char *path, const char *key, uint64_t *out) {
    char line[256];
    int found = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    while (!found && fgets(line, sizeof line, file)) {
        const size_t skip = key ? strlen(key) : 0;
        const char *rest = line + skip;
        if (key && (strncmp(line, key, skip) != 0 || (*rest != ' ' && *rest != ':')))
            continue;
        rest += *rest == ':';
        found = sscanf(rest, "%" SCNu64, out) == 1;
        if (!key)
            break; /* "max": no limit */
    }
    (void)fclose(file);
    return found;
}

/* One of the comma-separated words of `list` is `word`. */
static int has_word(const char *list, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == 0))
            return 1;
    return 0;
}

/* The process's group in the hierarchy that accounts memory: lines are "number:controllers:path". */
static int find_group(const char *root, const cgroup_version *version, char group[PATH_BYTES]) {
    char path[PATH_BYTES], line[LINE_BYTES];
    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    int found = 0;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *name = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!name)
            continue;
        *name++ = 0;
        ++controllers;
        found = version == &version_2 ? *controllers == 0 : has_word(controllers, "memory");
        if (found && snprintf(group, PATH_BYTES, "%s", name) >= PATH_BYTES)
            found = 0;
    }
    (void)fclose(file);
    return found;
}

/* Where that hierarchy is mounted, and which of its groups is the mount's root (not "/" inside some
 * containers). Fields of mountinfo: id, parent, device, root, mount point, options, optional fields, "-",
 * type, source, super options. */
static int find_mount(const char *root, const cgroup_version *version, char mount[PATH_BYTES],
                      char top[PATH_BYTES]) {
    char path[PATH_BYTES], line[LINE_BYTES];
    if (snprintf(path, sizeof path, "%s/proc/self/mountinfo", root) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    int found = 0;
    while (!found && fgets(line, sizeof line, file)) {
        char type[64], options[1024];
        const char *dash = strstr(line, " - ");
        found = dash && sscanf(dash, " - %63s %*s %1023s", type, options) == 2 &&
                strcmp(type, version->filesystem) == 0 &&
                (version == &version_2 || has_word(options, "memory")) &&
                sscanf(line, "%*s %*s %*s %4095s %4095s", top, mount) == 2;
    }
    (void)fclose(file);
    return found;
}

/* Lowers `out` by the limit of the group in folder `folder`. */
static void apply_limit(const char *folder, const cgroup_version *version, cpu_memory *out) {
    char path[PATH_BYTES + 64];
    uint64_t limit, usage = 0, cache = 0;
    (void)snprintf(path, sizeof path, "%s/%s", folder, version->limit);
    if (!read_number(path, NULL, &limit))
        return;
    (void)snprintf(path, sizeof path, "%s/%s", folder, version->usage);
    if (!read_number(path, NULL, &usage))
        usage = 0;
    (void)snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (!read_number(path, version->cache, &cache))
        cache = 0;
    usage -= cache < usage ? cache : usage;
    const uint64_t left = usage < limit ? limit - usage : 0;
    out->total = limit < out->total ? limit : out->total;
    out->free = left < out->free ? left : out->free;
}

static void apply_groups(const char *root, const cgroup_version *version, cpu_memory *out) {
    char group[PATH_BYTES], mount[PATH_BYTES], top[PATH_BYTES], folder[PATH_BYTES];
    if (!find_group(root, version, group) || !find_mount(root, version, mount, top))
        return;
    /* The group relative to the mount; one outside of what is mounted here can only be judged by the mount's
     * root. */
    const size_t prefix = strcmp(top, "/") == 0 ? 0 : strlen(top);
    const char *relative = "";
    if (strncmp(group, top, prefix) == 0 && (group[prefix] == '/' || group[prefix] == 0) &&
        !strstr(group, "/.."))
        relative = group + prefix;
    const int base = snprintf(folder, sizeof folder, "%s%s", root, mount);
    if (base < 0 || base >= (int)sizeof folder ||
        snprintf(folder + base, sizeof folder - (size_t)base, "%s", relative) >= (int)sizeof folder - base)
        return;
    for (;;) {
        apply_limit(folder, version, out);
        char *last = strrchr(folder + base, '/');
        if (!last)
            break;
        *last = 0;
    }
}

int cpu_memory_read(const char *root, cpu_memory *out) {
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/proc/meminfo", root) >= (int)sizeof path ||
        !read_number(path, "MemTotal", &out->total))
        return 0;
    if (!read_number(path, "MemAvailable", &out->free) && !read_number(path, "MemFree", &out->free))
        return 0;
    out->total *= 1024;
    out->free *= 1024;
    apply_groups(root, &version_2, out);
    apply_groups(root, &version_1, out);
    if (out->free > out->total)
        out->free = out->total;
    return 1;
}
