/*
 * rearrange.c: operations that move values or look at them: joining of channels, token lookup, activations
 * that stand alone, and whether all is finite.
 */
#include "plugin/cpu/ops/cpu.h"

enum { BLOCK_ELEMENTS = 16384 };

static int64_t block_rows(int64_t channels) {
    return divide_up(BLOCK_ELEMENTS, channels);
}

typedef struct concat_context {
    const device_concat *args;
    int64_t block;
} concat_context;

static attune_code concat_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const concat_context *c = context;
    const device_concat *args = c->args;
    int64_t first = (int64_t)task * c->block, channels = args->a_channels + args->b_channels;
    (void)worker;
    (void)error;
    for (int64_t r = first; r < first + c->block && r < args->rows; ++r) {
        float *to = args->out + r * channels;
        memcpy(to, args->a + r * args->a_channels, (size_t)args->a_channels * sizeof *to);
        memcpy(to + args->a_channels, args->b + r * args->b_channels, (size_t)args->b_channels * sizeof *to);
    }
    return ATTUNE_OK;
}

attune_code cpu_concat(device *dev, device_pass *pass, const device_concat *args, attune_error *error) {
    if (pass->planning)
        return ATTUNE_OK;
    concat_context c = {args, block_rows(args->a_channels + args->b_channels)};
    return run_tasks(dev, pass->stream, (uint64_t)divide_up(args->rows, c.block), concat_task, &c, error);
}

attune_code cpu_embed(device *dev, device_pass *pass, const device_embed *args, attune_error *error) {
    if (pass->planning)
        return ATTUNE_OK;
    const unsigned char *table = args->tokens.data;
    uint64_t row_bytes = (uint64_t)args->channels * attune_dtype_bytes(args->tokens.dtype);
    (void)error;
    for (int64_t r = 0; r < args->rows; ++r) {
        const unsigned char *row = table + (uint64_t)args->ids[r] * row_bytes;
        float *out = args->out + r * args->channels;
        if (attune_dtype_equal(args->tokens.dtype, ATTUNE_F32))
            memcpy(out, row, row_bytes);
        else if (attune_dtype_equal(args->tokens.dtype, ATTUNE_F16))
            dev->kernels->from_f16(row, (uint64_t)args->channels, out);
        else
            dev->kernels->from_bf16(row, (uint64_t)args->channels, out);
        dev->kernels->add(out, args->positional + r % args->positions * args->channels, args->channels, out);
    }
    return ATTUNE_OK;
}

typedef struct activate_context {
    const elementwise_kernels *kernels;
    device_activation activation;
    const float *x;
    uint64_t count;
    float *out;
} activate_context;

static attune_code activate_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const activate_context *c = context;
    uint64_t first = task * BLOCK_ELEMENTS, left = c->count - first;
    int64_t n = (int64_t)(left < BLOCK_ELEMENTS ? left : BLOCK_ELEMENTS);
    (void)worker;
    (void)error;
    if (c->activation == DEVICE_SILU)
        c->kernels->silu(c->x + first, n, c->out + first);
    else if (c->activation == DEVICE_GELU)
        c->kernels->gelu(c->x + first, n, c->out + first);
    else
        c->kernels->quick_gelu(c->x + first, n, c->out + first);
    return ATTUNE_OK;
}

attune_code cpu_activate(device *dev, device_pass *pass, device_activation activation, const float *x,
                         uint64_t count, float *out, attune_error *error) {
    if (activation != DEVICE_SILU && activation != DEVICE_GELU && activation != DEVICE_QUICK_GELU)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "activate",
                           "activation %d stands not alone", (int)activation);
    if (pass->planning)
        return ATTUNE_OK;
    activate_context c = {dev->kernels, activation, x, count, out};
    return run_tasks(dev, pass->stream, (count + BLOCK_ELEMENTS - 1) / BLOCK_ELEMENTS, activate_task, &c,
                     error);
}

typedef struct finite_context {
    const elementwise_kernels *kernels;
    const float *x;
    int64_t rows;
    int64_t channels;
    int64_t stride;
    int64_t block; /* rows */
    _Atomic int32_t finite;
} finite_context;

static attune_code finite_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    finite_context *c = context;
    int64_t first = (int64_t)task * c->block;
    (void)worker;
    (void)error;
    for (int64_t r = first; r < first + c->block && r < c->rows; ++r)
        if (!c->kernels->finite_f32(c->x + r * c->stride, (uint64_t)c->channels))
            atomic_store_explicit(&c->finite, 0, memory_order_relaxed);
    return ATTUNE_OK;
}

attune_code cpu_finite(device *dev, device_pass *pass, const float *x, int64_t rows, int64_t channels,
                       int64_t stride, int32_t *out, attune_error *error) {
    finite_context c = {dev->kernels, x, rows, channels, stride, block_rows(channels), 1};
    attune_code code =
        run_tasks(dev, pass->stream, (uint64_t)divide_up(rows, c.block), finite_task, &c, error);
    *out = atomic_load_explicit(&c.finite, memory_order_relaxed);
    return code;
}
