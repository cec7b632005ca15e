/*
 * safetensors.h: a .safetensors file, mapped and checked. Format: github.com/huggingface/safetensors, README
 * "Format": 8 bytes little-endian header length, a JSON object {name: {dtype, shape, data_offsets}}, then the
 * data.
 *
 * The file is untrusted: every offset and size is checked before a tensor is handed out. A file that somebody
 * shortens while it is mapped still ends the process with SIGBUS, as any mapped file does; replacing a model
 * by rename is safe.
 */
#ifndef ATTUNE_SAMPLER_SAFETENSORS_H
#define ATTUNE_SAMPLER_SAFETENSORS_H

#include "plugin/sampler/services.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct safetensors_tensor {
    const char *name;
    attune_dtype dtype; /* bits 0: a type that is not read (integers, float64, float8) */
    char stored[8];     /* the type's name in the file: "F16" */
    int32_t ndim;
    int64_t shape[SAFETENSORS_MAX_DIMS];
    const void *data; /* in the map; no alignment is promised */
    uint64_t bytes;
    int32_t used; /* set by a loader (weights.h), so that what no network took can be found */
} safetensors_tensor;

typedef struct safetensors {
    const services *host;
    char path[512];
    void *map;
    uint64_t bytes;              /* of the file */
    safetensors_tensor *tensors; /* sorted by name */
    uint64_t count;
    char *names; /* what tensors[].name points into */
} safetensors;

/*
 * [any] Map and check. `host` must outlive it; the caller closes it (a cleared one may be closed). Blocks.
 * Errors: file_open's, DATA_LOSS (truncated: with both sizes; ranges outside, overlapping, or not the shape's
 * size; bytes of no tensor; twice the same name; header that is no JSON), RESOURCE_EXHAUSTED. Data may lie
 * at any byte: who reads it copies.
 */
attune_code safetensors_open(const services *host, const char *path, safetensors *out, attune_error *error);
void safetensors_close(safetensors *file);

/* [any] The tensor called `name`, or NULL. */
const safetensors_tensor *safetensors_find(const safetensors *file, const char *name);

/* [any] Let the kernel drop the pages read so far; they come back from the file when they are used. */
void safetensors_release(const safetensors *file);
/* [any] The same for a part of a mapped file. */
void safetensors_release_range(const void *data, uint64_t bytes);

#endif
