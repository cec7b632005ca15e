/*
 * linear.c: x · Wᵀ + b with what follows it (residual, activation, GEGLU), by kernels/matmul.h.
 */
#include "plugin/cpu/ops/cpu.h"

typedef struct linear_context {
    const attune_matmul_f32_kernel *kernel;
    const device_pass *pass;
    attune_matmul_f32 args;
} linear_context;

static attune_code linear_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const linear_context *c = context;
    (void)error;
    c->kernel->run(&c->args, task, pass_worker(c->pass, worker));
    return ATTUNE_OK;
}

static int32_t epilogue_of(device_activation activation) {
    static const int32_t epilogues[] = {[DEVICE_IDENTITY] = ATTUNE_PRODUCT_PLAIN,
                                        [DEVICE_SILU] = ATTUNE_PRODUCT_SILU,
                                        [DEVICE_GELU] = ATTUNE_PRODUCT_GELU,
                                        [DEVICE_QUICK_GELU] = ATTUNE_PRODUCT_QUICK_GELU,
                                        [DEVICE_GEGLU] = ATTUNE_PRODUCT_GEGLU};
    return epilogues[activation];
}

attune_matmul_f32 linear_args(const device_weights *weights, const void *packed, const float *x, int64_t rows,
                              float *out) {
    return (attune_matmul_f32){.rows = rows,
                               .in = weights->layer.in,
                               .out = weights->out,
                               .x = x,
                               .stride_x = weights->layer.in,
                               .storage = weights->shape.storage,
                               .weights = packed,
                               .start = weights->bias,
                               .result = out,
                               .stride_result = weights->out};
}

attune_code linear_run(device *dev, const device_pass *pass, const attune_matmul_f32 *args,
                       attune_error *error) {
    linear_context c = {dev->arithmetic.matmul_f32, pass, *args};
    return run_tasks(dev, pass->stream, c.kernel->tasks(args), linear_task, &c, error);
}

attune_code cpu_linear(device *dev, device_pass *pass, device_weights *weights, const device_linear *args,
                       attune_error *error) {
    const int geglu = args->activation == DEVICE_GEGLU;
    attune_matmul_f32 product = linear_args(weights, NULL, args->x, args->rows, args->out);
    product.stride_result = geglu ? weights->out / 2 : weights->out;
    product.residual = args->residual;
    product.stride_residual = weights->out;
    product.activation = epilogue_of(args->activation);
    if (geglu != weights->layer.geglu || (args->residual && args->activation != DEVICE_IDENTITY))
        return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, weights->layer.name[0],
                           "'%s' is not made for this activation", weights->layer.name[0]);
    if (pass->planning) {
        weights->wanted = pass->serial;
        pass_need(pass, 0, dev->arithmetic.matmul_f32->workspace(&product));
        pass_need_room(pass, weights->bytes);
        return ATTUNE_OK;
    }
    attune_code code = layer_weights(dev, pass, weights, 0, &product.weights, error);
    return code == ATTUNE_OK ? linear_run(dev, pass, &product, error) : code;
}
