/*
 * attune/device.h: interface "attune.device/1", the devices that a plugin drives, their memory and streams.
 * Nothing is copied implicitly anywhere in the contract: who needs a tensor elsewhere calls `copy`.
 */
#ifndef ATTUNE_DEVICE_H
#define ATTUNE_DEVICE_H

#include "attune/plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTUNE_DEVICE_INTERFACE "attune.device/1"

typedef struct attune_device_info {
    uint32_t struct_size;
    uint32_t alignment; /* bytes that alloc guarantees */
    attune_device_id id;
    char name[32];         /* "cpu", "cuda:0": what --device takes */
    char vendor[32];       /* "AMD", "Intel", "NVIDIA": what --vendor takes */
    char label[64];        /* the product's own name */
    char capability[32];   /* "avx512", "avx2", "generic"; "8.6" for CUDA */
    uint64_t memory_total; /* bytes that this process may use (cgroup limits respected) */
    uint64_t memory_free; /* bytes free now: a reading for people and filters, never an input to arithmetic */
} attune_device_info;
ATTUNE_STATIC_ASSERT(sizeof(attune_device_info) == 208, "attune_device_info is part of the ABI");

/* Where copy's ends are. */
enum { ATTUNE_COPY_TO_DEVICE = 0, ATTUNE_COPY_FROM_DEVICE = 1, ATTUNE_COPY_WITHIN = 2 };

typedef struct attune_device_interface {
    uint32_t struct_size;
    uint32_t reserved;
    /* [any] How many devices; fixed for the instance's life. */
    uint32_t (*count)(void *instance);
    /* [any] Device `index` < count; reads the memory state now. Errors: OUT_OF_RANGE, UNAVAILABLE. */
    attune_code (*describe)(void *instance, uint32_t index, attune_device_info *out, attune_error *error);
    /* [any] Device memory, aligned, not cleared; the caller frees it. Errors: RESOURCE_EXHAUSTED. */
    attune_code (*alloc)(void *instance, uint32_t index, uint64_t bytes, void **out, attune_error *error);
    void (*free)(void *instance, uint32_t index, void *memory);
    /* [any] Enqueue a copy of `bytes`; on a CPU stream it is done on return. */
    attune_code (*copy)(void *instance, const attune_stream *stream, void *to, const void *from,
                        uint64_t bytes, int32_t direction, attune_error *error);
    /* [any] A stream of this device. On a CPU `native` must already hold the host's pool and `workers` its
     * count: the call fills in the device. The caller destroys it. */
    attune_code (*stream_create)(void *instance, uint32_t index, attune_stream *stream, attune_error *error);
    void (*stream_destroy)(void *instance, attune_stream *stream);
    /* [session] Block until the stream's work is done; late errors surface here, named. */
    attune_code (*stream_synchronize)(void *instance, const attune_stream *stream, attune_error *error);
    /* [session] Events order streams: record on one, wait on another. On a CPU they do nothing. */
    attune_code (*event_create)(void *instance, uint32_t index, void **event, attune_error *error);
    attune_code (*event_record)(void *instance, void *event, const attune_stream *stream,
                                attune_error *error);
    attune_code (*event_wait)(void *instance, void *event, const attune_stream *stream, attune_error *error);
    void (*event_destroy)(void *instance, void *event);
} attune_device_interface;

#ifdef __cplusplus
}
#endif
#endif
