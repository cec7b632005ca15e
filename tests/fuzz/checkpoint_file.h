/*
 * checkpoint_file.h: a checkpoint in one file from a listing of one tensor a line, "NAME EXTENT EXTENT …",
 * with zeros for weights (sparse, in memory), opened and configured as model_open does.
 */
#ifndef ATTUNE_FUZZ_CHECKPOINT_FILE_H
#define ATTUNE_FUZZ_CHECKPOINT_FILE_H

#include "plugin/sampler/checkpoint.h"
#include "tests/fuzz/model_config.h"

/* A model of two levels, by what its configuration is read from. */
static const char fuzz_listing[] =
    "model.diffusion_model.input_blocks.0.0.weight 32 4 3 3\n"
    "model.diffusion_model.input_blocks.1.0.in_layers.2.weight 32 32 3 3\n"
    "model.diffusion_model.input_blocks.1.0.out_layers.0.weight 32\n"
    "model.diffusion_model.input_blocks.1.1.norm.weight 32\n"
    "model.diffusion_model.input_blocks.2.0.op.weight 32 32 3 3\n"
    "model.diffusion_model.input_blocks.3.0.in_layers.2.weight 64 32 3 3\n"
    "model.diffusion_model.input_blocks.3.0.out_layers.0.weight 64\n"
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight 64 24\n"
    "model.diffusion_model.output_blocks.2.1.transformer_blocks.0.norm1.weight 32\n"
    "model.diffusion_model.out.2.weight 4 32 3 3\n"
    "first_stage_model.post_quant_conv.weight 4 4 1 1\n"
    "first_stage_model.decoder.conv_in.weight 64 4 3 3\n"
    "first_stage_model.decoder.up.0.block.0.conv1.weight 32 64 3 3\n"
    "first_stage_model.decoder.up.0.block.0.norm2.weight 32\n"
    "first_stage_model.decoder.up.0.block.1.norm2.weight 32\n"
    "first_stage_model.decoder.up.1.block.0.conv1.weight 64 64 3 3\n"
    "first_stage_model.decoder.up.1.block.0.norm2.weight 64\n"
    "first_stage_model.decoder.conv_out.weight 3 32 3 3\n"
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight 1024 24\n"
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight 77 24\n"
    "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight 96 24\n";

enum { FUZZ_EXTENT = 1 << 16, FUZZ_TENSORS = 4096 };
static const uint64_t fuzz_tensor_bytes = UINT64_C(1) << 30;

/* One line's entry in the header; its data begin at `at`, and where they end is returned. */
static inline uint64_t fuzz_put_tensor(FILE *header, int first, char *line, uint64_t at) {
    char *rest = NULL, *name = strtok_r(line, " ", &rest), *word;
    uint64_t bytes = 2;
    for (char *c = name; c && *c; ++c)
        *c = *c < 0x20 || *c > 0x7e || *c == '"' || *c == '\\' ? '_' : *c;
    (void)fprintf(header, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[", first ? "" : ",", name ? name : "");
    for (int i = 0; (word = strtok_r(NULL, " ", &rest)) != NULL; ++i) {
        uint64_t extent = strtoull(word, NULL, 10) % FUZZ_EXTENT;
        extent = bytes * extent > fuzz_tensor_bytes ? 1 : extent;
        bytes *= extent;
        (void)fprintf(header, "%s%llu", i ? "," : "", (unsigned long long)extent);
    }
    (void)fprintf(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                  (unsigned long long)(at + bytes));
    return at + bytes;
}

/* The path of the file that the listing makes; one file, that each call overwrites. */
static inline const char *fuzz_checkpoint_file(const char *listing, size_t length) {
    char *text = NULL, *copy = strndup(listing, length), *rest = NULL, *line = copy;
    size_t size = 0;
    uint64_t at = 0;
    FILE *header = open_memstream(&text, &size);
    FUZZ_CHECK(copy && header);
    (void)fprintf(header, "        {");
    for (int i = 0; i < FUZZ_TENSORS && (line = strtok_r(i ? NULL : copy, "\n", &rest)) != NULL; ++i)
        at = fuzz_put_tensor(header, i == 0, line, at);
    (void)fprintf(header, "}");
    FUZZ_CHECK(fclose(header) == 0);
    for (int i = 0; i < 8; ++i)
        text[i] = (char)((size - 8) >> (8 * i));
    const char *path = fuzz_file(text, size);
    FUZZ_CHECK(truncate(path, (off_t)(size + at)) == 0);
    free(text);
    free(copy);
    return path;
}

/* The file's names of some tensors fit, and are of their network or none. */
static inline void fuzz_check_names(const safetensors *file, const model_config *config) {
    static const char *const names[] = {"conv_in.weight",
                                        "down_blocks.%d.resnets.%d.norm1.weight",
                                        "down_blocks.%d.attentions.%d.proj_in.bias",
                                        "down_blocks.%d.downsamplers.0.conv.bias",
                                        "mid_block.resnets.%d.conv_shortcut.weight",
                                        "mid_block.attentions.%d.norm.bias",
                                        "up_blocks.%d.resnets.%d.time_emb_proj.weight",
                                        "up_blocks.%d.attentions.%d.proj_out.weight",
                                        "up_blocks.%d.upsamplers.0.conv.weight",
                                        "decoder.up_blocks.%d.resnets.%d.conv1.weight",
                                        "decoder.up_blocks.%d.upsamplers.0.conv.weight",
                                        "decoder.mid_block.attentions.%d.to_out.0.weight"};
    static const weights_rename renames[] = {checkpoint_text_name, checkpoint_unet_name, checkpoint_vae_name};
    static const char *const starts[] = {"cond_stage_model.transformer.", "model.diffusion_model.",
                                         "first_stage_model."};
    checkpoint_names context = {file, config};
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]) * CONFIG_MAX_LEVELS; ++i)
        for (int network = 0; network < 3; ++network) {
            char name[128], out[WEIGHTS_TENSOR_NAME];
            memset(out, 0xff, sizeof out);
            /* NOLINTNEXTLINE(clang-diagnostic-format-nonliteral): from the table above */
            (void)snprintf(name, sizeof name, names[i / CONFIG_MAX_LEVELS], i % CONFIG_MAX_LEVELS,
                           i % CONFIG_MAX_LAYERS);
            renames[network](&context, name, out);
            FUZZ_CHECK(memchr(out, 0, sizeof out));
            FUZZ_CHECK(!out[0] || strncmp(out, starts[network], strlen(starts[network])) == 0);
        }
}

static inline attune_code fuzz_configure(const safetensors *file, const char *config_path,
                                         attune_error *error) {
    model_config config;
    sigma_model sigmas;
    attune_code code = checkpoint_config(file, config_path, &config, error);
    if (code != ATTUNE_OK)
        return code;
    fuzz_check_config(&config);
    fuzz_check_names(file, &config);
    code = sigma_model_open(file->host->memory, &config.sigmas, &sigmas, error);
    if (code == ATTUNE_OK) {
        code = checkpoint_check_schedule(file, &sigmas, error);
        sigma_model_close(&sigmas);
    }
    return code == ATTUNE_OK ? checkpoint_check_used(file, error) : code;
}

static inline void fuzz_log(void *context, int32_t level, const char *message) {
    (void)context;
    FUZZ_CHECK(level == ATTUNE_LOG_WARNING && message[0]);
}

/* All of it; `config_path` may be NULL. */
static inline void fuzz_checkpoint(const char *listing, size_t length, const char *config_path) {
    fuzz_memory memory;
    attune_log_service log = {sizeof log, 0, fuzz_log, NULL};
    services host = {.memory = &memory.service, .log = &log};
    safetensors file;
    attune_error error;
    fuzz_memory_init(&memory, 0);
    memset(&error, 0xff, sizeof error);
    attune_code code = checkpoint_open(&host, fuzz_checkpoint_file(listing, length), &file, &error);
    if (code == ATTUNE_OK) {
        memset(&error, 0xff, sizeof error);
        code = fuzz_configure(&file, config_path, &error);
        safetensors_close(&file);
    }
    fuzz_check_error(code, &error);
    FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_INVALID_ARGUMENT || code == ATTUNE_UNIMPLEMENTED ||
               code == ATTUNE_DATA_LOSS);
    FUZZ_CHECK(memory.live == 0);
}

#endif
