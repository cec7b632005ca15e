/*
 * config.h: the configuration of Stable Diffusion 1.x-shaped models. Field names are those of a diffusers
 * folder's files; a value that the networks here do not implement is refused when the model is opened.
 */
#ifndef ATTUNE_SAMPLER_CONFIG_H
#define ATTUNE_SAMPLER_CONFIG_H

#include "plugin/sampler/ops.h"
#include "plugin/sampler/sigma.h"

enum { CONFIG_MAX_LEVELS = 8, CONFIG_MAX_LAYERS = 8, CONFIG_MAX_TRANSFORMERS = 16 };

/* text_encoder/config.json: CLIPTextModel. */
typedef struct text_config {
    int64_t vocab_size;
    int64_t hidden_size;
    int64_t intermediate_size;
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t max_position_embeddings;
    device_activation hidden_act;
    float layer_norm_eps;
} text_config;

/* unet/config.json: UNet2DConditionModel. */
typedef struct unet_config {
    int64_t sample_height; /* of the latent that the model was made for */
    int64_t sample_width;
    int64_t in_channels;
    int64_t out_channels;
    int32_t levels;
    int64_t block_out_channels[CONFIG_MAX_LEVELS];
    int32_t down_attention[CONFIG_MAX_LEVELS]; /* CrossAttnDownBlock2D, not DownBlock2D */
    int32_t up_attention[CONFIG_MAX_LEVELS];
    int64_t layers_per_block;
    int64_t heads[CONFIG_MAX_LEVELS]; /* num_attention_heads, or else attention_head_dim: SD 1.x's misnomer */
    int64_t transformer_layers;
    int64_t cross_attention_dim;
    int64_t norm_num_groups;
    float norm_eps;
    int32_t flip_sin_to_cos;
    double freq_shift;
} unet_config;

/* vae/config.json: AutoencoderKL. */
typedef struct vae_config {
    int64_t latent_channels;
    int64_t out_channels;
    int32_t levels;
    int64_t block_out_channels[CONFIG_MAX_LEVELS];
    int64_t layers_per_block;
    int64_t norm_num_groups;
    int32_t use_post_quant_conv;
    double scaling_factor;
} vae_config;

typedef struct model_config {
    text_config text;
    unet_config unet;
    vae_config vae;
    sigma_config sigmas;
} model_config;

/*
 * [any] Read model_index.json and the parts' configurations beneath `folder`. Blocks. Errors: NOT_FOUND (no
 * such file), DATA_LOSS (bad JSON: file, line, column), INVALID_ARGUMENT (a key missing or of the wrong type
 * or range), UNIMPLEMENTED (a value of another kind of model: file, key, value, and what is supported).
 */
attune_code config_read(const char *folder, model_config *out, attune_error *error);

/*
 * [any] The same from one JSON object {"scheduler": {…}, "text_encoder": {…}, "unet": {…}, "vae": {…}} with
 * those files' keys; `path` is what messages call it. A key that diffusers does not know is refused.
 */
struct json_t;
attune_code config_parse(struct json_t *root, const char *path, model_config *out, attune_error *error);

#endif
