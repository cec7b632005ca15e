/* staging.h: tensors of the CPU on the device of a stream: copied there and back, explicitly. */
#ifndef SAMPLE_HOST_STAGING_H
#define SAMPLE_HOST_STAGING_H

#include "attune/host.h"

enum { STAGING_MOST = 8 };

/* Zeroed before first use. */
typedef struct staging {
    attune *host;
    const attune_stream *stream;
    attune_buffer *buffers[STAGING_MOST];
    uint32_t count;
} staging;

/* Nothing is staged for a CPU stream, where a tensor is left as it is. Else `tensor` becomes one of the
 * device: with the bytes that it had where `copy`, without where not. */
attune_code staging_tensor(staging *on, attune_tensor *tensor, int copy, attune_error *error);
/* Memory of the stream's device, NULL for 0 bytes. */
attune_code staging_memory(staging *on, uint64_t bytes, void **out, attune_error *error);
/* The device tensor's bytes to the CPU's, and wait: errors of all that was enqueued surface here. */
attune_code staging_fetch(const staging *on, const attune_tensor *from, const attune_tensor *to,
                          attune_error *error);
/* After the stream has been waited for. */
void staging_free(staging *on);

#endif
