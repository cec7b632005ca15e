/*
 * attune/tensor.h: a fixed-size view of an array in some device's memory, convertible from and to DLPack's
 * DLTensor (github.com/dmlc/dlpack, dlpack.h 0.8) without a copy. A view owns nothing.
 */
#ifndef ATTUNE_TENSOR_H
#define ATTUNE_TENSOR_H

#include "attune/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTUNE_MAX_DIMS 6

/* DLPack's device types (DLDeviceType). */
enum { ATTUNE_DEVICE_CPU = 1, ATTUNE_DEVICE_CUDA = 2, ATTUNE_DEVICE_OPENCL = 4 };

/* DLPack's type codes (DLDataTypeCode). */
enum {
    ATTUNE_TYPE_INT = 0,
    ATTUNE_TYPE_UINT = 1,
    ATTUNE_TYPE_FLOAT = 2,
    ATTUNE_TYPE_BFLOAT = 4,
    ATTUNE_TYPE_BOOL = 6
};

/* An element type, laid out as DLDataType. */
typedef struct attune_dtype {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} attune_dtype;

#define ATTUNE_F32  ((attune_dtype){ATTUNE_TYPE_FLOAT, 32, 1})
#define ATTUNE_F16  ((attune_dtype){ATTUNE_TYPE_FLOAT, 16, 1})
#define ATTUNE_BF16 ((attune_dtype){ATTUNE_TYPE_BFLOAT, 16, 1})
#define ATTUNE_BOOL ((attune_dtype){ATTUNE_TYPE_BOOL, 8, 1})

/* Bits for sets of element types, as in attune_attention_info.dtypes. */
enum { ATTUNE_DTYPE_BIT_F32 = 1, ATTUNE_DTYPE_BIT_F16 = 2, ATTUNE_DTYPE_BIT_BF16 = 4 };

/* Which physical device: two are the same where type and UUID are equal (the index may differ per process).
 */
typedef struct attune_device_id {
    int32_t type;
    int32_t index;
    uint8_t uuid[16];
} attune_device_id;

typedef struct attune_tensor {
    void *data;     /* first element; NULL only where the tensor has no elements */
    uint64_t bytes; /* readable (writable) bytes from data on: what a callee checks strides against */
    attune_device_id device;
    attune_dtype dtype;
    int32_t ndim;
    int64_t shape[ATTUNE_MAX_DIMS];
    int64_t stride[ATTUNE_MAX_DIMS]; /* in elements; 0 = broadcast; never negative */
} attune_tensor;
ATTUNE_STATIC_ASSERT(sizeof(attune_dtype) == 4, "DLDataType");
ATTUNE_STATIC_ASSERT(sizeof(attune_device_id) == 24, "attune_device_id is part of the ABI");
ATTUNE_STATIC_ASSERT(sizeof(attune_tensor) == 144, "attune_tensor is part of the ABI");
ATTUNE_STATIC_ASSERT(offsetof(attune_tensor, shape) == 48, "attune_tensor is part of the ABI");

/* The same bytes as DLPack's DLTensor on a 64-bit machine: cast a `DLTensor *` to this. */
typedef struct attune_dltensor {
    void *data;
    int32_t device_type;
    int32_t device_id;
    int32_t ndim;
    attune_dtype dtype;
    int64_t *shape;
    int64_t *strides; /* NULL = compact, row-major */
    uint64_t byte_offset;
} attune_dltensor;
ATTUNE_STATIC_ASSERT(sizeof(attune_dltensor) == 48, "DLTensor");

static inline int attune_dtype_equal(attune_dtype a, attune_dtype b) {
    return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

/* [any] Bytes of one element. */
static inline uint64_t attune_dtype_bytes(attune_dtype dtype) {
    return ((uint64_t)dtype.bits * dtype.lanes + 7) / 8;
}

/* [any] The numpy name of an element type ("float32"), or "unsupported". Static text. */
static inline const char *attune_dtype_name(attune_dtype dtype) {
    if (attune_dtype_equal(dtype, ATTUNE_F32))
        return "float32";
    if (attune_dtype_equal(dtype, ATTUNE_F16))
        return "float16";
    if (attune_dtype_equal(dtype, ATTUNE_BF16))
        return "bfloat16";
    return attune_dtype_equal(dtype, ATTUNE_BOOL) ? "bool" : "unsupported";
}

static inline int attune_device_same(const attune_device_id *a, const attune_device_id *b) {
    return a->type == b->type && memcmp(a->uuid, b->uuid, sizeof a->uuid) == 0;
}

/* [any] A compact row-major view. `ndim` is 0…6 and the extents are ≥ 0, or the result has ndim −1. */
static inline attune_tensor attune_tensor_view(void *data, attune_dtype dtype, attune_device_id device,
                                               int32_t ndim, const int64_t *shape) {
    attune_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    tensor.data = data;
    tensor.device = device;
    tensor.dtype = dtype;
    tensor.ndim = ndim < 0 || ndim > ATTUNE_MAX_DIMS ? -1 : ndim;
    uint64_t count = 1;
    for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
        tensor.shape[i] = shape[i];
        tensor.stride[i] = (int64_t)count;
        if (shape[i] < 0 || __builtin_mul_overflow(count, (uint64_t)shape[i], &count) ||
            count > INT64_MAX / 16) {
            tensor.ndim = -1;
            return tensor;
        }
    }
    tensor.bytes = tensor.ndim < 0 ? 0 : count * attune_dtype_bytes(dtype);
    return tensor;
}

/* [any] Bytes from data to the end of the last element that the strides reach; 0 for no elements; UINT64_MAX
 * where that overflows or an extent or stride is negative. A callee refuses a tensor whose `bytes` is less.
 */
static inline uint64_t attune_tensor_span(const attune_tensor *tensor) {
    uint64_t last = 0;
    if (tensor->ndim < 0 || tensor->ndim > ATTUNE_MAX_DIMS)
        return UINT64_MAX;
    for (int32_t i = 0; i < tensor->ndim; ++i) {
        uint64_t reach;
        if (tensor->shape[i] < 0 || tensor->stride[i] < 0)
            return UINT64_MAX;
        if (tensor->shape[i] == 0)
            return 0;
        if (__builtin_mul_overflow((uint64_t)tensor->shape[i] - 1, (uint64_t)tensor->stride[i], &reach) ||
            __builtin_add_overflow(last, reach, &last))
            return UINT64_MAX;
    }
    uint64_t bytes;
    if (__builtin_mul_overflow(last + 1, attune_dtype_bytes(tensor->dtype), &bytes))
        return UINT64_MAX;
    return bytes;
}

/* [any] View a DLTensor (its owner keeps it alive). `device.uuid` is 0: the caller fills it in
 * (attune_cpu_device of host.h gives this machine's CPU). Errors: OUT_OF_RANGE more than 6 dimensions;
 * INVALID_ARGUMENT negative extents or strides. */
static inline attune_code attune_tensor_from_dlpack(const attune_dltensor *from, attune_tensor *out,
                                                    attune_error *error) {
    attune_device_id device;
    memset(&device, 0, sizeof device);
    device.type = from->device_type;
    device.index = from->device_id;
    if (from->ndim < 0 || from->ndim > ATTUNE_MAX_DIMS)
        return attune_fail(error, ATTUNE_OUT_OF_RANGE, "attune", "attune_tensor_from_dlpack",
                           "a tensor of %d dimensions (0 to %d are supported)", from->ndim, ATTUNE_MAX_DIMS);
    *out = attune_tensor_view((char *)from->data + from->byte_offset, from->dtype, device, from->ndim,
                              from->shape);
    for (int32_t i = 0; from->strides && i < from->ndim && out->ndim >= 0; ++i)
        out->stride[i] = from->strides[i];
    uint64_t span = attune_tensor_span(out);
    if (out->ndim < 0 || span == UINT64_MAX)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, "attune", "attune_tensor_from_dlpack",
                           "negative or overflowing shape or strides");
    out->bytes = span;
    return ATTUNE_OK;
}

/* [any] The reverse; `out` points into `from`, which must outlive it. */
static inline void attune_tensor_to_dlpack(attune_tensor *from, attune_dltensor *out) {
    out->data = from->data;
    out->device_type = from->device.type;
    out->device_id = from->device.index;
    out->ndim = from->ndim;
    out->dtype = from->dtype;
    out->shape = from->shape;
    out->strides = from->stride;
    out->byte_offset = 0;
}

#ifdef __cplusplus
}
#endif
#endif
