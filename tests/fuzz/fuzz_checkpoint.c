/*
 * fuzz_checkpoint.c: the names and shapes of a checkpoint in one file, a tensor a line (checkpoint_file.h) →
 * what kind it is, its configuration, and which tensor is which of diffusers'.
 */
#include "tests/fuzz/checkpoint_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char sizes[] = "{\"unet\":{\"norm_num_groups\":1,\"attention_head_dim\":1},"
                                "\"vae\":{\"norm_num_groups\":1},"
                                "\"text_encoder\":{\"num_attention_heads\":1}}";
    static char path[512];
    if (!path[0]) {
        fuzz_put(fuzz_folder(), "sizes.json", sizes, strlen(sizes));
        (void)snprintf(path, sizeof path, "%s/sizes.json", fuzz_folder());
    }
    fuzz_checkpoint((const char *)data, size, NULL);
    fuzz_checkpoint((const char *)data, size, path);
    return 0;
}
