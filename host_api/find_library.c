/* find_library.c: see find_library.h. */
#include "find_library.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CACHE "/etc/ld.so.cache"

/* As the linker opens it: with the rights of the effective user, and no folder. */
static bool readable(const char *path) {
    struct stat state;
    return faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) == 0 && stat(path, &state) == 0 &&
           !S_ISDIR(state.st_mode);
}

/* A folder's builds for some processors: which of them this one takes is the linker's to say. */
static bool lies_in_hwcaps(const char *folder, size_t length, const char *name) {
    char path[PATH_MAX];
    int size = snprintf(path, sizeof path, "%.*s/glibc-hwcaps", (int)length, folder);
    DIR *list = size > 0 && (size_t)size < sizeof path ? opendir(path) : NULL;
    const struct dirent *entry;
    bool found = false;
    while (list && !found && (entry = readdir(list)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        size =
            snprintf(path, sizeof path, "%.*s/glibc-hwcaps/%s/%s", (int)length, folder, entry->d_name, name);
        found = size > 0 && (size_t)size < sizeof path && readable(path);
    }
    if (list)
        (void)closedir(list);
    return found;
}

static attune_finding lies_in(const char *folder, size_t length, const char *name) {
    char path[PATH_MAX];
    if (length == 0)
        return ATTUNE_LIBRARY_MISSING;
    if (memchr(folder, '$', length))
        return ATTUNE_LIBRARY_UNCLEAR;
    const int size = snprintf(path, sizeof path, "%.*s/%s", (int)length, folder, name);
    if (size > 0 && (size_t)size < sizeof path && readable(path))
        return ATTUNE_LIBRARY_FOUND;
    return lies_in_hwcaps(folder, length, name) ? ATTUNE_LIBRARY_UNCLEAR : ATTUNE_LIBRARY_MISSING;
}

/* Of two places: what one has is found, whatever the other says. */
static attune_finding either(attune_finding a, attune_finding b) {
    if (a == ATTUNE_LIBRARY_FOUND || b == ATTUNE_LIBRARY_FOUND)
        return ATTUNE_LIBRARY_FOUND;
    return a == ATTUNE_LIBRARY_UNCLEAR ? a : b;
}

static attune_finding in_list(const char *list, const char *name) {
    attune_finding finding = ATTUNE_LIBRARY_MISSING;
    for (;;) {
        const size_t length = strcspn(list, ":");
        finding = either(finding, lies_in(list, length, name));
        if (!list[length])
            return finding;
        list += length + 1;
    }
}

static attune_finding in_own_path_of(void *program, const char *name) {
    Dl_serinfo size;
    attune_finding finding = ATTUNE_LIBRARY_MISSING;
    if (dlinfo(program, RTLD_DI_SERINFOSIZE, &size) != 0)
        return ATTUNE_LIBRARY_UNCLEAR;
    Dl_serinfo *path = malloc(size.dls_size);
    if (!path)
        return ATTUNE_LIBRARY_UNCLEAR;
    *path = size;
    if (dlinfo(program, RTLD_DI_SERINFO, path) != 0)
        finding = ATTUNE_LIBRARY_UNCLEAR;
    else
        for (unsigned i = 0; i < path->dls_cnt; ++i) {
            const char *const folder = path->dls_serpath[i].dls_name;
            finding = either(finding, lies_in(folder, strlen(folder), name));
        }
    free(path);
    return finding;
}

/* The folders that the linker looks through for this program. */
static attune_finding in_own_path(const char *name) {
    void *const program = dlopen(NULL, RTLD_LAZY);
    if (!program)
        return ATTUNE_LIBRARY_UNCLEAR;
    const attune_finding finding = in_own_path_of(program, name);
    (void)dlclose(program);
    return finding;
}

/* Each library's path stands in the cache's table of strings, with a NUL behind it; whatever lies before that
 * table, no byte of a path is below a space. */
static bool in_bytes(const char *bytes, size_t size, const char *name) {
    char last[NAME_MAX + 2], path[PATH_MAX];
    const int length = snprintf(last, sizeof last, "/%s", name);
    if (length < 0 || (size_t)length >= sizeof last)
        return false;
    const char *at = bytes;
    while ((at = memmem(at, size - (size_t)(at - bytes), last, (size_t)length + 1)) != NULL) {
        const char *from = at;
        while (from > bytes && (unsigned char)from[-1] >= ' ')
            --from;
        if (*from == '/' && (size_t)snprintf(path, sizeof path, "%s", from) < sizeof path && readable(path))
            return true;
        ++at;
    }
    return false;
}

static attune_finding in_cache(const char *name) {
    struct stat state;
    attune_finding finding = ATTUNE_LIBRARY_UNCLEAR;
    const int file = open(CACHE, O_RDONLY | O_CLOEXEC);
    if (file < 0) /* a system without a cache has nothing in it */
        return errno == ENOENT ? ATTUNE_LIBRARY_MISSING : ATTUNE_LIBRARY_UNCLEAR;
    if (fstat(file, &state) == 0 && state.st_size > 0) {
        const size_t size = (size_t)state.st_size;
        char *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
        if (bytes != MAP_FAILED) {
            finding = in_bytes(bytes, size, name) ? ATTUNE_LIBRARY_FOUND : ATTUNE_LIBRARY_MISSING;
            (void)munmap(bytes, size);
        }
    }
    (void)close(file);
    return finding;
}

attune_finding attune_find_library(const char *name, const char *search_path) {
    void *const loaded = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (loaded) {
        (void)dlclose(loaded);
        return ATTUNE_LIBRARY_FOUND;
    }
    attune_finding finding = search_path ? in_list(search_path, name) : ATTUNE_LIBRARY_UNCLEAR;
    if (finding != ATTUNE_LIBRARY_FOUND)
        finding = either(finding, in_own_path(name));
    return finding == ATTUNE_LIBRARY_FOUND ? finding : either(finding, in_cache(name));
}
