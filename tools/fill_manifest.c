/*
 * fill_manifest.c: `fill_manifest TEMPLATE FOLDER OUT [WITHOUT...]` copies a manifest and fills in size,
 * SHA-256, architecture and the shared libraries that it needs of each library, found at its path beneath
 * FOLDER; libraries whose id is one of WITHOUT are left out. OUT is replaced in one step, readable by all and
 * writable by its owner.
 */
#include "host_api/elf_check.h"
#include "host_api/json_fields.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The libraries are built for what this tool is. */
#ifdef __aarch64__
#define ARCH    "aarch64"
#define ISA_MIN "armv8-a"
#else
#define ARCH    "x86_64"
#define ISA_MIN "x86-64"
#endif

static int fail(const char *path, const char *what) {
    fprintf(stderr, "fill_manifest: %s: %s\n", path, what);
    return 1;
}

/* One file's bytes, mapped; the caller unmaps. NULL with a line said. */
static void *map_file(const char *path, size_t *size) {
    struct stat state;
    void *bytes = MAP_FAILED;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &state) == 0) {
        *size = (size_t)state.st_size;
        bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    }
    const int number = errno;
    if (fd >= 0)
        (void)close(fd);
    if (bytes != MAP_FAILED)
        return bytes;
    (void)fail(path, strerror(number));
    return NULL;
}

/* The digest in the manifest's own spelling. */
static void digest_of(const void *bytes, size_t size, char text[2 * SHA256_DIGEST_SIZE + 1]) {
    struct sha256_ctx context;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&context);
    sha256_update(&context, size, bytes);
    sha256_digest(&context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; ++i)
        (void)snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

static bool lists(const json_t *list, const char *name) {
    size_t index;
    const json_t *one;
    json_array_foreach(list, index, one) {
        const char *text = json_string_value(one);
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

/* Adds what the linker would have to find to the library's `requires`. What a manifest has no room or no
 * spelling for is left to the linker: a manifest that the host refuses would help nobody. */
static int require(json_t *library, const void *bytes, size_t size) {
    json_t *required = json_object_get(library, "requires");
    const char *name;
    for (uint32_t i = 0; (name = attune_elf_needed(bytes, size, i)) != NULL; ++i) {
        if (lists(required, name))
            continue;
        if (!json_is_library(name) || json_array_size(required) >= ATTUNE_MANIFEST_REQUIRED) {
            const char *path = json_string_value(json_object_get(library, "path"));
            (void)fprintf(stderr, "fill_manifest: %s: needs %s, which a manifest cannot list\n", path, name);
        } else if (json_array_append_new(required, json_string(name)))
            return 1;
    }
    return 0;
}

static void leave_out(json_t *manifest, const char *id) {
    json_t *libraries = json_object_get(manifest, "libraries");
    for (size_t i = json_array_size(libraries); i-- > 0;) {
        const char *has = json_string_value(json_object_get(json_array_get(libraries, i), "id"));
        if (has && strcmp(has, id) == 0)
            (void)json_array_remove(libraries, i);
    }
}

static int fill_library(json_t *library, const char *template, const char *folder) {
    const char *relative = json_string_value(json_object_get(library, "path"));
    char path[PATH_MAX], digest[2 * SHA256_DIGEST_SIZE + 1];
    size_t size = 0;
    if (!relative)
        return fail(template, "$.libraries[]: each needs a path");
    int length = snprintf(path, sizeof path, "%s/%s", folder, relative);
    if (length < 0 || (size_t)length >= sizeof path)
        return fail(relative, "the path is too long");
    void *bytes = map_file(path, &size);
    if (!bytes)
        return 1;
    digest_of(bytes, size, digest);
    int bad = json_object_set_new(library, "size", json_integer((json_int_t)size)) ||
              json_object_set_new(library, "sha256", json_string(digest)) ||
              json_object_set_new(library, "arch", json_string(ARCH)) ||
              json_object_set_new(library, "isa_min", json_string(ISA_MIN)) || require(library, bytes, size);
    (void)munmap(bytes, size);
    return bad ? fail(template, "out of memory, or a library without a list `requires`") : 0;
}

static int fill(json_t *manifest, const char *template, const char *folder) {
    json_t *libraries = json_object_get(manifest, "libraries"), *library;
    size_t index;
    if (!json_is_array(libraries))
        return fail(template, "$.libraries: expected a list");
    json_array_foreach(libraries, index, library) {
        if (fill_library(library, template, folder))
            return 1;
    }
    return 0;
}

/* Write beside the target, then rename: nobody ever reads half a manifest. */
static int write_whole(const json_t *manifest, const char *path) {
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof temporary)
        return fail(path, "the path is too long");
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(temporary, strerror(errno));
    int bad =
        fchmod(fd, 0644) != 0 || json_dumpfd(manifest, fd, JSON_INDENT(4)) != 0 || write(fd, "\n", 1) != 1;
    bad |= close(fd) != 0;
    if (!bad && rename(temporary, path) == 0)
        return 0;
    int number = errno;
    (void)unlink(temporary);
    return fail(path, strerror(number));
}

int main(int argc, char **argv) {
    json_error_t problem;
    if (argc < 4) {
        fprintf(stderr, "usage: fill_manifest TEMPLATE FOLDER OUT [WITHOUT...]\n");
        return 2;
    }
    json_t *manifest = json_load_file(argv[1], JSON_REJECT_DUPLICATES, &problem);
    if (!manifest) {
        fprintf(stderr, "fill_manifest: %s:%d: %s\n", argv[1], problem.line, problem.text);
        return 1;
    }
    for (int i = 4; i < argc; ++i)
        leave_out(manifest, argv[i]);
    int status = fill(manifest, argv[1], argv[2]);
    if (!status)
        status = write_whole(manifest, argv[3]);
    json_decref(manifest);
    return status;
}
