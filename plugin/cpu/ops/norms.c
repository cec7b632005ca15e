/*
 * norms.c: group and layer normalisation on the CPU: kernels/norm.h, its tasks handed to the host's threads.
 */
#include "plugin/cpu/ops/cpu.h"

enum { SMALL_IMAGE = 65536 };

typedef struct group_context {
    const attune_norm_f32_kernel *kernel;
    const attune_group_norm_f32 *args;
    int phase;
    float *workspace;
} group_context;

static attune_code phase_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const group_context *c = context;
    (void)worker;
    (void)error;
    c->kernel->group_run(c->args, c->phase, task, c->workspace);
    return ATTUNE_OK;
}

/* Sums and factors of a small image: by one thread. */
static attune_code image_task(void *context, uint64_t image, uint32_t worker, attune_error *error) {
    const group_context *c = context;
    (void)worker;
    (void)error;
    for (int phase = 0; phase < ATTUNE_NORM_APPLY; ++phase) {
        const uint64_t tasks = c->kernel->group_tasks(c->args, phase);
        for (uint64_t i = 0; i < tasks; ++i)
            c->kernel->group_run(c->args, phase, image * tasks + i, c->workspace);
    }
    return ATTUNE_OK;
}

attune_group_norm_f32 norm_args(const device_group_norm *args) {
    return (attune_group_norm_f32){.x = args->x,
                                   .batch = args->batch,
                                   .pixels = args->pixels,
                                   .channels = args->channels,
                                   .groups = args->groups,
                                   .eps = args->eps,
                                   .scale = args->scale,
                                   .shift = args->shift,
                                   .silu = args->activation == DEVICE_SILU,
                                   .out = args->out};
}

static attune_code run_phase(device *dev, const device_pass *pass, group_context *c, int phase,
                             attune_error *error) {
    c->phase = phase;
    const uint64_t tasks = (uint64_t)c->args->batch * c->kernel->group_tasks(c->args, phase);
    return run_tasks(dev, pass->stream, tasks, phase_task, c, error);
}

attune_code norm_factors(device *dev, const device_pass *pass, const attune_group_norm_f32 *args,
                         float *workspace, attune_error *error) {
    group_context c = {dev->arithmetic.norm_f32, args, 0, workspace};
    if (args->pixels * args->channels <= SMALL_IMAGE)
        return run_tasks(dev, pass->stream, (uint64_t)args->batch, image_task, &c, error);
    attune_code code = run_phase(dev, pass, &c, ATTUNE_NORM_SUMS, error);
    return code == ATTUNE_OK ? run_phase(dev, pass, &c, ATTUNE_NORM_FACTORS, error) : code;
}

attune_code norm_apply(device *dev, const device_pass *pass, const attune_group_norm_f32 *args,
                       float *workspace, attune_error *error) {
    group_context c = {dev->arithmetic.norm_f32, args, 0, workspace};
    return run_phase(dev, pass, &c, ATTUNE_NORM_APPLY, error);
}

attune_code cpu_group_norm(device *dev, device_pass *pass, const device_group_norm *args,
                           attune_error *error) {
    const attune_group_norm_f32 norm = norm_args(args);
    if (pass->planning) {
        pass_need(pass, attune_group_norm_f32_workspace(&norm) * sizeof(float), 0);
        return ATTUNE_OK;
    }
    attune_code code = norm_factors(dev, pass, &norm, pass->scratch, error);
    return code == ATTUNE_OK ? norm_apply(dev, pass, &norm, pass->scratch, error) : code;
}

typedef struct layer_context {
    const attune_norm_f32_kernel *kernel;
    attune_layer_norm_f32 args;
} layer_context;

static attune_code layer_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const layer_context *c = context;
    (void)worker;
    (void)error;
    c->kernel->layer_run(&c->args, task);
    return ATTUNE_OK;
}

attune_code cpu_layer_norm(device *dev, device_pass *pass, const device_layer_norm *args,
                           attune_error *error) {
    if (pass->planning)
        return ATTUNE_OK;
    layer_context c = {dev->arithmetic.norm_f32,
                       {args->x, args->rows, args->channels, args->eps, args->scale, args->shift, args->out}};
    return run_tasks(dev, pass->stream, c.kernel->layer_tasks(&c.args), layer_task, &c, error);
}
