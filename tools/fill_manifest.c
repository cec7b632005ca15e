/*
 * fill_manifest.c: `fill_manifest TEMPLATE FOLDER OUT [WITHOUT...]` copies a manifest and fills in size,
 * SHA-256 and architecture of each library, found at its path beneath FOLDER; libraries whose id is one of
 * WITHOUT are left out. OUT is replaced in one step, readable by all and writable by its owner.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Size and digest of one file in the manifest's own spelling. */
static int measure(const char *path, json_int_t *size, char digest_text[2 * SHA256_DIGEST_SIZE + 1]) {
    struct sha256_ctx context;
    uint8_t buffer[65536], digest[SHA256_DIGEST_SIZE];
    size_t got;
    FILE *file = fopen(path, "rbe");
    if (!file)
        return fail(path, strerror(errno));
    sha256_init(&context);
    *size = 0;
    while ((got = fread(buffer, 1, sizeof buffer, file)) > 0) {
        sha256_update(&context, got, buffer);
        *size += (json_int_t)got;
    }
    int broken = ferror(file);
    (void)fclose(file);
    if (broken)
        return fail(path, "cannot be read");
    sha256_digest(&context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; ++i)
        (void)snprintf(digest_text + 2 * i, 3, "%02x", digest[i]);
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

static int fill(json_t *manifest, const char *template, const char *folder) {
    json_t *libraries = json_object_get(manifest, "libraries"), *library;
    size_t index;
    if (!json_is_array(libraries))
        return fail(template, "$.libraries: expected a list");
    json_array_foreach(libraries, index, library) {
        const char *relative = json_string_value(json_object_get(library, "path"));
        char path[PATH_MAX], digest[2 * SHA256_DIGEST_SIZE + 1];
        json_int_t size;
        if (!relative)
            return fail(template, "$.libraries[]: each needs a path");
        int length = snprintf(path, sizeof path, "%s/%s", folder, relative);
        if (length < 0 || (size_t)length >= sizeof path)
            return fail(relative, "the path is too long");
        if (measure(path, &size, digest))
            return 1;
        if (json_object_set_new(library, "size", json_integer(size)) ||
            json_object_set_new(library, "sha256", json_string(digest)) ||
            json_object_set_new(library, "arch", json_string(ARCH)) ||
            json_object_set_new(library, "isa_min", json_string(ISA_MIN)))
            return fail(template, "out of memory");
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
