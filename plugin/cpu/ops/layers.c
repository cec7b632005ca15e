/*
 * layers.c: a layer's weights, as stored and packed for the kernels. They are packed when a session that
 * needs them begins, and kept as long as the model is open.
 */
#include "plugin/cpu/ops/cpu.h"

attune_code cpu_check(device *dev, const char *name, device_stored stored, uint64_t count,
                      attune_error *error) {
    int finite;
    if (attune_dtype_equal(stored.dtype, ATTUNE_F32))
        finite = dev->kernels->finite_f32(stored.data, count);
    else if (attune_dtype_equal(stored.dtype, ATTUNE_F16))
        finite = dev->kernels->finite_16(stored.data, count, 0x7c00);
    else
        finite = dev->kernels->finite_16(stored.data, count, 0x7f80);
    if (finite)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, name,
                       "tensor '%s' holds values that are not finite; the file is damaged", name);
}

/* float32 of stored values; refuses what is not finite. */
static attune_code widen(device *dev, const char *name, device_stored stored, uint64_t count, float *out,
                         attune_error *error) {
    attune_code code = cpu_check(dev, name, stored, count, error);
    if (code != ATTUNE_OK)
        return code;
    if (attune_dtype_equal(stored.dtype, ATTUNE_F32))
        memcpy(out, stored.data, count * sizeof *out);
    else if (attune_dtype_equal(stored.dtype, ATTUNE_F16))
        dev->kernels->from_f16(stored.data, count, out);
    else
        dev->kernels->from_bf16(stored.data, count, out);
    return ATTUNE_OK;
}

attune_code cpu_vector(device *dev, const char *name, device_stored stored, uint64_t count, float **out,
                       attune_error *error) {
    float *vector = dev->host.memory->alloc(dev->host.memory->context, count * sizeof *vector, "weights");
    if (!vector)
        return services_no_memory(name, count * sizeof *vector, error);
    attune_code code = widen(dev, name, stored, count, vector, error);
    if (code == ATTUNE_OK)
        *out = vector;
    else
        services_free(&dev->host, vector);
    return code;
}

/* The biases of all parts, one after another; zeros for a part that has none. */
static attune_code make_bias(device *dev, device_weights *weights, attune_error *error) {
    const device_layer *layer = &weights->layer;
    weights->bias =
        services_clear_alloc(&dev->host, (uint64_t)weights->out, sizeof *weights->bias, "weights");
    if (!weights->bias)
        return services_no_memory(layer->name[0], (uint64_t)weights->out * sizeof *weights->bias, error);
    int64_t start = 0;
    for (int32_t i = 0; i < layer->parts; start += layer->out[i], ++i) {
        if (!layer->bias[i].data)
            continue;
        attune_code code =
            widen(dev, layer->name[i], layer->bias[i], (uint64_t)layer->out[i], weights->bias + start, error);
        if (code != ATTUNE_OK)
            return code;
    }
    return ATTUNE_OK;
}

/* How the file stores values, for the kernels. */
static int32_t storage_of(attune_dtype dtype) {
    return attune_dtype_equal(dtype, ATTUNE_F32)   ? ATTUNE_KERNEL_F32
           : attune_dtype_equal(dtype, ATTUNE_F16) ? ATTUNE_KERNEL_F16
                                                   : ATTUNE_KERNEL_BF16;
}

/* 16-bit weights stay so when they are packed; parts of several types become float32. */
static attune_weights_f32 shape_of(const device_layer *layer, int64_t out) {
    attune_weights_f32 shape = {layer->in, out, layer->kernel * layer->kernel,
                                storage_of(layer->weight[0].dtype), layer->geglu};
    for (int32_t i = 1; i < layer->parts; ++i)
        if (storage_of(layer->weight[i].dtype) != shape.storage)
            shape.storage = ATTUNE_KERNEL_F32;
    return shape;
}

attune_code cpu_weights(device *dev, const device_layer *layer, device_weights **out, attune_error *error) {
    device_weights *weights = services_clear_alloc(&dev->host, 1, sizeof *weights, "model");
    if (!weights)
        return services_no_memory(layer->name[0], sizeof *weights, error);
    weights->layer = *layer;
    for (int32_t i = 0; i < layer->parts; ++i)
        weights->out += layer->out[i];
    weights->shape = shape_of(layer, weights->out);
    weights->bytes = layer->kernel == 3 ? dev->arithmetic.convolution_f32->packed_bytes(&weights->shape)
                                        : dev->arithmetic.matmul_f32->packed_bytes(&weights->shape);
    attune_code code = make_bias(dev, weights, error);
    if (code == ATTUNE_OK)
        *out = weights;
    else
        cpu_weights_free(dev, weights);
    return code;
}

void cpu_weights_free(device *dev, device_weights *weights) {
    if (!weights)
        return;
    services_free(&dev->host, weights->packed);
    services_free(&dev->host, weights->bias);
    services_free(&dev->host, weights);
}

const device_layer *cpu_layer(const device_weights *weights) {
    return &weights->layer;
}

void layer_want(device_pass *pass, device_weights *weights) {
    if (weights->wanted != pass->serial && !weights->packed)
        pass->weights_bytes += weights->bytes;
    weights->wanted = pass->serial;
}

attune_code layer_not_planned(const device_weights *weights, attune_error *error) {
    return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, weights->layer.name[0], "'%s' was not planned",
                       weights->layer.name[0]);
}

/* ---- packing ---- */

typedef struct pack_context {
    device *dev;
    device_weights **jobs; /* the layers that wait for their weights */
} pack_context;

static void pack_channels(device *dev, device_weights *weights, int64_t first, int64_t count,
                          const void *stored, void *packed) {
    if (weights->layer.kernel == 3)
        dev->arithmetic.convolution_f32->pack(&weights->shape, first, count, stored, packed);
    else
        dev->arithmetic.matmul_f32->pack(&weights->shape, first, count, stored, packed);
}

/* Part `i`, whose type is not the one that is packed: by way of float32. */
static attune_code pack_widened(device *dev, device_weights *weights, int32_t i, int64_t first, void *packed,
                                attune_error *error) {
    const device_layer *layer = &weights->layer;
    const uint64_t count = (uint64_t)(layer->out[i] * layer->in * weights->shape.taps);
    float *plain = dev->host.memory->alloc(dev->host.memory->context, count * sizeof *plain, "packing");
    if (!plain)
        return services_no_memory(layer->name[i], count * sizeof *plain, error);
    attune_code code = widen(dev, layer->name[i], layer->weight[i], count, plain, error);
    if (code == ATTUNE_OK)
        pack_channels(dev, weights, first, layer->out[i], plain, packed);
    services_free(&dev->host, plain);
    return code;
}

static attune_code pack_parts(device *dev, device_weights *weights, void *packed, attune_error *error) {
    const device_layer *layer = &weights->layer;
    int64_t first = 0;
    for (int32_t i = 0; i < layer->parts; first += layer->out[i], ++i) {
        const uint64_t count = (uint64_t)(layer->out[i] * layer->in * weights->shape.taps);
        attune_code code;
        if (storage_of(layer->weight[i].dtype) != weights->shape.storage) {
            code = pack_widened(dev, weights, i, first, packed, error);
        } else {
            code = cpu_check(dev, layer->name[i], layer->weight[i], count, error);
            if (code == ATTUNE_OK)
                pack_channels(dev, weights, first, layer->out[i], layer->weight[i].data, packed);
        }
        if (code != ATTUNE_OK)
            return code;
    }
    return ATTUNE_OK;
}

static attune_code pack_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const pack_context *pack = context;
    device_weights *weights = pack->jobs[task];
    const attune_memory_service *memory = pack->dev->host.memory;
    (void)worker;
    void *packed = memory->alloc(memory->context, weights->bytes, "weights");
    attune_code code = packed ? pack_parts(pack->dev, weights, packed, error)
                              : services_no_memory(weights->layer.name[0], weights->bytes, error);
    if (code == ATTUNE_OK)
        weights->packed = packed;
    else
        memory->free(memory->context, packed);
    return code;
}

attune_code cpu_pack(device *dev, device_pass *pass, device_weights *const *weights, uint64_t count,
                     attune_error *error) {
    uint64_t n = 0;
    device_weights **jobs = services_clear_alloc(&dev->host, count ? count : 1, sizeof *jobs, "packing");
    if (!jobs)
        return services_no_memory("packing", count * sizeof *jobs, error);
    for (uint64_t i = 0; i < count; ++i)
        if (weights[i]->wanted == pass->serial && !weights[i]->packed)
            jobs[n++] = weights[i];
    pack_context context = {dev, jobs};
    attune_code code = n ? run_tasks(dev, pass->stream, n, pack_task, &context, error) : ATTUNE_OK;
    services_free(&dev->host, jobs);
    return code;
}
