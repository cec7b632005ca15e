/*
 * cpu.h: what the CPU operations share: the device, oneDNN primitives, packed weights, scratch memory.
 *
 * oneDNN computes one slice at a time, on one thread, inside the host's parallel_for: how an operation is cut
 * into slices depends on its shape only, never on the number of threads.
 */
#ifndef ATTUNE_CPU_OPS_H
#define ATTUNE_CPU_OPS_H

#include "plugin/cpu/ops/elementwise.h"
#include "plugin/sampler/ops.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdatomic.h>

struct device {
    services host;
    dnnl_engine_t engine;
    attune_cpu_kernels arithmetic;
    elementwise_kernels loops;
    const elementwise_kernels *kernels; /* loops */
    attune_device_id id;
    char vendor[32];
    _Atomic uint32_t serial; /* of the last planning pass */
};

/* A oneDNN primitive and what is needed to run it. Immutable; any thread may execute it. */
typedef struct primitive {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t handle;
    dnnl_memory_desc_t src;
    dnnl_memory_desc_t weights;
    dnnl_memory_desc_t bias; /* ndims 0: none */
    dnnl_memory_desc_t dst;
    const dnnl_memory_desc_t *scratch; /* owned by desc */
    uint64_t scratch_bytes;
} primitive;

/* The memory that one execution works on. */
typedef struct primitive_memory {
    const float *src;
    const float *weights;
    const float *bias;
    float *dst;
    void *scratch;
} primitive_memory;

/* What a product is made of. The descriptors of src, bias and dst are set; `weights` has dims and either a
 * layout or format "any". */
typedef struct primitive_shape {
    dnnl_memory_desc_t src;
    dnnl_memory_desc_t weights;
    dnnl_memory_desc_t bias;
    dnnl_memory_desc_t dst;
    int32_t convolution; /* 0: matmul */
    int32_t accumulate;  /* dst += instead of dst = */
    dnnl_dims_t stride;
    dnnl_dims_t pad_low;
    dnnl_dims_t pad_high;
} primitive_shape;

/* Fill `error` for a oneDNN status; `where` is the layer's name. */
attune_code primitive_fail(attune_error *error, const char *where, const char *what, dnnl_status_t status);

/* [any] Make a primitive for one thread. Errors: as primitive_fail. The caller closes it. */
attune_code primitive_open(device *dev, const primitive_shape *shape, const char *where, primitive *out,
                           attune_error *error);
void primitive_close(primitive *p);
/* Whether the implementation is one of the slow ones that oneDNN keeps for what its fast ones decline. */
int primitive_is_slow(const primitive *p);
/* [any] Run it on this thread alone. */
attune_code primitive_run(device *dev, const primitive *p, const primitive_memory *memory, const char *where,
                          attune_error *error);
/* [any] Copy between layouts on this thread alone. */
attune_code primitive_reorder(device *dev, const dnnl_memory_desc_t *from, const void *from_data,
                              const dnnl_memory_desc_t *to, void *to_data, const char *where,
                              attune_error *error);

/* Weights in one packed layout. `data` is NULL until pack. */
typedef struct layout {
    struct layout *next;
    dnnl_memory_desc_t desc;
    uint64_t bytes;
    uint32_t wanted; /* serial of the last planning pass that asked for it */
    float *data;
} layout;

enum { PLAN_KEYS = 4, PLAN_VARIANTS = 4 };

/* One kind of slice of a layer: its primitive and the packed weights it takes. */
typedef struct variant {
    primitive run;
    layout *weights;
    int64_t size[3]; /* what tells the slices apart: rows (and for a convolution the padding) */
} variant;

/* How one layer is computed for one shape. Immutable once it is in the layer's list. */
typedef struct product_plan {
    struct product_plan *next;
    int64_t key[PLAN_KEYS]; /* shape and accumulate */
    int64_t rows;           /* of a slice, but for the last; output rows of one image for a convolution */
    int64_t row_slices;
    int64_t columns; /* output channels of a chunk, but for the last; all of them when column_chunks is 1 */
    int64_t column_chunks;
    uint64_t primitive_bytes; /* scratch of the hungriest primitive */
    int32_t variants;
    variant variant[PLAN_VARIANTS];
} product_plan;

struct device_weights {
    device_layer layer;
    int64_t out; /* of all parts */
    float *bias; /* (out), zeros where the layer has none */
    layout *layouts;
    _Atomic(product_plan *) plans; /* grows at its head while a planning pass runs; read by running passes */
};

/* layers.c: a layer's plans and packed weights. */

/* [any] The plan with this key, or NULL. */
product_plan *layer_plan(device_weights *weights, const int64_t key[PLAN_KEYS]);
/* An empty plan with this key, not yet in the list; layer_publish puts it there, layer_discard frees it. */
attune_code layer_plan_new(device *dev, device_weights *weights, const int64_t key[PLAN_KEYS],
                           product_plan **out, attune_error *error);
void layer_plan_publish(device_weights *weights, product_plan *plan);
void layer_plan_free(device *dev, product_plan *plan);
/* Add the slice kind `size` to the plan unless it is there, preferring the packed layout of the first one. */
attune_code layer_variant(device *dev, device_weights *weights, product_plan *plan,
                          const primitive_shape *shape, const int64_t size[3], attune_error *error);
/* Add a kind that computes some of the output channels from weights packed as `full`; *fits = 0 and nothing
 * added where oneDNN wants another layout for it. */
attune_code layer_chunk(device *dev, device_weights *weights, product_plan *plan,
                        const dnnl_memory_desc_t *full, const primitive_shape *shape, const int64_t size[3],
                        int *fits, attune_error *error);
/* Forget the plan's slice kinds. */
void layer_clear(product_plan *plan);
/* How many output channels one block of a packed layout holds; output channels are its dimension `axis`. */
int64_t layer_block(const dnnl_memory_desc_t *desc, int32_t axis);
/* The slice kind `size`, or NULL. */
const variant *layer_variant_find(const product_plan *plan, const int64_t size[3]);
/* Its packed weights for output channels from `column` on, which starts a block. */
const float *layer_packed(const variant *kind, int32_t axis, int64_t column);
/* Note what a plan needs in a planning pass: packed weights, and per worker its primitive's scratch memory
 * (the first part) and worker_bytes more. */
void layer_want(device_pass *pass, product_plan *plan, uint64_t worker_bytes);

/* ops.c: scratch memory and slices. */

static inline uint64_t scratch_round(uint64_t bytes) {
    return (bytes + 63) & ~(uint64_t)63;
}

static inline void pass_need(device_pass *pass, uint64_t shared, uint64_t worker) {
    pass->shared_bytes = shared > pass->shared_bytes ? shared : pass->shared_bytes;
    pass->worker_bytes = worker > pass->worker_bytes ? worker : pass->worker_bytes;
}

static inline char *pass_worker(const device_pass *pass, uint32_t worker) {
    return (char *)pass->scratch + scratch_round(pass->shared_bytes) +
           worker * scratch_round(pass->worker_bytes);
}

static inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static inline attune_code run_tasks(device *dev, const attune_stream *stream, uint64_t n, attune_task task,
                                    void *context, attune_error *error) {
    return dev->host.parallel->parallel_for(dev->host.parallel->context, stream, n, task, context, error);
}

attune_code cpu_weights(device *dev, const device_layer *layer, device_weights **out, attune_error *error);
void cpu_weights_free(device *dev, device_weights *weights);
const device_layer *cpu_layer(const device_weights *weights);
attune_code cpu_pack(device *dev, device_pass *pass, device_weights *const *weights, uint64_t count,
                     attune_error *error);
attune_code cpu_vector(device *dev, const char *name, device_stored stored, uint64_t count, float **out,
                       attune_error *error);
attune_code cpu_check(device *dev, const char *name, device_stored stored, uint64_t count,
                      attune_error *error);
attune_code cpu_linear(device *dev, device_pass *pass, device_weights *weights, const device_linear *args,
                       attune_error *error);
attune_code cpu_convolution(device *dev, device_pass *pass, device_weights *weights,
                            const device_convolution *args, attune_error *error);
attune_code cpu_group_norm(device *dev, device_pass *pass, const device_group_norm *args,
                           attune_error *error);
attune_code cpu_layer_norm(device *dev, device_pass *pass, const device_layer_norm *args,
                           attune_error *error);
attune_code cpu_upsample(device *dev, device_pass *pass, const device_upsample *args, attune_error *error);
attune_code cpu_concat(device *dev, device_pass *pass, const device_concat *args, attune_error *error);
attune_code cpu_embed(device *dev, device_pass *pass, const device_embed *args, attune_error *error);
attune_code cpu_activate(device *dev, device_pass *pass, device_activation activation, const float *x,
                         uint64_t count, float *out, attune_error *error);
attune_code cpu_finite(device *dev, device_pass *pass, const float *x, int64_t rows, int64_t channels,
                       int64_t stride, int32_t *out, attune_error *error);

#endif
