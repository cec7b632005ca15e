/*
 * plugin/cuda/plugin.h: what the files of attune-cuda share: the instance, its devices, and how CUDA's errors
 * become the contract's.
 */
#ifndef ATTUNE_PLUGIN_CUDA_H
#define ATTUNE_PLUGIN_CUDA_H

#include "attune/attention.h"
#include "attune/device.h"
#include "plugin/cuda/kernels.h"
#include "plugin/cuda/products.h"

#include <cuda_runtime_api.h>

#define CUDA_PLUGIN_ID "attune-cuda"
#define CUDA_ALIGNMENT 256u /* cudaMalloc's (CUDA C++ Programming Guide, Device Memory Accesses) */
#define CUDA_CC_LEAST  75   /* CUDA 13 compiles for nothing older */

enum { CUDA_DEVICES = 16 };

typedef struct cuda_device {
    int ordinal; /* CUDA's own number, as in the name */
    int cc;      /* 86 for compute capability 8.6 */
    int multiprocessors;
    attune_device_id id;
    uint64_t memory_total;
    char name[32];
    char label[64];
    cuda_kernels kernels;
    cuda_products products;
} cuda_device;

/* Immutable after create but for kernels and products, which have locks. */
typedef struct cuda_instance {
    const attune_memory_service *memory;
    const attune_clock_service *clock;
    uint32_t count;
    cuda_device device[CUDA_DEVICES];
} cuda_instance;

extern const attune_device_interface cuda_device_table;
extern const attune_attention_interface cuda_attention_table;

/* [any] Fills `cuda` with the devices that can be used, and says of each other one why not. Errors:
 * UNAVAILABLE with what to do, where there is none. */
attune_code cuda_find_devices(cuda_instance *cuda, const attune_log_service *log, attune_error *error);

/* [any] Device `index`, or NULL with `error` filled. */
cuda_device *cuda_device_at(cuda_instance *cuda, uint32_t index, const char *where, attune_error *error);
/* [any] The device of an id, or NULL. */
cuda_device *cuda_device_of(cuda_instance *cuda, const attune_device_id *id);

/* [any] OK, or an error that names CUDA's; the thread's last error in the runtime is cleared. */
attune_code cuda_check(cudaError_t result, const char *where, const char *what, attune_error *error);

/* [any] Makes a device current for this thread and returns in `before` what cuda_leave puts back. */
attune_code cuda_enter(const cuda_device *device, int *before, const char *where, attune_error *error);
void cuda_leave(int before);

/* [any] Whether a struct that says `size` holds all of what this plugin knows (`needed`); fills `error` where
 * not. */
int cuda_struct_fits(uint32_t size, size_t needed, const char *where, attune_error *error);

#endif
