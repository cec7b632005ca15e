/* output.c: files appear whole or not at all. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char current_temporary[4096]; /* for output_abandon_all; one output is open at a time */

attune_code output_errno(attune_error *error, const char *doing, const char *path) {
    int number = errno;
    attune_code code = ATTUNE_UNKNOWN;
    if (number == ENOENT || number == ENOTDIR)
        code = ATTUNE_NOT_FOUND;
    else if (number == EACCES || number == EPERM || number == EROFS)
        code = ATTUNE_PERMISSION_DENIED;
    else if (number == ENOSPC || number == EDQUOT || number == EFBIG || number == ENOMEM || number == EMFILE)
        code = ATTUNE_RESOURCE_EXHAUSTED;
    else if (number == EINTR)
        code = ATTUNE_CANCELLED;
    else if (number == EISDIR || number == ENAMETOOLONG || number == ELOOP)
        code = ATTUNE_FAILED_PRECONDITION;
    attune_fail(error, code, "sample_host", path, "cannot %s %s: %s", doing, path, strerror(number));
    if (error)
        error->native_code = number;
    if (number == ENOSPC || number == EDQUOT)
        attune_hint(error, "free some space or choose another folder with -o");
    else if (number == ENOENT)
        attune_hint(error, "check the path; folders are not created");
    return code;
}

/* What a path names once links are followed, also one to a file that is not there yet. A folder's links are
 * the system's to follow, and a circle of links is stat's to refuse. */
static void follow(const char *path, char out[4096]) {
    enum { MOST_LINKS = 40 }; /* as Linux follows */
    char target[4096];
    (void)snprintf(out, 4096, "%s", path);
    for (int links = 0; links < MOST_LINKS; ++links) {
        ssize_t length = readlink(out, target, sizeof target - 1);
        if (length < 0)
            return;
        target[length] = 0;
        char *slash = strrchr(out, '/'), *name = slash && target[0] != '/' ? slash + 1 : out;
        (void)snprintf(name, 4096 - (size_t)(name - out), "%s", target);
    }
}

attune_code output_check(const char *path, attune_error *error) {
    struct stat status;
    char real[4096], folder[4096] = ".";
    if (strlen(path) + 16 > sizeof real)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, "sample_host", path,
                           "the output's path is too long");
    int exists = stat(path, &status) == 0;
    if (!exists && errno != ENOENT)
        return output_errno(error, "write", path);
    if (exists && S_ISDIR(status.st_mode)) {
        attune_fail(error, ATTUNE_FAILED_PRECONDITION, "sample_host", path, "%s is a folder, not a file",
                    path);
        attune_hint(error, "give a file name: -o %s/picture.png", path);
        return ATTUNE_FAILED_PRECONDITION;
    }
    if (exists && access(path, W_OK) != 0)
        return output_errno(error, "write", path);
    if (exists && !S_ISREG(status.st_mode))
        return ATTUNE_OK;
    follow(path, real);
    const char *slash = strrchr(real, '/');
    if (slash)
        (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - real) + 1, real);
    if (stat(folder, &status) != 0) {
        attune_fail(error, ATTUNE_NOT_FOUND, "sample_host", folder, "the output folder %s does not exist",
                    folder);
        attune_hint(error, "make it first: mkdir -p %s", folder);
        return ATTUNE_NOT_FOUND;
    }
    return access(folder, W_OK | X_OK) == 0 ? ATTUNE_OK : output_errno(error, "write to folder", folder);
}

/* A temporary file beside `file->path`; a signal that ends the process finds its name. */
static int make_temporary(output_file *file) {
    const char *slash = strrchr(file->path, '/');
    int folder = slash ? (int)(slash - file->path) + 1 : 0;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    (void)snprintf(file->temporary, sizeof file->temporary, "%.*s.attune-XXXXXX", folder, file->path);
    int fd = mkostemp(file->temporary, O_CLOEXEC);
    if (fd < 0)
        file->temporary[0] = 0;
    memcpy(current_temporary, file->temporary, sizeof current_temporary);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return fd;
}

attune_code output_begin(output_file *file, const char *path, attune_error *error) {
    struct stat status;
    memset(file, 0, sizeof *file);
    attune_code code = output_check(path, error);
    if (code != ATTUNE_OK)
        return code;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) { /* a device or pipe: nothing to rename over */
        (void)snprintf(file->path, sizeof file->path, "%s", path);
        file->stream = fopen(path, "wbe");
        return file->stream ? ATTUNE_OK : output_errno(error, "write", path);
    }
    follow(path, file->path);
    int fd = make_temporary(file);
    if (fd < 0)
        return output_errno(error, "write", path);
    mode_t mask = umask(0);
    umask(mask);
    file->stream = fchmod(fd, 0666 & ~mask) == 0 ? fdopen(fd, "wb") : NULL;
    if (!file->stream) {
        code = output_errno(error, "write", path);
        close(fd);
        output_abandon(file);
    }
    return code;
}

attune_code output_commit(output_file *file, int keep, attune_error *error) {
    int broken = ferror(file->stream) || fflush(file->stream) != 0;
    if (fclose(file->stream) != 0)
        broken = 1;
    file->stream = NULL;
    if (broken) {
        attune_code code = output_errno(error, "write", file->path);
        output_abandon(file);
        return code;
    }
    if (!file->temporary[0])
        return ATTUNE_OK;
    int failed = renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->path, keep ? RENAME_NOREPLACE : 0);
    int linked = failed && keep && errno == EINVAL; /* a file system without RENAME_NOREPLACE */
    if (linked)
        failed = link(file->temporary, file->path);
    if (failed) {
        attune_code code = errno == EEXIST ? ATTUNE_ALREADY_EXISTS : output_errno(error, "write", file->path);
        output_abandon(file);
        return code;
    }
    if (!linked)
        file->temporary[0] = current_temporary[0] = 0;
    output_abandon(file);
    return ATTUNE_OK;
}

void output_abandon(output_file *file) {
    if (file->stream)
        fclose(file->stream);
    file->stream = NULL;
    if (file->temporary[0])
        unlink(file->temporary);
    file->temporary[0] = current_temporary[0] = 0;
}

void output_abandon_all(void) {
    if (current_temporary[0])
        unlink(current_temporary);
}
