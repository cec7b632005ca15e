/*
 * rt_library.c: fat binaries, kernels and launches (CUDA Runtime API 13.0, sections 6.7 and 6.33), and what
 * nvcc's host code calls by itself (__cudaRegisterFatBinary and its like).
 */
#include "tests/cuda_emulator/runtime.h"

#include <stdio.h>
#include <stdlib.h>

#define WRAPPER_MAGIC 0x466243b1 /* crt/fatbinary_section.h, FATBINC_MAGIC */
enum { DEFAULT_SHARED = 48 << 10 };

struct runtime_library {
    struct runtime_library *next;
    ptx_module *module;
    runtime_kernel *kernels;
};

static struct runtime_library *libraries;
static size_t busy_unloads;

static uint64_t place_variable(uint64_t size, void *context) {
    (void)context;
    const device_range *r = memory_new(size, -1);
    return r ? r->address : 0;
}

static void free_library(struct runtime_library *l) {
    int device;
    uint64_t size;
    for (size_t i = 0; l->module && i < l->module->variable_count; ++i)
        memory_free(l->module->variables[i].address, &device, &size);
    ptx_free(l->module);
    free(l->kernels);
    free(l);
}

static cudaError_t load(struct runtime_library **made, const void *code) {
    char reason[400];
    const char *text = code;
    size_t size = 0;
    uint32_t magic;
    memcpy(&magic, code, sizeof magic);
    if (magic == WRAPPER_MAGIC) {
        const void *data;
        memcpy(&data, (const char *)code + 8, sizeof data);
        code = data;
        memcpy(&magic, code, sizeof magic);
    }
    if (magic == 0xba55ed50u) {
        text = fatbin_find_ptx(code, runtime_get_config()->capability, &size, reason, sizeof reason);
        if (!text) {
            runtime_say("cannot load: %s", reason);
            return strstr(reason, "no PTX") ? cudaErrorNoKernelImageForDevice : cudaErrorInvalidKernelImage;
        }
    } else if (text[0] == '/' || text[0] == '.' || text[0] == '\n') {
        size = strlen(text); /* PTX itself */
    } else {
        runtime_say("cannot load: neither a fat binary nor PTX (it starts with %08x)", magic);
        return cudaErrorInvalidKernelImage;
    }
    struct runtime_library *l = calloc(1, sizeof *l);
    if (!l)
        return cudaErrorMemoryAllocation;
    l->module = ptx_parse(text, size, place_variable, NULL, reason, sizeof reason);
    if (!l->module) {
        runtime_say("cannot load: %s", reason);
        free(l);
        return cudaErrorInvalidPtx;
    }
    l->kernels = calloc(l->module->kernel_count + 1, sizeof *l->kernels);
    if (!l->kernels) {
        free_library(l);
        return cudaErrorMemoryAllocation;
    }
    for (size_t i = 0; i < l->module->kernel_count; ++i) {
        l->kernels[i] = (runtime_kernel){.code = l->module->kernels[i], .library = l};
        for (int d = 0; d < MAX_DEVICES; ++d)
            l->kernels[i].dynamic_limit[d] = DEFAULT_SHARED - (int)l->module->kernels[i]->shared_static;
    }
    for (size_t i = 0; i < l->module->variable_count; ++i) {
        const ptx_variable *v = &l->module->variables[i];
        unsigned char *bytes = runtime_device_bytes((void *)(uintptr_t)v->address, v->size);
        if (v->initial)
            memcpy(bytes, v->initial, v->size);
        else
            memset(bytes, 0, v->size);
    }
    l->next = libraries;
    libraries = l;
    *made = l;
    return cudaSuccess;
}

static struct runtime_library *find_library(cudaLibrary_t handle) {
    struct runtime_library *l = libraries;
    while (l && (void *)l != (void *)handle)
        l = l->next;
    return l;
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *jit_options,
                                void **jit_values, unsigned int jit_count, enum cudaLibraryOption *options,
                                void **values, unsigned int count) {
    RUNTIME_ENTER("cudaLibraryLoadData");
    if (!library || !code || (jit_count && (!jit_options || !jit_values)) || (count && !options))
        return runtime_leave(cudaErrorInvalidValue);
    (void)values;
    struct runtime_library *l = NULL;
    const cudaError_t error = load(&l, code);
    if (error == cudaSuccess)
        *library = (cudaLibrary_t)(void *)l;
    return runtime_leave(error);
}

static cudaError_t unload(struct runtime_library *l) {
    if (runtime_library_busy(l)) {
        runtime_say("a library is unloaded while its kernels are on a stream");
        ++busy_unloads;
        for (int d = 0; d < runtime_get_config()->devices; ++d)
            runtime_finish_device(d);
    }
    struct runtime_library **link = &libraries;
    while (*link != l)
        link = &(*link)->next;
    *link = l->next;
    free_library(l);
    return cudaSuccess;
}

size_t cuda_emulator_libraries(void) {
    size_t n = 0;
    for (const struct runtime_library *l = libraries; l; l = l->next)
        ++n;
    return n;
}

size_t cuda_emulator_busy_unloads(void) {
    return busy_unloads;
}

cudaError_t cudaLibraryUnload(cudaLibrary_t library) {
    RUNTIME_ENTER("cudaLibraryUnload");
    struct runtime_library *l = find_library(library);
    return runtime_leave(l ? unload(l) : cudaErrorInvalidResourceHandle);
}

static runtime_kernel *kernel_named(struct runtime_library *l, const char *name) {
    for (size_t i = 0; i < l->module->kernel_count; ++i)
        if (strcmp(l->module->kernels[i]->name, name) == 0)
            return &l->kernels[i];
    return NULL;
}

cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name) {
    RUNTIME_ENTER("cudaLibraryGetKernel");
    struct runtime_library *l = find_library(library);
    if (!kernel || !name)
        return runtime_leave(cudaErrorInvalidValue);
    if (!l)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    runtime_kernel *found = kernel_named(l, name);
    if (!found)
        return runtime_leave(cudaErrorSymbolNotFound);
    *kernel = (cudaKernel_t)(void *)found;
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaLibraryGetKernelCount(unsigned int *count, cudaLibrary_t library) {
    RUNTIME_ENTER("cudaLibraryGetKernelCount");
    struct runtime_library *l = find_library(library);
    if (!count || !l)
        return runtime_leave(count ? cudaErrorInvalidResourceHandle : cudaErrorInvalidValue);
    *count = (unsigned)l->module->kernel_count;
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaLibraryGetGlobal(void **pointer, size_t *bytes, cudaLibrary_t library, const char *name) {
    RUNTIME_ENTER("cudaLibraryGetGlobal");
    struct runtime_library *l = find_library(library);
    if (!name || (!pointer && !bytes))
        return runtime_leave(cudaErrorInvalidValue);
    if (!l)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    for (size_t i = 0; i < l->module->variable_count; ++i) {
        const ptx_variable *v = &l->module->variables[i];
        if (strcmp(v->name, name) != 0)
            continue;
        if (pointer)
            *pointer = (void *)(uintptr_t)v->address;
        if (bytes)
            *bytes = v->size;
        return runtime_leave(cudaSuccess);
    }
    return runtime_leave(cudaErrorSymbolNotFound);
}

/* ---- fat binaries that nvcc's host code registers ---- */

typedef struct registration {
    struct registration *next;
    const void *wrapper;
    struct runtime_library *library; /* loaded at its first kernel's first launch */
    struct stub {
        struct stub *next;
        const void *host;
        char name[256];
    } * stubs;
} registration;

static registration *registrations;

#pragma GCC visibility push(default)
void **__cudaRegisterFatBinary(void *wrapper);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit,
                            uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid, int *warp);
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t size,
                       int constant, int global);
char __cudaInitModule(void **handle);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream);
#pragma GCC visibility pop

void **__cudaRegisterFatBinary(void *wrapper) {
    registration *r = calloc(1, sizeof *r);
    if (!r)
        abort(); /* no way to report, and no program can go on */
    r->wrapper = wrapper;
    r->next = registrations;
    registrations = r;
    return (void **)r;
}

void __cudaRegisterFatBinaryEnd(void **handle) {
    (void)handle;
}

void __cudaUnregisterFatBinary(void **handle) {
    registration **link = &registrations;
    while (*link && (void **)*link != handle)
        link = &(*link)->next;
    if (!*link) {
        runtime_say("a fat binary is unregistered that is not registered");
        return;
    }
    registration *r = *link;
    *link = r->next;
    while (r->stubs) {
        struct stub *s = r->stubs;
        r->stubs = s->next;
        free(s);
    }
    if (r->library)
        unload(r->library);
    free(r);
}

size_t cuda_emulator_registered(void) {
    size_t n = 0;
    for (const registration *r = registrations; r; r = r->next)
        ++n;
    return n;
}

void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit,
                            uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid, int *warp) {
    (void)device, (void)limit, (void)tid, (void)bid, (void)block, (void)grid, (void)warp;
    registration *r = (registration *)(void *)handle;
    struct stub *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->host = host;
    snprintf(s->name, sizeof s->name, "%s", name);
    s->next = r->stubs;
    r->stubs = s;
}

/* Variables have their place and first value from the module; by host name nothing asks for them
 * (cudaMemcpyToSymbol is not emulated: a plugin uses cudaLibraryGetGlobal). */
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t size,
                       int constant, int global) {
    (void)handle, (void)host, (void)device, (void)name, (void)external, (void)size, (void)constant,
        (void)global;
}

char __cudaInitModule(void **handle) {
    (void)handle;
    return 1;
}

static runtime_kernel *kernel_of_stub(const void *host) {
    for (registration *r = registrations; r; r = r->next)
        for (const struct stub *s = r->stubs; s; s = s->next)
            if (s->host == host) {
                if (!r->library && load(&r->library, r->wrapper) != cudaSuccess)
                    return NULL;
                return kernel_named(r->library, s->name);
            }
    return NULL;
}

runtime_kernel *runtime_find_kernel(const void *function) {
    for (struct runtime_library *l = libraries; l; l = l->next)
        for (size_t i = 0; i < l->module->kernel_count; ++i)
            if (&l->kernels[i] == function)
                return &l->kernels[i];
    return kernel_of_stub(function);
}

static _Thread_local struct {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
} configuration;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream) {
    configuration.grid = grid;
    configuration.block = block;
    configuration.shared = shared;
    configuration.stream = stream;
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = configuration.grid;
    *block = configuration.block;
    *shared = configuration.shared;
    *(cudaStream_t *)stream = configuration.stream;
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host) {
    RUNTIME_ENTER("__cudaGetKernel");
    runtime_kernel *found = kernel_of_stub(host);
    *kernel = (cudaKernel_t)(void *)found;
    return runtime_leave(found ? cudaSuccess : cudaErrorInvalidDeviceFunction);
}

/* ---- attributes ---- */

static cudaError_t set_attribute(runtime_kernel *k, enum cudaFuncAttribute attribute, int value, int device) {
    if (!k)
        return cudaErrorInvalidDeviceFunction;
    if (device < 0 || device >= runtime_get_config()->devices)
        return cudaErrorInvalidDevice;
    switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
        if (value < 0 || value + (int)k->code->shared_static > runtime_shared_optin())
            return cudaErrorInvalidValue;
        k->dynamic_limit[device] = value;
        return cudaSuccess;
    case cudaFuncAttributePreferredSharedMemoryCarveout:
        return value < -1 || value > 100 ? cudaErrorInvalidValue : cudaSuccess;
    default:
        return cudaErrorInvalidValue;
    }
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value) {
    RUNTIME_ENTER("cudaFuncSetAttribute");
    return runtime_leave(
        set_attribute(runtime_find_kernel(function), attribute, value, runtime_current_device()));
}

cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel, enum cudaFuncAttribute attribute, int value,
                                            int device) {
    RUNTIME_ENTER("cudaKernelSetAttributeForDevice");
    return runtime_leave(set_attribute(runtime_find_kernel(kernel), attribute, value, device));
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    RUNTIME_ENTER("cudaFuncGetAttributes");
    if (!attributes)
        return runtime_leave(cudaErrorInvalidValue);
    const runtime_kernel *k = runtime_find_kernel(function);
    if (!k)
        return runtime_leave(cudaErrorInvalidDeviceFunction);
    memset(attributes, 0, sizeof *attributes);
    attributes->sharedSizeBytes = k->code->shared_static;
    attributes->localSizeBytes = k->code->local_bytes;
    attributes->maxThreadsPerBlock = k->code->max_threads ? (int)k->code->max_threads : 1024;
    attributes->maxDynamicSharedSizeBytes = k->dynamic_limit[runtime_current_device()];
    attributes->ptxVersion = k->library->module->target;
    attributes->binaryVersion = runtime_get_config()->capability;
    return runtime_leave(cudaSuccess);
}

/* ---- launches ---- */

static cudaError_t check_launch(const runtime_kernel *k, dim3 grid, dim3 block, size_t shared, int device) {
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535 ||
        !threads || block.x > 1024 || block.y > 1024 || block.z > 64 || threads > 1024)
        return cudaErrorInvalidConfiguration;
    if (k->code->max_threads && threads > k->code->max_threads)
        return cudaErrorInvalidValue; /* more than __launch_bounds__ allows */
    const uint32_t *required = k->code->required;
    if (required[0] && (block.x != required[0] || block.y != required[1] || block.z != required[2]))
        return cudaErrorInvalidValue;
    if (shared > (size_t)(k->dynamic_limit[device] > 0 ? k->dynamic_limit[device] : 0))
        return cudaErrorInvalidValue; /* above 48 KiB it needs cudaFuncAttributeMaxDynamicSharedMemorySize */
    return cudaSuccess;
}

static cudaError_t launch(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared,
                          cudaStream_t handle) {
    runtime_kernel *k = runtime_find_kernel(function);
    struct CUstream_st *stream = runtime_find_stream(handle);
    if (!k)
        return cudaErrorInvalidDeviceFunction;
    if (!stream)
        return cudaErrorInvalidResourceHandle;
    if (!arguments && k->code->parameter_count)
        return cudaErrorInvalidValue;
    const cudaError_t error = check_launch(k, grid, block, shared, runtime_stream_device(stream));
    char reason[256];
    if (error != cudaSuccess)
        return error;
    if (!ptx_finish(k->code, reason, sizeof reason)) {
        runtime_say("cannot launch %s: %s", k->code->name, reason);
        return cudaErrorInvalidPtx;
    }
    runtime_work *w = runtime_new_work(WORK_LAUNCH);
    unsigned char *parameters = calloc(1, k->code->parameter_bytes + 16);
    if (!w || !parameters) {
        free(w);
        free(parameters);
        return cudaErrorMemoryAllocation;
    }
    for (size_t i = 0; i < k->code->parameter_count; ++i)
        memcpy(parameters + k->code->parameters[i].offset, arguments[i], k->code->parameters[i].size);
    const runtime_config *c = runtime_get_config();
    w->kernel = k;
    w->launch = (exec_launch){.kernel = k->code,
                              .grid = {grid.x, grid.y, grid.z},
                              .block = {block.x, block.y, block.z},
                              .shared_bytes = k->code->shared_static + (uint32_t)shared,
                              .shared_dynamic = (uint32_t)shared,
                              .device = runtime_stream_device(stream),
                              .parameters = parameters,
                              .checks = c->checks,
                              .count = c->count,
                              .instruction_limit = c->instruction_limit};
    return runtime_add_work(stream, w);
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream) {
    RUNTIME_ENTER("cudaLaunchKernel");
    return runtime_leave(launch(function, grid, block, arguments, shared, stream));
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream) {
    return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **arguments) {
    RUNTIME_ENTER("cudaLaunchKernelExC");
    if (!config || (config->numAttrs && !config->attrs))
        return runtime_leave(cudaErrorInvalidValue);
    if (config->numAttrs) {
        runtime_say("launch attributes are not emulated");
        return runtime_leave(cudaErrorNotSupported);
    }
    return runtime_leave(launch(function, config->gridDim, config->blockDim, arguments,
                                config->dynamicSmemBytes, config->stream));
}

/* ---- counters by kernel ---- */

static struct total {
    struct total *next;
    char name[128];
    cuda_emulator_counters counters;
} * totals;

void runtime_count(const char *kernel, const cuda_emulator_counters *c) {
    struct total *t = totals;
    while (t && strcmp(t->name, kernel) != 0)
        t = t->next;
    if (!t) {
        t = calloc(1, sizeof *t);
        if (!t)
            return;
        snprintf(t->name, sizeof t->name, "%s", kernel);
        t->next = totals;
        totals = t;
    }
    uint64_t *to = (uint64_t *)&t->counters;
    const uint64_t *from = (const uint64_t *)c;
    for (size_t i = 0; i < sizeof *c / sizeof *to; ++i)
        to[i] += from[i];
}

int cuda_emulator_counters_of(const char *kernel, cuda_emulator_counters *counters) {
    for (const struct total *t = totals; t; t = t->next)
        if (strcmp(t->name, kernel) == 0) {
            *counters = t->counters;
            return 1;
        }
    return 0;
}

/* With ATTUNE_EMULATOR_COUNTERS=1: a line for each kernel when the program ends. */
__attribute__((destructor)) static void print_counters(void) {
    for (const struct total *t = totals; t && runtime_get_config()->count && !getenv("ATTUNE_EMULATOR_QUIET");
         t = t->next) {
        const cuda_emulator_counters *c = &t->counters;
        runtime_say("%s: %llu launches, %llu instructions, %llu mma; shared memory %.2f waves a request "
                    "(%.2f at best); device "
                    "memory %.2f sectors a request (%.2f at best)",
                    t->name, (unsigned long long)c->launches, (unsigned long long)c->instructions,
                    (unsigned long long)c->mma,
                    (double)c->shared_waves / (double)(c->shared_requests + !c->shared_requests),
                    (double)c->shared_ideal_waves / (double)(c->shared_requests + !c->shared_requests),
                    (double)c->global_sectors / (double)(c->global_requests + !c->global_requests),
                    (double)c->global_ideal_sectors / (double)(c->global_requests + !c->global_requests));
    }
}
