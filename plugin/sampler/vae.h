/*
 * vae.h: latent → pixels, the decoder of Stable Diffusion's autoencoder (Rombach et al. 2022; diffusers'
 * AutoencoderKL).
 */
#ifndef ATTUNE_SAMPLER_VAE_H
#define ATTUNE_SAMPLER_VAE_H

#include "plugin/sampler/attention.h"
#include "plugin/sampler/config.h"
#include "plugin/sampler/resnet.h"

typedef struct vae_level {
    resnet resnets[CONFIG_MAX_LAYERS];
    device_weights *upsample; /* NULL on the last level */
} vae_level;

typedef struct vae_decoder {
    vae_config config;
    device_weights *post_quant; /* NULL: none */
    device_weights *conv_in;
    resnet mid_resnets[2];
    weights_norm attention_norm;
    device_weights *qkv;
    device_weights *attention_out;
    vae_level *levels; /* owned; as in up_blocks, the deepest first */
    weights_norm norm_out;
    device_weights *conv_out;
} vae_decoder;

void vae_load(weights_loader *loader, vae_decoder *decoder, const vae_config *config);
void vae_close(const services *host, vae_decoder *decoder);

/* Pixels per latent, in each direction. */
int64_t vae_scale(const vae_config *config);

/* [session] `latents`: device memory, (1, height, width, latent_channels), divided by scaling_factor. *out is
 * new: (height · scale, width · scale, 3), about −1 … 1, not clamped. */
attune_code vae_decode(pass *p, const vae_decoder *decoder, const float *latents, int64_t height,
                       int64_t width, float **out, attune_error *error);

#endif
