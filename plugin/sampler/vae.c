/* vae.c: the decoder of the autoencoder. */
#include "plugin/sampler/vae.h"

static const float EPS = 1e-6f; /* of all its norms; no configuration names it */

int64_t vae_scale(const vae_config *config) {
    return (int64_t)1 << (config->levels - 1);
}

/* The attention's names since diffusers 0.18, and those before, which old folders still have. */
static void load_attention(weights_loader *loader, vae_decoder *decoder, int64_t channels) {
    static const char *const now[] = {".to_q", ".to_k", ".to_v"}, *const then[] = {".query", ".key",
                                                                                   ".value"};
    static const char base[] = "decoder.mid_block.attentions.0";
    int old = weights_has(loader, "decoder.mid_block.attentions.0.query.weight");
    decoder->attention_norm = weights_normalisation(loader, base, ".group_norm", channels);
    decoder->qkv = weights_stacked(loader, base, old ? then : now, 3, 1, channels, channels);
    decoder->attention_out =
        weights_linear(loader, base, old ? ".proj_attn" : ".to_out.0", channels, channels);
}

static void load_levels(weights_loader *loader, vae_decoder *decoder) {
    const vae_config *config = &decoder->config;
    int64_t in = config->block_out_channels[config->levels - 1];
    for (int32_t i = 0; i < config->levels; ++i) {
        char base[WEIGHTS_NAME];
        vae_level *level = &decoder->levels[i];
        int64_t out = config->block_out_channels[config->levels - 1 - i];
        for (int32_t j = 0; j <= config->layers_per_block; ++j, in = out) {
            (void)snprintf(base, sizeof base, "decoder.up_blocks.%d.resnets.%d", i, j);
            resnet_load(loader, &level->resnets[j], base, in, out, config->norm_num_groups, EPS, 0);
        }
        (void)snprintf(base, sizeof base, "decoder.up_blocks.%d.upsamplers.0.conv", i);
        if (i < config->levels - 1)
            level->upsample = weights_convolution(loader, base, "", out, out, 1);
    }
}

void vae_load(weights_loader *loader, vae_decoder *decoder, const vae_config *config) {
    const services *host = loader->pool->host;
    uint64_t levels = (uint64_t)config->levels;
    int64_t deepest = config->block_out_channels[config->levels - 1];
    memset(decoder, 0, sizeof *decoder);
    decoder->config = *config;
    decoder->levels = services_clear_alloc(host, levels, sizeof *decoder->levels, "model");
    if (!decoder->levels) {
        loader->code = services_no_memory("VAE", levels * sizeof *decoder->levels, loader->error);
        return;
    }
    if (config->use_post_quant_conv)
        decoder->post_quant =
            weights_linear(loader, "post_quant_conv", "", config->latent_channels, config->latent_channels);
    decoder->conv_in =
        weights_convolution(loader, "decoder.conv_in", "", config->latent_channels, deepest, 1);
    for (int32_t i = 0; i < 2; ++i)
        resnet_load(loader, &decoder->mid_resnets[i],
                    i ? "decoder.mid_block.resnets.1" : "decoder.mid_block.resnets.0", deepest, deepest,
                    config->norm_num_groups, EPS, 0);
    load_attention(loader, decoder, deepest);
    load_levels(loader, decoder);
    decoder->norm_out =
        weights_normalisation(loader, "decoder.conv_norm_out", "", config->block_out_channels[0]);
    decoder->conv_out = weights_convolution(loader, "decoder.conv_out", "", config->block_out_channels[0],
                                            config->out_channels, 1);
}

void vae_close(const services *host, vae_decoder *decoder) {
    services_free(host, decoder->levels);
    decoder->levels = NULL;
}

/* x += out(attention of norm(x) to itself), one head as wide as the image has channels. */
static attune_code attend(pass *p, const vae_decoder *decoder, feature_map *x, attune_error *error) {
    int64_t tokens = x->height * x->width, c = x->channels;
    float *normed, *qkv;
    PASS_TRY(pass_take(p, tokens * c, &normed, error));
    PASS_TRY(image_norm(p, x, &decoder->attention_norm, decoder->config.norm_num_groups, EPS, normed, error));
    PASS_TRY(pass_take(p, tokens * 3 * c, &qkv, error));
    device_linear project = {.x = normed, .rows = tokens, .out = qkv};
    PASS_TRY(pass_linear(p, decoder->qkv, &project, error));
    attention_view q = {qkv, tokens, 3 * c, tokens * 3 * c}, k = q, v = q,
                   out = {normed, tokens, c, tokens * c};
    k.data += c;
    v.data += 2 * c;
    attention_call call = {1, 1, c, 0, q, k, v, out, decoder->qkv};
    PASS_TRY(attention_run(p, &call, error));
    pass_give(p, &qkv);
    device_linear join = {.x = normed, .rows = tokens, .out = x->data, .residual = x->data};
    PASS_TRY(pass_linear(p, decoder->attention_out, &join, error));
    pass_give(p, &normed);
    return ATTUNE_OK;
}

/* *x through a residual block. */
static attune_code step(pass *p, const resnet *block, feature_map *x, attune_error *error) {
    feature_map out;
    PASS_TRY(resnet_forward(p, block, x, NULL, 1, &out, error));
    *x = out;
    return ATTUNE_OK;
}

static attune_code go_up(pass *p, const vae_decoder *decoder, feature_map *x, attune_error *error) {
    for (int32_t i = 0; i < decoder->config.levels; ++i) {
        const vae_level *level = &decoder->levels[i];
        for (int64_t j = 0; j <= decoder->config.layers_per_block; ++j)
            PASS_TRY(step(p, &level->resnets[j], x, error));
        if (!level->upsample)
            continue;
        feature_map larger;
        PASS_TRY(image_upsample(p, level->upsample, x, 2 * x->height, 2 * x->width, &larger, error));
        *x = larger;
    }
    return ATTUNE_OK;
}

/* The latents as the decoder's first convolution takes them: through the 1×1 convolution, where there is one.
 */
static attune_code enter(pass *p, const vae_decoder *decoder, const feature_map *in, feature_map *x,
                         attune_error *error) {
    int64_t deepest = decoder->config.block_out_channels[decoder->config.levels - 1];
    feature_map latents;
    if (!decoder->post_quant)
        return image_convolve(p, decoder->conv_in, in, 1, deepest, x, error);
    PASS_TRY(image_take(p, 1, in->height, in->width, in->channels, &latents, error));
    device_linear args = {.x = in->data, .rows = in->height * in->width, .out = latents.data};
    PASS_TRY(pass_linear(p, decoder->post_quant, &args, error));
    PASS_TRY(image_convolve(p, decoder->conv_in, &latents, 1, deepest, x, error));
    pass_give(p, &latents.data);
    return ATTUNE_OK;
}

attune_code vae_decode(pass *p, const vae_decoder *decoder, const float *latents, int64_t height,
                       int64_t width, float **out, attune_error *error) {
    float *data = (float *)(uintptr_t)latents; /* an image's data is not const */
    feature_map in = {data, 1, height, width, decoder->config.latent_channels}, x, pixels;
    PASS_TRY(enter(p, decoder, &in, &x, error));
    PASS_TRY(step(p, &decoder->mid_resnets[0], &x, error));
    PASS_TRY(attend(p, decoder, &x, error));
    PASS_TRY(step(p, &decoder->mid_resnets[1], &x, error));
    PASS_TRY(go_up(p, decoder, &x, error));
    PASS_TRY(image_finish(p, decoder->conv_out, &decoder->norm_out, decoder->config.norm_num_groups, EPS, &x,
                          decoder->config.out_channels, &pixels, error));
    *out = pixels.data;
    return ATTUNE_OK;
}
