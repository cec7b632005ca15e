/* config.c: reading and checking a model's configuration, in the keys of diffusers. */
#include "plugin/sampler/config.h"
#include "plugin/sampler/files.h"

#include <jansson.h>

/* One open file. */
typedef struct source {
    json_t *root;
    char path[512];
    const char *name; /* "unet/config.json" */
    attune_error *error;
} source;

enum { NO_DEFAULT = -1 };

static attune_code open_source(const char *folder, const char *name, source *out, attune_error *error) {
    out->name = name;
    out->error = error;
    out->root = NULL;
    int length = snprintf(out->path, sizeof out->path, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= sizeof out->path)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, name,
                           "the model's path is too long: %s", folder);
    attune_code code = file_json(out->path, &out->root, error);
    if (code == ATTUNE_NOT_FOUND)
        attune_hint(
            error,
            "a model is a .safetensors checkpoint or a diffusers folder: model_index.json, unet/, vae/, "
            "text_encoder/, scheduler/");
    return code;
}

static void close_source(source *from) {
    json_decref(from->root);
    from->root = NULL;
}

/* The value, or NULL where the key is missing or null. */
static const json_t *get(const source *from, const char *key) {
    const json_t *value = json_object_get(from->root, key);
    return json_is_null(value) ? NULL : value;
}

/* A value as short JSON text for messages. */
static void show(const json_t *value, char text[96]) {
    if (!value) {
        (void)snprintf(text, 96, "nothing");
        return;
    }
    size_t length = json_dumpb(value, text, 95, JSON_ENCODE_ANY | JSON_COMPACT);
    text[length < 95 ? length : 95] = 0;
    if (length > 95)
        memcpy(text + 92, "...", 4);
}

static attune_code wrong(const source *from, const char *key, const json_t *value, const char *expected) {
    char text[96];
    show(value, text);
    return attune_fail(from->error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, from->name,
                       "%s: '%s' is %s; %s expected", from->path, key, text, expected);
}

static attune_code unsupported(const source *from, const char *key, const json_t *value,
                               const char *supported, const char *hint) {
    char text[96];
    show(value, text);
    attune_code code =
        attune_fail(from->error, ATTUNE_UNIMPLEMENTED, SAMPLER_DOMAIN, from->name,
                    "%s: '%s' is %s; this sampler supports %s", from->path, key, text, supported);
    if (hint)
        attune_hint(from->error, "%s", hint);
    return code;
}

/* An integer in [low, high]; `standard` where the key is missing, unless that is NO_DEFAULT. */
static attune_code get_int(const source *from, const char *key, int64_t low, int64_t high, int64_t standard,
                           int64_t *out) {
    const json_t *value = get(from, key);
    char range[64];
    if (!value && standard != NO_DEFAULT) {
        *out = standard;
        return ATTUNE_OK;
    }
    if (json_is_integer(value) && json_integer_value(value) >= low && json_integer_value(value) <= high) {
        *out = json_integer_value(value);
        return ATTUNE_OK;
    }
    (void)snprintf(range, sizeof range, "an integer from %lld to %lld", (long long)low, (long long)high);
    return wrong(from, key, value, range);
}

/* A number in (0, high], or exactly the standard value. */
static attune_code get_number(const source *from, const char *key, double high, double standard,
                              double *out) {
    const json_t *value = get(from, key);
    if (!value) {
        *out = standard;
        return ATTUNE_OK;
    }
    double number = json_number_value(value);
    if (!json_is_number(value) || !((number > 0.0 && number <= high) || number == standard))
        return wrong(from, key, value, "a positive number in range");
    *out = number;
    return ATTUNE_OK;
}

/* One integer for all, or a list of exactly `count`. */
static attune_code get_ints(const source *from, const char *key, int64_t high, int32_t count, int64_t *out) {
    const json_t *value = get(from, key);
    for (int32_t i = 0; i < count; ++i) {
        const json_t *item = json_is_array(value) ? json_array_get(value, (size_t)i) : value;
        if (!json_is_integer(item) || json_integer_value(item) < 1 || json_integer_value(item) > high ||
            (json_is_array(value) && json_array_size(value) != (size_t)count))
            return wrong(from, key, value, "a positive integer, or one per level");
        out[i] = json_integer_value(item);
    }
    return ATTUNE_OK;
}

/* block_out_channels: how many levels there are, and their channels, which `groups` must divide. */
static attune_code get_levels(const source *from, int64_t groups, int32_t *levels, int64_t *channels) {
    const json_t *value = get(from, "block_out_channels");
    size_t count = json_array_size(value);
    if (count < 1 || count > CONFIG_MAX_LEVELS)
        return wrong(from, "block_out_channels", value, "a list of 1 to 8 integers");
    *levels = (int32_t)count;
    attune_code code = get_ints(from, "block_out_channels", 65536, *levels, channels);
    for (int32_t i = 0; code == ATTUNE_OK && i < *levels; ++i)
        if (channels[i] % groups != 0)
            code = wrong(from, "block_out_channels", value, "multiples of norm_num_groups");
    return code;
}

/* A key that must have one value (as JSON text) or be missing. */
typedef struct fixed {
    const char *key;
    const char *value;
    const char *hint;
} fixed;

static const char looks_sdxl[] = "this looks like Stable Diffusion XL; only 1.x-shaped models are read";

static const fixed unet_fixed[] = {
    {"addition_embed_type", "null", looks_sdxl},
    {"class_embed_type", "null", NULL},
    {"num_class_embeds", "null", NULL},
    {"encoder_hid_dim", "null", NULL},
    {"encoder_hid_dim_type", "null", NULL},
    {"time_cond_proj_dim", "null", "this looks like a latent consistency model"},
    {"time_embedding_type", "\"positional\"", NULL},
    {"time_embedding_dim", "null", NULL},
    {"time_embedding_act_fn", "null", NULL},
    {"timestep_post_act", "null", NULL},
    {"mid_block_type", "\"UNetMidBlock2DCrossAttn\"", NULL},
    {"mid_block_scale_factor", "1", NULL},
    {"mid_block_only_cross_attention", "null", NULL},
    {"only_cross_attention", "false", NULL},
    {"dual_cross_attention", "false", NULL},
    {"cross_attention_norm", "null", NULL},
    {"attention_type", "\"default\"", NULL},
    {"act_fn", "\"silu\"", NULL},
    {"center_input_sample", "false", NULL},
    {"class_embeddings_concat", "false", NULL},
    {"conv_in_kernel", "3", NULL},
    {"conv_out_kernel", "3", NULL},
    {"downsample_padding", "1", NULL},
    {"resnet_time_scale_shift", "\"default\"", NULL},
    {"resnet_skip_time_act", "false", NULL},
    {"resnet_out_scale_factor", "1", NULL},
    {"reverse_transformer_layers_per_block", "null", NULL},
};

static const fixed vae_fixed[] = {
    {"act_fn", "\"silu\"", NULL},
    {"mid_block_add_attention", "true", NULL},
    {"latents_mean", "null", NULL},
    {"latents_std", "null", NULL},
    {"shift_factor", "null", "this looks like a Stable Diffusion 3 or Flux VAE"},
};

static const fixed scheduler_fixed[] = {
    {"trained_betas", "null", NULL},
    {"rescale_betas_zero_snr", "false", NULL},
    {"prediction_type", "\"epsilon\"",
     "this looks like a Stable Diffusion 2.x 768 model (v prediction); only epsilon prediction is read"},
};

static attune_code check_fixed(const source *from, const fixed *table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        const json_t *value = get(from, table[i].key);
        if (!value)
            continue;
        json_t *allowed = json_loads(table[i].value, JSON_DECODE_ANY, NULL);
        int same = json_equal(value, allowed) || (json_is_number(value) && json_is_number(allowed) &&
                                                  json_number_value(value) == json_number_value(allowed));
        json_decref(allowed);
        if (!same)
            return unsupported(from, table[i].key, value, table[i].value, table[i].hint);
    }
    return ATTUNE_OK;
}

/* Block types per level: out[i] = 1 for `with` (with attention), 0 for `without`. */
static attune_code get_types(const source *from, const char *key, int32_t levels, const char *with,
                             const char *without, int32_t *out) {
    const json_t *value = get(from, key);
    char supported[96];
    if (!json_is_array(value) || json_array_size(value) != (size_t)levels)
        return wrong(from, key, value, "one block type per level");
    (void)snprintf(supported, sizeof supported, "%s and %s", with, without);
    for (int32_t i = 0; i < levels; ++i) {
        const char *type = json_string_value(json_array_get(value, (size_t)i));
        if (type && strcmp(type, with) == 0)
            out[i] = 1;
        else if (type && strcmp(type, without) == 0)
            out[i] = 0;
        else
            return unsupported(from, key, value, supported, NULL);
    }
    return ATTUNE_OK;
}

static attune_code read_index(const source *from) {
    const json_t *value = get(from, "_class_name");
    const char *name = json_string_value(value);
    if (name &&
        (strcmp(name, "StableDiffusionPipeline") == 0 || strcmp(name, "StableDiffusionImg2ImgPipeline") == 0))
        return ATTUNE_OK;
    return unsupported(from, "_class_name", value, "\"StableDiffusionPipeline\" (Stable Diffusion 1.x)",
                       name && strstr(name, "XL") ? looks_sdxl : NULL);
}

static attune_code read_scheduler(const source *from, sigma_config *out) {
    int64_t steps = 0;
    attune_code code = check_fixed(from, scheduler_fixed, sizeof scheduler_fixed / sizeof scheduler_fixed[0]);
    if (code == ATTUNE_OK)
        code = get_int(from, "num_train_timesteps", 2, 65536, 1000, &steps);
    if (code == ATTUNE_OK)
        code = get_number(from, "beta_start", 1.0, 0.00085, &out->beta_start);
    if (code == ATTUNE_OK)
        code = get_number(from, "beta_end", 1.0, 0.012, &out->beta_end);
    if (code != ATTUNE_OK)
        return code;
    out->num_train_timesteps = (uint32_t)steps;
    const json_t *value = get(from, "beta_schedule");
    const char *schedule = value ? json_string_value(value) : "scaled_linear";
    if (schedule && strcmp(schedule, "scaled_linear") == 0)
        out->beta_schedule = SIGMA_BETAS_SCALED_LINEAR;
    else if (schedule && strcmp(schedule, "linear") == 0)
        out->beta_schedule = SIGMA_BETAS_LINEAR;
    else
        return unsupported(from, "beta_schedule", value, "\"scaled_linear\" and \"linear\"", NULL);
    return ATTUNE_OK;
}

static attune_code read_text(const source *from, text_config *out) {
    double eps;
    attune_code code = get_int(from, "vocab_size", 2, 1 << 24, 49408, &out->vocab_size);
    if (code == ATTUNE_OK)
        code = get_int(from, "hidden_size", 1, 65536, NO_DEFAULT, &out->hidden_size);
    if (code == ATTUNE_OK)
        code = get_int(from, "intermediate_size", 1, 1 << 20, NO_DEFAULT, &out->intermediate_size);
    if (code == ATTUNE_OK)
        code = get_int(from, "num_hidden_layers", 1, 256, NO_DEFAULT, &out->num_hidden_layers);
    if (code == ATTUNE_OK)
        code = get_int(from, "num_attention_heads", 1, 1024, NO_DEFAULT, &out->num_attention_heads);
    if (code == ATTUNE_OK)
        code = get_int(from, "max_position_embeddings", 77, 65536, 77, &out->max_position_embeddings);
    if (code == ATTUNE_OK)
        code = get_number(from, "layer_norm_eps", 1.0, 1e-5, &eps);
    if (code != ATTUNE_OK)
        return code;
    out->layer_norm_eps = (float)eps;
    if (out->hidden_size % out->num_attention_heads != 0)
        return wrong(from, "num_attention_heads", get(from, "num_attention_heads"),
                     "a divisor of hidden_size");
    const json_t *value = get(from, "hidden_act");
    const char *act = value ? json_string_value(value) : "quick_gelu";
    if (act && strcmp(act, "quick_gelu") == 0)
        out->hidden_act = DEVICE_QUICK_GELU;
    else if (act && strcmp(act, "gelu") == 0)
        out->hidden_act = DEVICE_GELU;
    else
        return unsupported(from, "hidden_act", value, "\"quick_gelu\" and \"gelu\"", NULL);
    return ATTUNE_OK;
}

static attune_code read_sample_size(const source *from, unet_config *out) {
    int64_t size[2] = {64, 64};
    attune_code code = get(from, "sample_size") ? get_ints(from, "sample_size", 4096, 2, size) : ATTUNE_OK;
    out->sample_height = size[0];
    out->sample_width = size[1];
    return code;
}

static attune_code read_heads(const source *from, unet_config *out) {
    const char *key = get(from, "num_attention_heads") ? "num_attention_heads" : "attention_head_dim";
    attune_code code = ATTUNE_OK;
    if (get(from, key))
        code = get_ints(from, key, 1024, out->levels, out->heads);
    else
        for (int32_t i = 0; i < out->levels; ++i)
            out->heads[i] = 8;
    for (int32_t i = 0; code == ATTUNE_OK && i < out->levels; ++i) {
        int used = out->down_attention[i] || out->up_attention[out->levels - 1 - i] || i == out->levels - 1;
        if (used && out->block_out_channels[i] % out->heads[i] != 0)
            code = wrong(from, key, get(from, key), "a divisor of each level's channels");
    }
    return code;
}

static attune_code read_unet_numbers(const source *from, unet_config *out) {
    double eps;
    attune_code code = get_int(from, "in_channels", 1, 64, 4, &out->in_channels);
    if (code == ATTUNE_OK)
        code = get_int(from, "out_channels", 1, 64, 4, &out->out_channels);
    if (code == ATTUNE_OK)
        code = get_int(from, "layers_per_block", 1, CONFIG_MAX_LAYERS - 1, 2, &out->layers_per_block);
    if (code == ATTUNE_OK)
        code = get_int(from, "transformer_layers_per_block", 1, CONFIG_MAX_TRANSFORMERS, 1,
                       &out->transformer_layers);
    if (code == ATTUNE_OK)
        code = get_int(from, "cross_attention_dim", 1, 65536, 1280, &out->cross_attention_dim);
    if (code == ATTUNE_OK)
        code = get_int(from, "norm_num_groups", 1, 65536, 32, &out->norm_num_groups);
    if (code == ATTUNE_OK)
        code = get_number(from, "norm_eps", 1.0, 1e-5, &eps);
    if (code == ATTUNE_OK)
        code = get_number(from, "freq_shift", 1.0, 0.0, &out->freq_shift);
    if (code == ATTUNE_OK)
        out->norm_eps = (float)eps;
    return code;
}

static attune_code read_unet(const source *from, unet_config *out) {
    attune_code code = check_fixed(from, unet_fixed, sizeof unet_fixed / sizeof unet_fixed[0]);
    if (code == ATTUNE_OK)
        code = read_unet_numbers(from, out);
    if (code == ATTUNE_OK)
        code = read_sample_size(from, out);
    if (code == ATTUNE_OK)
        code = get_levels(from, out->norm_num_groups, &out->levels, out->block_out_channels);
    if (code == ATTUNE_OK)
        code = get_types(from, "down_block_types", out->levels, "CrossAttnDownBlock2D", "DownBlock2D",
                         out->down_attention);
    if (code == ATTUNE_OK)
        code = get_types(from, "up_block_types", out->levels, "CrossAttnUpBlock2D", "UpBlock2D",
                         out->up_attention);
    if (code == ATTUNE_OK)
        code = read_heads(from, out);
    if (code != ATTUNE_OK)
        return code;
    const json_t *flip = get(from, "flip_sin_to_cos");
    if (flip && !json_is_boolean(flip))
        return wrong(from, "flip_sin_to_cos", flip, "true or false");
    out->flip_sin_to_cos = flip ? json_is_true(flip) : 1;
    if (out->in_channels != out->out_channels)
        return unsupported(from, "in_channels", get(from, "in_channels"), "as many input as output channels",
                           "this looks like an inpainting or other conditioned model");
    if (out->block_out_channels[0] < 4 || out->block_out_channels[0] % 2 != 0)
        return wrong(from, "block_out_channels", get(from, "block_out_channels"),
                     "an even first value of at least 4");
    return ATTUNE_OK;
}

static attune_code read_vae(const source *from, vae_config *out) {
    int32_t ignored[CONFIG_MAX_LEVELS];
    attune_code code = check_fixed(from, vae_fixed, sizeof vae_fixed / sizeof vae_fixed[0]);
    if (code == ATTUNE_OK)
        code = get_int(from, "latent_channels", 1, 64, 4, &out->latent_channels);
    if (code == ATTUNE_OK)
        code = get_int(from, "out_channels", 3, 3, 3, &out->out_channels);
    if (code == ATTUNE_OK)
        code = get_int(from, "layers_per_block", 1, CONFIG_MAX_LAYERS - 1, 1, &out->layers_per_block);
    if (code == ATTUNE_OK)
        code = get_int(from, "norm_num_groups", 1, 65536, 32, &out->norm_num_groups);
    if (code == ATTUNE_OK)
        code = get_levels(from, out->norm_num_groups, &out->levels, out->block_out_channels);
    if (code == ATTUNE_OK)
        code =
            get_types(from, "up_block_types", out->levels, "UpDecoderBlock2D", "UpDecoderBlock2D", ignored);
    if (code == ATTUNE_OK)
        code = get_number(from, "scaling_factor", 1e6, 0.18215, &out->scaling_factor);
    if (code != ATTUNE_OK)
        return code;
    const json_t *quant = get(from, "use_post_quant_conv");
    out->use_post_quant_conv = quant ? json_is_true(quant) : 1;
    return ATTUNE_OK;
}

static attune_code check_together(const char *folder, const model_config *config, attune_error *error) {
    if (config->unet.cross_attention_dim != config->text.hidden_size)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "config",
                           "%s: the UNet's cross_attention_dim is %lld, the text encoder's hidden_size %lld",
                           folder, (long long)config->unet.cross_attention_dim,
                           (long long)config->text.hidden_size);
    if (config->unet.out_channels != config->vae.latent_channels)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "config",
                           "%s: the UNet's out_channels is %lld, the VAE's latent_channels %lld", folder,
                           (long long)config->unet.out_channels, (long long)config->vae.latent_channels);
    return ATTUNE_OK;
}

/* ---- one configuration for a model in one file ---- */

/* What else diffusers writes there. Nothing here depends on it. */
static const char *const scheduler_keys[] = {"num_train_timesteps",
                                             "beta_start",
                                             "beta_end",
                                             "beta_schedule",
                                             "clip_sample",
                                             "clip_sample_range",
                                             "set_alpha_to_one",
                                             "skip_prk_steps",
                                             "steps_offset",
                                             "timestep_spacing",
                                             "thresholding",
                                             "sample_max_value",
                                             "dynamic_thresholding_ratio",
                                             "interpolation_type",
                                             "use_karras_sigmas",
                                             "final_sigmas_type",
                                             "timestep_type",
                                             "sigma_min",
                                             "sigma_max",
                                             "use_beta_sigmas",
                                             "use_exponential_sigmas",
                                             NULL};
static const char *const text_keys[] = {"vocab_size",
                                        "hidden_size",
                                        "intermediate_size",
                                        "num_hidden_layers",
                                        "num_attention_heads",
                                        "max_position_embeddings",
                                        "layer_norm_eps",
                                        "hidden_act",
                                        "architectures",
                                        "attention_dropout",
                                        "bos_token_id",
                                        "eos_token_id",
                                        "pad_token_id",
                                        "dropout",
                                        "dtype",
                                        "torch_dtype",
                                        "initializer_factor",
                                        "initializer_range",
                                        "model_type",
                                        "projection_dim",
                                        "transformers_version",
                                        NULL};
static const char *const unet_keys[] = {"sample_size",
                                        "in_channels",
                                        "out_channels",
                                        "block_out_channels",
                                        "down_block_types",
                                        "up_block_types",
                                        "layers_per_block",
                                        "num_attention_heads",
                                        "attention_head_dim",
                                        "transformer_layers_per_block",
                                        "cross_attention_dim",
                                        "norm_num_groups",
                                        "norm_eps",
                                        "flip_sin_to_cos",
                                        "freq_shift",
                                        "addition_embed_type_num_heads",
                                        "addition_time_embed_dim",
                                        "dropout",
                                        "projection_class_embeddings_input_dim",
                                        "upcast_attention",
                                        "use_linear_projection",
                                        NULL};
static const char *const vae_keys[] = {"latent_channels", "in_channels",
                                       "out_channels",    "layers_per_block",
                                       "norm_num_groups", "block_out_channels",
                                       "up_block_types",  "down_block_types",
                                       "scaling_factor",  "use_post_quant_conv",
                                       "use_quant_conv",  "force_upcast",
                                       "sample_size",     NULL};

/* A misspelt key would leave a standard value in force without a word. */
static attune_code check_keys(const source *from, const char *const *keys, const fixed *table, size_t count) {
    const char *key;
    json_t *value;
    json_object_foreach(from->root, key, value) {
        int known = key[0] == '_'; /* _class_name, _diffusers_version */
        for (size_t i = 0; keys[i] && !known; ++i)
            known = strcmp(key, keys[i]) == 0;
        for (size_t i = 0; i < count && !known; ++i)
            known = strcmp(key, table[i].key) == 0;
        if (!known)
            return attune_fail(from->error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, from->name,
                               "%s: '%s' is no key of diffusers' configuration", from->path, key);
    }
    return ATTUNE_OK;
}

attune_code config_parse(struct json_t *root, const char *path, model_config *out, attune_error *error) {
    static const struct {
        const char *name;
        const char *const *keys;
        const fixed *table;
        size_t count;
    } parts[] = {
        {"scheduler", scheduler_keys, scheduler_fixed, sizeof scheduler_fixed / sizeof scheduler_fixed[0]},
        {"text_encoder", text_keys, NULL, 0},
        {"unet", unet_keys, unet_fixed, sizeof unet_fixed / sizeof unet_fixed[0]},
        {"vae", vae_keys, vae_fixed, sizeof vae_fixed / sizeof vae_fixed[0]}};
    attune_code code = ATTUNE_OK;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < 4 && code == ATTUNE_OK; ++i) {
        source from = {json_object_get(root, parts[i].name), "", parts[i].name, error};
        (void)snprintf(from.path, sizeof from.path, "%s, %s", path, parts[i].name);
        code = check_keys(&from, parts[i].keys, parts[i].table, parts[i].count);
        if (code == ATTUNE_OK)
            code = i == 0   ? read_scheduler(&from, &out->sigmas)
                   : i == 1 ? read_text(&from, &out->text)
                   : i == 2 ? read_unet(&from, &out->unet)
                            : read_vae(&from, &out->vae);
    }
    return code == ATTUNE_OK ? check_together(path, out, error) : code;
}

attune_code config_read(const char *folder, model_config *out, attune_error *error) {
    static const char *const names[] = {"model_index.json", "scheduler/scheduler_config.json",
                                        "text_encoder/config.json", "unet/config.json", "vae/config.json"};
    attune_code code = ATTUNE_OK;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < 5 && code == ATTUNE_OK; ++i) {
        source from;
        code = open_source(folder, names[i], &from, error);
        if (code == ATTUNE_OK)
            code = i == 0   ? read_index(&from)
                   : i == 1 ? read_scheduler(&from, &out->sigmas)
                   : i == 2 ? read_text(&from, &out->text)
                   : i == 3 ? read_unet(&from, &out->unet)
                            : read_vae(&from, &out->vae);
        close_source(&from);
    }
    return code == ATTUNE_OK ? check_together(folder, out, error) : code;
}
