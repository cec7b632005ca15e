/* plugin/cuda/plugin.c: entry and life of the plugin attune-cuda: attention and the devices `cuda:N`. */
#include "plugin/cuda/plugin.h"

#include <string.h>

static attune_code find_service(const attune_host *host, const char *id, size_t needed, const void **out,
                                attune_error *error) {
    *out = host->get_service(host, id);
    if (!*out)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, CUDA_PLUGIN_ID, id,
                           "the host does not offer this service");
    uint32_t size; /* each service's first member */
    memcpy(&size, *out, sizeof size);
    return cuda_struct_fits(size, needed, id, error) ? ATTUNE_OK : ATTUNE_INVALID_ARGUMENT;
}

static attune_code create(const attune_host *host, void **instance, attune_error *error) {
    const void *memory, *clock, *log;
    if (!host || !instance)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, "create",
                           "host or instance is NULL");
    if (!cuda_struct_fits(host->struct_size, sizeof *host, "attune_host", error))
        return ATTUNE_INVALID_ARGUMENT;
    attune_code code = find_service(host, "attune.memory/1", sizeof(attune_memory_service), &memory, error);
    if (code == ATTUNE_OK)
        code = find_service(host, "attune.clock/1", sizeof(attune_clock_service), &clock, error);
    if (code == ATTUNE_OK)
        code = find_service(host, "attune.log/1", sizeof(attune_log_service), &log, error);
    if (code != ATTUNE_OK)
        return code;
    const attune_memory_service *service = memory;
    cuda_instance *made = service->alloc(service->context, sizeof *made, "instance");
    if (!made)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, CUDA_PLUGIN_ID, "create",
                           "no memory for %zu bytes", sizeof *made);
    memset(made, 0, sizeof *made);
    made->memory = service;
    made->clock = clock;
    code = cuda_find_devices(made, log, error);
    if (code != ATTUNE_OK) {
        service->free(service->context, made);
        return code;
    }
    for (uint32_t i = 0; i < made->count; ++i) {
        (void)pthread_mutex_init(&made->device[i].kernels.lock, NULL);
        (void)pthread_mutex_init(&made->device[i].products.lock, NULL);
    }
    *instance = made;
    return ATTUNE_OK;
}

static const void *get_interface(void *instance, const char *id) {
    (void)instance;
    if (strcmp(id, ATTUNE_DEVICE_INTERFACE) == 0)
        return &cuda_device_table;
    return strcmp(id, ATTUNE_ATTENTION_INTERFACE) == 0 ? (const void *)&cuda_attention_table : NULL;
}

/* What this instance has enqueued may be on any stream, also of other instances: the whole device is waited
 * for. */
static attune_code quiesce(void *instance, attune_error *error) {
    cuda_instance *cuda = instance;
    attune_code code = ATTUNE_OK;
    for (uint32_t i = 0; i < cuda->count; ++i) {
        const cuda_device *device = &cuda->device[i];
        attune_error reason;
        int before;
        attune_code one = cuda_enter(device, &before, "quiesce", &reason);
        if (one == ATTUNE_OK) {
            one = cuda_check(cudaDeviceSynchronize(), "quiesce", device->name, &reason);
            cuda_leave(before);
        }
        if (one != ATTUNE_OK && code == ATTUNE_OK && error)
            *error = reason;
        code = code == ATTUNE_OK ? one : code;
    }
    return code;
}

static void destroy(void *instance) {
    cuda_instance *cuda = instance;
    if (!cuda)
        return;
    for (uint32_t i = 0; i < cuda->count; ++i) {
        cuda_device *device = &cuda->device[i];
        int before;
        const int entered = cuda_enter(device, &before, "destroy", NULL) == ATTUNE_OK;
        cuda_products_close(&device->products);
        cuda_kernels_unload(&device->kernels);
        if (entered)
            cuda_leave(before);
        (void)pthread_mutex_destroy(&device->kernels.lock);
        (void)pthread_mutex_destroy(&device->products.lock);
    }
    cuda->memory->free(cuda->memory->context, cuda);
}

static const attune_plugin plugin_table = {.struct_size = sizeof plugin_table,
                                           .abi = ATTUNE_ABI_VERSION,
                                           .id = CUDA_PLUGIN_ID,
                                           .version = ATTUNE_VERSION,
                                           .vendor = "Attune",
                                           .licence = "Apache-2.0",
                                           .create = create,
                                           .get_interface = get_interface,
                                           .quiesce = quiesce,
                                           .destroy = destroy};

/* See attune/plugin.h. Only version 1 exists, so it is what any newer host speaks too. */
ATTUNE_EXPORT attune_code attune_plugin_entry(uint32_t *abi, const attune_plugin **out);
attune_code attune_plugin_entry(uint32_t *abi, const attune_plugin **out) {
    if (!abi || !out)
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t host_speaks = *abi;
    *abi = ATTUNE_ABI_VERSION;
    if (host_speaks < ATTUNE_ABI_VERSION)
        return ATTUNE_UNIMPLEMENTED;
    *out = &plugin_table;
    return ATTUNE_OK;
}
