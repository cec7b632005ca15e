/* fuzz_npy.c: a .npy file. An array that is read is as large as its shape says, compact, and the same after
 * it was written and read again. */
#include "sample_host/npy.h"
#include "tests/fuzz/fuzz.h"

static void check_array(const attune_tensor *tensor, const uint8_t *data, size_t size) {
    uint64_t bytes = attune_dtype_bytes(tensor->dtype);
    FUZZ_CHECK(tensor->ndim >= 0 && tensor->ndim <= ATTUNE_MAX_DIMS && bytes > 0);
    for (int32_t i = tensor->ndim - 1; i >= 0; --i) {
        FUZZ_CHECK(tensor->shape[i] >= 0);
        FUZZ_CHECK((uint64_t)tensor->stride[i] == bytes / attune_dtype_bytes(tensor->dtype));
        FUZZ_CHECK(!__builtin_mul_overflow(bytes, (uint64_t)tensor->shape[i], &bytes));
    }
    FUZZ_CHECK(bytes == tensor->bytes && bytes + 10 <= size && attune_tensor_span(tensor) == bytes);
    FUZZ_CHECK(bytes == 0 || memcmp(tensor->data, data + size - bytes, bytes) == 0);
}

static void check_round_trip(const npy_array *array) {
    static char path[512];
    npy_array again;
    if (!path[0])
        (void)snprintf(path, sizeof path, "%s/again.npy", fuzz_folder());
    FUZZ_CHECK(npy_write(path, &array->tensor, NULL) == ATTUNE_OK);
    FUZZ_CHECK(npy_read(path, &again, NULL) == ATTUNE_OK);
    const attune_tensor *a = &array->tensor, *b = &again.tensor;
    FUZZ_CHECK(attune_dtype_equal(a->dtype, b->dtype) && a->ndim == b->ndim && a->bytes == b->bytes);
    FUZZ_CHECK(memcmp(a->shape, b->shape, sizeof a->shape) == 0);
    FUZZ_CHECK(a->bytes == 0 || memcmp(a->data, b->data, a->bytes) == 0);
    npy_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    npy_array array;
    attune_error error;
    memset(&error, 0xff, sizeof error);
    attune_code code = npy_read(fuzz_file(data, size), &array, &error);
    fuzz_check_error(code, &error);
    FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_DATA_LOSS || code == ATTUNE_UNIMPLEMENTED);
    if (code == ATTUNE_OK) {
        check_array(&array.tensor, data, size);
        check_round_trip(&array);
    } else
        FUZZ_CHECK(array.memory == NULL && array.tensor.data == NULL);
    npy_free(&array);
    npy_free(&array); /* harmless on a zeroed array */
    return 0;
}
