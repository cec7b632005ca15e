/*
 * cpu.h: what the CPU operations share: the device, packed weights, scratch memory. The arithmetic is
 * kernels/cpu's; here its tasks are handed to the host's threads.
 */
#ifndef ATTUNE_CPU_OPS_H
#define ATTUNE_CPU_OPS_H

#include "plugin/cpu/ops/elementwise.h"
#include "plugin/sampler/ops.h"

#include <stdatomic.h>

struct device {
    services host;
    attune_cpu_kernels arithmetic;
    elementwise_kernels loops;
    const elementwise_kernels *kernels; /* loops */
    attune_device_id id;
    char vendor[32];
    _Atomic uint32_t serial; /* of the last planning pass */
};

struct device_weights {
    device_layer layer;
    int64_t out;              /* of all parts */
    float *bias;              /* (out), zeros where the layer has none */
    attune_weights_f32 shape; /* of the packed weights */
    uint64_t bytes;
    uint32_t wanted; /* serial of the last planning pass that asked for them */
    void *packed;    /* NULL until pack */
};

/* layers.c: a layer's packed weights: those that are there, or packed now into the pass's room from byte `at`
 * on. Errors: DATA_LOSS, INTERNAL (the room is too small: not planned). */
attune_code layer_weights(device *dev, const device_pass *pass, const device_weights *weights, uint64_t at,
                          const void **packed, attune_error *error);

/* linear.c: rows of x · Wᵀ + b without what may follow; packed weights, and what a worker needs for it. */
attune_matmul_f32 linear_args(const device_weights *weights, const void *packed, const float *x, int64_t rows,
                              float *out);
attune_code linear_run(device *dev, const device_pass *pass, const attune_matmul_f32 *args,
                       attune_error *error);

/* ops.c: scratch memory and tasks. */

static inline uint64_t scratch_round(uint64_t bytes) {
    return (bytes + 63) & ~(uint64_t)63;
}

/* A call's layers, one after another in the room. */
static inline void pass_need_room(device_pass *pass, uint64_t room) {
    pass->room_bytes = larger(room, pass->room_bytes);
}

static inline void pass_need(device_pass *pass, uint64_t shared, uint64_t worker) {
    pass->shared_bytes = larger(shared, pass->shared_bytes);
    pass->worker_bytes = larger(worker, pass->worker_bytes);
}

static inline char *pass_worker(const device_pass *pass, uint32_t worker) {
    return (char *)pass->scratch + scratch_round(pass->shared_bytes) +
           worker * scratch_round(pass->worker_bytes);
}

/* norms.c: a norm's arguments for the kernel, and its sums and factors without its result. */
attune_group_norm_f32 norm_args(const device_group_norm *args);
attune_code norm_factors(device *dev, const device_pass *pass, const attune_group_norm_f32 *args,
                         float *workspace, attune_error *error);
/* The result of a norm whose factors are in the workspace. */
attune_code norm_apply(device *dev, const device_pass *pass, const attune_group_norm_f32 *args,
                       float *workspace, attune_error *error);

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
int32_t cpu_wanted(const device_weights *weights, uint32_t serial);
uint64_t cpu_packed_bytes(const device_weights *weights);
int32_t cpu_packed(const device_weights *weights);
attune_code cpu_pack(device *dev, const attune_stream *stream, device_weights *const *weights, uint64_t count,
                     attune_error *error);
void cpu_unpack(device *dev, device_weights *weights);
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
attune_code cpu_concat(device *dev, device_pass *pass, const device_concat *args, attune_error *error);
attune_code cpu_embed(device *dev, device_pass *pass, const device_embed *args, attune_error *error);
attune_code cpu_activate(device *dev, device_pass *pass, device_activation activation, const float *x,
                         uint64_t count, float *out, attune_error *error);
attune_code cpu_finite(device *dev, device_pass *pass, const float *x, int64_t rows, int64_t channels,
                       int64_t stride, int32_t *out, attune_error *error);

#endif
