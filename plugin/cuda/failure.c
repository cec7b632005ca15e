/* plugin/cuda/failure.c: CUDA's errors in the contract's words. */
#include "plugin/cuda/plugin.h"

/* Numbers are in driver_types.h, enum cudaError. */
static attune_code code_of(cudaError_t result) {
    switch (result) {
    case cudaErrorMemoryAllocation:
    case cudaErrorLaunchOutOfResources:
        return ATTUNE_RESOURCE_EXHAUSTED;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorInvalidDevice:
        return ATTUNE_INVALID_ARGUMENT;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
        return ATTUNE_UNAVAILABLE;
    default:
        return ATTUNE_INTERNAL;
    }
}

static const char *hint_of(cudaError_t result) {
    switch (result) {
    case cudaErrorMemoryAllocation:
        return "free device memory, or give a smaller problem";
    case cudaErrorInsufficientDriver: /* CUDA Toolkit 13.0 Release Notes, table of minimum driver versions */
        return "install NVIDIA's driver 580 or newer";
    case cudaErrorNoDevice:
        return "is a GPU there, and in CUDA_VISIBLE_DEVICES?";
    case cudaErrorNoKernelImageForDevice:
        return "build attune-cuda for this GPU (CUDA_SM)";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorIllegalInstruction:
    case cudaErrorAssert:
        return "a kernel failed: the device serves this process no more, start it again";
    default:
        return "";
    }
}

attune_code cuda_check(cudaError_t result, const char *where, const char *what, attune_error *error) {
    if (result == cudaSuccess)
        return ATTUNE_OK;
    (void)cudaGetLastError();
    const attune_code code = code_of(result);
    (void)attune_fail(error, code, CUDA_PLUGIN_ID, where, "%s: %s (%s, error %d)", what,
                      cudaGetErrorString(result), cudaGetErrorName(result), (int)result);
    if (error)
        error->native_code = (int32_t)result;
    attune_hint(error, "%s", hint_of(result));
    return code;
}

attune_code cuda_enter(const cuda_device *device, int *before, const char *where, attune_error *error) {
    const attune_code code = cuda_check(cudaGetDevice(before), where, "the current device", error);
    if (code != ATTUNE_OK || *before == device->ordinal)
        return code;
    return cuda_check(cudaSetDevice(device->ordinal), where, device->name, error);
}

void cuda_leave(int before) {
    int now = before;
    if (cudaGetDevice(&now) != cudaSuccess || (now != before && cudaSetDevice(before) != cudaSuccess))
        (void)cudaGetLastError();
}

int cuda_struct_fits(uint32_t size, size_t needed, const char *where, attune_error *error) {
    if (size >= needed)
        return 1;
    (void)attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where,
                      "struct_size %u is less than the %zu bytes of this revision", size, needed);
    return 0;
}
