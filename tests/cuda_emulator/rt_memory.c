/*
 * rt_memory.c: allocation, copies and fills (CUDA Runtime API 13.0, sections 6.11 and 6.15). A copy from
 * pageable memory is staged at the call and a copy to it is done at the call, as section 2 of the manual has
 * it; with pinned memory both wait for the stream, so that a buffer used again too early shows.
 */
#include "tests/cuda_emulator/runtime.h"

#include <stdlib.h>

/* ---- pinned host memory ---- */

typedef struct pinned {
    struct pinned *next;
    unsigned char *address;
    size_t size;
    bool registered;
} pinned;

static pinned *pins;

bool runtime_is_pinned(const void *address, size_t size) {
    const unsigned char *a = address;
    for (const pinned *p = pins; p; p = p->next)
        if (a >= p->address && a + size <= p->address + p->size)
            return true;
    return false;
}

static cudaError_t pin(void *address, size_t size, bool registered) {
    pinned *made = malloc(sizeof *made);
    if (!made)
        return cudaErrorMemoryAllocation;
    *made = (pinned){pins, address, size, registered};
    pins = made;
    return cudaSuccess;
}

static cudaError_t unpin(void *address, bool registered) {
    for (pinned **p = &pins; *p; p = &(*p)->next)
        if ((*p)->address == address && (*p)->registered == registered) {
            pinned *old = *p;
            *p = old->next;
            free(old);
            return cudaSuccess;
        }
    return registered ? cudaErrorHostMemoryNotRegistered : cudaErrorInvalidValue;
}

static cudaError_t host_alloc(void **pointer, size_t size) {
    if (!pointer)
        return cudaErrorInvalidValue;
    *pointer = NULL;
    if (!size)
        return cudaSuccess;
    void *made = aligned_alloc(256, (size + 255) / 256 * 256);
    if (!made || pin(made, size, false) != cudaSuccess) {
        free(made);
        return cudaErrorMemoryAllocation;
    }
    *pointer = made;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **pointer, size_t size) {
    RUNTIME_ENTER("cudaMallocHost");
    return runtime_leave(host_alloc(pointer, size));
}

cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned int flags) {
    RUNTIME_ENTER("cudaHostAlloc");
    if (flags & ~7u)
        return runtime_leave(cudaErrorInvalidValue);
    return runtime_leave(host_alloc(pointer, size));
}

cudaError_t cudaFreeHost(void *pointer) {
    RUNTIME_ENTER("cudaFreeHost");
    if (!pointer)
        return runtime_leave(cudaSuccess);
    cudaError_t error = runtime_finish_device(runtime_current_device());
    if (error == cudaSuccess && (error = unpin(pointer, false)) == cudaSuccess)
        free(pointer);
    return runtime_leave(error);
}

cudaError_t cudaHostRegister(void *pointer, size_t size, unsigned int flags) {
    RUNTIME_ENTER("cudaHostRegister");
    if (!pointer || !size || flags & ~15u)
        return runtime_leave(cudaErrorInvalidValue);
    if (runtime_is_pinned(pointer, size))
        return runtime_leave(cudaErrorHostMemoryAlreadyRegistered);
    return runtime_leave(pin(pointer, size, true));
}

cudaError_t cudaHostUnregister(void *pointer) {
    RUNTIME_ENTER("cudaHostUnregister");
    return runtime_leave(pointer ? unpin(pointer, true) : cudaErrorInvalidValue);
}

/* ---- device memory ---- */

unsigned char *runtime_device_bytes(const void *address, size_t size) {
    const uint64_t a = (uint64_t)(uintptr_t)address;
    const device_range *r = memory_find(a);
    return r && r->size - (a - r->address) >= size ? r->bytes + (a - r->address) : NULL;
}

static cudaError_t allocate(void **pointer, size_t size, int device) {
    if (!pointer)
        return cudaErrorInvalidValue;
    if (!size) {
        *pointer = NULL; /* as the driver does: no memory, no error */
        return cudaSuccess;
    }
    const uint64_t taken = (size + 255) / 256 * 256;
    if (size > runtime_get_config()->memory || taken > runtime_get_config()->memory - memory_used(device))
        return cudaErrorMemoryAllocation;
    const device_range *r = memory_new(size, device);
    if (!r)
        return cudaErrorMemoryAllocation;
    *pointer = (void *)(uintptr_t)r->address;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t size) {
    RUNTIME_ENTER("cudaMalloc");
    return runtime_leave(allocate(pointer, size, runtime_current_device()));
}

cudaError_t cudaMallocAsync(void **pointer, size_t size, cudaStream_t handle) {
    RUNTIME_ENTER("cudaMallocAsync");
    struct CUstream_st *stream = runtime_find_stream(handle);
    if (!stream)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    return runtime_leave(allocate(pointer, size, runtime_stream_device(stream)));
}

cudaError_t cudaFree(void *pointer) {
    RUNTIME_ENTER("cudaFree");
    if (!pointer)
        return runtime_leave(cudaSuccess);
    int device;
    uint64_t size;
    const device_range *r = memory_find((uint64_t)(uintptr_t)pointer);
    if (!r || r->address != (uint64_t)(uintptr_t)pointer || r->device < 0)
        return runtime_leave(cudaErrorInvalidValue);
    const cudaError_t error = runtime_finish_device(r->device); /* cudaFree waits for the device */
    memory_free(r->address, &device, &size);
    return runtime_leave(error);
}

cudaError_t cudaFreeAsync(void *pointer, cudaStream_t handle) {
    RUNTIME_ENTER("cudaFreeAsync");
    struct CUstream_st *stream = runtime_find_stream(handle);
    const device_range *r = memory_find((uint64_t)(uintptr_t)pointer);
    if (!stream)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    if (!r || r->address != (uint64_t)(uintptr_t)pointer)
        return runtime_leave(cudaErrorInvalidValue);
    runtime_work *w = runtime_new_work(WORK_FREE);
    if (!w)
        return runtime_leave(cudaErrorMemoryAllocation);
    w->to = pointer;
    return runtime_leave(runtime_add_work(stream, w));
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    RUNTIME_ENTER("cudaPointerGetAttributes");
    if (!attributes)
        return runtime_leave(cudaErrorInvalidValue);
    memset(attributes, 0, sizeof *attributes);
    attributes->device = -1;
    const device_range *r = memory_find((uint64_t)(uintptr_t)pointer);
    if (r) {
        attributes->type = cudaMemoryTypeDevice;
        attributes->device = r->device < 0 ? runtime_current_device() : r->device;
        attributes->devicePointer = (void *)(uintptr_t)pointer;
    } else if (runtime_is_pinned(pointer, 1)) {
        attributes->type = cudaMemoryTypeHost;
        attributes->device = runtime_current_device();
        attributes->hostPointer = (void *)(uintptr_t)pointer;
    } else {
        attributes->type = cudaMemoryTypeUnregistered;
        attributes->hostPointer = (void *)(uintptr_t)pointer;
    }
    return runtime_leave(cudaSuccess);
}

/* ---- copies ---- */

typedef struct copy {
    void *to;
    const void *from;
    size_t to_pitch, from_pitch, width, height;
    enum cudaMemcpyKind kind;
} copy;

static size_t span(size_t pitch, size_t width, size_t height) {
    return height ? pitch * (height - 1) + width : 0;
}

/* Each side must be what the kind says: device addresses within one allocation, host addresses none of the
 * device's. */
static cudaError_t check_copy(copy *c) {
    const size_t to_span = span(c->to_pitch, c->width, c->height),
                 from_span = span(c->from_pitch, c->width, c->height);
    const bool to_device = memory_find((uint64_t)(uintptr_t)c->to),
               from_device = memory_find((uint64_t)(uintptr_t)c->from);
    if (!c->to || !c->from || c->width > c->to_pitch || c->width > c->from_pitch)
        return cudaErrorInvalidValue;
    if (c->kind == cudaMemcpyDefault)
        c->kind = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                            : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
    if ((unsigned)c->kind > cudaMemcpyDeviceToDevice)
        return cudaErrorInvalidMemcpyDirection;
    const bool wants_to = c->kind == cudaMemcpyHostToDevice || c->kind == cudaMemcpyDeviceToDevice;
    const bool wants_from = c->kind == cudaMemcpyDeviceToHost || c->kind == cudaMemcpyDeviceToDevice;
    if (wants_to != to_device || wants_from != from_device)
        return cudaErrorInvalidValue;
    if ((to_device && !runtime_device_bytes(c->to, to_span)) ||
        (from_device && !runtime_device_bytes(c->from, from_span)))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

static cudaError_t add_copy(copy c, struct CUstream_st *stream, bool wait) {
    if (!stream)
        return cudaErrorInvalidResourceHandle;
    if (!c.width || !c.height)
        return cudaSuccess;
    cudaError_t error = check_copy(&c);
    if (error != cudaSuccess)
        return error;
    runtime_work *w = runtime_new_work(WORK_COPY);
    if (!w)
        return cudaErrorMemoryAllocation;
    w->to = c.to;
    w->from = c.from;
    w->to_pitch = c.to_pitch;
    w->from_pitch = c.from_pitch;
    w->width = c.width;
    w->height = c.height;
    const size_t from_span = span(c.from_pitch, c.width, c.height),
                 to_span = span(c.to_pitch, c.width, c.height);
    if (c.kind == cudaMemcpyHostToDevice && !runtime_is_pinned(c.from, from_span)) {
        w->staged = malloc(from_span);
        if (!w->staged) {
            free(w);
            return cudaErrorMemoryAllocation;
        }
        memcpy(w->staged, c.from, from_span);
        w->from = w->staged;
    }
    const bool to_pageable = c.kind == cudaMemcpyHostToHost ||
                             (c.kind == cudaMemcpyDeviceToHost && !runtime_is_pinned(c.to, to_span));
    error = runtime_add_work(stream, w);
    if (error == cudaSuccess && ((wait && c.kind != cudaMemcpyDeviceToDevice) || to_pageable))
        error = runtime_finish_stream(stream);
    return error;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    RUNTIME_ENTER("cudaMemcpy");
    return runtime_leave(
        add_copy((copy){to, from, size, size, size, 1, kind}, runtime_find_stream(NULL), true));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    RUNTIME_ENTER("cudaMemcpyAsync");
    return runtime_leave(
        add_copy((copy){to, from, size, size, size, 1, kind}, runtime_find_stream(stream), false));
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                         size_t height, enum cudaMemcpyKind kind) {
    RUNTIME_ENTER("cudaMemcpy2D");
    return runtime_leave(add_copy((copy){to, from, to_pitch, from_pitch, width, height, kind},
                                  runtime_find_stream(NULL), true));
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    RUNTIME_ENTER("cudaMemcpy2DAsync");
    return runtime_leave(add_copy((copy){to, from, to_pitch, from_pitch, width, height, kind},
                                  runtime_find_stream(stream), false));
}

static cudaError_t add_set(void *to, int value, size_t size, cudaStream_t handle) {
    struct CUstream_st *stream = runtime_find_stream(handle);
    if (!stream)
        return cudaErrorInvalidResourceHandle;
    if (!size)
        return cudaSuccess;
    if (!runtime_device_bytes(to, size))
        return cudaErrorInvalidValue;
    runtime_work *w = runtime_new_work(WORK_SET);
    if (!w)
        return cudaErrorMemoryAllocation;
    w->to = to;
    w->value = value;
    w->width = size;
    return runtime_add_work(stream, w);
}

cudaError_t cudaMemset(void *to, int value, size_t size) {
    RUNTIME_ENTER("cudaMemset");
    return runtime_leave(add_set(to, value, size, NULL));
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
    RUNTIME_ENTER("cudaMemsetAsync");
    return runtime_leave(add_set(to, value, size, stream));
}

void *cuda_emulator_bytes(const void *address, size_t size) {
    return runtime_device_bytes(address, size);
}

void cuda_emulator_fail_device(int error) {
    runtime_set_device_error(runtime_current_device(), (cudaError_t)error);
}
