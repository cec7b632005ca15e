/* rt_device.c: devices and their properties (CUDA Runtime API 13.0, section 6.1). */
#include "tests/cuda_emulator/runtime.h"

#include <stdio.h>

static _Thread_local int current;

int runtime_current_device(void) {
    return current;
}

static bool valid(int device) {
    return device >= 0 && device < runtime_get_config()->devices;
}

cudaError_t cudaDriverGetVersion(int *version) {
    cudaError_t error;
    const bool entered = runtime_enter("cudaDriverGetVersion", &error);
    if (!version)
        return runtime_leave(cudaErrorInvalidValue);
    if (!entered && error != cudaErrorInsufficientDriver && error != cudaErrorNoDevice)
        return runtime_leave(error);
    *version = error == cudaErrorInsufficientDriver
                   ? 0
                   : CUDART_VERSION; /* the manual: 0 where no driver is installed */
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    if (!version)
        return cudaErrorInvalidValue;
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    RUNTIME_ENTER("cudaGetDeviceCount");
    if (!count)
        return runtime_leave(cudaErrorInvalidValue);
    *count = runtime_get_config()->devices;
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaGetDevice(int *device) {
    RUNTIME_ENTER("cudaGetDevice");
    if (!device)
        return runtime_leave(cudaErrorInvalidValue);
    *device = current;
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaSetDevice(int device) {
    cudaError_t error;
    const bool entered = runtime_enter("cudaSetDevice", &error);
    if (!entered &&
        error != runtime_device_error(current)) /* another device's lasting error does not bar the way */
        return runtime_leave(error);
    if (!valid(device))
        return runtime_leave(cudaErrorInvalidDevice);
    current = device;
    return runtime_leave(cudaSuccess);
}

int runtime_shared_optin(void) { /* CUDA C++ Programming Guide 13.0, table of compute capabilities */
    switch (runtime_get_config()->capability) {
    case 75:
        return 64 << 10;
    case 80:
    case 87:
        return 163 << 10;
    case 86:
    case 89:
    case 120:
    case 121:
        return 99 << 10;
    case 90:
    case 100:
    case 103:
    case 110:
        return 227 << 10;
    default:
        return 48 << 10;
    }
}

static cudaError_t attribute(int *value, enum cudaDeviceAttr name, int device) {
    const int capability = runtime_get_config()->capability;
    const struct {
        enum cudaDeviceAttr name;
        int value;
    } known[] = {{cudaDevAttrMaxThreadsPerBlock, 1024},
                 {cudaDevAttrMaxBlockDimX, 1024},
                 {cudaDevAttrMaxBlockDimY, 1024},
                 {cudaDevAttrMaxBlockDimZ, 64},
                 {cudaDevAttrMaxGridDimX, 2147483647},
                 {cudaDevAttrMaxGridDimY, 65535},
                 {cudaDevAttrMaxGridDimZ, 65535},
                 {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
                 {cudaDevAttrMaxSharedMemoryPerBlockOptin, runtime_shared_optin()},
                 {cudaDevAttrMaxSharedMemoryPerMultiprocessor, runtime_shared_optin() + 1024},
                 {cudaDevAttrReservedSharedMemoryPerBlock, 1024},
                 {cudaDevAttrTotalConstantMemory, 64 << 10},
                 {cudaDevAttrWarpSize, LANES},
                 {cudaDevAttrMaxRegistersPerBlock, 65536},
                 {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
                 {cudaDevAttrMultiProcessorCount, 16},
                 {cudaDevAttrComputeCapabilityMajor, capability / 10},
                 {cudaDevAttrComputeCapabilityMinor, capability % 10},
                 {cudaDevAttrPciDomainId, 0},
                 {cudaDevAttrPciBusId, device + 1},
                 {cudaDevAttrPciDeviceId, 0},
                 {cudaDevAttrUnifiedAddressing, 1},
                 {cudaDevAttrMemoryPoolsSupported, 1},
                 {cudaDevAttrConcurrentKernels, 1},
                 {cudaDevAttrAsyncEngineCount, 2},
                 {cudaDevAttrL2CacheSize, 4 << 20},
                 {cudaDevAttrMaxThreadsPerMultiProcessor, capability == 75                       ? 1024
                                                          : capability == 80 || capability >= 90 ? 2048
                                                                                                 : 1536},
                 {cudaDevAttrIntegrated, 0},
                 {cudaDevAttrManagedMemory, 0},
                 {cudaDevAttrPageableMemoryAccess, 0},
                 {cudaDevAttrCooperativeLaunch, 0},
                 {cudaDevAttrComputeMode, 0}};
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
        if (known[i].name == name) {
            *value = known[i].value;
            return cudaSuccess;
        }
    runtime_say("cudaDeviceGetAttribute(%d) is not emulated", (int)name);
    return cudaErrorNotSupported;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr name, int device) {
    RUNTIME_ENTER("cudaDeviceGetAttribute");
    if (!value)
        return runtime_leave(cudaErrorInvalidValue);
    if (!valid(device))
        return runtime_leave(cudaErrorInvalidDevice);
    return runtime_leave(attribute(value, name, device));
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    RUNTIME_ENTER("cudaGetDeviceProperties");
    if (!p)
        return runtime_leave(cudaErrorInvalidValue);
    if (!valid(device))
        return runtime_leave(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "Attune emulated GPU");
    for (size_t i = 0; i < sizeof p->uuid.bytes; ++i)
        p->uuid.bytes[i] = (char)(0xa0 + i + (size_t)device * 16);
    p->totalGlobalMem = runtime_get_config()->memory;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = (size_t)runtime_shared_optin();
    p->sharedMemPerMultiprocessor = (size_t)runtime_shared_optin() + 1024;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = LANES;
    p->memPitch = 2147483647;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 64 << 10;
    p->major = runtime_get_config()->capability / 10;
    p->minor = runtime_get_config()->capability % 10;
    p->multiProcessorCount = 16;
    p->concurrentKernels = p->unifiedAddressing = p->memoryPoolsSupported = 1;
    p->pciBusID = device + 1;
    p->asyncEngineCount = 2;
    p->l2CacheSize = 4 << 20;
    attribute(&p->maxThreadsPerMultiProcessor, cudaDevAttrMaxThreadsPerMultiProcessor, device);
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    RUNTIME_ENTER("cudaDeviceGetPCIBusId");
    if (!text || length < 13)
        return runtime_leave(cudaErrorInvalidValue);
    if (!valid(device))
        return runtime_leave(cudaErrorInvalidDevice);
    snprintf(text, (size_t)length, "0000:%02x:00.0", (unsigned)(device + 1) & 255u);
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    RUNTIME_ENTER("cudaMemGetInfo");
    if (!free_bytes || !total)
        return runtime_leave(cudaErrorInvalidValue);
    *total = runtime_get_config()->memory;
    *free_bytes = *total - memory_used(current);
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void) {
    RUNTIME_ENTER("cudaDeviceSynchronize");
    return runtime_leave(runtime_finish_device(current));
}

cudaError_t cudaDeviceReset(void) {
    cudaError_t error;
    const bool entered = runtime_enter("cudaDeviceReset", &error);
    if (!entered && error != runtime_device_error(current))
        return runtime_leave(error);
    runtime_drop_streams(current);
    memory_free_all(current);
    runtime_set_device_error(current, cudaSuccess);
    return runtime_leave(cudaSuccess);
}
