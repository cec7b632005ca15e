/* output.c: files appear whole or not at all. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
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
    else if (number == EISDIR || number == ENAMETOOLONG)
        code = ATTUNE_INVALID_ARGUMENT;
    attune_fail(error, code, "sample_host", path, "cannot %s %s: %s", doing, path, strerror(number));
    if (error)
        error->native_code = number;
    if (number == ENOSPC || number == EDQUOT)
        attune_hint(error, "free some space or choose another folder with -o");
    else if (number == ENOENT)
        attune_hint(error, "check the path; folders are not created");
    return code;
}

attune_code output_begin(output_file *file, const char *path, attune_error *error) {
    struct stat status;
    memset(file, 0, sizeof *file);
    if (strlen(path) + 16 > sizeof file->temporary)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, "sample_host", path,
                           "the output's path is too long");
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        attune_fail(error, ATTUNE_INVALID_ARGUMENT, "sample_host", path, "%s is a folder, not a file", path);
        attune_hint(error, "give a file name: -o %s/picture.png", path);
        return ATTUNE_INVALID_ARGUMENT;
    }
    if (!realpath(path, file->path)) /* a link is followed to what it names; one to nothing is replaced */
        (void)snprintf(file->path, sizeof file->path, "%s", path);
    path = file->path;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) { /* a device or pipe: nothing to rename over */
        file->stream = fopen(path, "wbe");
        return file->stream ? ATTUNE_OK : output_errno(error, "write", path);
    }
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    (void)snprintf(file->temporary, sizeof file->temporary, "%.*s.attune-XXXXXX", folder, path);
    int fd = mkostemp(file->temporary, O_CLOEXEC);
    if (fd < 0) {
        file->temporary[0] = 0;
        return output_errno(error, "write", path);
    }
    mode_t mask = umask(0);
    umask(mask);
    memcpy(current_temporary, file->temporary, sizeof current_temporary);
    file->stream = fchmod(fd, 0666 & ~mask) == 0 ? fdopen(fd, "wb") : NULL;
    if (!file->stream) {
        attune_code code = output_errno(error, "write", path);
        close(fd);
        output_abandon(file);
        return code;
    }
    return ATTUNE_OK;
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
