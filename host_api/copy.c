/* copy.c: the private copy of a library, so that the bytes that were checked are the bytes that run. */
#include "files.h"
#include "structs.h"
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010u /* Linux 6.3: wanted where the sysctl vm.memfd_noexec is 1, unknown before */
#endif

static attune_code copy_failed(attune_error *error, const char *path, const char *what, int number) {
    attune_code code = number == ENOSPC || number == ENOMEM || number == EDQUOT || number == EFBIG
                           ? ATTUNE_RESOURCE_EXHAUSTED
                           : ATTUNE_UNAVAILABLE;
    (void)attune_fail(error, code, ATTUNE_DOMAIN, path, "%s: %s", what, strerror(number));
    if (error)
        error->native_code = number;
    return code;
}

/* Copy exactly `size` bytes; the file must end there. */
static attune_code copy_bytes(int from, int to, uint64_t size, const char *path, attune_error *error) {
    char buffer[65536];
    uint64_t done = 0;
    for (;;) {
        ssize_t got = read(from, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return copy_failed(error, path, "cannot read", errno);
        if (got == 0)
            break;
        done += (uint64_t)got;
        if (done > size)
            break;
        for (ssize_t written = 0; written < got;) {
            ssize_t put = write(to, buffer + written, (size_t)(got - written));
            if (put < 0 && errno != EINTR)
                return copy_failed(error, path, "cannot write the private copy", errno);
            written += put > 0 ? put : 0;
        }
    }
    if (done != size)
        return attune_fail(error, ATTUNE_DATA_LOSS, ATTUNE_DOMAIN, path,
                           "its size changed while it was read");
    return ATTUNE_OK;
}

/* Whether the system lets this file be code: dlopen would fail with a less clear message. */
static int may_execute(int fd) {
    void *page = mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    if (page == MAP_FAILED)
        return 0;
    (void)munmap(page, 1);
    return 1;
}

/* A memfd, or −1 where the system has none or does not let /proc name it. */
static int make_memfd(const char *name, attune_copy *out) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    (void)snprintf(out->path, sizeof out->path, "/proc/self/fd/%d", fd);
    if (ftruncate(fd, 1) != 0 || access(out->path, R_OK) != 0 || !may_execute(fd) || ftruncate(fd, 0) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static attune_code make_file(const char *name, const char *path, attune_copy *out, attune_error *error) {
    const char *temporary = secure_getenv("TMPDIR");
    if (!temporary || *temporary != '/')
        temporary = "/tmp";
    int length = snprintf(out->folder, sizeof out->folder, "%s/attune-XXXXXX", temporary);
    if (length < 0 || (size_t)length >= sizeof out->folder || !mkdtemp(out->folder)) {
        int number = errno;
        *out->folder = 0;
        return copy_failed(error, path, "cannot make a private folder for the copy", number);
    }
    length = snprintf(out->path, sizeof out->path, "%s/%s", out->folder, name);
    out->fd = length < 0 || (size_t)length >= sizeof out->path
                  ? -1
                  : open(out->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out->fd >= 0)
        return ATTUNE_OK;
    int number = errno;
    attune_copy_remove(out);
    return copy_failed(error, path, "cannot make the private copy", number);
}

static attune_code map_copy(attune_copy *out, const char *path, attune_error *error) {
    void *bytes = mmap(NULL, (size_t)out->size, PROT_READ, MAP_PRIVATE, out->fd, 0);
    if (bytes == MAP_FAILED)
        return copy_failed(error, path, "cannot map the private copy", errno);
    out->bytes = bytes;
    return ATTUNE_OK;
}

/* From here on nobody, not even this process, can change the copy: what is hashed is what runs. A file cannot
 * be sealed, but lies in a folder that only this user can enter. */
static attune_code seal(attune_copy *out, const char *path, attune_error *error) {
    if (*out->folder)
        return fchmod(out->fd, 0500) == 0
                   ? ATTUNE_OK
                   : copy_failed(error, path, "cannot protect the private copy", errno);
    if (fcntl(out->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return ATTUNE_OK;
    return copy_failed(error, path, "cannot seal the private copy", errno);
}

attune_code attune_copy_make(int file, uint64_t size, const char *name, const char *path, attune_copy *out,
                             attune_error *error) {
    memset(out, 0, sizeof *out);
    out->fd = -1;
    out->size = size;
    const char *wish = secure_getenv("ATTUNE_PLUGIN_COPY");
    if (!wish || strcmp(wish, "file") != 0)
        out->fd = make_memfd(name, out);
    attune_code code = out->fd >= 0 ? ATTUNE_OK : make_file(name, path, out, error);
    if (!code)
        code = copy_bytes(file, out->fd, size, path, error);
    if (!code)
        code = seal(out, path, error);
    if (!code)
        code = map_copy(out, path, error);
    if (code) {
        attune_copy_remove(out);
        attune_copy_close(out);
    }
    return code;
}

static void hex(char out[65], const uint8_t bytes[32]) {
    for (int i = 0; i < 32; ++i)
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

attune_code attune_copy_verify(const attune_copy *copy, const uint8_t sha256[32], const char *path,
                               attune_error *error) {
    struct sha256_ctx context;
    uint8_t digest[SHA256_DIGEST_SIZE];
    char found[65], expected[65];
    sha256_init(&context);
    sha256_update(&context, (size_t)copy->size, copy->bytes);
    sha256_digest(&context, sizeof digest, digest);
    if (memcmp(digest, sha256, sizeof digest) == 0)
        return ATTUNE_OK;
    hex(found, digest);
    hex(expected, sha256);
    (void)attune_fail(error, ATTUNE_UNAUTHENTICATED, ATTUNE_DOMAIN, path,
                      "SHA-256 is %s, the manifest says %s", found, expected);
    attune_hint(error, "install it again, or run tools/fill_manifest after a build");
    return ATTUNE_UNAUTHENTICATED;
}

void attune_copy_unmap(attune_copy *copy) {
    if (copy->bytes)
        (void)munmap((void *)copy->bytes, (size_t)copy->size);
    copy->bytes = NULL;
}

void attune_copy_remove(attune_copy *copy) {
    if (!*copy->folder)
        return;
    (void)unlink(copy->path);
    (void)rmdir(copy->folder);
    *copy->folder = 0;
}

void attune_copy_close(attune_copy *copy) {
    attune_copy_unmap(copy);
    if (copy->fd >= 0)
        (void)close(copy->fd);
    copy->fd = -1;
}
