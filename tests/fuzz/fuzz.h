/*
 * fuzz.h: what the fuzz targets share. A target is one file that defines LLVMFuzzerTestOneInput: libFuzzer
 * calls it (`make fuzz`), and so does replay.c with the files of tests/fuzz/corpus (`make check-fuzz`).
 */
#ifndef ATTUNE_FUZZ_H
#define ATTUNE_FUZZ_H

#include "attune/plugin.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* libFuzzer's entry point (llvm.org/docs/LibFuzzer.html): read `size` bytes, return 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that must hold for every input; abort is what libFuzzer takes for a crash. */
#define FUZZ_CHECK(condition)                                                                                \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);             \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* 1 where text ends within `size` bytes and is one line that cannot drive a terminal. */
static inline int fuzz_is_line(const char *text, size_t size) {
    for (size_t i = 0; i < size; ++i) {
        if (text[i] == 0)
            return 1;
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return 0;
    }
    return 0;
}

/* What abi.h promises of a failure. Fill `error` with 0xff beforehand to see that it was written. */
static inline void fuzz_check_error(attune_code code, const attune_error *error) {
    if (code == ATTUNE_OK)
        return;
    FUZZ_CHECK(code > ATTUNE_OK && code <= ATTUNE_UNAUTHENTICATED);
    FUZZ_CHECK(code != ATTUNE_INTERNAL);
    FUZZ_CHECK(error->code == code);
    FUZZ_CHECK(error->message[0] != 0 && fuzz_is_line(error->message, sizeof error->message));
    FUZZ_CHECK(fuzz_is_line(error->where, sizeof error->where));
    FUZZ_CHECK(fuzz_is_line(error->hint, sizeof error->hint));
}

/* A memory service of exact sizes, so that AddressSanitizer sees every byte beyond a block. */
typedef struct fuzz_memory {
    attune_memory_service service;
    uint64_t calls;
    uint64_t fail_at; /* the call, from 1, that gets NULL; 0 = none */
    int64_t live;
} fuzz_memory;

static inline void *fuzz_alloc(void *context, uint64_t bytes, const char *tag) {
    fuzz_memory *memory = context;
    (void)tag;
    void *block = NULL;
    if (++memory->calls == memory->fail_at || posix_memalign(&block, 64, bytes ? bytes : 1) != 0)
        return NULL;
    memset(block, 0xa5, bytes); /* the service does not clear */
    memory->live++;
    return block;
}

static inline void fuzz_release(void *context, void *block) {
    ((fuzz_memory *)context)->live -= block != NULL;
    free(block);
}

static inline void fuzz_memory_init(fuzz_memory *memory, uint64_t fail_at) {
    *memory = (fuzz_memory){.fail_at = fail_at};
    memory->service = (attune_memory_service){sizeof memory->service, 0, fuzz_alloc, fuzz_release, memory};
}

/* Make the open file hold exactly these bytes. */
static inline void fuzz_fill(int file, const void *data, size_t size) {
    FUZZ_CHECK(ftruncate(file, 0) == 0);
    FUZZ_CHECK(size == 0 || pwrite(file, data, size, 0) == (ssize_t)size);
}

/* The path of a file in memory with these bytes; one file, that each call overwrites. */
static inline const char *fuzz_file(const void *data, size_t size) {
    static int file = -1;
    static char path[32];
    if (file < 0) {
        file = memfd_create("fuzz", MFD_CLOEXEC);
        FUZZ_CHECK(file >= 0);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    fuzz_fill(file, data, size);
    return path;
}

/* A folder of this process beneath $TMPDIR; who runs the target removes that (tests/fuzz/run.sh). */
static inline const char *fuzz_folder(void) {
    static char path[200];
    if (!path[0]) {
        const char *parent = getenv("TMPDIR");
        (void)snprintf(path, sizeof path, "%s/attune-fuzz-XXXXXX", parent ? parent : "/tmp");
        FUZZ_CHECK(mkdtemp(path) != NULL);
    }
    return path;
}

/* folder/name with these bytes; NULL data: no such file. */
static inline void fuzz_put(const char *folder, const char *name, const void *data, size_t size) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!data) {
        (void)unlink(path);
        return;
    }
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    FUZZ_CHECK(file >= 0);
    fuzz_fill(file, data, size);
    (void)close(file);
}

/* An input of several files: the byte 0x1e (ASCII's record separator) stands between them. The next part's
 * start, or NULL when there is none; moves *data and *size behind it. */
static inline const uint8_t *fuzz_part(const uint8_t **data, size_t *size, size_t *length) {
    const uint8_t *part = *data;
    if (!part)
        return NULL;
    const uint8_t *separator = *size ? memchr(part, 0x1e, *size) : NULL;
    *length = separator ? (size_t)(separator - part) : *size;
    *size -= *length + (separator != NULL);
    *data = separator ? separator + 1 : NULL;
    return part;
}

#endif
