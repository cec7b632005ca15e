/* memory.c: device memory as ranges that the host cannot touch and bytes elsewhere (memory.h). */
#include "tests/cuda_emulator/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };
#define FILL_LIMIT (64ull << 20) /* above it fresh pages stay untouched: they would cost time and memory */

static device_range **ranges; /* by address; they do not move */
static size_t range_count, range_capacity;

/* How many ranges begin at or below the address. */
static size_t position(uint64_t address) {
    size_t low = 0, high = range_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (ranges[middle]->address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const device_range *memory_new(uint64_t size, int device) {
    const size_t bytes = (size + PAGE - 1) / PAGE * PAGE;
    if (range_count == range_capacity) {
        const size_t capacity = range_capacity ? range_capacity * 2 : 64;
        device_range **more = realloc(ranges, capacity * sizeof *more);
        if (!more)
            return NULL;
        ranges = more;
        range_capacity = capacity;
    }
    device_range *made = calloc(1, sizeof *made);
    /* the addresses, a page beyond them that nobody owns, and the bytes */
    unsigned char *all =
        made ? mmap(NULL, 2 * bytes + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
             : MAP_FAILED;
    if (all == MAP_FAILED || mprotect(all + bytes + PAGE, bytes, PROT_READ | PROT_WRITE) != 0) {
        if (all != MAP_FAILED)
            munmap(all, 2 * bytes + PAGE);
        free(made);
        return NULL;
    }
    *made = (device_range){
        .address = (uint64_t)(uintptr_t)all, .size = size, .bytes = all + bytes + PAGE, .device = device};
    if (size <= FILL_LIMIT)
        memset(made->bytes, 0xff, size);
    const size_t at = position(made->address);
    memmove(ranges + at + 1, ranges + at, (range_count - at) * sizeof *ranges);
    ranges[at] = made;
    ++range_count;
    return made;
}

const device_range *memory_find(uint64_t address) {
    const size_t at = position(address);
    const device_range *r = at ? ranges[at - 1] : NULL;
    return r && !r->freed && address - r->address < r->size ? r : NULL;
}

bool memory_free(uint64_t address, int *device, uint64_t *size) {
    const size_t at = position(address);
    device_range *r = at ? ranges[at - 1] : NULL;
    if (!r || r->freed || r->address != address)
        return false;
    const size_t bytes = (r->size + PAGE - 1) / PAGE * PAGE;
    mmap(r->bytes, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    r->freed = true;
    *device = r->device;
    *size = r->size;
    return true;
}

uint64_t memory_used(int device) {
    uint64_t used = 0;
    for (size_t i = 0; i < range_count; ++i)
        if (!ranges[i]->freed && ranges[i]->device == device)
            used += ranges[i]->size;
    return used;
}

const device_range *memory_nearest(uint64_t address) {
    const device_range *best = NULL;
    uint64_t distance = UINT64_MAX;
    for (size_t i = 0; i < range_count; ++i) {
        const device_range *r = ranges[i];
        const uint64_t d = address < r->address ? r->address - address : address - r->address;
        if (!r->freed && d < distance) {
            best = r;
            distance = d;
        }
    }
    return best;
}

void memory_free_all(int device) {
    for (size_t i = 0; i < range_count; ++i) {
        int owner;
        uint64_t size;
        if (!ranges[i]->freed && ranges[i]->device == device)
            memory_free(ranges[i]->address, &owner, &size);
    }
}
