/*
 * model_config.h: what the networks count on of a configuration, wherever it was read.
 */
#ifndef ATTUNE_FUZZ_MODEL_CONFIG_H
#define ATTUNE_FUZZ_MODEL_CONFIG_H

#include "plugin/sampler/config.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

static inline int fuzz_in_range(int64_t value, int64_t low, int64_t high) {
    return value >= low && value <= high;
}

static inline void fuzz_check_levels(int32_t levels, const int64_t *channels, int64_t groups) {
    FUZZ_CHECK(fuzz_in_range(levels, 1, CONFIG_MAX_LEVELS) && groups >= 1);
    for (int32_t i = 0; i < levels; ++i)
        FUZZ_CHECK(fuzz_in_range(channels[i], 1, 65536) && channels[i] % groups == 0);
}

/* What the networks count on without looking again. */
static inline void fuzz_check_config(const model_config *config) {
    const text_config *text = &config->text;
    const unet_config *unet = &config->unet;
    const vae_config *vae = &config->vae;
    FUZZ_CHECK(fuzz_in_range(text->vocab_size, 2, 1 << 24) && text->hidden_size >= 1);
    FUZZ_CHECK(text->num_attention_heads >= 1 && text->hidden_size % text->num_attention_heads == 0);
    FUZZ_CHECK(text->max_position_embeddings >= 77 && text->num_hidden_layers >= 1);
    FUZZ_CHECK(isfinite(text->layer_norm_eps) && text->layer_norm_eps >= 0);
    fuzz_check_levels(unet->levels, unet->block_out_channels, unet->norm_num_groups);
    for (int32_t i = 0; i < unet->levels; ++i) {
        FUZZ_CHECK(unet->heads[i] >= 1);
        if (unet->down_attention[i] || unet->up_attention[unet->levels - 1 - i] || i == unet->levels - 1)
            FUZZ_CHECK(unet->block_out_channels[i] % unet->heads[i] == 0);
    }
    FUZZ_CHECK(fuzz_in_range(unet->layers_per_block, 1, CONFIG_MAX_LAYERS - 1));
    FUZZ_CHECK(fuzz_in_range(unet->transformer_layers, 1, CONFIG_MAX_TRANSFORMERS));
    FUZZ_CHECK(unet->cross_attention_dim == text->hidden_size && unet->in_channels == unet->out_channels);
    FUZZ_CHECK(fuzz_in_range(unet->sample_height, 1, 4096) && fuzz_in_range(unet->sample_width, 1, 4096));
    FUZZ_CHECK(isfinite(unet->norm_eps) && unet->norm_eps >= 0 && isfinite(unet->freq_shift));
    fuzz_check_levels(vae->levels, vae->block_out_channels, vae->norm_num_groups);
    FUZZ_CHECK(fuzz_in_range(vae->layers_per_block, 1, CONFIG_MAX_LAYERS - 1) && vae->out_channels == 3);
    FUZZ_CHECK(vae->latent_channels == unet->out_channels);
    FUZZ_CHECK(isfinite(vae->scaling_factor) && vae->scaling_factor > 0);
    FUZZ_CHECK(fuzz_in_range(config->sigmas.num_train_timesteps, 2, 65536));
    FUZZ_CHECK(isfinite(config->sigmas.beta_start) && isfinite(config->sigmas.beta_end));
}

#endif
