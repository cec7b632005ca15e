/*
 * layers.c: a layer's weights: as stored, packed for oneDNN, and the plans of how the layer is computed by
 * shape.
 *
 * oneDNN names the packed layout only once the shape is known, so weights are packed when a session that
 * needs them begins. A layout is kept as long as the model is open and shared by all its sessions.
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

attune_code cpu_weights(device *dev, const device_layer *layer, device_weights **out, attune_error *error) {
    device_weights *weights = services_clear_alloc(&dev->host, 1, sizeof *weights, "model");
    if (!weights)
        return services_no_memory(layer->name[0], sizeof *weights, error);
    weights->layer = *layer;
    for (int32_t i = 0; i < layer->parts; ++i)
        weights->out += layer->out[i];
    attune_code code = make_bias(dev, weights, error);
    if (code == ATTUNE_OK)
        *out = weights;
    else
        cpu_weights_free(dev, weights);
    return code;
}

void layer_clear(product_plan *plan) {
    while (plan->variants > 0)
        primitive_close(&plan->variant[--plan->variants].run);
    plan->primitive_bytes = 0;
}

void layer_plan_free(device *dev, product_plan *plan) {
    layer_clear(plan);
    services_free(&dev->host, plan);
}

void cpu_weights_free(device *dev, device_weights *weights) {
    if (!weights)
        return;
    for (product_plan *plan = atomic_load(&weights->plans), *next; plan; plan = next) {
        next = plan->next;
        layer_plan_free(dev, plan);
    }
    for (layout *entry = weights->layouts, *next; entry; entry = next) {
        next = entry->next;
        services_free(&dev->host, entry->data);
        services_free(&dev->host, entry);
    }
    services_free(&dev->host, weights->bias);
    services_free(&dev->host, weights);
}

const device_layer *cpu_layer(const device_weights *weights) {
    return &weights->layer;
}

product_plan *layer_plan(device_weights *weights, const int64_t key[PLAN_KEYS]) {
    product_plan *plan = atomic_load_explicit(&weights->plans, memory_order_acquire);
    while (plan && memcmp(plan->key, key, sizeof plan->key) != 0)
        plan = plan->next;
    return plan;
}

attune_code layer_plan_new(device *dev, device_weights *weights, const int64_t key[PLAN_KEYS],
                           product_plan **out, attune_error *error) {
    product_plan *plan = services_clear_alloc(&dev->host, 1, sizeof *plan, "model");
    if (!plan)
        return services_no_memory(weights->layer.name[0], sizeof *plan, error);
    memcpy(plan->key, key, sizeof plan->key);
    *out = plan;
    return ATTUNE_OK;
}

void layer_plan_publish(device_weights *weights, product_plan *plan) {
    plan->next = atomic_load_explicit(&weights->plans, memory_order_relaxed);
    atomic_store_explicit(&weights->plans, plan, memory_order_release);
}

static attune_code layout_of(device *dev, device_weights *weights, const dnnl_memory_desc_t *desc,
                             layout **out, attune_error *error) {
    for (layout *entry = weights->layouts; entry; entry = entry->next)
        if (dnnl_memory_desc_equal(&entry->desc, desc)) {
            *out = entry;
            return ATTUNE_OK;
        }
    layout *entry = services_clear_alloc(&dev->host, 1, sizeof *entry, "model");
    if (!entry)
        return services_no_memory(weights->layer.name[0], sizeof *entry, error);
    entry->desc = *desc;
    entry->bytes = dnnl_memory_desc_get_size(desc);
    entry->next = weights->layouts;
    weights->layouts = entry;
    *out = entry;
    return ATTUNE_OK;
}

/* Open with the layout of the plan's first slice kind where oneDNN has a fast implementation for it, else
 * with what oneDNN likes best: the choice depends on the shape alone, so the same request always takes the
 * same path. */
static attune_code open_preferring(device *dev, device_weights *weights, const product_plan *plan,
                                   const primitive_shape *shape, primitive *out, attune_error *error) {
    const char *name = weights->layer.name[0];
    if (plan->variants > 0) {
        primitive_shape same = *shape;
        same.weights = plan->variant[0].run.weights;
        if (primitive_open(dev, &same, name, out, NULL) == ATTUNE_OK) {
            if (!primitive_is_slow(out) || primitive_is_slow(&plan->variant[0].run))
                return ATTUNE_OK;
            primitive_close(out);
        }
    }
    return primitive_open(dev, shape, name, out, error);
}

static attune_code add_variant(device *dev, device_weights *weights, product_plan *plan, const primitive *run,
                               const dnnl_memory_desc_t *packed, const int64_t size[3], attune_error *error) {
    variant *added = &plan->variant[plan->variants++]; /* from here on the plan owns `run` */
    added->run = *run;
    memcpy(added->size, size, sizeof added->size);
    if (run->scratch_bytes > plan->primitive_bytes)
        plan->primitive_bytes = run->scratch_bytes;
    return layout_of(dev, weights, packed, &added->weights, error);
}

attune_code layer_variant(device *dev, device_weights *weights, product_plan *plan,
                          const primitive_shape *shape, const int64_t size[3], attune_error *error) {
    primitive run;
    if (layer_variant_find(plan, size))
        return ATTUNE_OK;
    if (plan->variants == PLAN_VARIANTS)
        return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, weights->layer.name[0],
                           "more than %d kinds of slices for '%s'", PLAN_VARIANTS, weights->layer.name[0]);
    attune_code code = open_preferring(dev, weights, plan, shape, &run, error);
    return code == ATTUNE_OK ? add_variant(dev, weights, plan, &run, &run.weights, size, error) : code;
}

/* Whether a chunk of `full`'s output channels lies in it as `chunk` describes: same blocks, same steps. */
static int is_part_of(const dnnl_memory_desc_t *full, const dnnl_memory_desc_t *chunk) {
    const dnnl_blocking_desc_t *a = &full->format_desc.blocking, *b = &chunk->format_desc.blocking;
    if (full->format_kind != dnnl_blocked || chunk->format_kind != dnnl_blocked ||
        full->ndims != chunk->ndims || a->inner_nblks != b->inner_nblks || full->extra.flags != 0 ||
        chunk->extra.flags != 0)
        return 0;
    return memcmp(a->strides, b->strides, (size_t)full->ndims * sizeof a->strides[0]) == 0 &&
           memcmp(a->inner_blks, b->inner_blks, (size_t)a->inner_nblks * sizeof a->inner_blks[0]) == 0 &&
           memcmp(a->inner_idxs, b->inner_idxs, (size_t)a->inner_nblks * sizeof a->inner_idxs[0]) == 0;
}

attune_code layer_chunk(device *dev, device_weights *weights, product_plan *plan,
                        const dnnl_memory_desc_t *full, const primitive_shape *shape, const int64_t size[3],
                        int *fits, attune_error *error) {
    primitive run;
    attune_code code = primitive_open(dev, shape, weights->layer.name[0], &run, error);
    if (code != ATTUNE_OK)
        return code;
    *fits = !primitive_is_slow(&run) && is_part_of(full, &run.weights);
    if (!*fits) {
        primitive_close(&run);
        return ATTUNE_OK;
    }
    return add_variant(dev, weights, plan, &run, full, size, error);
}

int64_t layer_block(const dnnl_memory_desc_t *desc, int32_t axis) {
    const dnnl_blocking_desc_t *blocking = &desc->format_desc.blocking;
    int64_t block = 1;
    for (int i = 0; i < blocking->inner_nblks; ++i)
        if (blocking->inner_idxs[i] == axis)
            block *= blocking->inner_blks[i];
    return block;
}

const float *layer_packed(const variant *kind, int32_t axis, int64_t column) {
    const dnnl_memory_desc_t *desc = &kind->weights->desc;
    return kind->weights->data + column / layer_block(desc, axis) * desc->format_desc.blocking.strides[axis];
}

const variant *layer_variant_find(const product_plan *plan, const int64_t size[3]) {
    for (int32_t i = 0; i < plan->variants; ++i)
        if (memcmp(plan->variant[i].size, size, sizeof plan->variant[i].size) == 0)
            return &plan->variant[i];
    return NULL;
}

void layer_want(device_pass *pass, product_plan *plan, uint64_t worker_bytes) {
    pass_need(pass, 0, scratch_round(plan->primitive_bytes) + worker_bytes);
    for (int32_t i = 0; i < plan->variants; ++i) {
        layout *packed = plan->variant[i].weights;
        if (packed->wanted != pass->serial && !packed->data)
            pass->weights_bytes += packed->bytes;
        packed->wanted = pass->serial;
    }
}

/* ---- packing ---- */

/* One layout that waits for its weights. */
typedef struct pack_job {
    device_weights *weights;
    layout *target;
} pack_job;

typedef struct pack_context {
    device *dev;
    const pack_job *jobs;
} pack_context;

/* The descriptor of the stored values: (out, in, 3, 3), or (out, in) seen as the (in, out) matrix of a
 * product. */
static dnnl_status_t stored_desc(const device_weights *weights, dnnl_memory_desc_t *out) {
    int64_t in = weights->layer.in;
    if (weights->layer.kernel == 3) {
        dnnl_dims_t dims = {weights->out, in, 3, 3};
        return dnnl_memory_desc_init_by_tag(out, 4, dims, dnnl_f32, dnnl_oihw);
    }
    dnnl_dims_t dims = {in, weights->out};
    return dnnl_memory_desc_init_by_tag(out, 2, dims, dnnl_f32, dnnl_ba);
}

static attune_code pack_one(device *dev, const pack_job *job, float *plain, float *packed,
                            attune_error *error) {
    const device_layer *layer = &job->weights->layer;
    uint64_t taps = (uint64_t)layer->kernel * (uint64_t)layer->kernel, start = 0;
    for (int32_t i = 0; i < layer->parts; ++i) {
        uint64_t count = (uint64_t)layer->out[i] * (uint64_t)layer->in * taps;
        attune_code code = widen(dev, layer->name[i], layer->weight[i], count, plain + start, error);
        if (code != ATTUNE_OK)
            return code;
        start += count;
    }
    dnnl_memory_desc_t from;
    dnnl_status_t status = stored_desc(job->weights, &from);
    if (status != dnnl_success)
        return primitive_fail(error, layer->name[0], "describe weights", status);
    return primitive_reorder(dev, &from, plain, &job->target->desc, packed, layer->name[0], error);
}

static attune_code pack_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const pack_context *pack = context;
    const pack_job *job = &pack->jobs[task];
    const device_layer *layer = &job->weights->layer;
    const attune_memory_service *memory = pack->dev->host.memory;
    uint64_t taps = (uint64_t)layer->kernel * (uint64_t)layer->kernel;
    uint64_t bytes = (uint64_t)job->weights->out * (uint64_t)layer->in * taps * sizeof(float);
    (void)worker;
    float *plain = memory->alloc(memory->context, bytes, "packing");
    float *packed = memory->alloc(memory->context, job->target->bytes, "weights");
    attune_code code = plain && packed
                           ? pack_one(pack->dev, job, plain, packed, error)
                           : services_no_memory(layer->name[0], bytes + job->target->bytes, error);
    memory->free(memory->context, plain);
    if (code == ATTUNE_OK)
        job->target->data = packed;
    else
        memory->free(memory->context, packed);
    return code;
}

static uint64_t list_jobs(const device_pass *pass, device_weights *const *weights, uint64_t count,
                          pack_job *jobs) {
    uint64_t found = 0;
    for (uint64_t i = 0; i < count; ++i)
        for (layout *entry = weights[i]->layouts; entry; entry = entry->next)
            if (entry->wanted == pass->serial && !entry->data) {
                if (jobs)
                    jobs[found] = (pack_job){weights[i], entry};
                found++;
            }
    return found;
}

attune_code cpu_pack(device *dev, device_pass *pass, device_weights *const *weights, uint64_t count,
                     attune_error *error) {
    uint64_t n = list_jobs(pass, weights, count, NULL);
    if (n == 0)
        return ATTUNE_OK;
    pack_job *jobs = services_clear_alloc(&dev->host, n, sizeof *jobs, "packing");
    if (!jobs)
        return services_no_memory("packing", n * sizeof *jobs, error);
    (void)list_jobs(pass, weights, count, jobs);
    pack_context context = {dev, jobs};
    attune_code code = run_tasks(dev, pass->stream, n, pack_task, &context, error);
    services_free(&dev->host, jobs);
    return code;
}
