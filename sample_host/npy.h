/*
 * npy.h: read and write numpy's .npy files (format versions 1 to 3, C order, little endian) as tensors on the
 * CPU. Format: numpy.lib.format, "NPY format" (numpy documentation). Not thread-bound; an array belongs to
 * its reader.
 */
#ifndef ATTUNE_NPY_H
#define ATTUNE_NPY_H

#include "attune/tensor.h"

typedef struct npy_array {
    attune_tensor tensor; /* compact; device type CPU, uuid 0 */
    void *memory;         /* owned */
} npy_array;

/* Read a file of bool, uint8, int32, int64, float16, float32 or float64. The caller calls npy_free.
 * Errors: NOT_FOUND or PERMISSION_DENIED (cannot open), DATA_LOSS (not .npy, truncated, longer than its shape
 * says), UNIMPLEMENTED (Fortran order, other types, more than 6 axes), RESOURCE_EXHAUSTED. */
attune_code npy_read(const char *path, npy_array *out, attune_error *error);

/* Free what npy_read gave; harmless on a zeroed array. */
void npy_free(npy_array *array);

/* Write a compact tensor as version 1.0: to a temporary file beside `path`, then renamed. Errors: as
 * output.h's. */
attune_code npy_write(const char *path, const attune_tensor *tensor, attune_error *error);

#endif
