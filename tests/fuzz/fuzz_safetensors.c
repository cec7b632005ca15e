/* fuzz_safetensors.c: a .safetensors file. Each tensor that is handed out lies in the file, is as large as
 * its shape says, overlaps no other and is found by its name; no memory is kept. */
#include "plugin/sampler/safetensors.h"
#include "tests/fuzz/fuzz.h"

static uint64_t stored_bytes(const char *stored) {
    if (strcmp(stored, "BOOL") == 0 || strncmp(stored, "F8_", 3) == 0)
        return 1;
    return (uint64_t)atoi(stored + strcspn(stored, "0123456789")) / 8;
}

static void check_tensor(const safetensors *file, const safetensors_tensor *tensor, const uint8_t *data) {
    uint64_t bytes = stored_bytes(tensor->stored);
    FUZZ_CHECK(tensor->name && tensor->ndim >= 0 && tensor->ndim <= SAFETENSORS_MAX_DIMS && bytes > 0);
    FUZZ_CHECK(tensor->dtype.bits == 0 || tensor->dtype.bits / 8 == bytes);
    for (int32_t i = 0; i < tensor->ndim; ++i) {
        FUZZ_CHECK(tensor->shape[i] >= 0);
        FUZZ_CHECK(!__builtin_mul_overflow(bytes, (uint64_t)tensor->shape[i], &bytes));
    }
    FUZZ_CHECK(bytes == tensor->bytes);
    uintptr_t begin = (uintptr_t)file->map, at = (uintptr_t)tensor->data;
    FUZZ_CHECK(at >= begin + 8 && at <= begin + file->bytes && tensor->bytes <= begin + file->bytes - at);
    FUZZ_CHECK(memcmp(tensor->data, data + (at - begin), tensor->bytes) == 0);
    for (uint64_t k = 0; k < file->count && file->count <= 64; ++k) {
        const safetensors_tensor *other = &file->tensors[k];
        uintptr_t place = (uintptr_t)other->data;
        FUZZ_CHECK(other == tensor || !tensor->bytes || !other->bytes || place + other->bytes <= at ||
                   at + tensor->bytes <= place);
    }
    FUZZ_CHECK(safetensors_find(file, tensor->name) == tensor);
}

static attune_code open_once(const uint8_t *data, size_t size, uint64_t fail_at) {
    fuzz_memory memory;
    services host = {.memory = &memory.service};
    safetensors file;
    attune_error error;
    fuzz_memory_init(&memory, fail_at);
    memset(&error, 0xff, sizeof error);
    attune_code code = safetensors_open(&host, fuzz_file(data, size), &file, &error);
    fuzz_check_error(code, &error);
    if (code == ATTUNE_OK) {
        FUZZ_CHECK(file.bytes == size);
        for (uint64_t i = 0; i < file.count; ++i)
            check_tensor(&file, &file.tensors[i], data);
        FUZZ_CHECK(safetensors_find(&file, "") == NULL || file.tensors[0].name[0] == 0);
        safetensors_release(&file);
    }
    safetensors_close(&file);
    FUZZ_CHECK(memory.live == 0);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    attune_code code = open_once(data, size, 0);
    FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_DATA_LOSS);
    if (code == ATTUNE_OK)
        for (uint64_t fail_at = 1; fail_at <= 2; ++fail_at)
            FUZZ_CHECK(open_once(data, size, fail_at) == ATTUNE_RESOURCE_EXHAUSTED);
    return 0;
}
