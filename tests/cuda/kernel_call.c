/* tests/cuda/kernel_call.c: see kernel_call.h. */
#include "tests/cuda/kernel_call.h"
#include "tests/cuda_emulator/emulator.h"

#include <stdio.h>
#include <stdlib.h>

void kernel_way_open(kernel_way *way, const char *name, attune_cuda_planner *planner,
                     const char *capability) {
    char path[256];
    size_t size;
    setenv("ATTUNE_EMULATOR_CC", capability, 1);
    (void)snprintf(path, sizeof path, "%s/%s.fatbin", getenv("ATTUNE_BUILD"), name);
    char *bytes = suite_read(path, &size);
    *way = (kernel_way){.planner = planner, .cc = (int)(10 * atof(capability) + 0.5)};
    OK(cudaLibraryLoadData(&way->library, bytes, NULL, NULL, 0, NULL, NULL, 0));
    free(bytes);
}

/* Elements from the first to one behind the last; the channel stride is 1 but for masks. */
static size_t span(const int64_t stride[4], int64_t a, int64_t b, int64_t c, int64_t d) {
    return (size_t)((a - 1) * stride[0] + (b - 1) * stride[1] + (c - 1) * stride[2] + (d - 1) * stride[3] +
                    1);
}

/* A copy that ends where the array ends; *memory is what to free. */
static void *to_device(const void *from, size_t bytes, void **memory) {
    const size_t shift = (uintptr_t)from % 64;
    OK(cudaMalloc(memory, shift + bytes));
    char *made = (char *)*memory + shift;
    OK(cudaMemcpy(made, from, bytes, cudaMemcpyHostToDevice));
    return made;
}

static cudaError_t launch(kernel_way *way, attune_attention_f32 *on) {
    float factor = attune_attention_f32_factor(on->scale, on->d_qk);
    for (uint32_t i = 0; i < way->plan.count; ++i) {
        const attune_cuda_launch *l = &way->plan.launches[i];
        const cudaKernel_t kernel = suite_kernel(way->library, l->kernel);
        void *arguments[] = {on, &factor};
        on->pass = l->pass, on->chunk_q = l->chunk_q, on->chunk_k = l->chunk_k;
        if (l->shared > 48 << 10)
            OK(cudaKernelSetAttributeForDevice(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               (int)l->shared, 0));
        const cudaError_t error =
            cudaLaunchKernel((const void *)kernel, (dim3){l->grid[0], l->grid[1], l->grid[2]},
                             (dim3){l->block[0], l->block[1], l->block[2]}, arguments, l->shared, NULL);
        if (error != cudaSuccess)
            return error;
    }
    return cudaDeviceSynchronize();
}

cudaError_t kernel_try(kernel_way *way, const attune_attention_f32 *a) {
    enum { Q, K, V, OUT, MASK, WORKSPACE, ARRAYS };
    void *memory[ARRAYS] = {NULL};
    attune_attention_f32 on = *a;
    const size_t element = a->storage == ATTUNE_KERNEL_F32 ? 4 : 2,
                 out = element * span(a->stride_out, a->batch, a->heads_q, a->n_q, a->d_v);
    on.q = to_device(a->q, element * span(a->stride_q, a->batch, a->heads_q, a->n_q, a->d_qk), &memory[Q]);
    on.k = to_device(a->k, element * span(a->stride_k, a->batch, a->heads_kv, a->n_k, a->d_qk), &memory[K]);
    on.v = to_device(a->v, element * span(a->stride_v, a->batch, a->heads_kv, a->n_k, a->d_v), &memory[V]);
    on.out = to_device(a->out, out, &memory[OUT]);
    if (a->mask_kind != ATTUNE_KERNEL_MASK_NONE)
        on.mask = to_device(a->mask,
                            (a->mask_kind == ATTUNE_KERNEL_MASK_BOOL ? 1 : sizeof(float)) *
                                span(a->stride_mask, a->batch, a->heads_q, a->n_q, a->n_k),
                            &memory[MASK]);
    ck_assert_msg(way->planner(&on, way->cc, &way->plan), "%s", way->plan.refusal);
    if (way->plan.workspace)
        OK(cudaMalloc(&memory[WORKSPACE], way->plan.workspace));
    on.matrix = memory[WORKSPACE];
    const cudaError_t error = launch(way, &on);
    if (error != cudaSuccess)
        return error; /* the device's memory is lost with it */
    OK(cudaMemcpy(a->out, on.out, out, cudaMemcpyDeviceToHost));
    for (int i = 0; i < ARRAYS; ++i)
        OK(cudaFree(memory[i]));
    return cudaSuccess;
}

void kernel_run(const attune_attention_f32 *args, void *context) {
    kernel_way *way = context;
    const cudaError_t error = kernel_try(way, args);
    cuda_emulator_report r = {.message = ""};
    (void)cuda_emulator_reports(&r, 1);
    ck_assert_msg(error == cudaSuccess && !r.message[0], "%s: %s at line %d of %s: %s",
                  way->plan.launches[0].kernel, cudaGetErrorName(error), r.line, r.file, r.message);
}
