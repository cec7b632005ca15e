/*
 * norms.c: group normalisation (Wu & He 2018) and layer normalisation (Ba et al. 2016).
 *
 * Group norm's sums: per channel over fixed blocks of pixels in float (rows in groups of four, ascending),
 * the blocks ascending in double, then the group's channels ascending in double; mean first, then squared
 * differences. Blocks depend on the shape only, so any number of threads gives the same bits.
 */
#include "plugin/cpu/ops/cpu.h"

#include <math.h>

enum { BLOCK_ELEMENTS = 16384, SMALL_IMAGE = 65536 };

typedef struct group_context {
    device *dev;
    const device_group_norm *args;
    int64_t block;  /* pixels */
    int64_t blocks; /* per image */
    int square;     /* which sums are taken */
    float *partial; /* (batch, blocks, channels) */
    float *mean;    /* (batch, channels): of the channel's group */
    float *scale;   /* (batch, channels): what one multiplication and one addition need */
    float *shift;
    double *sums; /* (channels) */
} group_context;

static int64_t block_pixels(const device_group_norm *args) {
    int64_t pixels = BLOCK_ELEMENTS / args->channels;
    return pixels < 1 ? 1 : pixels;
}

static int64_t rows_of(const group_context *c, int64_t block) {
    int64_t left = c->args->pixels - block * c->block;
    return left < c->block ? left : c->block;
}

static void sum_block(const group_context *c, int64_t image, int64_t block) {
    const device_group_norm *args = c->args;
    const float *x = args->x + (image * args->pixels + block * c->block) * args->channels;
    float *sums = c->partial + (image * c->blocks + block) * args->channels;
    memset(sums, 0, (size_t)args->channels * sizeof *sums);
    if (c->square)
        c->dev->kernels->sum_squares(x, rows_of(c, block), args->channels, c->mean + image * args->channels,
                                     sums);
    else
        c->dev->kernels->sum(x, rows_of(c, block), args->channels, sums);
}

static void apply_block(const group_context *c, int64_t image, int64_t block) {
    const device_group_norm *args = c->args;
    int64_t start = (image * args->pixels + block * c->block) * args->channels;
    c->dev->kernels->scale_shift(args->x + start, rows_of(c, block), args->channels,
                                 c->scale + image * args->channels, c->shift + image * args->channels,
                                 args->activation == DEVICE_SILU, args->out + start);
}

/* The channels' sums over all blocks, then each group's mean of them. */
static void total(const group_context *c, int64_t image, double *sums) {
    const device_group_norm *args = c->args;
    int64_t per_group = args->channels / args->groups;
    memset(sums, 0, (size_t)args->channels * sizeof *sums);
    for (int64_t b = 0; b < c->blocks; ++b) {
        const float *partial = c->partial + (image * c->blocks + b) * args->channels;
        for (int64_t i = 0; i < args->channels; ++i)
            sums[i] += partial[i];
    }
    for (int64_t g = 0; g < args->groups; ++g) {
        double *group = sums + g * per_group, all = 0.0;
        for (int64_t i = 0; i < per_group; ++i)
            all += group[i];
        for (int64_t i = 0; i < per_group; ++i)
            group[i] = all / ((double)args->pixels * (double)per_group);
    }
}

static void finish_mean(const group_context *c, int64_t image, double *sums) {
    total(c, image, sums);
    for (int64_t i = 0; i < c->args->channels; ++i)
        c->mean[image * c->args->channels + i] = (float)sums[i];
}

static void finish_scale(const group_context *c, int64_t image, double *sums) {
    const device_group_norm *args = c->args;
    total(c, image, sums);
    for (int64_t i = 0; i < args->channels; ++i) {
        int64_t at = image * args->channels + i;
        float scale = (float)(1.0 / sqrt(sums[i] + (double)args->eps)) * args->scale[i];
        c->scale[at] = scale;
        c->shift[at] = args->shift[i] - c->mean[at] * scale;
    }
}

/* A small image: all of it by one thread. */
static attune_code image_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    group_context c = *(const group_context *)context;
    int64_t image = (int64_t)task;
    (void)worker;
    (void)error;
    double *sums = c.sums + image * c.args->channels;
    for (c.square = 0; c.square < 2; ++c.square) {
        for (int64_t b = 0; b < c.blocks; ++b)
            sum_block(&c, image, b);
        if (c.square)
            finish_scale(&c, image, sums);
        else
            finish_mean(&c, image, sums);
    }
    for (int64_t b = 0; b < c.blocks; ++b)
        apply_block(&c, image, b);
    return ATTUNE_OK;
}

static attune_code sum_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const group_context *c = context;
    (void)worker;
    (void)error;
    sum_block(c, (int64_t)task / c->blocks, (int64_t)task % c->blocks);
    return ATTUNE_OK;
}

static attune_code apply_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const group_context *c = context;
    (void)worker;
    (void)error;
    apply_block(c, (int64_t)task / c->blocks, (int64_t)task % c->blocks);
    return ATTUNE_OK;
}

static attune_code run_large(group_context *c, const attune_stream *stream, attune_error *error) {
    uint64_t tasks = (uint64_t)(c->args->batch * c->blocks);
    for (c->square = 0; c->square < 2; ++c->square) {
        attune_code code = run_tasks(c->dev, stream, tasks, sum_task, c, error);
        if (code != ATTUNE_OK)
            return code;
        for (int64_t image = 0; image < c->args->batch; ++image) {
            if (c->square)
                finish_scale(c, image, c->sums);
            else
                finish_mean(c, image, c->sums);
        }
    }
    return run_tasks(c->dev, stream, tasks, apply_task, c, error);
}

attune_code cpu_group_norm(device *dev, device_pass *pass, const device_group_norm *args,
                           attune_error *error) {
    group_context c = {.dev = dev, .args = args, .block = block_pixels(args)};
    c.blocks = divide_up(args->pixels, c.block);
    uint64_t row = (uint64_t)(args->batch * args->channels);
    if (pass->planning) {
        pass_need(pass, row * ((uint64_t)c.blocks + 3) * sizeof(float) + row * sizeof(double), 0);
        return ATTUNE_OK;
    }
    c.sums = pass->scratch;
    c.mean = (float *)(void *)(c.sums + row);
    c.scale = c.mean + row;
    c.shift = c.scale + row;
    c.partial = c.shift + row;
    if (args->pixels * args->channels <= SMALL_IMAGE)
        return run_tasks(dev, pass->stream, (uint64_t)args->batch, image_task, &c, error);
    return run_large(&c, pass->stream, error);
}

typedef struct layer_context {
    device *dev;
    const device_layer_norm *args;
    int64_t block; /* rows */
} layer_context;

static attune_code layer_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const layer_context *c = context;
    const device_layer_norm *args = c->args;
    int64_t first = (int64_t)task * c->block, rows = args->rows - first;
    (void)worker;
    (void)error;
    rows = rows < c->block ? rows : c->block;
    c->dev->kernels->layer_norm(args->x + first * args->channels, rows, args->channels, args->eps,
                                args->scale, args->shift, args->out + first * args->channels);
    return ATTUNE_OK;
}

attune_code cpu_layer_norm(device *dev, device_pass *pass, const device_layer_norm *args,
                           attune_error *error) {
    if (pass->planning)
        return ATTUNE_OK;
    layer_context c = {dev, args, divide_up(BLOCK_ELEMENTS, args->channels)};
    return run_tasks(dev, pass->stream, (uint64_t)divide_up(args->rows, c.block), layer_task, &c, error);
}
