/* buffer.c: device memory and copies for applications: what a stream's device plugin does, leased. */
#include "registry.h"
#include "structs.h"
#include <stdlib.h>

struct attune_buffer {
    attune *host;
    attune_generation *owner; /* NULL: memory of the CPU */
    uint32_t index;
    void *data;
};

static attune_code no_memory(uint64_t bytes, attune_error *error) {
    char wants[32];
    attune_text_bytes(wants, bytes);
    return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_buffer_create",
                       "no memory for %s", wants);
}

static attune_code allocate(attune_buffer *buffer, uint64_t bytes, attune_error *error) {
    attune_generation *owner = buffer->owner;
    attune_error reason = {.code = ATTUNE_OK};
    if (!owner) {
        buffer->data = bytes > SIZE_MAX - 64 ? NULL : aligned_alloc(64, (bytes + 64) / 64 * 64);
        return buffer->data ? ATTUNE_OK : no_memory(bytes, error);
    }
    attune_code code = owner->device->alloc(owner->instance, buffer->index, bytes, &buffer->data, &reason);
    return attune_plugin_said(code, owner->id, "alloc", &reason, error);
}

attune_code attune_buffer_create(attune *host, const attune_device_id *device, uint64_t bytes,
                                 attune_buffer **out, void **data, attune_error *error) {
    if (!host || !device || !out || !data)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_buffer_create",
                           "an argument is NULL");
    attune_buffer *made = calloc(1, sizeof *made);
    if (!made)
        return no_memory(bytes, error);
    attune_code code = ATTUNE_OK;
    if (device->type != ATTUNE_DEVICE_CPU) {
        attune_snapshot *snapshot = attune_snapshot_acquire(host);
        if (attune_snapshot_find_device(snapshot, device, NULL, &made->owner, &made->index))
            (void)attune_generation_lease(made->owner);
        else
            code = attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, "attune_buffer_create",
                               "no loaded plugin drives this device");
        attune_snapshot_release(snapshot);
    }
    if (!code)
        code = allocate(made, bytes, error);
    if (code) {
        attune_generation_release(made->owner);
        free(made);
        return code;
    }
    made->host = host;
    attune_host_hold(host);
    *data = made->data;
    *out = made;
    return ATTUNE_OK;
}

void attune_buffer_release(attune_buffer *buffer) {
    if (!buffer)
        return;
    attune *host = buffer->host;
    attune_generation *owner = buffer->owner;
    if (owner)
        owner->device->free(owner->instance, buffer->index, buffer->data);
    else
        free(buffer->data);
    attune_generation_release(owner);
    free(buffer);
    attune_host_drop(host);
}

attune_code attune_stream_copy(const attune_stream *stream, void *to, const void *from, uint64_t bytes,
                               int32_t direction, attune_error *error) {
    attune_code code = attune_struct_in(stream, sizeof *stream, "attune_stream", error);
    attune_error reason = {.code = ATTUNE_OK};
    if (code)
        return code;
    if (direction < ATTUNE_COPY_TO_DEVICE || direction > ATTUNE_COPY_WITHIN || (bytes && (!to || !from)))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_stream_copy",
                           "an address is NULL, or direction %d is unknown", direction);
    attune_generation *owner = stream->owner;
    if (!owner) { /* a CPU's */
        if (bytes)
            memmove(to, from, bytes);
        return ATTUNE_OK;
    }
    code = owner->device->copy(owner->instance, stream, to, from, bytes, direction, &reason);
    return attune_plugin_said(code, owner->id, "copy", &reason, error);
}

attune_code attune_stream_synchronize(const attune_stream *stream, attune_error *error) {
    attune_code code = attune_struct_in(stream, sizeof *stream, "attune_stream", error);
    attune_error reason = {.code = ATTUNE_OK};
    attune_generation *owner = code ? NULL : stream->owner;
    if (!owner)
        return code;
    code = owner->device->stream_synchronize(owner->instance, stream, &reason);
    return attune_plugin_said(code, owner->id, "stream_synchronize", &reason, error);
}
