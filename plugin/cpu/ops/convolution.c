/*
 * convolution.c: 3×3 convolutions with padding 1 and stride 1 or 2, channels last, by kernels/convolution.h.
 *
 * An input that is made ready first (normalised or enlarged) goes through scratch memory: a small one as a
 * whole, a large one image by image, a strip of rows at a time, so that it is in the cache for the
 * convolution and never in memory as a whole. How it is cut depends on the shape only.
 *
 * A residual that goes through a shortcut is cut in the same way, so that the result can take the place of
 * what the shortcut reads: a strip's shortcut lies in scratch memory before its result is written, and ends
 * in the memory of rows that are done, since its rows are not longer.
 */
#include "plugin/cpu/ops/cpu.h"

static const int64_t WHOLE_FLOATS = 8 << 20; /* of an input that is made ready at once */
static const int64_t STRIP_FLOATS = 2 << 20; /* about as many as a strip of a larger one has */

typedef struct convolution_context {
    const attune_convolution_f32_kernel *kernel;
    const device_pass *pass;
    attune_convolution_f32 args;
} convolution_context;

/* One call: what the kernel is given, and how the input is made ready. */
typedef struct work {
    device *dev;
    device_pass *pass;
    const device_convolution *args;
    attune_convolution_f32 kernel_args; /* of everything; x, and its size, are those made ready */
    int64_t out_height, out_width;
    int64_t rows; /* output rows of a strip; 0: the whole batch at once */
    uint64_t start_at, norm_at, factors_at, ready_at, shortcut_at, floats; /* in scratch memory, in floats */
    const void *shortcut;                                                  /* its packed weights */
} work;

static attune_code convolution_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const convolution_context *c = context;
    (void)error;
    c->kernel->run(&c->args, task, pass_worker(c->pass, worker));
    return ATTUNE_OK;
}

static attune_code convolve(const work *w, const attune_convolution_f32 *args, attune_error *error) {
    convolution_context c = {w->dev->arithmetic.convolution_f32, w->pass, *args};
    return run_tasks(w->dev, w->pass->stream, c.kernel->tasks(args), convolution_task, &c, error);
}

static int is_made_ready(const device_convolution *args) {
    return args->norm || args->up_height;
}

/* The input rows that output rows `first` … of a strip read. */
static int64_t first_input(const work *w, int64_t first) {
    return first ? first * w->kernel_args.stride - 1 : 0;
}
static int64_t count_input(const work *w, int64_t first, int64_t rows) {
    const int64_t last = (first + rows - 1) * w->kernel_args.stride + 1, height = w->kernel_args.height;
    return (last < height ? last + 1 : height) - first_input(w, first);
}

static void place(work *w, uint64_t *at, int64_t floats) {
    *at = w->floats;
    w->floats += (uint64_t)divide_up(floats, 16) * 16;
}

/* Strips, and where things lie in scratch memory. */
static void lay_out(work *w) {
    const attune_convolution_f32 *a = &w->kernel_args;
    const int64_t row = a->width * a->in, all = a->batch * a->height * row;
    if (w->args->shift)
        place(w, &w->start_at, a->batch * a->out);
    if (w->args->norm) {
        const attune_group_norm_f32 norm = norm_args(w->args->norm);
        place(w, &w->norm_at, (int64_t)attune_group_norm_f32_workspace(&norm));
        place(w, &w->factors_at, 2 * a->in);
    }
    if (is_made_ready(w->args) && all > WHOLE_FLOATS) {
        const int64_t rows = STRIP_FLOATS / row / a->stride;
        w->rows = rows > 4 ? rows : 4;
        w->rows = w->rows < w->out_height ? w->rows : w->out_height;
        const int64_t strips = divide_up(w->out_height, w->rows);
        w->rows = divide_up(w->out_height, strips);
    }
    const int64_t most = w->rows * a->stride + 2;
    if (is_made_ready(w->args))
        place(w, &w->ready_at, w->rows ? (most < a->height ? most : a->height) * row : all);
    if (w->args->shortcut)
        place(w, &w->shortcut_at, (w->rows ? w->rows : a->batch * w->out_height) * w->out_width * a->out);
}

/* Where the chains of each image begin: the layer's bias, plus what the call shifts each channel by. */
static void make_start(const work *w, const device_weights *weights, float *start) {
    for (int64_t image = 0; image < w->args->batch; ++image)
        w->dev->kernels->add(weights->bias, w->args->shift + image * weights->out, weights->out,
                             start + image * weights->out);
}

/* ---- the input made ready ---- */

typedef struct upsample_context {
    const work *w;
    int64_t image, first, rows; /* of one image; image −1: all rows of all images */
    float *to;
} upsample_context;

/* torch's nearest interpolation: the scale in float; exact factors of 1 and 2 by integers. */
static int64_t source_index(int64_t target, int64_t in, int64_t out) {
    if (out == in)
        return target;
    if (out == 2 * in)
        return target / 2;
    float scale = (float)in / (float)out;
    int64_t source = (int64_t)((float)target * scale);
    return source < in - 1 ? source : in - 1;
}

static attune_code upsample_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const upsample_context *c = context;
    const device_convolution *args = c->w->args;
    const int64_t height = args->up_height, channels = c->w->kernel_args.in;
    const int64_t image = c->image < 0 ? (int64_t)task / height : c->image;
    const int64_t y = c->image < 0 ? (int64_t)task % height : c->first + (int64_t)task;
    const int64_t from_y = source_index(y, args->height, height);
    const float *from = args->x + (image * args->height + from_y) * args->width * channels;
    float *to = c->to + (int64_t)task * args->up_width * channels;
    (void)worker;
    (void)error;
    for (int64_t x = 0; x < args->up_width; ++x)
        memcpy(to + x * channels, from + source_index(x, args->width, args->up_width) * channels,
               (size_t)channels * sizeof *to);
    return ATTUNE_OK;
}

static attune_code look_at(const work *w, const float *ready, int64_t rows, attune_error *error) {
    int32_t finite;
    if (!w->args->finite)
        return ATTUNE_OK;
    attune_code code = cpu_finite(w->dev, w->pass, ready, rows * w->kernel_args.width, w->kernel_args.in,
                                  w->kernel_args.in, &finite, error);
    if (code == ATTUNE_OK && !finite)
        *w->args->finite = 0;
    return code;
}

/* Rows of one image, or (image −1) all of all images, into `to`; the norm's factors are there. */
static attune_code make_ready(const work *w, int64_t image, int64_t first, int64_t rows, float *to,
                              attune_error *error) {
    float *scratch = w->pass->scratch;
    const int64_t row = w->kernel_args.width * w->kernel_args.in, in = w->kernel_args.in;
    if (!w->args->norm) {
        upsample_context c = {w, image, first, rows, to};
        return run_tasks(w->dev, w->pass->stream, (uint64_t)rows, upsample_task, &c, error);
    }
    attune_group_norm_f32 norm = norm_args(w->args->norm);
    float *workspace = scratch + w->norm_at;
    norm.out = to;
    if (image >= 0) { /* some rows are an image of their own, with the factors of the whole */
        const size_t bytes = (size_t)in * sizeof *workspace;
        memcpy(scratch + w->factors_at, workspace + image * in, bytes);
        memcpy(scratch + w->factors_at + in, workspace + (norm.batch + image) * in, bytes);
        workspace = scratch + w->factors_at;
        norm.x += (image * w->kernel_args.height + first) * row;
        norm.batch = 1;
        norm.pixels = rows * w->kernel_args.width;
    }
    attune_code code = norm_apply(w->dev, w->pass, &norm, workspace, error);
    return code == ATTUNE_OK ? look_at(w, to, rows, error) : code;
}

/* `rows` output rows of what is added to the result, from row `first` of all images. */
static attune_code add_shortcut(const work *w, int64_t first, int64_t rows, attune_convolution_f32 *a,
                                attune_error *error) {
    const device_weights *layer = w->args->shortcut;
    float *made = (float *)w->pass->scratch + w->shortcut_at;
    if (!layer)
        return ATTUNE_OK;
    const float *x = w->args->residual + first * w->out_width * layer->layer.in;
    const attune_matmul_f32 product = linear_args(layer, w->shortcut, x, rows * w->out_width, made);
    a->residual = made;
    attune_code code = linear_run(w->dev, w->pass, &product, error);
    int32_t finite = 1;
    if (code == ATTUNE_OK && w->args->shortcut_finite)
        code = cpu_finite(w->dev, w->pass, made, rows * w->out_width, layer->out, layer->out, &finite, error);
    if (!finite)
        *w->args->shortcut_finite = 0;
    return code;
}

static attune_code run_strip(const work *w, int64_t image, int64_t first, int64_t rows, attune_error *error) {
    float *ready = (float *)w->pass->scratch + w->ready_at;
    attune_convolution_f32 a = w->kernel_args;
    const int64_t at = (image * w->out_height + first) * w->out_width * a.out;
    attune_code code = make_ready(w, image, first_input(w, first), count_input(w, first, rows), ready, error);
    a.batch = 1;
    a.x = ready;
    a.start += image * a.stride_start;
    a.result += at;
    a.residual = a.residual ? a.residual + at : NULL;
    a.first_row = first;
    a.rows = rows;
    if (code == ATTUNE_OK)
        code = add_shortcut(w, image * w->out_height + first, rows, &a, error);
    return code == ATTUNE_OK ? convolve(w, &a, error) : code;
}

static attune_code run_whole(work *w, attune_error *error) {
    attune_code code = add_shortcut(w, 0, w->kernel_args.batch * w->out_height, &w->kernel_args, error);
    return code == ATTUNE_OK ? convolve(w, &w->kernel_args, error) : code;
}

static attune_code run_ready(work *w, attune_error *error) {
    float *scratch = w->pass->scratch;
    attune_code code = ATTUNE_OK;
    if (w->args->norm) {
        const attune_group_norm_f32 norm = norm_args(w->args->norm);
        code = norm_factors(w->dev, w->pass, &norm, scratch + w->norm_at, error);
    }
    if (code == ATTUNE_OK && !w->rows) {
        w->kernel_args.x = scratch + w->ready_at;
        code =
            make_ready(w, -1, 0, w->kernel_args.batch * w->kernel_args.height, scratch + w->ready_at, error);
        return code == ATTUNE_OK ? run_whole(w, error) : code;
    }
    for (int64_t image = 0; image < w->kernel_args.batch; ++image)
        for (int64_t first = 0; first < w->out_height && code == ATTUNE_OK; first += w->rows) {
            const int64_t left = w->out_height - first;
            code = run_strip(w, image, first, left < w->rows ? left : w->rows, error);
        }
    return code;
}

/* Of the shortcut for `rows` output rows. */
static uint64_t shortcut_bytes(const work *w, int64_t rows) {
    if (!w->args->shortcut)
        return 0;
    const attune_matmul_f32 product = linear_args(w->args->shortcut, NULL, NULL, rows * w->out_width, NULL);
    return w->dev->arithmetic.matmul_f32->workspace(&product);
}

static uint64_t worker_bytes(const work *w) {
    const attune_convolution_f32_kernel *kernel = w->dev->arithmetic.convolution_f32;
    attune_convolution_f32 a = w->kernel_args;
    if (!w->rows)
        return larger(kernel->workspace(&a), shortcut_bytes(w, a.batch * w->out_height));
    a.batch = 1;
    a.rows = w->rows;
    const uint64_t full = larger(kernel->workspace(&a), shortcut_bytes(w, a.rows));
    a.rows = w->out_height - (divide_up(w->out_height, w->rows) - 1) * w->rows;
    return larger(full, larger(kernel->workspace(&a), shortcut_bytes(w, a.rows)));
}

attune_code cpu_convolution(device *dev, device_pass *pass, device_weights *weights,
                            const device_convolution *args, attune_error *error) {
    work w = {.dev = dev,
              .pass = pass,
              .args = args,
              .kernel_args = {.batch = args->batch,
                              .height = args->up_height ? args->up_height : args->height,
                              .width = args->up_height ? args->up_width : args->width,
                              .in = weights->layer.in,
                              .out = weights->out,
                              .stride = weights->layer.stride,
                              .storage = weights->shape.storage,
                              .x = args->x,
                              .start = weights->bias,
                              .residual = args->residual,
                              .result = args->out}};
    w.out_height = divide_up(w.kernel_args.height, w.kernel_args.stride);
    w.out_width = divide_up(w.kernel_args.width, w.kernel_args.stride);
    lay_out(&w);
    const uint64_t room = scratch_round(weights->bytes);
    if (pass->planning) {
        weights->wanted = pass->serial;
        if (args->shortcut)
            args->shortcut->wanted = pass->serial;
        pass_need(pass, w.floats * sizeof(float), worker_bytes(&w));
        pass_need_room(pass, room + (args->shortcut ? args->shortcut->bytes : 0));
        return ATTUNE_OK;
    }
    attune_code code = layer_weights(dev, pass, weights, 0, &w.kernel_args.weights, error);
    if (code == ATTUNE_OK && args->shortcut)
        code = layer_weights(dev, pass, args->shortcut, room, &w.shortcut, error);
    if (code != ATTUNE_OK)
        return code;
    if (args->shift) {
        w.kernel_args.start = (float *)pass->scratch + w.start_at;
        w.kernel_args.stride_start = weights->out;
        make_start(&w, weights, (float *)pass->scratch + w.start_at);
    }
    return is_made_ready(args) ? run_ready(&w, error) : run_whole(&w, error);
}
