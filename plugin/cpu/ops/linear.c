/*
 * linear.c: x · Wᵀ + b by oneDNN's matmul, with what follows it (residual, activation, GEGLU) while the slice
 * is in the cache. A call is cut into slices of rows, or, where rows are few and weights many, into chunks of
 * columns, so that the weights are read once.
 */
#include "plugin/cpu/ops/cpu.h"

enum { WEIGHTS_AXIS = 1 }; /* output channels in the (in, out) matrix */

static const int64_t TASK_FLOPS = 2000000; /* below about 10 µs a task costs more to hand out than it does */
static const int64_t LARGE_WEIGHTS = 512 * 1024; /* bytes: not worth reading again for fewer than 64 rows */

/* What one call's tasks share. */
typedef struct linear_context {
    device *dev;
    const device_pass *pass;
    const device_weights *weights;
    const device_linear *args;
    const product_plan *plan;
    int64_t outputs; /* columns of `out` */
} linear_context;

static int64_t at_most(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t at_least(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* How a product is cut, by its shape alone. */
static void cut(product_plan *plan, int64_t rows, int64_t in, int64_t columns, int32_t geglu) {
    int64_t per_output = 2 * in * (geglu ? 2 : 1);
    int64_t flops = rows * columns * per_output;
    int64_t want = at_most(at_least(flops / TASK_FLOPS, 1), 64);
    int64_t least = columns * in * (int64_t)sizeof(float) > LARGE_WEIGHTS ? 64 : 16;
    plan->rows = divide_up(at_most(at_least(divide_up(rows, want), least), geglu ? 64 : 128), 16) * 16;
    plan->row_slices = divide_up(rows, plan->rows);
    plan->columns = columns;
    plan->column_chunks = 1;
    int64_t chunk = at_least(divide_up(columns, at_most(want, 8)), 64);
    chunk = divide_up(chunk, 64) * 64;
    if (plan->row_slices < at_most(want, 8) && divide_up(columns, chunk) > plan->row_slices && rows <= 256) {
        plan->rows = rows;
        plan->row_slices = 1;
        plan->columns = chunk;
        plan->column_chunks = divide_up(columns, chunk);
    }
    if (plan->row_slices == 1)
        plan->rows = rows;
}

static dnnl_status_t describe(primitive_shape *shape, int64_t rows, int64_t in, int64_t columns,
                              int32_t accumulate) {
    dnnl_dims_t src = {rows, in}, weights = {in, columns}, bias = {1, columns}, dst = {rows, columns};
    memset(shape, 0, sizeof *shape);
    shape->accumulate = accumulate;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&shape->src, 2, src, dnnl_f32, dnnl_ab);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&shape->weights, 2, weights, dnnl_f32, dnnl_format_tag_any);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&shape->bias, 2, bias, dnnl_f32, dnnl_ab);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&shape->dst, 2, dst, dnnl_f32, dnnl_ab);
    return status;
}

/* The slice kinds of a plan by rows: full slices, and the last one. */
static attune_code plan_rows(device *dev, device_weights *weights, product_plan *plan, int64_t rows,
                             int32_t accumulate, attune_error *error) {
    int64_t last = rows - (plan->row_slices - 1) * plan->rows;
    int64_t sizes[2][3] = {{plan->rows, weights->out, 0}, {last, weights->out, 0}};
    for (int i = 0; i < 2; ++i) {
        primitive_shape shape;
        dnnl_status_t status = describe(&shape, sizes[i][0], weights->layer.in, weights->out, accumulate);
        if (status != dnnl_success)
            return primitive_fail(error, weights->layer.name[0], "describe a product", status);
        attune_code code = layer_variant(dev, weights, plan, &shape, sizes[i], error);
        if (code != ATTUNE_OK)
            return code;
    }
    return ATTUNE_OK;
}

static attune_code plan_chunks(device *dev, device_weights *weights, product_plan *plan, int64_t rows,
                               int64_t columns, int *fits, attune_error *error) {
    const char *name = weights->layer.name[0];
    primitive_shape shape;
    primitive whole;
    dnnl_status_t status = describe(&shape, rows, weights->layer.in, weights->out, 0);
    if (status != dnnl_success)
        return primitive_fail(error, name, "describe a product", status);
    attune_code code = primitive_open(dev, &shape, name, &whole, error);
    if (code != ATTUNE_OK)
        return code;
    dnnl_memory_desc_t full = whole.weights;
    primitive_close(&whole);
    int64_t block = layer_block(&full, WEIGHTS_AXIS);
    *fits = plan->columns % block == 0 && columns % block == 0;
    int64_t last = columns - (plan->column_chunks - 1) * plan->columns;
    for (int i = 0; i < 2 && *fits; ++i) {
        int64_t size[3] = {rows, i ? last : plan->columns, 0};
        if (layer_variant_find(plan, size))
            continue;
        status = describe(&shape, rows, weights->layer.in, size[1], 0);
        if (status != dnnl_success)
            return primitive_fail(error, name, "describe a product", status);
        code = layer_chunk(dev, weights, plan, &full, &shape, size, fits, error);
        if (code != ATTUNE_OK)
            return code;
    }
    return ATTUNE_OK;
}

static attune_code make_plan(device *dev, device_weights *weights, const device_linear *args,
                             const int64_t key[PLAN_KEYS], product_plan **out, attune_error *error) {
    int32_t geglu = args->activation == DEVICE_GEGLU;
    product_plan *plan;
    attune_code code = layer_plan_new(dev, weights, key, &plan, error);
    if (code != ATTUNE_OK)
        return code;
    int64_t columns = geglu ? weights->out / 2 : weights->out;
    cut(plan, args->rows, weights->layer.in, columns, geglu);
    if (plan->column_chunks > 1) {
        int fits = 0;
        code = plan_chunks(dev, weights, plan, args->rows, columns, &fits, error);
        if (code == ATTUNE_OK && !fits) { /* the layout cannot be cut: one slice */
            layer_clear(plan);
            plan->columns = columns;
            plan->column_chunks = 1;
        }
    }
    if (plan->column_chunks == 1)
        code = plan_rows(dev, weights, plan, args->rows, args->residual != NULL, error);
    if (code != ATTUNE_OK) {
        layer_plan_free(dev, plan);
        return code;
    }
    layer_plan_publish(weights, plan);
    *out = plan;
    return ATTUNE_OK;
}

static void activate(const elementwise_kernels *kernels, device_activation activation, float *x, int64_t n) {
    if (activation == DEVICE_SILU)
        kernels->silu(x, n, x);
    else if (activation == DEVICE_GELU)
        kernels->gelu(x, n, x);
    else if (activation == DEVICE_QUICK_GELU)
        kernels->quick_gelu(x, n, x);
}

/* All columns of some rows: straight into `out`, but for GEGLU. */
static attune_code row_slice(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const linear_context *c = context;
    const device_linear *args = c->args;
    int64_t first = (int64_t)task * c->plan->rows, rows = at_most(c->plan->rows, args->rows - first);
    int64_t size[3] = {rows, c->weights->out, 0}, count = rows * c->weights->out;
    const variant *kind = layer_variant_find(c->plan, size);
    char *scratch = pass_worker(c->pass, worker);
    float *out = args->out + first * c->outputs;
    int geglu = args->activation == DEVICE_GEGLU;
    float *product = geglu ? (float *)(void *)(scratch + c->plan->primitive_bytes) : out;
    if (args->residual && args->residual != args->out)
        memcpy(out, args->residual + first * c->outputs, (size_t)count * sizeof *out);
    primitive_memory memory = {args->x + first * c->weights->layer.in, layer_packed(kind, WEIGHTS_AXIS, 0),
                               c->weights->bias, product, scratch};
    attune_code code = primitive_run(c->dev, &kind->run, &memory, c->weights->layer.name[0], error);
    if (code != ATTUNE_OK)
        return code;
    if (geglu)
        c->dev->kernels->geglu(product, c->weights->out, product + c->outputs, c->weights->out, rows,
                               c->outputs, out, c->outputs);
    else
        activate(c->dev->kernels, args->activation, out, count);
    return ATTUNE_OK;
}

/* Some columns of all rows: into scratch memory, from there into `out`. */
static attune_code column_chunk(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const linear_context *c = context;
    const device_linear *args = c->args;
    int64_t first = (int64_t)task * c->plan->columns, columns = at_most(c->plan->columns, c->outputs - first);
    int64_t size[3] = {args->rows, columns, 0}, count = args->rows * columns;
    const variant *kind = layer_variant_find(c->plan, size);
    char *scratch = pass_worker(c->pass, worker);
    float *product = (float *)(void *)(scratch + c->plan->primitive_bytes);
    int halves = args->activation == DEVICE_GEGLU ? 2 : 1;
    for (int half = 0; half < halves; ++half) {
        int64_t column = first + half * c->outputs;
        primitive_memory memory = {args->x, layer_packed(kind, WEIGHTS_AXIS, column),
                                   c->weights->bias + column, product + half * count, scratch};
        attune_code code = primitive_run(c->dev, &kind->run, &memory, c->weights->layer.name[0], error);
        if (code != ATTUNE_OK)
            return code;
    }
    float *out = args->out + first;
    if (halves == 2) {
        c->dev->kernels->geglu(product, columns, product + count, columns, args->rows, columns, out,
                               c->outputs);
        return ATTUNE_OK;
    }
    activate(c->dev->kernels, args->residual ? DEVICE_IDENTITY : args->activation, product, count);
    for (int64_t r = 0; r < args->rows; ++r) {
        float *to = out + r * c->outputs;
        if (!args->residual) {
            memcpy(to, product + r * columns, (size_t)columns * sizeof *to);
            continue;
        }
        c->dev->kernels->add(product + r * columns, args->residual + first + r * c->outputs, columns, to);
        activate(c->dev->kernels, args->activation, to, columns);
    }
    return ATTUNE_OK;
}

/* Scratch floats that a slice needs beside the primitive's. */
static int64_t slice_floats(const product_plan *plan, const device_weights *weights, int32_t geglu) {
    if (plan->column_chunks > 1)
        return plan->rows * plan->columns * (geglu ? 2 : 1);
    return geglu ? plan->rows * weights->out : 0;
}

attune_code cpu_linear(device *dev, device_pass *pass, device_weights *weights, const device_linear *args,
                       attune_error *error) {
    int32_t geglu = args->activation == DEVICE_GEGLU;
    int64_t key[PLAN_KEYS] = {args->rows, args->residual != NULL, geglu, 0};
    product_plan *plan = layer_plan(weights, key);
    if (!plan) {
        if (!pass->planning)
            return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, weights->layer.name[0],
                               "'%s' was not planned", weights->layer.name[0]);
        attune_code code = make_plan(dev, weights, args, key, &plan, error);
        if (code != ATTUNE_OK)
            return code;
    }
    if (pass->planning) {
        layer_want(pass, plan, (uint64_t)slice_floats(plan, weights, geglu) * sizeof(float));
        return ATTUNE_OK;
    }
    linear_context context = {dev, pass, weights, args, plan, geglu ? weights->out / 2 : weights->out};
    int chunks = plan->column_chunks > 1;
    return run_tasks(dev, pass->stream, (uint64_t)(chunks ? plan->column_chunks : plan->row_slices),
                     chunks ? column_chunk : row_slice, &context, error);
}
