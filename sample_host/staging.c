/* staging.c: see staging.h. */
#include "staging.h"

attune_code staging_memory(staging *on, uint64_t bytes, void **out, attune_error *error) {
    *out = NULL;
    if (bytes == 0)
        return ATTUNE_OK;
    if (on->count == STAGING_MOST)
        return attune_fail(error, ATTUNE_INTERNAL, "sample_host", "staging", "more than %d buffers",
                           STAGING_MOST);
    const attune_code code =
        attune_buffer_create(on->host, &on->stream->device, bytes, &on->buffers[on->count], out, error);
    on->count += code == ATTUNE_OK;
    return code;
}

attune_code staging_tensor(staging *on, attune_tensor *tensor, int copy, attune_error *error) {
    void *memory;
    if (on->stream->device.type == ATTUNE_DEVICE_CPU)
        return ATTUNE_OK;
    attune_code code = staging_memory(on, tensor->bytes, &memory, error);
    if (code == ATTUNE_OK && copy)
        code =
            attune_stream_copy(on->stream, memory, tensor->data, tensor->bytes, ATTUNE_COPY_TO_DEVICE, error);
    tensor->data = memory;
    tensor->device = on->stream->device;
    return code;
}

attune_code staging_fetch(const staging *on, const attune_tensor *from, const attune_tensor *to,
                          attune_error *error) {
    attune_code code = ATTUNE_OK;
    if (from->data != to->data)
        code =
            attune_stream_copy(on->stream, to->data, from->data, to->bytes, ATTUNE_COPY_FROM_DEVICE, error);
    const attune_code late = attune_stream_synchronize(on->stream, code == ATTUNE_OK ? error : NULL);
    return code == ATTUNE_OK ? late : code;
}

void staging_free(staging *on) {
    for (uint32_t i = 0; i < on->count; ++i)
        attune_buffer_release(on->buffers[i]);
    on->count = 0;
}
