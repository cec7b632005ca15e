/* plugin/cpu/device.c: interface attune.device/1: the one device `cpu`. Work is done when a call returns, so
 * streams only carry the host's pool, and events order nothing. */
#include "plugin/cpu/memory.h"
#include "plugin/cpu/plugin.h"

#include <stdio.h>
#include <string.h>

static attune_code check_index(uint32_t index, const char *where, attune_error *error) {
    if (index == 0)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_OUT_OF_RANGE, CPU_PLUGIN_ID, where,
                       "device %u does not exist (there is 1)", index);
}

static uint32_t count(void *instance) {
    (void)instance;
    return 1;
}

static attune_code describe(void *instance, uint32_t index, attune_device_info *out, attune_error *error) {
    const cpu_instance *cpu = instance;
    cpu_memory memory;
    const attune_code code = check_index(index, "device.describe", error);
    if (code != ATTUNE_OK)
        return code;
    if (!cpu_struct_fits(out->struct_size, sizeof *out, "device.describe", error))
        return ATTUNE_INVALID_ARGUMENT;
    if (!cpu_memory_read("", &memory))
        return attune_fail(error, ATTUNE_UNAVAILABLE, CPU_PLUGIN_ID, "/proc/meminfo",
                           "the machine's memory cannot be read; is /proc mounted?");
    const uint32_t size = out->struct_size;
    memset(out, 0, sizeof *out);
    out->struct_size = size;
    out->alignment = CPU_ALIGNMENT;
    out->id = cpu->device;
    (void)snprintf(out->name, sizeof out->name, "cpu");
    (void)snprintf(out->vendor, sizeof out->vendor, "%s", cpu->vendor);
    (void)snprintf(out->label, sizeof out->label, "%s", cpu->label);
    (void)snprintf(out->capability, sizeof out->capability, "%s", cpu->kernels.attention_f32->isa);
    out->memory_total = memory.total;
    out->memory_free = memory.free;
    return ATTUNE_OK;
}

static attune_code device_alloc(void *instance, uint32_t index, uint64_t bytes, void **out,
                                attune_error *error) {
    const cpu_instance *cpu = instance;
    const attune_code code = check_index(index, "device.alloc", error);
    if (code != ATTUNE_OK)
        return code;
    *out = cpu->memory->alloc(cpu->memory->context, bytes, "device");
    if (!*out)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, CPU_PLUGIN_ID, "device.alloc",
                           "no memory for %llu bytes", (unsigned long long)bytes);
    return ATTUNE_OK;
}

static void device_free(void *instance, uint32_t index, void *memory) {
    const cpu_instance *cpu = instance;
    (void)index;
    cpu->memory->free(cpu->memory->context, memory);
}

static attune_code copy(void *instance, const attune_stream *stream, void *to, const void *from,
                        uint64_t bytes, int32_t direction, attune_error *error) {
    (void)instance;
    (void)stream;
    if (direction < ATTUNE_COPY_TO_DEVICE || direction > ATTUNE_COPY_WITHIN)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "device.copy",
                           "unknown direction %d", direction);
    if (bytes > 0 && (!to || !from))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "device.copy", "%s is NULL",
                           to ? "from" : "to");
    if (bytes > 0)
        memmove(to, from, bytes);
    return ATTUNE_OK;
}

static attune_code stream_create(void *instance, uint32_t index, attune_stream *stream, attune_error *error) {
    const cpu_instance *cpu = instance;
    const attune_code code = check_index(index, "device.stream_create", error);
    if (code != ATTUNE_OK)
        return code;
    if (!cpu_struct_fits(stream->struct_size, sizeof *stream, "device.stream_create", error))
        return ATTUNE_INVALID_ARGUMENT;
    if (!stream->native || stream->workers == 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "device.stream_create",
                           "a CPU stream needs the host's pool in `native` and its count in `workers`");
    stream->device = cpu->device;
    return ATTUNE_OK;
}

static void stream_destroy(void *instance, attune_stream *stream) {
    (void)instance;
    memset(&stream->device, 0, sizeof stream->device);
}

static attune_code stream_synchronize(void *instance, const attune_stream *stream, attune_error *error) {
    (void)instance;
    (void)stream;
    (void)error;
    return ATTUNE_OK;
}

static attune_code event_create(void *instance, uint32_t index, void **event, attune_error *error) {
    const attune_code code = check_index(index, "device.event_create", error);
    if (code == ATTUNE_OK)
        *event = instance; /* any address that is not NULL: an event has no state here */
    return code;
}

static attune_code event_on_stream(void *instance, void *event, const attune_stream *stream,
                                   attune_error *error) {
    (void)stream;
    if (event != instance)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "device.event",
                           "the event is none of this instance");
    return ATTUNE_OK;
}

static void event_destroy(void *instance, void *event) {
    (void)instance;
    (void)event;
}

const attune_device_interface cpu_device_table = {.struct_size = sizeof cpu_device_table,
                                                  .count = count,
                                                  .describe = describe,
                                                  .alloc = device_alloc,
                                                  .free = device_free,
                                                  .copy = copy,
                                                  .stream_create = stream_create,
                                                  .stream_destroy = stream_destroy,
                                                  .stream_synchronize = stream_synchronize,
                                                  .event_create = event_create,
                                                  .event_record = event_on_stream,
                                                  .event_wait = event_on_stream,
                                                  .event_destroy = event_destroy};
