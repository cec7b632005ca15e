/*
 * convolution.c: 3×3 convolutions with padding 1 and stride 1 or 2 by oneDNN, channels last. One image is cut
 * into slices of rows (each a convolution of its own, whose padding is that of the image's edge or none), or,
 * where the image is small and its weights are many, into chunks of output channels.
 */
#include "plugin/cpu/ops/cpu.h"

enum { WEIGHTS_AXIS = 0 }; /* output channels in (out, in, 3, 3) */

static const int64_t TASK_FLOPS = 4000000;
static const int64_t LARGE_WEIGHTS =
    512 * 1024;                           /* bytes: not worth reading again for fewer than 256 pixels */
static const int64_t SLICE_PIXELS = 2048; /* keeps a slice's result in the cache for what follows */

/* The geometry of one call. */
typedef struct geometry {
    int64_t height;
    int64_t width;
    int64_t out_height;
    int64_t out_width;
    int64_t stride;
} geometry;

/* The rows that one slice reads and writes. */
typedef struct slice {
    int64_t first; /* row of the output */
    int64_t rows;
    int64_t in_first;
    int64_t in_rows;
    int64_t pad_top;
    int64_t pad_bottom;
} slice;

typedef struct convolution_context {
    device *dev;
    const device_pass *pass;
    const device_weights *weights;
    const device_convolution *args;
    const product_plan *plan;
    geometry size;
} convolution_context;

static int64_t at_most(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t at_least(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static geometry geometry_of(const device_weights *weights, const device_convolution *args) {
    int64_t stride = weights->layer.stride;
    return (geometry){args->height, args->width, divide_up(args->height, stride),
                      divide_up(args->width, stride), stride};
}

/* Output row y reads rows y·stride − 1 … y·stride + 1; those outside the image are padding. */
static slice slice_of(const product_plan *plan, const geometry *size, int64_t index) {
    slice s;
    s.first = index * plan->rows;
    s.rows = at_most(plan->rows, size->out_height - s.first);
    int64_t low = s.first * size->stride - 1, high = (s.first + s.rows - 1) * size->stride + 1;
    s.pad_top = at_least(0, -low);
    s.pad_bottom = at_least(0, high - (size->height - 1));
    s.in_first = at_least(low, 0);
    s.in_rows = at_most(high, size->height - 1) - s.in_first + 1;
    return s;
}

/* How one image is cut, by its shape alone; `block` output channels are packed together. */
static void cut(product_plan *plan, const geometry *size, int64_t in, int64_t out) {
    int64_t weights = 9 * in * out, pixels = size->out_height * size->out_width;
    int64_t want = at_most(at_least(2 * weights * pixels / TASK_FLOPS, 1), 16);
    int64_t least = weights * (int64_t)sizeof(float) > LARGE_WEIGHTS ? 256 : 32;
    int64_t rows = at_least(divide_up(size->out_height, want), divide_up(least, size->out_width));
    rows = at_most(rows, at_least(1, SLICE_PIXELS / size->out_width));
    plan->row_slices = divide_up(size->out_height, rows);
    plan->rows = divide_up(size->out_height, plan->row_slices);
    plan->row_slices = divide_up(size->out_height, plan->rows);
    plan->columns = out;
    plan->column_chunks = 1;
    if (plan->row_slices < at_most(want, 4) && pixels <= 1024 && out >= 128) {
        plan->rows = size->out_height;
        plan->row_slices = 1;
        plan->columns = divide_up(at_least(divide_up(out, at_most(want, 8)), 64), 32) * 32;
        plan->column_chunks = divide_up(out, plan->columns);
    }
}

static dnnl_status_t describe(primitive_shape *shape, const geometry *size, const slice *rows, int64_t in,
                              int64_t out, int32_t accumulate) {
    dnnl_dims_t src = {1, in, rows->in_rows, size->width}, weights = {out, in, 3, 3}, bias = {out};
    dnnl_dims_t dst = {1, out, rows->rows, size->out_width};
    memset(shape, 0, sizeof *shape);
    shape->convolution = 1;
    shape->accumulate = accumulate;
    shape->stride[0] = shape->stride[1] = size->stride;
    shape->pad_low[0] = rows->pad_top;
    shape->pad_low[1] = 1;
    shape->pad_high[0] = rows->pad_bottom;
    shape->pad_high[1] = (size->out_width - 1) * size->stride + 1 - (size->width - 1);
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&shape->src, 4, src, dnnl_f32, dnnl_nhwc);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&shape->weights, 4, weights, dnnl_f32, dnnl_format_tag_any);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&shape->bias, 1, bias, dnnl_f32, dnnl_a);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&shape->dst, 4, dst, dnnl_f32, dnnl_nhwc);
    return status;
}

/* The kinds of row slices: a middle one first (its packed layout is the one to keep), then the edges. */
static attune_code plan_rows(device *dev, device_weights *weights, product_plan *plan, const geometry *size,
                             int32_t accumulate, attune_error *error) {
    int64_t order[3] = {plan->row_slices / 2, 0, plan->row_slices - 1};
    for (int i = 0; i < 3; ++i) {
        slice rows = slice_of(plan, size, order[i]);
        int64_t kind[3] = {rows.rows, rows.pad_top, rows.pad_bottom};
        primitive_shape shape;
        dnnl_status_t status = describe(&shape, size, &rows, weights->layer.in, weights->out, accumulate);
        if (status != dnnl_success)
            return primitive_fail(error, weights->layer.name[0], "describe a convolution", status);
        attune_code code = layer_variant(dev, weights, plan, &shape, kind, error);
        if (code != ATTUNE_OK)
            return code;
    }
    return ATTUNE_OK;
}

static attune_code plan_chunks(device *dev, device_weights *weights, product_plan *plan, const geometry *size,
                               int *fits, attune_error *error) {
    const char *name = weights->layer.name[0];
    slice rows = slice_of(plan, size, 0);
    primitive_shape shape;
    primitive whole;
    dnnl_status_t status = describe(&shape, size, &rows, weights->layer.in, weights->out, 0);
    if (status != dnnl_success)
        return primitive_fail(error, name, "describe a convolution", status);
    attune_code code = primitive_open(dev, &shape, name, &whole, error);
    if (code != ATTUNE_OK)
        return code;
    dnnl_memory_desc_t full = whole.weights;
    primitive_close(&whole);
    *fits = plan->columns % layer_block(&full, WEIGHTS_AXIS) == 0;
    int64_t last = weights->out - (plan->column_chunks - 1) * plan->columns;
    for (int i = 0; i < 2 && *fits; ++i) {
        int64_t kind[3] = {i ? last : plan->columns, 0, 0};
        if (layer_variant_find(plan, kind))
            continue;
        status = describe(&shape, size, &rows, weights->layer.in, kind[0], 0);
        if (status != dnnl_success)
            return primitive_fail(error, name, "describe a convolution", status);
        code = layer_chunk(dev, weights, plan, &full, &shape, kind, fits, error);
        if (code != ATTUNE_OK)
            return code;
    }
    return ATTUNE_OK;
}

static attune_code make_plan(device *dev, device_weights *weights, const geometry *size, int32_t accumulate,
                             const int64_t key[PLAN_KEYS], product_plan **out, attune_error *error) {
    product_plan *plan;
    attune_code code = layer_plan_new(dev, weights, key, &plan, error);
    if (code != ATTUNE_OK)
        return code;
    cut(plan, size, weights->layer.in, weights->out);
    if (plan->column_chunks > 1) {
        int fits = 0;
        code = plan_chunks(dev, weights, plan, size, &fits, error);
        if (code == ATTUNE_OK && !fits) { /* the layout cannot be cut: one slice */
            layer_clear(plan);
            plan->columns = weights->out;
            plan->column_chunks = 1;
        }
    }
    if (plan->column_chunks == 1)
        code = plan_rows(dev, weights, plan, size, accumulate, error);
    if (code != ATTUNE_OK) {
        layer_plan_free(dev, plan);
        return code;
    }
    layer_plan_publish(weights, plan);
    *out = plan;
    return ATTUNE_OK;
}

/* The bias of output channels `first` … of image `image`: the layer's, plus what the call shifts each channel
 * by. */
static const float *slice_bias(const convolution_context *c, int64_t image, int64_t first, int64_t columns,
                               float *room) {
    const float *bias = c->weights->bias + first;
    if (!c->args->shift)
        return bias;
    c->dev->kernels->add(bias, c->args->shift + image * c->weights->out + first, columns, room);
    return room;
}

static attune_code row_slice(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const convolution_context *c = context;
    const device_convolution *args = c->args;
    int64_t image = (int64_t)task / c->plan->row_slices;
    slice rows = slice_of(c->plan, &c->size, (int64_t)task % c->plan->row_slices);
    int64_t kind[3] = {rows.rows, rows.pad_top, rows.pad_bottom};
    const variant *found = layer_variant_find(c->plan, kind);
    char *scratch = pass_worker(c->pass, worker);
    int64_t start = (image * c->size.out_height + rows.first) * c->size.out_width * c->weights->out;
    float *out = args->out + start;
    if (args->residual && args->residual != args->out)
        memcpy(out, args->residual + start,
               (size_t)(rows.rows * c->size.out_width * c->weights->out) * sizeof *out);
    const float *bias =
        slice_bias(c, image, 0, c->weights->out, (float *)(void *)(scratch + c->plan->primitive_bytes));
    const float *x =
        args->x + (image * c->size.height + rows.in_first) * c->size.width * c->weights->layer.in;
    primitive_memory memory = {x, layer_packed(found, WEIGHTS_AXIS, 0), bias, out, scratch};
    return primitive_run(c->dev, &found->run, &memory, c->weights->layer.name[0], error);
}

static attune_code column_chunk(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const convolution_context *c = context;
    const device_convolution *args = c->args;
    int64_t image = (int64_t)task / c->plan->column_chunks, all = c->weights->out;
    int64_t first = (int64_t)task % c->plan->column_chunks * c->plan->columns;
    int64_t columns = at_most(c->plan->columns, all - first), pixels = c->size.out_height * c->size.out_width;
    int64_t kind[3] = {columns, 0, 0};
    const variant *found = layer_variant_find(c->plan, kind);
    char *scratch = pass_worker(c->pass, worker);
    float *result = (float *)(void *)(scratch + c->plan->primitive_bytes);
    const float *bias = slice_bias(c, image, first, columns, result + pixels * c->plan->columns);
    const float *x = args->x + image * c->size.height * c->size.width * c->weights->layer.in;
    primitive_memory memory = {x, layer_packed(found, WEIGHTS_AXIS, first), bias, result, scratch};
    attune_code code = primitive_run(c->dev, &found->run, &memory, c->weights->layer.name[0], error);
    if (code != ATTUNE_OK)
        return code;
    int64_t start = image * pixels * all + first;
    for (int64_t p = 0; p < pixels; ++p) {
        float *to = args->out + start + p * all;
        if (args->residual)
            c->dev->kernels->add(result + p * columns, args->residual + start + p * all, columns, to);
        else
            memcpy(to, result + p * columns, (size_t)columns * sizeof *to);
    }
    return ATTUNE_OK;
}

/* Scratch floats that a slice needs beside the primitive's: a bias, and a chunk's result. */
static int64_t slice_floats(const product_plan *plan, const geometry *size, int64_t out) {
    return out + (plan->column_chunks > 1 ? size->out_height * size->out_width * plan->columns : 0);
}

attune_code cpu_convolution(device *dev, device_pass *pass, device_weights *weights,
                            const device_convolution *args, attune_error *error) {
    geometry size = geometry_of(weights, args);
    int64_t key[PLAN_KEYS] = {args->height, args->width, args->residual != NULL, 0};
    product_plan *plan = layer_plan(weights, key);
    if (!plan) {
        if (!pass->planning)
            return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, weights->layer.name[0],
                               "'%s' was not planned", weights->layer.name[0]);
        attune_code code = make_plan(dev, weights, &size, args->residual != NULL, key, &plan, error);
        if (code != ATTUNE_OK)
            return code;
    }
    if (pass->planning) {
        layer_want(pass, plan, (uint64_t)slice_floats(plan, &size, weights->out) * sizeof(float));
        return ATTUNE_OK;
    }
    convolution_context context = {dev, pass, weights, args, plan, size};
    int chunks = plan->column_chunks > 1;
    return run_tasks(dev, pass->stream,
                     (uint64_t)(args->batch * (chunks ? plan->column_chunks : plan->row_slices)),
                     chunks ? column_chunk : row_slice, &context, error);
}
