/* plugin/cuda/find.c: which GPUs there are, and which of them can be used. */
#include "plugin/cuda/plugin.h"

#include <stdio.h>
#include <string.h>

/* What most machines lack is said in few words, so that a line has room for what to do. */
static attune_code no_devices(cudaError_t result, attune_error *error) {
    const char *what = result == cudaErrorInsufficientDriver
                           ? "no NVIDIA driver, or one that is too old for CUDA 13"
                       : result == cudaErrorNoDevice ? "CUDA finds no GPU"
                                                     : NULL;
    const attune_code code = cuda_check(result, "create", "the GPUs cannot be counted", error);
    if (what && error)
        (void)snprintf(error->message, sizeof error->message, "%s: error %d", what, (int)result);
    return code;
}

/* The bus address stands beside the product's name: with it two equal cards can be told apart in the slot. */
static void set_label(cuda_device *device, const struct cudaDeviceProp *has) {
    char bus[16];
    (void)snprintf(bus, sizeof bus, "%04x:%02x:%02x.0", (unsigned)has->pciDomainID & 0xffffu,
                   (unsigned)has->pciBusID & 0xffu, (unsigned)has->pciDeviceID & 0xffu);
    (void)snprintf(device->label, sizeof device->label, "%.40s, PCI %s", has->name, bus);
    attune_printable(device->label);
}

static attune_code read_device(int ordinal, cuda_device *device, attune_error *error) {
    static struct cudaDeviceProp none;
    struct cudaDeviceProp has = none;
    char name[32];
    (void)snprintf(name, sizeof name, "cuda:%d", ordinal);
    const attune_code code = cuda_check(cudaGetDeviceProperties(&has, ordinal), "create", name, error);
    if (code != ATTUNE_OK)
        return code;
    memset(device, 0, sizeof *device);
    device->ordinal = ordinal;
    device->cc = has.major * 10 + has.minor;
    device->multiprocessors = has.multiProcessorCount;
    device->memory_total = has.totalGlobalMem;
    device->id.type = ATTUNE_DEVICE_CUDA;
    device->id.index = ordinal;
    _Static_assert(sizeof device->id.uuid == sizeof has.uuid, "a UUID has 16 bytes");
    memcpy(device->id.uuid, &has.uuid, sizeof device->id.uuid);
    (void)snprintf(device->name, sizeof device->name, "%s", name);
    set_label(device, &has);
    if (device->cc < CUDA_CC_LEAST) {
        (void)attune_fail(error, ATTUNE_UNAVAILABLE, CUDA_PLUGIN_ID, "create",
                          "%s (%.44s) has compute capability %d.%d; CUDA 13 serves 7.5 and newer", name,
                          has.name, has.major, has.minor);
        attune_hint(error, "use a GPU of the Turing generation or newer, or the CPU");
        return ATTUNE_UNAVAILABLE;
    }
    return ATTUNE_OK;
}

static void left_out(const attune_log_service *log, int ordinal, const attune_error *reason) {
    char line[sizeof reason->message + sizeof reason->hint + 32];
    (void)snprintf(line, sizeof line, "cuda:%d is left out: %s (%s)", ordinal, reason->message, reason->hint);
    log->log(log->context, ATTUNE_LOG_INFO, line);
}

attune_code cuda_find_devices(cuda_instance *cuda, const attune_log_service *log, attune_error *error) {
    int count = 0;
    const cudaError_t result = cudaGetDeviceCount(&count);
    if (result != cudaSuccess)
        return no_devices(result, error);
    attune_code code = ATTUNE_OK;
    for (int i = 0; i < count && cuda->count < CUDA_DEVICES; ++i) {
        attune_error reason;
        const attune_code one = read_device(i, &cuda->device[cuda->count], &reason);
        if (one == ATTUNE_OK) {
            ++cuda->count;
            continue;
        }
        left_out(log, i, &reason);
        if (code == ATTUNE_OK) {
            code = one;
            if (error)
                *error = reason;
        }
    }
    if (cuda->count > 0)
        return ATTUNE_OK;
    return code == ATTUNE_OK ? no_devices(cudaErrorNoDevice, error) : code;
}

cuda_device *cuda_device_at(cuda_instance *cuda, uint32_t index, const char *where, attune_error *error) {
    if (index < cuda->count)
        return &cuda->device[index];
    (void)attune_fail(error, ATTUNE_OUT_OF_RANGE, CUDA_PLUGIN_ID, where,
                      "device %u does not exist (there are %u)", index, cuda->count);
    return NULL;
}

cuda_device *cuda_device_of(cuda_instance *cuda, const attune_device_id *id) {
    for (uint32_t i = 0; i < cuda->count; ++i)
        if (attune_device_same(&cuda->device[i].id, id))
            return &cuda->device[i];
    return NULL;
}
