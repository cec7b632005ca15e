/* unet.c: the UNet's levels and how they hang together. */
#include "plugin/sampler/unet.h"
#include "kernels/reference/math_f64.h"

static int64_t time_channels(const unet_config *config) {
    return 4 * config->block_out_channels[0];
}

static void load_level(weights_loader *loader, unet *network, unet_level *level, const char *base,
                       int32_t index, const int64_t *in, int64_t out) {
    const unet_config *config = &network->config;
    char block[WEIGHTS_NAME];
    for (int32_t i = 0; i < level->layers; ++i) {
        (void)snprintf(block, sizeof block, "%s.resnets.%d", base, i);
        /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): `in` has one entry per layer, by its makers */
        resnet_load(loader, &level->resnets[i], block, in[i], out, config->norm_num_groups, config->norm_eps,
                    time_channels(config));
        (void)snprintf(block, sizeof block, "%s.attentions.%d", base, i);
        if (level->attention)
            transformer_load(loader, &level->transformers[i], block, out, config->heads[index], config,
                             &network->contexts);
    }
}

static void load_down(weights_loader *loader, unet *network) {
    const unet_config *config = &network->config;
    int64_t previous = config->block_out_channels[0];
    for (int32_t i = 0; i < config->levels; ++i) {
        char base[WEIGHTS_NAME];
        int64_t out = config->block_out_channels[i], in[CONFIG_MAX_LAYERS];
        unet_level *level = &network->down[i];
        level->layers = (int32_t)config->layers_per_block;
        level->attention = config->down_attention[i];
        for (int32_t j = 0; j < level->layers; ++j)
            in[j] = j == 0 ? previous : out;
        (void)snprintf(base, sizeof base, "down_blocks.%d", i);
        load_level(loader, network, level, base, i, in, out);
        if (i < config->levels - 1)
            level->sample = weights_convolution(loader, base, ".downsamplers.0.conv", out, out, 2);
        previous = out;
    }
}

static void load_mid(weights_loader *loader, unet *network) {
    const unet_config *config = &network->config;
    int64_t channels = config->block_out_channels[config->levels - 1];
    for (int32_t i = 0; i < 2; ++i)
        resnet_load(loader, &network->mid_resnets[i], i ? "mid_block.resnets.1" : "mid_block.resnets.0",
                    channels, channels, config->norm_num_groups, config->norm_eps, time_channels(config));
    transformer_load(loader, network->mid, "mid_block.attentions.0", channels,
                     config->heads[config->levels - 1], config, &network->contexts);
}

/* On the way up each residual block also takes what the way down left: its channels are added to the input's.
 */
static void load_up(weights_loader *loader, unet *network) {
    const unet_config *config = &network->config;
    int32_t levels = config->levels;
    int64_t previous = config->block_out_channels[levels - 1];
    for (int32_t i = 0; i < levels; ++i) {
        char base[WEIGHTS_NAME];
        int32_t here = levels - 1 - i, below = here > 0 ? here - 1 : 0;
        int64_t out = config->block_out_channels[here], skip_last = config->block_out_channels[below];
        int64_t in[CONFIG_MAX_LAYERS];
        unet_level *level = &network->up[i];
        level->layers = (int32_t)config->layers_per_block + 1;
        level->attention = config->up_attention[i];
        for (int32_t j = 0; j < level->layers; ++j)
            in[j] = (j == 0 ? previous : out) + (j == level->layers - 1 ? skip_last : out);
        (void)snprintf(base, sizeof base, "up_blocks.%d", i);
        load_level(loader, network, level, base, here, in, out);
        if (i < levels - 1)
            level->sample = weights_convolution(loader, base, ".upsamplers.0.conv", out, out, 1);
        previous = out;
    }
}

void unet_load(weights_loader *loader, unet *network, const unet_config *config) {
    const services *host = loader->pool->host;
    uint64_t levels = (uint64_t)config->levels;
    int64_t first = config->block_out_channels[0];
    memset(network, 0, sizeof *network);
    network->config = *config;
    network->down = services_clear_alloc(host, levels, sizeof *network->down, "model");
    network->up = services_clear_alloc(host, levels, sizeof *network->up, "model");
    network->mid = services_clear_alloc(host, 1, sizeof *network->mid, "model");
    if (!network->down || !network->up || !network->mid) {
        loader->code = services_no_memory("UNet", 2 * levels * sizeof *network->down, loader->error);
        return;
    }
    network->conv_in = weights_convolution(loader, "conv_in", "", config->in_channels, first, 1);
    network->time1 = weights_linear(loader, "time_embedding", ".linear_1", first, time_channels(config));
    network->time2 =
        weights_linear(loader, "time_embedding", ".linear_2", time_channels(config), time_channels(config));
    load_down(loader, network);
    load_mid(loader, network);
    load_up(loader, network);
    network->norm_out = weights_normalisation(loader, "conv_norm_out", "", first);
    network->conv_out = weights_convolution(loader, "conv_out", "", first, config->out_channels, 1);
}

void unet_close(const services *host, unet *network) {
    services_free(host, network->down);
    services_free(host, network->up);
    services_free(host, network->mid);
    network->down = network->up = NULL;
    network->mid = NULL;
}

attune_code unet_read_text(pass *p, const unet *network, const float *text, const text_context *context,
                           attune_error *error) {
    const unet_level *down = network->down, *up = network->up;
    for (int32_t i = 0; i < network->config.levels; ++i)
        for (int32_t j = 0; down[i].attention && j < down[i].layers; ++j)
            PASS_TRY(transformer_read_text(p, &down[i].transformers[j], text, context, error));
    PASS_TRY(transformer_read_text(p, network->mid, text, context, error));
    for (int32_t i = 0; i < network->config.levels; ++i)
        for (int32_t j = 0; up[i].attention && j < up[i].layers; ++j)
            PASS_TRY(transformer_read_text(p, &up[i].transformers[j], text, context, error));
    return ATTUNE_OK;
}

/* The sinusoidal embedding of a timestep (Vaswani et al. 2017, 3.5; as diffusers' get_timestep_embedding):
 * angles t · 10000^(−i / (half − freq_shift)), in double. */
static void embed_timestep(const unet_config *config, float t, float *out) {
    int64_t half = config->block_out_channels[0] / 2;
    double step = -attune_log_f64(10000.0) / ((double)half - config->freq_shift);
    for (int64_t i = 0; i < half; ++i) {
        double angle = (double)t * attune_exp_f64(step * (double)i);
        out[config->flip_sin_to_cos ? half + i : i] = (float)attune_sin_f64(angle);
        out[config->flip_sin_to_cos ? i : half + i] = (float)attune_cos_f64(angle);
    }
}

static attune_code upload_timesteps(pass *p, const unet *network, const unet_input *input, float *to,
                                    attune_error *error) {
    int64_t channels = network->config.block_out_channels[0];
    uint64_t count = (uint64_t)(input->batch * channels);
    if (p->run.planning)
        return ATTUNE_OK;
    float *sines = services_clear_alloc(p->host, count, sizeof *sines, "timesteps");
    if (!sines)
        return services_no_memory("timesteps", count * sizeof *sines, error);
    for (int64_t i = 0; i < input->batch; ++i) {
        if (i > 0 && input->timesteps[i] == input->timesteps[i - 1])
            memcpy(sines + i * channels, sines + (i - 1) * channels, (size_t)channels * sizeof *sines);
        else
            embed_timestep(&network->config, input->timesteps[i], sines + i * channels);
    }
    attune_code code = p->ops->upload(p->dev, p->run.stream, to, sines, count, error);
    services_free(p->host, sines);
    return code;
}

/* The time embedding with the silu that every residual block begins with. */
static attune_code embed_time(pass *p, const unet *network, const unet_input *input, float **out,
                              attune_error *error) {
    int64_t channels = time_channels(&network->config);
    float *sines, *hidden;
    PASS_TRY(pass_take(p, input->batch * channels, out, error));
    PASS_TRY(pass_take(p, input->batch * network->config.block_out_channels[0], &sines, error));
    PASS_TRY(upload_timesteps(p, network, input, sines, error));
    PASS_TRY(pass_take(p, input->batch * channels, &hidden, error));
    device_linear first = {.x = sines, .rows = input->batch, .out = hidden, .activation = DEVICE_SILU};
    PASS_TRY(pass_linear(p, network->time1, &first, error));
    device_linear second = {.x = hidden, .rows = input->batch, .out = *out, .activation = DEVICE_SILU};
    PASS_TRY(pass_linear(p, network->time2, &second, error));
    pass_give(p, &sines);
    pass_give(p, &hidden);
    return ATTUNE_OK;
}

/* What a forward call carries along. The way down leaves each of its results for the way up; the last one is
 * also the present image. */
enum { MAX_SKIPS = CONFIG_MAX_LEVELS * (CONFIG_MAX_LAYERS + 1) + 1 };

typedef struct walk {
    pass *p;
    const unet *network;
    const text_context *context;
    float *time;
    feature_map skips[MAX_SKIPS];
    int32_t count;
} walk;

/* One residual block and its transformer; `out` is new, x is given back where `consume`. */
static attune_code run_layer(walk *w, const unet_level *level, int32_t layer, feature_map *x, int32_t consume,
                             feature_map *out, attune_error *error) {
    feature_map hidden;
    if (!level->attention)
        return resnet_forward(w->p, &level->resnets[layer], x, w->time, consume, out, error);
    PASS_TRY(resnet_forward(w->p, &level->resnets[layer], x, w->time, consume, &hidden, error));
    PASS_TRY(transformer_forward(w->p, &level->transformers[layer], &hidden, w->context, out, error));
    pass_give(w->p, &hidden.data);
    return ATTUNE_OK;
}

static attune_code go_down(walk *w, attune_error *error) {
    for (int32_t i = 0; i < w->network->config.levels; ++i) {
        const unet_level *level = &w->network->down[i];
        for (int32_t j = 0; j < level->layers; ++j, ++w->count)
            PASS_TRY(run_layer(w, level, j, &w->skips[w->count - 1], 0, &w->skips[w->count], error));
        if (!level->sample)
            continue;
        const feature_map *last = &w->skips[w->count - 1];
        PASS_TRY(image_convolve(w->p, level->sample, last, 2, last->channels, &w->skips[w->count], error));
        w->count++;
    }
    return ATTUNE_OK;
}

static attune_code go_through(walk *w, feature_map *x, attune_error *error) {
    feature_map first, second;
    PASS_TRY(resnet_forward(w->p, &w->network->mid_resnets[0], &w->skips[w->count - 1], w->time, 0, &first,
                            error));
    PASS_TRY(transformer_forward(w->p, w->network->mid, &first, w->context, &second, error));
    pass_give(w->p, &first.data);
    return resnet_forward(w->p, &w->network->mid_resnets[1], &second, w->time, 1, x, error);
}

/* x and the last image from the way down, side by side; both are given back. */
static attune_code join_skip(walk *w, feature_map *x, feature_map *out, attune_error *error) {
    feature_map *skip = &w->skips[--w->count];
    PASS_TRY(image_take(w->p, x->batch, x->height, x->width, x->channels + skip->channels, out, error));
    device_concat args = {x->data,     skip->data,     x->batch * x->height * x->width,
                          x->channels, skip->channels, out->data};
    PASS_TRY(w->p->ops->concat(w->p->dev, &w->p->run, &args, error));
    pass_give(w->p, &x->data);
    pass_give(w->p, &skip->data);
    return ATTUNE_OK;
}

static attune_code go_up(walk *w, feature_map *x, attune_error *error) {
    for (int32_t i = 0; i < w->network->config.levels; ++i) {
        const unet_level *level = &w->network->up[i];
        for (int32_t j = 0; j < level->layers; ++j) {
            feature_map joined;
            PASS_TRY(join_skip(w, x, &joined, error));
            PASS_TRY(run_layer(w, level, j, &joined, 1, x, error));
        }
        if (!level->sample)
            continue;
        const feature_map *next = &w->skips[w->count - 1]; /* its size: odd sizes have no exact double */
        feature_map larger;
        PASS_TRY(image_upsample(w->p, level->sample, x, next->height, next->width, &larger, error));
        *x = larger;
    }
    return ATTUNE_OK;
}

attune_code unet_forward(pass *p, const unet *network, const unet_input *input, float **out,
                         attune_error *error) {
    const unet_config *config = &network->config;
    walk w = {.p = p, .network = network, .context = input->context};
    feature_map x, noise;
    float *latents = (float *)(uintptr_t)input->latents; /* an image's data is not const */
    feature_map in = {latents, input->batch, input->height, input->width, config->in_channels};
    PASS_TRY(embed_time(p, network, input, &w.time, error));
    PASS_TRY(image_convolve(p, network->conv_in, &in, 1, config->block_out_channels[0], &w.skips[0], error));
    w.count = 1;
    PASS_TRY(go_down(&w, error));
    PASS_TRY(go_through(&w, &x, error));
    PASS_TRY(go_up(&w, &x, error));
    PASS_TRY(image_finish(p, network->conv_out, &network->norm_out, config->norm_num_groups, config->norm_eps,
                          &x, config->out_channels, &noise, error));
    pass_give(p, &w.time);
    *out = noise.data;
    return ATTUNE_OK;
}
