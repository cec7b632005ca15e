/*
 * fatbin.c: find PTX in a fat binary as nvcc makes it. The layout is not documented; these fields were read
 * off binaries of nvcc 13.0: a header {magic, version, header size, bytes that follow}, then entries {kind,
 * version, header size, payload size, compressed size, ..., architecture at 28, flags at 40} each followed by
 * its payload.
 */
#include "tests/cuda_emulator/ptx.h"

#include <stdio.h>
#include <string.h>

#define FATBIN_MAGIC 0xba55ed50u
enum { KIND_PTX = 1, MIN_ENTRY = 48 };
#define FLAGS_COMPRESSED 0xf000ull /* LZ4 0x2000, zstd 0x8000, and what may come beside them */

static uint64_t read_bytes(const unsigned char *p, int n) {
    uint64_t value = 0;
    for (int i = n; i-- > 0;)
        value = value << 8 | p[i];
    return value;
}

const char *fatbin_find_ptx(const void *fatbin, int capability, size_t *size, char *error,
                            size_t error_size) {
    const unsigned char *p = fatbin;
    if (read_bytes(p, 4) != FATBIN_MAGIC) {
        snprintf(error, error_size, "not a fat binary: it starts with %08x", (unsigned)read_bytes(p, 4));
        return NULL;
    }
    const unsigned char *entry = p + read_bytes(p + 6, 2), *end = entry + read_bytes(p + 8, 8);
    const char *best = NULL;
    int best_target = 0, seen = 0;
    while (end - entry >= MIN_ENTRY) {
        const uint64_t kind = read_bytes(entry, 2), header = read_bytes(entry + 4, 4),
                       payload = read_bytes(entry + 8, 8);
        const int target = (int)read_bytes(entry + 28, 4);
        if (header < MIN_ENTRY || header > (uint64_t)(end - entry) ||
            payload > (uint64_t)(end - entry) - header) {
            snprintf(error, error_size, "damaged fat binary: an entry reaches beyond its end");
            return NULL;
        }
        if (kind == KIND_PTX) {
            ++seen;
            if (read_bytes(entry + 40, 8) & FLAGS_COMPRESSED) {
                snprintf(error, error_size, "the PTX is compressed: build with nvcc --compress-mode=none");
                return NULL;
            }
            if (target <= capability && target > best_target) {
                best = (const char *)entry + header;
                best_target = target;
                *size = strnlen(best, payload); /* padded with zeros */
            }
        }
        entry += header + payload;
    }
    if (!best)
        snprintf(error, error_size,
                 seen ? "no PTX for compute capability %d.%d among %d" : "no PTX in the fat binary",
                 capability / 10, capability % 10, seen);
    return best;
}
