/* plugin/cuda/device.c: interface attune.device/1: the GPUs, named as CUDA numbers them. */
#include "plugin/cuda/plugin.h"

#include <stdio.h>
#include <string.h>

static uint32_t count(void *instance) {
    return ((const cuda_instance *)instance)->count;
}

static attune_code describe(void *instance, uint32_t index, attune_device_info *out, attune_error *error) {
    static const char where[] = "device.describe";
    const cuda_device *device = cuda_device_at(instance, index, where, error);
    size_t free_now = 0, total = 0;
    int before;
    if (!device)
        return ATTUNE_OUT_OF_RANGE;
    if (!cuda_struct_fits(out->struct_size, sizeof *out, where, error))
        return ATTUNE_INVALID_ARGUMENT;
    attune_code code = cuda_enter(device, &before, where, error);
    if (code != ATTUNE_OK)
        return code;
    code = cuda_check(cudaMemGetInfo(&free_now, &total), where, device->name, error);
    cuda_leave(before);
    if (code != ATTUNE_OK)
        return code;
    const uint32_t size = out->struct_size;
    memset(out, 0, sizeof *out);
    out->struct_size = size;
    out->alignment = CUDA_ALIGNMENT;
    out->id = device->id;
    (void)snprintf(out->name, sizeof out->name, "%s", device->name);
    (void)snprintf(out->vendor, sizeof out->vendor, "NVIDIA");
    (void)snprintf(out->label, sizeof out->label, "%s", device->label);
    (void)snprintf(out->capability, sizeof out->capability, "%d.%d", device->cc / 10, device->cc % 10);
    out->memory_total = total;
    out->memory_free = free_now;
    return ATTUNE_OK;
}

static attune_code device_alloc(void *instance, uint32_t index, uint64_t bytes, void **out,
                                attune_error *error) {
    static const char where[] = "device.alloc";
    const cuda_device *device = cuda_device_at(instance, index, where, error);
    void *made = NULL;
    char what[64];
    int before;
    if (!device)
        return ATTUNE_OUT_OF_RANGE;
    attune_code code = cuda_enter(device, &before, where, error);
    if (code != ATTUNE_OK)
        return code;
    (void)snprintf(what, sizeof what, "%s: no memory for %llu bytes", device->name,
                   (unsigned long long)bytes);
    code = cuda_check(cudaMalloc(&made, bytes ? bytes : 1), where, what, error);
    cuda_leave(before);
    if (code == ATTUNE_OK)
        *out = made;
    return code;
}

static void device_free(void *instance, uint32_t index, void *memory) {
    (void)instance;
    (void)index;
    if (cudaFree(memory) != cudaSuccess) /* it says errors of earlier work, too; those surface at a wait */
        (void)cudaGetLastError();
}

/* Copies go by the stream's device, whichever is current. */
static attune_code copy(void *instance, const attune_stream *stream, void *to, const void *from,
                        uint64_t bytes, int32_t direction, attune_error *error) {
    static const enum cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                                cudaMemcpyDeviceToDevice};
    static const char where[] = "device.copy";
    (void)instance;
    if (direction < ATTUNE_COPY_TO_DEVICE || direction > ATTUNE_COPY_WITHIN)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where, "unknown direction %d",
                           direction);
    if (bytes == 0)
        return ATTUNE_OK;
    if (!to || !from)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where, "%s is NULL",
                           to ? "from" : "to");
    return cuda_check(cudaMemcpyAsync(to, from, bytes, kinds[direction], stream->native), where,
                      "a copy could not be enqueued", error);
}

static attune_code stream_create(void *instance, uint32_t index, attune_stream *stream, attune_error *error) {
    static const char where[] = "device.stream_create";
    const cuda_device *device = cuda_device_at(instance, index, where, error);
    cudaStream_t made = NULL;
    int before;
    if (!device)
        return ATTUNE_OUT_OF_RANGE;
    if (!cuda_struct_fits(stream->struct_size, sizeof *stream, where, error))
        return ATTUNE_INVALID_ARGUMENT;
    attune_code code = cuda_enter(device, &before, where, error);
    if (code != ATTUNE_OK)
        return code;
    code = cuda_check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), where, device->name, error);
    cuda_leave(before);
    if (code == ATTUNE_OK) {
        stream->device = device->id;
        stream->workers = 0;
        stream->native = made;
    }
    return code;
}

static void stream_destroy(void *instance, attune_stream *stream) {
    (void)instance;
    if (stream->native && cudaStreamDestroy(stream->native) != cudaSuccess)
        (void)cudaGetLastError();
    stream->native = NULL;
    memset(&stream->device, 0, sizeof stream->device);
}

static attune_code stream_synchronize(void *instance, const attune_stream *stream, attune_error *error) {
    (void)instance;
    return cuda_check(cudaStreamSynchronize(stream->native), "device.stream_synchronize",
                      "work on the stream failed", error);
}

static attune_code event_create(void *instance, uint32_t index, void **event, attune_error *error) {
    static const char where[] = "device.event_create";
    const cuda_device *device = cuda_device_at(instance, index, where, error);
    cudaEvent_t made = NULL;
    int before;
    if (!device)
        return ATTUNE_OUT_OF_RANGE;
    attune_code code = cuda_enter(device, &before, where, error);
    if (code != ATTUNE_OK)
        return code;
    code = cuda_check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), where, device->name, error);
    cuda_leave(before);
    if (code == ATTUNE_OK)
        *event = made;
    return code;
}

static attune_code event_record(void *instance, void *event, const attune_stream *stream,
                                attune_error *error) {
    (void)instance;
    return cuda_check(cudaEventRecord(event, stream->native), "device.event_record",
                      "the event could not be recorded", error);
}

static attune_code event_wait(void *instance, void *event, const attune_stream *stream, attune_error *error) {
    (void)instance;
    return cuda_check(cudaStreamWaitEvent(stream->native, event, 0), "device.event_wait",
                      "the stream cannot wait for the event", error);
}

static void event_destroy(void *instance, void *event) {
    (void)instance;
    if (event && cudaEventDestroy(event) != cudaSuccess)
        (void)cudaGetLastError();
}

const attune_device_interface cuda_device_table = {.struct_size = sizeof cuda_device_table,
                                                   .count = count,
                                                   .describe = describe,
                                                   .alloc = device_alloc,
                                                   .free = device_free,
                                                   .copy = copy,
                                                   .stream_create = stream_create,
                                                   .stream_destroy = stream_destroy,
                                                   .stream_synchronize = stream_synchronize,
                                                   .event_create = event_create,
                                                   .event_record = event_record,
                                                   .event_wait = event_wait,
                                                   .event_destroy = event_destroy};
