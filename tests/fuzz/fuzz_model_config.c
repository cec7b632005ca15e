/*
 * fuzz_model_config.c: the JSON of --model-config over the shapes of a small checkpoint in one file.
 */
#include "tests/fuzz/checkpoint_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[512];
    fuzz_put(fuzz_folder(), "given.json", size ? data : (const uint8_t *)"", size);
    (void)snprintf(path, sizeof path, "%s/given.json", fuzz_folder());
    fuzz_checkpoint(fuzz_listing, strlen(fuzz_listing), path);
    return 0;
}
