/*
 * plugin/cuda/kernels.h: fat binaries that lie in this library as data. Each is loaded into the runtime when
 * a kernel of it is first run on a device, and unloaded with the instance: nothing is registered when the
 * library is mapped, so nothing stays registered when it is not.
 */
#ifndef ATTUNE_PLUGIN_CUDA_KERNELS_H
#define ATTUNE_PLUGIN_CUDA_KERNELS_H

#include "attune/abi.h"
#include "kernels/cuda/attention.h"

#include <cuda_runtime_api.h>
#include <pthread.h>

/* One fat binary for each file of kernels/cuda. */
#define CUDA_IMAGES(X) X(portable) X(softmax) X(flash) X(efficient)
enum {
#define CUDA_IMAGE(name) CUDA_IMAGE_##name,
    CUDA_IMAGES(CUDA_IMAGE)
#undef CUDA_IMAGE
        CUDA_IMAGE_COUNT
};

enum { CUDA_KERNELS = 64 };

/* What one device has loaded. */
typedef struct cuda_kernels {
    pthread_mutex_t lock;
    cudaLibrary_t library[CUDA_IMAGE_COUNT];
    struct {
        const char *name; /* the planner's own text: compared by address first */
        cudaKernel_t kernel;
        uint32_t shared; /* bytes of dynamic shared memory that it may use */
    } found[CUDA_KERNELS];
    uint32_t count;
} cuda_kernels;

struct cuda_device;

/* [any] Enqueue `launch`, of fat binary `image`, with the kernel's parameters. The device is current. Errors:
 * UNAVAILABLE (no code for this device), RESOURCE_EXHAUSTED, INTERNAL, with CUDA's number. */
attune_code cuda_launch(cuda_kernels *kernels, int ordinal, int image, const attune_cuda_launch *launch,
                        void **parameters, cudaStream_t stream, attune_error *error);

/* [main] Unload everything; no kernel is on any stream. */
void cuda_kernels_unload(cuda_kernels *kernels);

#endif
