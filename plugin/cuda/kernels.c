/* plugin/cuda/kernels.c: see kernels.h. */
#include "plugin/cuda/kernels.h"
#include "plugin/cuda/plugin.h"

#include <string.h>

/* image.S holds their bytes. */
#define CUDA_IMAGE(name) extern const unsigned char attune_cuda_image_##name[];
CUDA_IMAGES(CUDA_IMAGE)
#undef CUDA_IMAGE

static const unsigned char *const images[] = {
#define CUDA_IMAGE(name) attune_cuda_image_##name,
    CUDA_IMAGES(CUDA_IMAGE)
#undef CUDA_IMAGE
};

enum { SHARED_ANYWAY = 48 << 10 }; /* more has to be asked for (Programming Guide, Shared Memory) */

static const char where[] = "attention.run";

static attune_code load(cuda_kernels *k, int image, attune_error *error) {
    if (k->library[image])
        return ATTUNE_OK;
    cudaLibrary_t made = NULL;
    const attune_code code =
        cuda_check(cudaLibraryLoadData(&made, images[image], NULL, NULL, 0, NULL, NULL, 0), where,
                   "its kernels could not be loaded", error);
    if (code == ATTUNE_OK)
        k->library[image] = made;
    return code;
}

/* The kernel's place in `found`, made where it is new; -1 with `error` filled. */
static int find(cuda_kernels *k, int ordinal, int image, const attune_cuda_launch *launch,
                attune_error *error) {
    uint32_t at = 0;
    while (at < k->count && k->found[at].name != launch->kernel &&
           strcmp(k->found[at].name, launch->kernel) != 0)
        ++at;
    if (at == CUDA_KERNELS) {
        (void)attune_fail(error, ATTUNE_INTERNAL, CUDA_PLUGIN_ID, where, "more than %d kernels",
                          CUDA_KERNELS);
        return -1;
    }
    if (at == k->count) {
        cudaKernel_t kernel = NULL;
        if (load(k, image, error) != ATTUNE_OK ||
            cuda_check(cudaLibraryGetKernel(&kernel, k->library[image], launch->kernel), where,
                       launch->kernel, error) != ATTUNE_OK)
            return -1;
        k->found[at].name = launch->kernel;
        k->found[at].kernel = kernel;
        k->found[at].shared = SHARED_ANYWAY;
        ++k->count;
    }
    if (launch->shared > k->found[at].shared) {
        if (cuda_check(cudaKernelSetAttributeForDevice(k->found[at].kernel,
                                                       cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                       (int)launch->shared, ordinal),
                       where, launch->kernel, error) != ATTUNE_OK)
            return -1;
        k->found[at].shared = launch->shared;
    }
    return (int)at;
}

attune_code cuda_launch(cuda_kernels *kernels, int ordinal, int image, const attune_cuda_launch *launch,
                        void **parameters, cudaStream_t stream, attune_error *error) {
    cudaKernel_t kernel = NULL;
    (void)pthread_mutex_lock(&kernels->lock);
    const int at = find(kernels, ordinal, image, launch, error);
    if (at >= 0)
        kernel = kernels->found[at].kernel;
    (void)pthread_mutex_unlock(&kernels->lock);
    if (at < 0)
        return error ? error->code : ATTUNE_INTERNAL;
    const dim3 grid = {launch->grid[0], launch->grid[1], launch->grid[2]},
               block = {launch->block[0], launch->block[1], launch->block[2]};
    return cuda_check(cudaLaunchKernel((const void *)kernel, grid, block, parameters, launch->shared, stream),
                      where, launch->kernel, error);
}

void cuda_kernels_unload(cuda_kernels *kernels) {
    for (int i = 0; i < CUDA_IMAGE_COUNT; ++i)
        if (kernels->library[i] && cudaLibraryUnload(kernels->library[i]) != cudaSuccess)
            (void)cudaGetLastError();
    memset(kernels->library, 0, sizeof kernels->library);
    kernels->count = 0;
}
