/* resnet.c: residual blocks and the image operations around them. */
#include "plugin/sampler/resnet.h"

void resnet_load(weights_loader *loader, resnet *block, const char *base, int64_t in, int64_t out,
                 int64_t groups, float eps, int64_t time_channels) {
    memset(block, 0, sizeof *block);
    block->in = in;
    block->out = out;
    block->groups = groups;
    block->eps = eps;
    block->norm1 = weights_normalisation(loader, base, ".norm1", in);
    block->conv1 = weights_convolution(loader, base, ".conv1", in, out, 1);
    if (time_channels)
        block->time = weights_linear(loader, base, ".time_emb_proj", time_channels, out);
    block->norm2 = weights_normalisation(loader, base, ".norm2", out);
    block->conv2 = weights_convolution(loader, base, ".conv2", out, out, 1);
    if (in != out)
        block->shortcut = weights_linear(loader, base, ".conv_shortcut", in, out);
}

attune_code image_take(pass *p, int64_t batch, int64_t height, int64_t width, int64_t channels,
                       feature_map *out, attune_error *error) {
    int64_t count;
    *out = (feature_map){NULL, batch, height, width, channels};
    if (__builtin_mul_overflow(batch, height, &count) || __builtin_mul_overflow(count, width, &count) ||
        __builtin_mul_overflow(count, channels, &count))
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, "pass",
                           "the image is too large");
    return pass_take(p, count, &out->data, error);
}

static device_group_norm norm_of(const feature_map *x, const weights_norm *norm, int64_t groups, float eps,
                                 int32_t silu) {
    return (device_group_norm){.x = x->data,
                               .batch = x->batch,
                               .pixels = x->height * x->width,
                               .channels = x->channels,
                               .groups = groups,
                               .eps = eps,
                               .scale = norm->scale,
                               .shift = norm->shift,
                               .activation = silu ? DEVICE_SILU : DEVICE_IDENTITY,
                               .name = norm->name};
}

attune_code image_norm(pass *p, const feature_map *x, const weights_norm *norm, int64_t groups, float eps,
                       float *out, attune_error *error) {
    device_group_norm args = norm_of(x, norm, groups, eps, 0);
    args.out = out;
    return pass_group_norm(p, &args, error);
}

attune_code image_finish(pass *p, device_weights *weights, const weights_norm *norm, int64_t groups,
                         float eps, feature_map *x, int64_t channels, feature_map *out, attune_error *error) {
    device_group_norm normed = norm_of(x, norm, groups, eps, 1);
    PASS_TRY(image_take(p, x->batch, x->height, x->width, channels, out, error));
    device_convolution args = {.x = x->data,
                               .batch = x->batch,
                               .height = x->height,
                               .width = x->width,
                               .out = out->data,
                               .norm = &normed};
    PASS_TRY(pass_convolution(p, weights, &args, error));
    pass_give(p, &x->data);
    return ATTUNE_OK;
}

attune_code image_convolve(pass *p, device_weights *weights, const feature_map *x, int64_t stride,
                           int64_t channels, feature_map *out, attune_error *error) {
    PASS_TRY(image_take(p, x->batch, (x->height + stride - 1) / stride, (x->width + stride - 1) / stride,
                        channels, out, error));
    device_convolution args = {
        .x = x->data, .batch = x->batch, .height = x->height, .width = x->width, .out = out->data};
    return pass_convolution(p, weights, &args, error);
}

attune_code image_upsample(pass *p, device_weights *weights, feature_map *x, int64_t height, int64_t width,
                           feature_map *out, attune_error *error) {
    PASS_TRY(image_take(p, x->batch, height, width, x->channels, out, error));
    device_convolution args = {.x = x->data,
                               .batch = x->batch,
                               .height = x->height,
                               .width = x->width,
                               .out = out->data,
                               .up_height = height,
                               .up_width = width};
    PASS_TRY(pass_convolution(p, weights, &args, error));
    pass_give(p, &x->data);
    return ATTUNE_OK;
}

/* The time embedding of each image, projected to the block's channels. */
static attune_code project_time(pass *p, const resnet *block, const float *time, int64_t batch, float **out,
                                attune_error *error) {
    *out = NULL;
    if (!block->time)
        return ATTUNE_OK;
    PASS_TRY(pass_take(p, batch * block->out, out, error));
    device_linear args = {.x = time, .rows = batch, .out = *out};
    return pass_linear(p, block->time, &args, error);
}

/* A convolution of the normalised x; `args` has what comes beside. */
static attune_code convolve_normed(pass *p, const resnet *block, device_weights *weights,
                                   const weights_norm *norm, const feature_map *x, device_convolution *args,
                                   attune_error *error) {
    device_group_norm normed = norm_of(x, norm, block->groups, block->eps, 1);
    args->x = x->data;
    args->batch = x->batch;
    args->height = x->height;
    args->width = x->width;
    args->norm = &normed;
    const attune_code code = pass_convolution(p, weights, args, error);
    args->norm = NULL;
    return code;
}

attune_code resnet_forward(pass *p, const resnet *block, feature_map *x, const float *time, int32_t consume,
                           feature_map *out, attune_error *error) {
    feature_map hidden;
    float *shift;
    PASS_TRY(project_time(p, block, time, x->batch, &shift, error));
    PASS_TRY(image_take(p, x->batch, x->height, x->width, block->out, &hidden, error));
    device_convolution first = {.out = hidden.data, .shift = shift};
    PASS_TRY(convolve_normed(p, block, block->conv1, &block->norm1, x, &first, error));
    pass_give(p, &shift);
    const int in_place = consume && block->out <= block->in;
    if (in_place)
        *out = (feature_map){x->data, x->batch, x->height, x->width, block->out};
    else
        PASS_TRY(image_take(p, x->batch, x->height, x->width, block->out, out, error));
    device_convolution second = {.out = out->data, .residual = x->data, .shortcut = block->shortcut};
    PASS_TRY(convolve_normed(p, block, block->conv2, &block->norm2, &hidden, &second, error));
    pass_give(p, &hidden.data);
    if (in_place) {
        pass_shrink(p, x->data, x->batch * x->height * x->width * block->out);
        x->data = NULL;
    } else if (consume) {
        pass_give(p, &x->data);
    }
    return ATTUNE_OK;
}
