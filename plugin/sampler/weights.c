/* weights.c: looking tensors up, checking their shapes, handing them to the device. */
#include "plugin/sampler/weights.h"

void weights_pool_open(weights_pool *pool, const services *host, const device_ops *ops, device *dev) {
    memset(pool, 0, sizeof *pool);
    pool->host = host;
    pool->ops = ops;
    pool->dev = dev;
}

void weights_pool_close(weights_pool *pool) {
    for (uint64_t i = 0; i < pool->count; ++i)
        pool->ops->weights_free(pool->dev, pool->layers[i]);
    for (uint64_t i = 0; i < pool->vector_count; ++i)
        pool->ops->free(pool->dev, pool->vectors[i]);
    if (pool->host) {
        services_free(pool->host, pool->layers);
        services_free(pool->host, pool->vectors);
    }
    memset(pool, 0, sizeof *pool);
}

/* Room for one more pointer in a list. */
static attune_code grow(const services *host, void **list, uint64_t count, uint64_t *capacity,
                        attune_error *error) {
    if (count < *capacity)
        return ATTUNE_OK;
    uint64_t larger = *capacity ? *capacity * 2 : 64;
    void *room = services_clear_alloc(host, larger, sizeof(void *), "model");
    if (!room)
        return services_no_memory("model", larger * sizeof(void *), error);
    if (*list)
        memcpy(room, *list, count * sizeof(void *));
    services_free(host, *list);
    *list = room;
    *capacity = larger;
    return ATTUNE_OK;
}

void weights_begin(weights_loader *loader, weights_pool *pool, const safetensors *file, const char *prefix,
                   attune_error *error) {
    memset(loader, 0, sizeof *loader);
    loader->pool = pool;
    loader->file = file;
    loader->prefix = prefix;
    loader->error = error;
}

void weights_rename_with(weights_loader *loader, weights_rename rename, const void *context) {
    loader->rename = rename;
    loader->rename_context = context;
}

attune_code weights_end(weights_loader *loader) {
    if (loader->code != ATTUNE_OK || loader->missing == 0)
        return loader->code;
    const char(*first)[128] = loader->first;
    uint32_t shown = loader->missing < 3 ? loader->missing : 3;
    attune_code code =
        attune_fail(loader->error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, loader->file->path,
                    "%s: %u tensor%s missing: %s%s%s%s%s%s", loader->file->path, loader->missing,
                    loader->missing == 1 ? " is" : "s are", first[0], shown > 1 ? ", " : "", first[1],
                    shown > 2 ? ", " : "", first[2], loader->missing > 3 ? ", ..." : "");
    if (loader->rename)
        attune_hint(loader->error, "the file is damaged, or --model-config describes another model");
    else
        attune_hint(loader->error, "the file does not belong to the config.json beside it");
    return code;
}

static const safetensors_tensor *find(const weights_loader *loader, const char *name) {
    char prefixed[WEIGHTS_TENSOR_NAME];
    const safetensors_tensor *tensor = safetensors_find(loader->file, name);
    if (tensor || !loader->prefix)
        return tensor;
    (void)snprintf(prefixed, sizeof prefixed, "%s%s", loader->prefix, name);
    return safetensors_find(loader->file, prefixed);
}

/* What the file calls `name`, for looking it up and for messages. */
static const char *stored_name(const weights_loader *loader, const char *name,
                               char room[WEIGHTS_TENSOR_NAME]) {
    if (loader->rename) {
        loader->rename(loader->rename_context, name, room);
        name = room;
    }
    const safetensors_tensor *tensor = find(loader, name);
    return tensor ? tensor->name : name;
}

int weights_has(const weights_loader *loader, const char *name) {
    char room[WEIGHTS_TENSOR_NAME];
    return find(loader, stored_name(loader, name, room)) != NULL;
}

static void write_shape(char *text, size_t size, const int64_t *shape, int32_t ndim) {
    size_t at = 0;
    text[0] = 0;
    for (int32_t i = 0; i < ndim && at < size; ++i) {
        int n = snprintf(text + at, size - at, "%s%lld", i ? "x" : "", (long long)shape[i]);
        at += n > 0 ? (size_t)n : 0;
    }
}

/* Whether the stored shape is the one wanted; ones at the end count for nothing ((out, in, 1, 1) is (out,
 * in)). */
static int same_shape(const safetensors_tensor *tensor, const int64_t *shape, int32_t ndim) {
    for (int32_t i = 0; i < tensor->ndim || i < ndim; ++i)
        if ((i < tensor->ndim ? tensor->shape[i] : 1) != (i < ndim ? shape[i] : 1))
            return 0;
    return 1;
}

/* The tensor `name` with this shape; nothing where it is missing (which is noted) or something failed. */
static device_stored take(weights_loader *loader, const char *diffusers_name, const int64_t *shape,
                          int32_t ndim) {
    device_stored none = {NULL, {0, 0, 0}};
    char room[WEIGHTS_TENSOR_NAME];
    if (loader->code != ATTUNE_OK)
        return none;
    const char *name = stored_name(loader, diffusers_name, room);
    const safetensors_tensor *tensor = find(loader, name);
    if (!tensor) {
        if (loader->missing < 3)
            (void)snprintf(loader->first[loader->missing], sizeof loader->first[0], "%.127s", name);
        loader->missing++;
        return none;
    }
    if (tensor->dtype.bits == 0) {
        loader->code = attune_fail(loader->error, ATTUNE_UNIMPLEMENTED, SAMPLER_DOMAIN, loader->file->path,
                                   "%s: tensor '%s' is stored as %s; F32, F16 and BF16 are read",
                                   loader->file->path, name, tensor->stored);
        return none;
    }
    if (!same_shape(tensor, shape, ndim)) {
        char is[96], wanted[96];
        write_shape(is, sizeof is, tensor->shape, tensor->ndim);
        write_shape(wanted, sizeof wanted, shape, ndim);
        loader->code = attune_fail(loader->error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, loader->file->path,
                                   "%s: tensor '%s' is %s, but %s makes it %s", loader->file->path, name, is,
                                   loader->rename ? "the configuration" : "config.json", wanted);
        return none;
    }
    loader->file->tensors[tensor - loader->file->tensors].used = 1;
    return (device_stored){tensor->data, tensor->dtype};
}

void weights_layer_name(const weights_loader *loader, const char *name, char out[DEVICE_NAME]) {
    char room[WEIGHTS_TENSOR_NAME];
    const char *stored = stored_name(loader, name, room), *dot = strrchr(stored, '.');
    (void)snprintf(out, DEVICE_NAME, "%.*s", (int)(dot ? dot - stored : 0), stored);
}

static device_weights *make_layer(weights_loader *loader, const device_layer *layer) {
    weights_pool *pool = loader->pool;
    device_weights *weights = NULL;
    if (loader->code != ATTUNE_OK || loader->missing > 0)
        return NULL;
    loader->code = grow(pool->host, (void **)&pool->layers, pool->count, &pool->capacity, loader->error);
    if (loader->code == ATTUNE_OK)
        loader->code = pool->ops->weights(pool->dev, layer, &weights, loader->error);
    if (loader->code == ATTUNE_OK)
        pool->layers[pool->count++] = weights;
    return weights;
}

/* One part of a layer: `base`.weight and, where it has one, `base`.bias. */
static void take_part(weights_loader *loader, device_layer *layer, const char *base, int32_t bias,
                      int64_t out) {
    char name[WEIGHTS_NAME + 16];
    int64_t shape[4] = {out, layer->in, 3, 3};
    int32_t part = layer->parts++;
    layer->out[part] = out;
    (void)snprintf(name, sizeof name, "%s.weight", base);
    weights_layer_name(loader, name, layer->name[part]);
    layer->weight[part] = take(loader, name, shape, layer->kernel == 3 ? 4 : 2);
    (void)snprintf(name, sizeof name, "%s.bias", base);
    if (bias)
        layer->bias[part] = take(loader, name, shape, 1);
}

device_weights *weights_stacked(weights_loader *loader, const char *block, const char *const *names,
                                int32_t parts, int32_t bias, int64_t in, int64_t out) {
    device_layer layer = {.kernel = 1, .stride = 1, .in = in};
    for (int32_t i = 0; i < parts; ++i) {
        char base[WEIGHTS_NAME];
        (void)snprintf(base, sizeof base, "%s%s", block, names[i]);
        take_part(loader, &layer, base, bias, out);
    }
    return make_layer(loader, &layer);
}

device_weights *weights_linear(weights_loader *loader, const char *block, const char *name, int64_t in,
                               int64_t out) {
    return weights_stacked(loader, block, &name, 1, 1, in, out);
}

device_weights *weights_geglu(weights_loader *loader, const char *block, const char *name, int64_t in,
                              int64_t out) {
    device_layer layer = {.kernel = 1, .stride = 1, .in = in, .geglu = 1};
    char base[WEIGHTS_NAME];
    (void)snprintf(base, sizeof base, "%s%s", block, name);
    take_part(loader, &layer, base, 1, out);
    return make_layer(loader, &layer);
}

device_weights *weights_convolution(weights_loader *loader, const char *block, const char *name, int64_t in,
                                    int64_t out, int32_t stride) {
    device_layer layer = {.kernel = 3, .stride = stride, .in = in};
    char base[WEIGHTS_NAME];
    (void)snprintf(base, sizeof base, "%s%s", block, name);
    take_part(loader, &layer, base, 1, out);
    return make_layer(loader, &layer);
}

float *weights_matrix(weights_loader *loader, const char *name, int64_t rows, int64_t columns) {
    int64_t shape[2] = {rows, columns};
    weights_pool *pool = loader->pool;
    float *vector = NULL;
    char room[WEIGHTS_TENSOR_NAME];
    device_stored stored = take(loader, name, shape, 2);
    if (loader->code != ATTUNE_OK || loader->missing > 0)
        return NULL;
    loader->code =
        grow(pool->host, (void **)&pool->vectors, pool->vector_count, &pool->vector_capacity, loader->error);
    if (loader->code == ATTUNE_OK)
        loader->code = pool->ops->vector(pool->dev, stored_name(loader, name, room), stored,
                                         (uint64_t)(rows * columns), &vector, loader->error);
    if (loader->code == ATTUNE_OK)
        pool->vectors[pool->vector_count++] = vector;
    return vector;
}

weights_norm weights_normalisation(weights_loader *loader, const char *block, const char *name,
                                   int64_t channels) {
    char tensor[2 * WEIGHTS_NAME];
    weights_norm norm;
    (void)snprintf(tensor, sizeof tensor, "%s%s.weight", block, name);
    weights_layer_name(loader, tensor, norm.name);
    norm.scale = weights_matrix(loader, tensor, channels, 1);
    (void)snprintf(tensor, sizeof tensor, "%s%s.bias", block, name);
    norm.shift = weights_matrix(loader, tensor, channels, 1);
    return norm;
}

device_stored weights_table(weights_loader *loader, const char *name, int64_t rows, int64_t columns) {
    int64_t shape[2] = {rows, columns};
    char room[WEIGHTS_TENSOR_NAME];
    device_stored stored = take(loader, name, shape, 2);
    if (loader->code == ATTUNE_OK && loader->missing == 0)
        loader->code = loader->pool->ops->check(loader->pool->dev, stored_name(loader, name, room), stored,
                                                (uint64_t)(rows * columns), loader->error);
    return stored;
}
