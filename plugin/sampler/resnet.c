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

attune_code image_norm(pass *p, const feature_map *x, const weights_norm *norm, int64_t groups, float eps,
                       int32_t silu, float *out, attune_error *error) {
    device_group_norm args = {.x = x->data,
                              .batch = x->batch,
                              .pixels = x->height * x->width,
                              .channels = x->channels,
                              .groups = groups,
                              .eps = eps,
                              .scale = norm->scale,
                              .shift = norm->shift,
                              .activation = silu ? DEVICE_SILU : DEVICE_IDENTITY,
                              .out = out,
                              .name = norm->name};
    return pass_group_norm(p, &args, error);
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
    feature_map larger;
    PASS_TRY(image_take(p, x->batch, height, width, x->channels, &larger, error));
    device_upsample args = {x->data, x->batch, x->height, x->width, x->channels, height, width, larger.data};
    PASS_TRY(p->ops->upsample(p->dev, &p->run, &args, error));
    pass_give(p, &x->data);
    PASS_TRY(image_convolve(p, weights, &larger, 1, x->channels, out, error));
    pass_give(p, &larger.data);
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

attune_code resnet_forward(pass *p, const resnet *block, const feature_map *x, const float *time,
                           feature_map *out, attune_error *error) {
    int64_t pixels = x->height * x->width;
    feature_map normed, hidden;
    float *shift;
    PASS_TRY(image_take(p, x->batch, x->height, x->width, x->channels, &normed, error));
    PASS_TRY(image_norm(p, x, &block->norm1, block->groups, block->eps, 1, normed.data, error));
    PASS_TRY(project_time(p, block, time, x->batch, &shift, error));
    PASS_TRY(image_take(p, x->batch, x->height, x->width, block->out, &hidden, error));
    device_convolution first = {normed.data, x->batch, x->height, x->width, hidden.data, NULL, shift};
    PASS_TRY(pass_convolution(p, block->conv1, &first, error));
    pass_give(p, &shift);
    pass_give(p, &normed.data);
    PASS_TRY(image_norm(p, &hidden, &block->norm2, block->groups, block->eps, 1, hidden.data, error));
    PASS_TRY(image_take(p, x->batch, x->height, x->width, block->out, out, error));
    if (block->shortcut) {
        device_linear shortcut = {.x = x->data, .rows = x->batch * pixels, .out = out->data};
        PASS_TRY(pass_linear(p, block->shortcut, &shortcut, error));
    }
    const float *residual = block->shortcut ? out->data : x->data;
    device_convolution second = {hidden.data, x->batch, x->height, x->width, out->data, residual, NULL};
    PASS_TRY(pass_convolution(p, block->conv2, &second, error));
    pass_give(p, &hidden.data);
    return ATTUNE_OK;
}
