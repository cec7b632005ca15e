/*
 * layers.c: a layer's weights, as stored and packed for the kernels. Where they
 * are not kept packed they are packed for each call.
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

int32_t cpu_wanted(const device_weights *weights, uint32_t serial) {
    return weights->wanted == serial;
}

uint64_t cpu_packed_bytes(const device_weights *weights) {
    return weights->bytes;
}

int32_t cpu_packed(const device_weights *weights) {
    return weights->packed != NULL;
}

/* ---- packing ---- */

static int64_t taps_of(const device_weights *weights) {
    return weights->layer.kernel * weights->layer.kernel;
}

/* Output channels `first` …, which lie in `part`, from its channel `from` on. */
typedef struct pack_piece {
    int32_t part;
    int64_t from, first, count;
} pack_piece;

enum { PIECE_VALUES = 1 << 18 };

static int64_t piece_channels(const device_weights *weights) {
    const int64_t channels = PIECE_VALUES / (weights->layer.in * taps_of(weights)) / 64 * 64;
    return channels > 64 ? channels : 64;
}

/* Piece `index` of a layer; count 0 beyond the last. */
static pack_piece piece_at(const device_weights *weights, uint64_t index) {
    const int64_t step = piece_channels(weights);
    pack_piece piece = {0, 0, 0, 0};
    for (int64_t start = 0; piece.part < weights->layer.parts; start += weights->layer.out[piece.part++]) {
        const int64_t all = weights->layer.out[piece.part], pieces = divide_up(all, step);
        if ((int64_t)index < pieces) {
            piece.from = (int64_t)index * step;
            piece.first = start + piece.from;
            piece.count = step < all - piece.from ? step : all - piece.from;
            return piece;
        }
        index -= (uint64_t)pieces;
    }
    return piece;
}

static uint64_t count_pieces(const device_weights *weights) {
    uint64_t pieces = 0;
    for (int32_t i = 0; i < weights->layer.parts; ++i)
        pieces += (uint64_t)divide_up(weights->layer.out[i], piece_channels(weights));
    return pieces;
}

static void pack_channels(const device *dev, const device_weights *weights, const pack_piece *piece,
                          const void *stored, void *packed) {
    if (weights->layer.kernel == 3)
        dev->arithmetic.convolution_f32->pack(&weights->shape, piece->first, piece->count, stored, packed);
    else
        dev->arithmetic.matmul_f32->pack(&weights->shape, piece->first, piece->count, stored, packed);
}

/* A part whose type is not the one that is packed: by way of float32. */
static attune_code pack_widened(device *dev, const device_weights *weights, const pack_piece *piece,
                                device_stored stored, uint64_t count, void *packed, attune_error *error) {
    const char *name = weights->layer.name[piece->part];
    float *plain = dev->host.memory->alloc(dev->host.memory->context, count * sizeof *plain, "packing");
    if (!plain)
        return services_no_memory(name, count * sizeof *plain, error);
    attune_code code = widen(dev, name, stored, count, plain, error);
    if (code == ATTUNE_OK)
        pack_channels(dev, weights, piece, plain, packed);
    services_free(&dev->host, plain);
    return code;
}

static attune_code pack_piece_of(device *dev, const device_weights *weights, uint64_t index, void *packed,
                                 attune_error *error) {
    const pack_piece piece = piece_at(weights, index);
    const int64_t steps = weights->layer.in * taps_of(weights);
    const uint64_t count = (uint64_t)(piece.count * steps);
    device_stored stored = weights->layer.weight[piece.part];
    stored.data =
        (const char *)stored.data + (uint64_t)(piece.from * steps) * attune_dtype_bytes(stored.dtype);
    if (storage_of(stored.dtype) != weights->shape.storage)
        return pack_widened(dev, weights, &piece, stored, count, packed, error);
    attune_code code = cpu_check(dev, weights->layer.name[piece.part], stored, count, error);
    if (code == ATTUNE_OK)
        pack_channels(dev, weights, &piece, stored.data, packed);
    return code;
}

/* One layer that is packed, by pieces that threads share. */
typedef struct pack_context {
    device *dev;
    const device_weights *weights;
    void *packed;
} pack_context;

static attune_code pack_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const pack_context *c = context;
    (void)worker;
    return pack_piece_of(c->dev, c->weights, task, c->packed, error);
}

static attune_code pack_into(device *dev, const attune_stream *stream, const device_weights *weights,
                             void *packed, attune_error *error) {
    pack_context c = {dev, weights, packed};
    return run_tasks(dev, stream, count_pieces(weights), pack_task, &c, error);
}

attune_code cpu_pack(device *dev, const attune_stream *stream, device_weights *const *weights, uint64_t count,
                     attune_error *error) {
    const attune_memory_service *memory = dev->host.memory;
    for (uint64_t i = 0; i < count; ++i) {
        if (weights[i]->packed)
            continue;
        void *packed = memory->alloc(memory->context, weights[i]->bytes, "weights");
        attune_code code = packed ? pack_into(dev, stream, weights[i], packed, error)
                                  : services_no_memory(weights[i]->layer.name[0], weights[i]->bytes, error);
        if (code != ATTUNE_OK) {
            memory->free(memory->context, packed);
            return code;
        }
        weights[i]->packed = packed;
    }
    return ATTUNE_OK;
}

void cpu_unpack(device *dev, device_weights *weights) {
    services_free(&dev->host, weights->packed);
    weights->packed = NULL;
}

attune_code layer_weights(device *dev, const device_pass *pass, const device_weights *weights, uint64_t at,
                          const void **packed, attune_error *error) {
    char *const room = pass->room;
    *packed = weights->packed;
    if (weights->packed)
        return ATTUNE_OK;
    if (pass->room_bytes < at + weights->bytes)
        return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, weights->layer.name[0],
                           "'%s' was not planned", weights->layer.name[0]);
    *packed = room + at;
    return pack_into(dev, pass->stream, weights, room + at, error);
}
