/* fuzz_config.c: the five configuration files of a model, in config_read's order, 0x1e between them. An empty
 * or missing part stands for the valid file below, so that each file can be reached on its own. */
#include "tests/fuzz/model_config.h"

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
        fuzz_check_config(&config);
    return 0;
}
