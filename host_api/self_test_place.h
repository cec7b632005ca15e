/* self_test_place.h: where a self-test's arrays lie: in the host's memory, or on the device that a backend
 * runs on, by attune.device/1. */
#ifndef HOST_API_SELF_TEST_PLACE_H
#define HOST_API_SELF_TEST_PLACE_H

#include "registry.h"

typedef struct attune_place {
    attune_generation *tested; /* borrowed */
    attune_generation *owner;  /* leased; drives the device; NULL = the CPU, whose memory is the host's */
    bool missing;              /* nobody drives the device: there is no such place */
    uint32_t index;            /* of the device */
    uint64_t alignment;
    attune_stream stream;
} attune_place;

/* [any, as all of these] A place for the backends of `tested` on `device`, with a stream. Its own device
 * interface comes before that of what is loaded. Where nobody drives the device `missing` is set, and only
 * attune_place_close may follow. Errors: the device's own. */
attune_code attune_place_open(attune_generation *tested, const attune_device_id *device, attune_place *out,
                              attune_error *error);
void attune_place_close(attune_place *place);

/* Memory there, aligned as the device says; `bytes` > 0. Errors: RESOURCE_EXHAUSTED, INTERNAL (not aligned),
 * the device's own. */
attune_code attune_place_alloc(attune_place *place, uint64_t bytes, void **out, attune_error *error);
void attune_place_free(attune_place *place, void *memory);

/* Copy between the host's memory and the place's; `direction` is ATTUNE_COPY_TO_DEVICE or _FROM_DEVICE. What
 * is copied is there after attune_place_wait, and the host's end must stay until then. */
attune_code attune_place_copy(attune_place *place, void *to, const void *from, uint64_t bytes,
                              int32_t direction, attune_error *error);
attune_code attune_place_wait(attune_place *place, attune_error *error);

#endif
