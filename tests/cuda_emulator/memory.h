/*
 * memory.h: device memory. A device address belongs to a range that the host process may not touch, and its
 * bytes lie elsewhere, so host code that dereferences a device pointer faults as it would beside a real GPU.
 * Addresses are not given out twice, so that a stale pointer is never by chance a good one. Thread rule: the
 * caller holds the runtime's lock; kernels only look up, while nothing changes.
 */
#ifndef CUDA_EMULATOR_MEMORY_H
#define CUDA_EMULATOR_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct device_range {
    uint64_t address, size;
    unsigned char *bytes;
    int device; /* -1: a module's variable, of every device */
    bool freed; /* its memory is gone, its address stays taken */
} device_range;

/* A new range; NULL where the host has no memory. Small ones are filled with 0xff, a NaN in every float type.
 */
const device_range *memory_new(uint64_t size, int device);
bool memory_free(uint64_t address, int *device, uint64_t *size); /* false: no live range begins there */

/* The live range that holds the address, or NULL. */
const device_range *memory_find(uint64_t address);

/* Free all that a device has. */
void memory_free_all(int device);

/* Bytes in use on a device. */
uint64_t memory_used(int device);

/* The live range nearest to an address, for messages; NULL if there is none. */
const device_range *memory_nearest(uint64_t address);

#endif
