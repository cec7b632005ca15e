/* files.c: opening files beneath a folder, with the checks that loading code needs (design: before dlopen).
 */
#include "files.h"
#include "structs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static attune_code system_failure(attune_error *error, attune_code code, const char *path, const char *what,
                                  int number) {
    (void)attune_fail(error, code, ATTUNE_DOMAIN, path, "%s: %s", what, strerror(number));
    if (error)
        error->native_code = number;
    return code;
}

/* The owner is root or we, and nobody else can write. */
static attune_code check_safe(const struct stat *state, const char *kind, const char *path,
                              attune_error *error) {
    if (state->st_uid != 0 && state->st_uid != geteuid()) {
        (void)attune_fail(error, ATTUNE_PERMISSION_DENIED, ATTUNE_DOMAIN, path,
                          "%s belongs to user %u, not to root or this user (%u)", kind,
                          (unsigned)state->st_uid, (unsigned)geteuid());
        attune_hint(error, "chown %u %s", (unsigned)geteuid(), path);
        return ATTUNE_PERMISSION_DENIED;
    }
    if (state->st_mode & (S_IWGRP | S_IWOTH)) {
        (void)attune_fail(
            error, ATTUNE_PERMISSION_DENIED, ATTUNE_DOMAIN, path, "%s can be written by %s (mode %04o)", kind,
            state->st_mode & S_IWOTH ? "everybody" : "its group", (unsigned)state->st_mode & 07777);
        attune_hint(error, "chmod go-w %s", path);
        return ATTUNE_PERMISSION_DENIED;
    }
    return ATTUNE_OK;
}

attune_code attune_folder_open(const char *path, int *out, attune_error *error) {
    struct stat state;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return system_failure(
            error, errno == ENOENT || errno == ENOTDIR ? ATTUNE_NOT_FOUND : ATTUNE_PERMISSION_DENIED, path,
            "cannot open the folder", errno);
    attune_code code = fstat(fd, &state) == 0
                           ? check_safe(&state, "the folder", path, error)
                           : system_failure(error, ATTUNE_UNAVAILABLE, path, "cannot stat", errno);
    if (code)
        (void)close(fd);
    else
        *out = fd;
    return code;
}

/* Open one component without following a link; `last` = it is the file itself. O_NONBLOCK: a FIFO must not
 * hang us. */
static attune_code open_component(int folder, const char *name, int last, const char *path, int *out,
                                  struct stat *state, attune_error *error) {
    int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (last ? O_NONBLOCK | O_NOCTTY : O_DIRECTORY);
    int fd = openat(folder, name, flags);
    if (fd < 0) {
        int number = errno;
        if (number == ELOOP || (number == ENOTDIR && fstatat(folder, name, state, AT_SYMLINK_NOFOLLOW) == 0 &&
                                S_ISLNK(state->st_mode)))
            return attune_fail(error, ATTUNE_PERMISSION_DENIED, ATTUNE_DOMAIN, path,
                               "\"%s\" is a symbolic link, and none is followed beneath a manifest's folder",
                               name);
        return system_failure(
            error, number == ENOENT || number == ENOTDIR ? ATTUNE_NOT_FOUND : ATTUNE_PERMISSION_DENIED, path,
            "cannot open", number);
    }
    attune_code code = ATTUNE_OK;
    if (fstat(fd, state) != 0)
        code = system_failure(error, ATTUNE_UNAVAILABLE, path, "cannot stat", errno);
    else if (last && !S_ISREG(state->st_mode))
        code = attune_fail(error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, path, "not a regular file");
    else
        code = check_safe(state, last ? "the file" : "the folder", path, error);
    if (code)
        (void)close(fd);
    else
        *out = fd;
    return code;
}

attune_code attune_file_open(int folder, const char *folder_path, const char *relative, int *out,
                             uint64_t *size, attune_error *error) {
    char path[1024], name[256];
    struct stat state;
    int at = folder;
    memset(&state, 0, sizeof state);
    size_t used = (size_t)snprintf(path, sizeof path, "%s", folder_path);
    for (const char *rest = relative;;) {
        size_t length = strcspn(rest, "/");
        int last = !rest[length], next = -1;
        attune_code code = ATTUNE_OK;
        if (length >= sizeof name || used + length + 2 > sizeof path)
            code = attune_fail(error, ATTUNE_OUT_OF_RANGE, ATTUNE_DOMAIN, folder_path,
                               "a path that is too long");
        else {
            memcpy(name, rest, length);
            name[length] = 0;
            used += (size_t)snprintf(path + used, sizeof path - used, "/%s", name);
            code = open_component(at, name, last, path, &next, &state, error);
        }
        if (at != folder)
            (void)close(at);
        if (code)
            return code;
        if (last) {
            *out = next;
            *size = (uint64_t)state.st_size;
            return ATTUNE_OK;
        }
        at = next;
        rest += length + 1;
    }
}

attune_code attune_file_read(int file, const char *path, uint64_t limit, char **out, size_t *length,
                             attune_error *error) {
    size_t used = 0, room = 65536;
    char *text = malloc(room + 1);
    while (text) {
        ssize_t got = read(file, text + used, room - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int number = errno;
            free(text);
            return system_failure(error, ATTUNE_UNAVAILABLE, path, "cannot read", number);
        }
        used += (size_t)got;
        if (used > limit) {
            char bytes[32];
            attune_text_bytes(bytes, limit);
            free(text);
            return attune_fail(error, ATTUNE_OUT_OF_RANGE, ATTUNE_DOMAIN, path, "larger than the limit of %s",
                               bytes);
        }
        if (got == 0) {
            text[used] = 0;
            *out = text;
            *length = used;
            return ATTUNE_OK;
        }
        if (used == room) {
            char *more = realloc(text, 2 * room + 1);
            if (!more)
                free(text);
            text = more;
            room *= 2;
        }
    }
    return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, path, "no memory to read it");
}
