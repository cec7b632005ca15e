/* self_test_place.c: the arrays of a self-test, on the device that a backend runs on. */
#include "self_test_place.h"
#include "structs.h"

/* Who drives the device: the tested generation itself, which is not published yet, or one that is; leased. */
static attune_generation *find_owner(attune_generation *tested, const attune_device_id *device,
                                     uint32_t *index, uint64_t *alignment) {
    attune_generation *owner = NULL;
    for (uint32_t i = 0; i < tested->device_count && !owner; ++i)
        if (attune_device_same(&tested->devices[i].id, device)) {
            owner = tested;
            *index = i;
        }
    attune_snapshot *snapshot = attune_snapshot_acquire(tested->host);
    if (!owner)
        (void)attune_snapshot_find_device(snapshot, device, NULL, &owner, index);
    if (owner) {
        (void)attune_generation_lease(owner);
        *alignment = owner->devices[*index].alignment;
    }
    attune_snapshot_release(snapshot);
    return owner;
}

attune_code attune_place_open(attune_generation *tested, const attune_device_id *device, attune_place *out,
                              attune_error *error) {
    attune_pool *pool = tested->host->pool;
    *out = (attune_place){
        .tested = tested, .alignment = 64, .stream = {.struct_size = sizeof out->stream, .device = *device}};
    if (device->type == ATTUNE_DEVICE_CPU) {
        out->stream.workers = attune_pool_threads(pool);
        out->stream.native = pool;
        return ATTUNE_OK;
    }
    out->owner = find_owner(tested, device, &out->index, &out->alignment);
    out->missing = !out->owner;
    if (out->missing)
        return ATTUNE_OK;
    attune_error reason = {.code = ATTUNE_OK};
    attune_code code =
        out->owner->device->stream_create(out->owner->instance, out->index, &out->stream, &reason);
    if (code) {
        (void)attune_plugin_said(code, out->owner->id, "stream_create", &reason, error);
        attune_generation_release(out->owner);
        out->owner = NULL;
    }
    return code;
}

void attune_place_close(attune_place *place) {
    if (!place->owner)
        return;
    place->owner->device->stream_destroy(place->owner->instance, &place->stream);
    attune_generation_release(place->owner);
    place->owner = NULL;
}

attune_code attune_place_alloc(attune_place *place, uint64_t bytes, void **out, attune_error *error) {
    attune_generation *owner = place->owner;
    *out = NULL;
    if (!owner) {
        *out = attune_services_alloc(&place->tested->services, bytes, "self-test");
        return *out ? ATTUNE_OK
                    : attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, place->tested->id,
                                  "no memory for the self-test");
    }
    attune_error reason = {.code = ATTUNE_OK};
    attune_code code = owner->device->alloc(owner->instance, place->index, bytes, out, &reason);
    if (code) {
        *out = NULL;
        return attune_plugin_said(code, owner->id, "alloc", &reason, error);
    }
    if (*out && (uintptr_t)*out % place->alignment == 0)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_INTERNAL, ATTUNE_DOMAIN, owner->id,
                       "alloc gave %p, the device promises memory that is aligned to %llu bytes", *out,
                       (unsigned long long)place->alignment);
}

void attune_place_free(attune_place *place, void *memory) {
    if (!memory)
        return;
    if (place->owner)
        place->owner->device->free(place->owner->instance, place->index, memory);
    else
        attune_services_free(&place->tested->services, memory);
}

attune_code attune_place_copy(attune_place *place, void *to, const void *from, uint64_t bytes,
                              int32_t direction, attune_error *error) {
    attune_generation *owner = place->owner;
    if (!owner) {
        memcpy(to, from, bytes);
        return ATTUNE_OK;
    }
    attune_error reason = {.code = ATTUNE_OK};
    attune_code code =
        owner->device->copy(owner->instance, &place->stream, to, from, bytes, direction, &reason);
    return attune_plugin_said(code, owner->id, "copy", &reason, error);
}

attune_code attune_place_wait(attune_place *place, attune_error *error) {
    attune_generation *owner = place->owner;
    if (!owner)
        return ATTUNE_OK;
    attune_error reason = {.code = ATTUNE_OK};
    attune_code code = owner->device->stream_synchronize(owner->instance, &place->stream, &reason);
    return attune_plugin_said(code, owner->id, "stream_synchronize", &reason, error);
}
