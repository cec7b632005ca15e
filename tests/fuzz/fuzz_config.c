/* fuzz_config.c: the five configuration files of a model, in config_read's order, 0x1e between them. An empty
 * or missing part stands for the valid file below, so that each file can be reached on its own. */
#include "plugin/sampler/config.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

static const struct {
    const char *folder, *name, *valid;
} files[] = {
    {"", "model_index.json", "{\"_class_name\":\"StableDiffusionPipeline\"}"},
    {"scheduler", "scheduler/scheduler_config.json", "{}"},
    {"text_encoder", "text_encoder/config.json",
     "{\"hidden_size\":24,\"intermediate_size\":60,\"num_hidden_layers\":2,\"num_attention_heads\":3}"},
    {"unet", "unet/config.json",
     "{\"block_out_channels\":[32,64],\"cross_attention_dim\":24,"
     "\"down_block_types\":[\"CrossAttnDownBlock2D\",\"DownBlock2D\"],"
     "\"up_block_types\":[\"UpBlock2D\",\"CrossAttnUpBlock2D\"]}"},
    {"vae", "vae/config.json",
     "{\"block_out_channels\":[32,64],\"up_block_types\":[\"UpDecoderBlock2D\",\"UpDecoderBlock2D\"]}"},
};

static int in_range(int64_t value, int64_t low, int64_t high) {
    return value >= low && value <= high;
}

static void check_levels(int32_t levels, const int64_t *channels, int64_t groups) {
    FUZZ_CHECK(in_range(levels, 1, CONFIG_MAX_LEVELS) && groups >= 1);
    for (int32_t i = 0; i < levels; ++i)
        FUZZ_CHECK(in_range(channels[i], 1, 65536) && channels[i] % groups == 0);
}

/* What the networks count on without looking again. */
static void check_config(const model_config *config) {
    const text_config *text = &config->text;
    const unet_config *unet = &config->unet;
    const vae_config *vae = &config->vae;
    FUZZ_CHECK(in_range(text->vocab_size, 2, 1 << 24) && text->hidden_size >= 1);
    FUZZ_CHECK(text->num_attention_heads >= 1 && text->hidden_size % text->num_attention_heads == 0);
    FUZZ_CHECK(text->max_position_embeddings >= 77 && text->num_hidden_layers >= 1);
    FUZZ_CHECK(isfinite(text->layer_norm_eps) && text->layer_norm_eps >= 0);
    check_levels(unet->levels, unet->block_out_channels, unet->norm_num_groups);
    for (int32_t i = 0; i < unet->levels; ++i) {
        FUZZ_CHECK(unet->heads[i] >= 1);
        if (unet->down_attention[i] || unet->up_attention[unet->levels - 1 - i] || i == unet->levels - 1)
            FUZZ_CHECK(unet->block_out_channels[i] % unet->heads[i] == 0);
    }
    FUZZ_CHECK(in_range(unet->layers_per_block, 1, CONFIG_MAX_LAYERS - 1));
    FUZZ_CHECK(in_range(unet->transformer_layers, 1, CONFIG_MAX_TRANSFORMERS));
    FUZZ_CHECK(unet->cross_attention_dim == text->hidden_size && unet->in_channels == unet->out_channels);
    FUZZ_CHECK(in_range(unet->sample_height, 1, 4096) && in_range(unet->sample_width, 1, 4096));
    FUZZ_CHECK(isfinite(unet->norm_eps) && unet->norm_eps >= 0 && isfinite(unet->freq_shift));
    check_levels(vae->levels, vae->block_out_channels, vae->norm_num_groups);
    FUZZ_CHECK(in_range(vae->layers_per_block, 1, CONFIG_MAX_LAYERS - 1) && vae->out_channels == 3);
    FUZZ_CHECK(vae->latent_channels == unet->out_channels);
    FUZZ_CHECK(isfinite(vae->scaling_factor) && vae->scaling_factor > 0);
    FUZZ_CHECK(in_range(config->sigmas.num_train_timesteps, 2, 65536));
    FUZZ_CHECK(isfinite(config->sigmas.beta_start) && isfinite(config->sigmas.beta_end));
}

/* Only what differs from the last input is written again. */
static void put_files(const char *folder, const uint8_t *data, size_t size) {
    static int changed[5] = {1, 1, 1, 1, 1};
    for (int i = 0; i < 5; ++i) {
        size_t length = 0;
        const uint8_t *part = fuzz_part(&data, &size, &length);
        if (part && length)
            fuzz_put(folder, files[i].name, part, length);
        else if (changed[i])
            fuzz_put(folder, files[i].name, files[i].valid, strlen(files[i].valid));
        changed[i] = part && length;
    }
}

static const char *model_folder(void) {
    static int made;
    const char *folder = fuzz_folder();
    for (int i = 1; i < 5 && !made; ++i) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/%s", folder, files[i].folder);
        FUZZ_CHECK(mkdir(path, 0700) == 0);
    }
    made = 1;
    return folder;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *folder = model_folder();
    model_config config;
    attune_error error;
    put_files(folder, data, size);
    memset(&error, 0xff, sizeof error);
    attune_code code = config_read(folder, &config, &error);
    fuzz_check_error(code, &error);
    FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_DATA_LOSS || code == ATTUNE_INVALID_ARGUMENT ||
               code == ATTUNE_UNIMPLEMENTED);
    if (code == ATTUNE_OK)
        check_config(&config);
    return 0;
}
