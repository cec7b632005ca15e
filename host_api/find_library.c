/* find_library.c: see find_library.h. */
#include "find_library.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CACHE "/etc/ld.so.cache"

static bool lies_in(const char *folder, size_t length, const char *name) {
    char path[PATH_MAX];
    const int size = snprintf(path, sizeof path, "%.*s/%s", (int)length, folder, name);
    return length > 0 && size > 0 && (size_t)size < sizeof path && access(path, R_OK) == 0;
}

static bool in_list(const char *list, const char *name) {
    for (;;) {
        const size_t length = strcspn(list, ":");
        if (lies_in(list, length, name))
            return true;
        if (!list[length])
            return false;
        list += length + 1;
    }
}

/* The folders that the linker looks through for this program. */
static bool in_own_path(void *program, const char *name) {
    Dl_serinfo size;
    bool found = false;
    if (dlinfo(program, RTLD_DI_SERINFOSIZE, &size) != 0)
        return false;
    Dl_serinfo *path = malloc(size.dls_size);
    if (!path)
        return false;
    *path = size;
    if (dlinfo(program, RTLD_DI_SERINFO, path) == 0)
        for (unsigned i = 0; i < path->dls_cnt && !found; ++i)
            found = lies_in(path->dls_serpath[i].dls_name, strlen(path->dls_serpath[i].dls_name), name);
    free(path);
    return found;
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
        if (*from == '/' && (size_t)snprintf(path, sizeof path, "%s", from) < sizeof path &&
            access(path, R_OK) == 0)
            return true;
        ++at;
    }
    return false;
}

static bool in_cache(const char *name) {
    struct stat state;
    bool found = false;
    const int file = open(CACHE, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    if (fstat(file, &state) == 0 && state.st_size > 0) {
        const size_t size = (size_t)state.st_size;
        char *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
        if (bytes != MAP_FAILED) {
            found = in_bytes(bytes, size, name);
            (void)munmap(bytes, size);
        }
    }
    (void)close(file);
    return found;
}

bool attune_find_library(const char *name, const char *search_path) {
    void *const loaded = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (loaded) {
        (void)dlclose(loaded);
        return true;
    }
    void *const program = dlopen(NULL, RTLD_LAZY);
    const bool found =
        in_list(search_path, name) || (program && in_own_path(program, name)) || in_cache(name);
    if (program)
        (void)dlclose(program);
    return found;
}
