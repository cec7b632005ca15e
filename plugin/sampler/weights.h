/*
 * weights.h: from tensor names to layers. A loader goes through one part's file; what is missing is
 * collected, so that one error names it all.
 */
#ifndef ATTUNE_SAMPLER_WEIGHTS_H
#define ATTUNE_SAMPLER_WEIGHTS_H

#include "plugin/sampler/ops.h"
#include "plugin/sampler/safetensors.h"

/* What a model owns of its device: closed together. */
typedef struct weights_pool {
    const services *host;
    const device_ops *ops;
    device *dev;
    device_weights **layers;
    uint64_t count;
    uint64_t capacity;
    float **vectors;
    uint64_t vector_count;
    uint64_t vector_capacity;
} weights_pool;

void weights_pool_open(weights_pool *pool, const services *host, const device_ops *ops, device *dev);
void weights_pool_close(weights_pool *pool);

/* Room for a tensor's name in the file. */
enum { WEIGHTS_TENSOR_NAME = 256 };

/* The file's name for the tensor `name`; "" where it has none. */
typedef void (*weights_rename)(const void *context, const char *name, char out[WEIGHTS_TENSOR_NAME]);

typedef struct weights_loader {
    weights_pool *pool;
    const safetensors *file;
    const char *prefix;    /* may stand before every name in the file, or not: "text_model." */
    weights_rename rename; /* NULL: the file has diffusers' names */
    const void *rename_context;
    attune_code code; /* of the first failure; everything after it does nothing */
    attune_error *error;
    uint32_t missing;
    char first[3][128];
} weights_loader;

/* A normalisation's parameters in device memory. */
typedef struct weights_norm {
    float *scale;
    float *shift;
    char name[DEVICE_NAME]; /* for errors: as device_layer's */
} weights_norm;

/* Room for the name of a block or layer. */
enum { WEIGHTS_NAME = 112 };

void weights_begin(weights_loader *loader, weights_pool *pool, const safetensors *file, const char *prefix,
                   attune_error *error);
/* From here on the file's names are those that `rename` gives. */
void weights_rename_with(weights_loader *loader, weights_rename rename, const void *context);
/* The result of it all. Errors: INVALID_ARGUMENT (missing tensors: the first three and their number; a wrong
 * shape: both shapes), UNIMPLEMENTED (a type that is not read), DATA_LOSS (values that are not finite). */
attune_code weights_end(weights_loader *loader);

/* Tensor names are `block` and `name` one after the other, and ".weight" or ".bias". */

/* (out, in), or (out, in, 1, 1), with a bias. */
device_weights *weights_linear(weights_loader *loader, const char *block, const char *name, int64_t in,
                               int64_t out);
/* Several layers of one input stacked, with or without biases. */
device_weights *weights_stacked(weights_loader *loader, const char *block, const char *const *names,
                                int32_t parts, int32_t bias, int64_t in, int64_t out);
/* weights_linear for a product that ends in GEGLU. */
device_weights *weights_geglu(weights_loader *loader, const char *block, const char *name, int64_t in,
                              int64_t out);
/* (out, in, 3, 3). */
device_weights *weights_convolution(weights_loader *loader, const char *block, const char *name, int64_t in,
                                    int64_t out, int32_t stride);
weights_norm weights_normalisation(weights_loader *loader, const char *block, const char *name,
                                   int64_t channels);
/* A (rows, columns) matrix, whole name given, as float32 in device memory. */
float *weights_matrix(weights_loader *loader, const char *name, int64_t rows, int64_t columns);
/* A (rows, columns) matrix as stored. */
device_stored weights_table(weights_loader *loader, const char *name, int64_t rows, int64_t columns);
/* What errors call the layer of the tensor `name`, which ends with ".weight": what the file does. */
void weights_layer_name(const weights_loader *loader, const char *name, char out[DEVICE_NAME]);
/* Whether the file has `name` (with or without the prefix). */
int weights_has(const weights_loader *loader, const char *name);

#endif
