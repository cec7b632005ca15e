/* pass.c: memory and control of a walk through the networks. */
#include "plugin/sampler/pass.h"
#include "plugin/sampler/safetensors.h"

enum { ALIGNMENT = 64, PLANNING_BASE = 4096 };

void pass_plan(pass *p, const services *host, const device_ops *ops, device *dev, const attune_stream *stream,
               int32_t determinism) {
    char vendor[32];
    const attune_control *control = p->control;
    memset(p, 0, sizeof *p);
    p->control = control;
    p->host = host;
    p->ops = ops;
    p->dev = dev;
    p->run.stream = stream;
    p->run.planning = 1;
    p->phase = PHASE_NONE;
    p->base = p->kept_base = PLANNING_BASE;
    p->determinism = determinism;
    ops->describe(dev, &p->device_id, vendor);
}

void pass_plan_phase(pass *p, int32_t phase) {
    p->phase = phase;
    memset(&p->memory, 0, sizeof p->memory);
    p->ops->plan(p->dev, &p->run);
}

void pass_plan_end(pass *p) {
    p->needs[p->phase] = (phase_needs){.serial = p->run.serial,
                                       .activations = p->memory.peak,
                                       .shared = p->run.shared_bytes,
                                       .worker = p->run.worker_bytes};
    p->phase = PHASE_NONE;
}

static uint64_t round_up(uint64_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint64_t scratch_bytes(const pass *p, const phase_needs *needs) {
    uint64_t workers = p->run.stream->workers ? p->run.stream->workers : 1, bytes;
    if (__builtin_mul_overflow(workers, round_up(needs->worker), &bytes) ||
        __builtin_add_overflow(bytes, round_up(needs->shared), &bytes))
        return UINT64_MAX;
    return bytes;
}

uint64_t pass_phase_bytes(const pass *p, int32_t phase) {
    const phase_needs *needs = &p->needs[phase];
    uint64_t bytes = scratch_bytes(p, needs);
    if (needs->workspace > INT64_MAX || __builtin_add_overflow(bytes, needs->activations, &bytes) ||
        __builtin_add_overflow(bytes, round_up(needs->workspace), &bytes) ||
        __builtin_add_overflow(bytes, round_up(needs->room), &bytes))
        return UINT64_MAX;
    return bytes;
}

uint64_t pass_kept_bytes(const pass *p) {
    return p->kept.peak;
}

attune_code pass_start(pass *p, attune_error *error) {
    void *kept = NULL;
    p->run.planning = 0;
    p->base = p->kept_base = 0;
    pass_forget(p, 1);
    if (p->kept.peak == 0)
        return ATTUNE_OK;
    attune_code code = p->ops->alloc(p->dev, p->kept.peak, "keys and values of the text", &kept, error);
    p->kept_base = (uintptr_t)kept;
    return code;
}

attune_code pass_enter(pass *p, int32_t phase, attune_error *error) {
    const phase_needs *needs = &p->needs[phase];
    void *memory = NULL;
    pass_leave(p);
    attune_code code = p->ops->alloc(p->dev, pass_phase_bytes(p, phase), "activations", &memory, error);
    if (code != ATTUNE_OK)
        return code;
    char *at = (char *)memory + needs->activations;
    p->phase = phase;
    p->base = (uintptr_t)memory;
    p->memory = (arena){.peak = needs->activations};
    p->run.shared_bytes = needs->shared;
    p->run.worker_bytes = needs->worker;
    p->run.scratch = at;
    p->workspace = at += scratch_bytes(p, needs);
    p->run.room = at + round_up(needs->workspace);
    p->run.room_bytes = needs->room;
    return ATTUNE_OK;
}

void pass_leave(pass *p) {
    if (p->phase == PHASE_NONE)
        return;
    p->ops->free(p->dev, (void *)p->base);
    p->base = 0;
    p->phase = PHASE_NONE;
}

void pass_close(pass *p) {
    if (!p->ops || p->run.planning)
        return;
    pass_leave(p);
    p->ops->free(p->dev, (void *)p->kept_base);
    memset(p, 0, sizeof *p);
}

void pass_forget(pass *p, int32_t kept) {
    p->memory.count = 0;
    if (kept)
        p->kept.count = 0;
}

/* The lowest gap of at least `bytes`; returns where a block there goes in the list. */
static uint32_t find_gap(const arena *memory, uint64_t bytes, uint64_t *offset) {
    uint64_t end = 0;
    uint32_t i = 0;
    for (; i < memory->count; ++i) {
        if (memory->used[i].offset - end >= bytes)
            break;
        end = memory->used[i].offset + memory->used[i].bytes;
    }
    *offset = end;
    return i;
}

static attune_code take(const pass *p, arena *memory, uintptr_t base, int64_t count, float **out,
                        attune_error *error) {
    uint64_t bytes, offset, end;
    if (count < 1 || __builtin_mul_overflow((uint64_t)count, sizeof(float), &bytes) || bytes > INT64_MAX / 2)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, "pass",
                           "%lld floats are too many", (long long)count);
    bytes = round_up(bytes);
    uint32_t at = find_gap(memory, bytes, &offset);
    end = offset + bytes;
    if (memory->count == ARENA_MAX_BLOCKS || end > INT64_MAX / 2 || (!p->run.planning && end > memory->peak))
        return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, "pass", "the memory plan was not kept");
    memmove(memory->used + at + 1, memory->used + at, (memory->count - at) * sizeof *memory->used);
    memory->used[at] = (arena_block){offset, bytes};
    memory->count++;
    memory->peak = end > memory->peak ? end : memory->peak;
    *out = (float *)(base + offset);
    return ATTUNE_OK;
}

attune_code pass_take(pass *p, int64_t count, float **out, attune_error *error) {
    return take(p, &p->memory, p->base, count, out, error);
}

attune_code pass_keep(pass *p, int64_t count, float **out, attune_error *error) {
    return take(p, &p->kept, p->kept_base, count, out, error);
}

void pass_give(pass *p, float **pointer) {
    arena *memory = &p->memory;
    uint64_t offset = (uintptr_t)*pointer - p->base;
    for (uint32_t i = 0; *pointer && i < memory->count; ++i)
        if (memory->used[i].offset == offset) {
            memory->count--;
            memmove(memory->used + i, memory->used + i + 1, (memory->count - i) * sizeof *memory->used);
            break;
        }
    *pointer = NULL;
}

void pass_shrink(pass *p, const float *pointer, int64_t count) {
    arena *memory = &p->memory;
    for (uint32_t i = 0; i < memory->count; ++i)
        if (memory->used[i].offset == (uintptr_t)pointer - p->base)
            memory->used[i].bytes = round_up((uint64_t)count * sizeof *pointer);
}

attune_code pass_check(const pass *p, attune_error *error) {
    const attune_control *control = p->control;
    if (!control)
        return ATTUNE_OK;
    if (control->cancelled && control->cancelled(control->context))
        return attune_fail(error, ATTUNE_CANCELLED, SAMPLER_DOMAIN, "session", "cancelled");
    if (control->deadline && p->host->clock->now(p->host->clock->context) > control->deadline)
        return attune_fail(error, ATTUNE_DEADLINE_EXCEEDED, SAMPLER_DOMAIN, "session",
                           "the deadline has passed");
    return ATTUNE_OK;
}

static attune_code fail_layer(const pass *p, const char *layer, attune_error *error) {
    attune_code code = attune_fail(error, ATTUNE_OUT_OF_RANGE, SAMPLER_DOMAIN, layer,
                                   "%s: layer '%s' gives values that are not finite numbers", p->part, layer);
    attune_hint(error,
                "float32 overflows there: try a smaller CFG scale or weights of the prompt nearer to 1, "
                "or another model");
    return code;
}

attune_code pass_watch(pass *p, const char *layer, const float *made, int64_t rows, int64_t channels,
                       int64_t stride, attune_error *error) {
    int32_t finite;
    if (!p->watching || p->run.planning)
        return ATTUNE_OK;
    PASS_TRY(p->ops->finite(p->dev, &p->run, made, rows, channels, stride, &finite, error));
    return finite ? ATTUNE_OK : fail_layer(p, layer, error);
}

/* Each part of what a layer made; `share` of a layer's channels are one of its result. */
static attune_code watch_layer(pass *p, const device_weights *weights, const float *made, int64_t rows,
                               int64_t share, attune_error *error) {
    const device_layer *layer = p->ops->layer(weights);
    int64_t stride = 0;
    for (int32_t i = 0; i < layer->parts; ++i)
        stride += layer->out[i] / share;
    for (int32_t i = 0; i < layer->parts; made += layer->out[i] / share, ++i)
        PASS_TRY(pass_watch(p, layer->name[i], made, rows, layer->out[i] / share, stride, error));
    return ATTUNE_OK;
}

/* Weights that are packed for each call were read from the file for it: let go of its pages. */
static void release_file(const pass *p, const device_weights *weights) {
    const device_layer *layer = p->ops->layer(weights);
    const uint64_t taps = (uint64_t)layer->kernel * (uint64_t)layer->kernel;
    if (p->run.planning || p->ops->packed(weights))
        return;
    for (int32_t i = 0; i < layer->parts; ++i)
        safetensors_release_range(layer->weight[i].data, (uint64_t)layer->out[i] * (uint64_t)layer->in *
                                                             taps *
                                                             attune_dtype_bytes(layer->weight[i].dtype));
}

attune_code pass_linear(pass *p, device_weights *weights, const device_linear *args, attune_error *error) {
    PASS_TRY(pass_check(p, error));
    PASS_TRY(p->ops->linear(p->dev, &p->run, weights, args, error));
    release_file(p, weights);
    return watch_layer(p, weights, args->out, args->rows, args->activation == DEVICE_GEGLU ? 2 : 1, error);
}

attune_code pass_convolution(pass *p, device_weights *weights, const device_convolution *args,
                             attune_error *error) {
    device_convolution call = *args;
    int64_t stride = p->ops->layer(weights)->stride,
            height = args->up_height ? args->up_height : args->height,
            width = args->up_height ? args->up_width : args->width;
    int32_t finite = 1, shortcut_finite = 1;
    call.finite = p->watching && args->norm ? &finite : NULL;
    call.shortcut_finite = p->watching && args->shortcut ? &shortcut_finite : NULL;
    PASS_TRY(pass_check(p, error));
    PASS_TRY(p->ops->convolution(p->dev, &p->run, weights, &call, error));
    release_file(p, weights);
    if (args->shortcut)
        release_file(p, args->shortcut);
    if (!shortcut_finite)
        return fail_layer(p, p->ops->layer(args->shortcut)->name[0], error);
    if (!finite)
        return fail_layer(p, args->norm->name, error);
    height = (height + stride - 1) / stride;
    width = (width + stride - 1) / stride;
    return watch_layer(p, weights, args->out, args->batch * height * width, 1, error);
}

attune_code pass_group_norm(pass *p, const device_group_norm *args, attune_error *error) {
    PASS_TRY(pass_check(p, error));
    PASS_TRY(p->ops->group_norm(p->dev, &p->run, args, error));
    return pass_watch(p, args->name, args->out, args->batch * args->pixels, args->channels, args->channels,
                      error);
}

attune_code pass_layer_norm(pass *p, const device_layer_norm *args, attune_error *error) {
    PASS_TRY(pass_check(p, error));
    PASS_TRY(p->ops->layer_norm(p->dev, &p->run, args, error));
    return pass_watch(p, args->name, args->out, args->rows, args->channels, args->channels, error);
}
