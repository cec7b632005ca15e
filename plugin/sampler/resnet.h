/*
 * resnet.h: the residual block of UNet and VAE (He et al. 2016, as diffusers' ResnetBlock2D):
 * x + conv2(silu(norm2(conv1(silu(norm1(x))) + time))), x through a 1×1 convolution where the channels
 * change.
 */
#ifndef ATTUNE_SAMPLER_RESNET_H
#define ATTUNE_SAMPLER_RESNET_H

#include "plugin/sampler/pass.h"
#include "plugin/sampler/weights.h"

/* A batch of images of activations: (batch, height, width, channels). */
typedef struct feature_map {
    float *data;
    int64_t batch;
    int64_t height;
    int64_t width;
    int64_t channels;
} feature_map;

typedef struct resnet {
    int64_t in;
    int64_t out;
    int64_t groups;
    float eps;
    weights_norm norm1;
    weights_norm norm2;
    device_weights *conv1;
    device_weights *conv2;
    device_weights *time;     /* NULL: no time embedding (VAE) */
    device_weights *shortcut; /* NULL: in = out */
} resnet;

/* The weights below `base`; `time_channels` 0 = no time embedding. */
void resnet_load(weights_loader *loader, resnet *block, const char *base, int64_t in, int64_t out,
                 int64_t groups, float eps, int64_t time_channels);

/* [session] `out` is new, or x's memory where `consume`: x is then given back. `time` is (batch,
 * time_channels), silu applied; NULL without. */
attune_code resnet_forward(pass *p, const resnet *block, feature_map *x, const float *time, int32_t consume,
                           feature_map *out, attune_error *error);

/* [session] Group norm into `out`, which has x's shape and may be x. */
attune_code image_norm(pass *p, const feature_map *x, const weights_norm *norm, int64_t groups, float eps,
                       float *out, attune_error *error);

/* [session] A network's end: group norm, silu, a convolution to `channels`. x is given back, `out` is new. */
attune_code image_finish(pass *p, device_weights *weights, const weights_norm *norm, int64_t groups,
                         float eps, feature_map *x, int64_t channels, feature_map *out, attune_error *error);

/* [session] A new image of this shape. */
attune_code image_take(pass *p, int64_t batch, int64_t height, int64_t width, int64_t channels,
                       feature_map *out, attune_error *error);

/* [session] A convolution of x into the new image `out`; stride and output channels are the layer's. */
attune_code image_convolve(pass *p, device_weights *weights, const feature_map *x, int64_t stride,
                           int64_t channels, feature_map *out, attune_error *error);

/* [session] x by nearest neighbour to height × width, convolved; x is given back, `out` is new. */
attune_code image_upsample(pass *p, device_weights *weights, feature_map *x, int64_t height, int64_t width,
                           feature_map *out, attune_error *error);

#endif
