/*
 * unet.h: (latent, sigma) → noise, the UNet of Stable Diffusion 1.x (Rombach et al. 2022; diffusers'
 * UNet2DConditionModel), for any number of levels, layers, heads and channels.
 */
#ifndef ATTUNE_SAMPLER_UNET_H
#define ATTUNE_SAMPLER_UNET_H

#include "plugin/sampler/transformer.h"

/* One level on the way down or up. */
typedef struct unet_level {
    int32_t layers;
    int32_t attention;
    resnet resnets[CONFIG_MAX_LAYERS];
    transformer transformers[CONFIG_MAX_LAYERS]; /* where attention */
    device_weights
        *sample; /* to the next level: stride 2 on the way down, after upsampling on the way up; or NULL */
} unet_level;

typedef struct unet {
    unet_config config;
    int32_t contexts; /* cross attentions: pointers in text_context.kv */
    device_weights *conv_in;
    device_weights *time1;
    device_weights *time2;
    unet_level *down; /* owned, as up */
    unet_level *up;
    resnet mid_resnets[2];
    transformer *mid;
    weights_norm norm_out;
    device_weights *conv_out;
} unet;

void unet_load(weights_loader *loader, unet *network, const unet_config *config);
void unet_close(const services *host, unet *network);

/* What one call takes. */
typedef struct unet_input {
    const float *latents;   /* device memory, (batch, height, width, in_channels) */
    const float *timesteps; /* host memory, (batch); may be fractional */
    int64_t batch;          /* a multiple of context->texts; the images of one text lie together */
    int64_t height;
    int64_t width;
    const text_context *context;
} unet_input;

/* [session] Keys and values of the text for all cross attentions, which the pass keeps until the session
 * ends. */
attune_code unet_read_text(pass *p, const unet *network, const float *text, const text_context *context,
                           attune_error *error);

/* [session] *out is new: the predicted noise, (batch, height, width, out_channels). */
attune_code unet_forward(pass *p, const unet *network, const unet_input *input, float **out,
                         attune_error *error);

#endif
