/* plugin/cuda/attention.c: interface attune.attention/1: the backends under the web UI's names, once for each
 * device, and what they say of themselves. */
#include "plugin/cuda/attention.h"

#include "kernels/arithmetic.h"

#include <stdio.h>
#include <string.h>

#define FLASH                                                                                                \
    { attune_cuda_plan_flash, CUDA_IMAGE_flash, ATTUNE_DETERMINISM_INVARIANT, 1 }
#define EFFICIENT                                                                                            \
    { attune_cuda_plan_memory_efficient, CUDA_IMAGE_efficient, ATTUNE_DETERMINISM_REPEATABLE, 1 }
#define PORTABLE                                                                                             \
    { attune_cuda_plan_portable, CUDA_IMAGE_portable, ATTUNE_DETERMINISM_PORTABLE, 0 }

const cuda_backend cuda_backends[CUDA_BACKENDS] = {
    {.name = "sdp-no-mem",
     .aliases = {"sdp_no_mem"},
     .label = "scaled dot product without memory efficient attention",
     .arithmetic = ATTUNE_ARITHMETIC_F32,
     .priority = 80,
     .determinism = ATTUNE_DETERMINISM_PORTABLE,
     .routes = {PORTABLE}},
    {.name = "sdp",
     .aliases = {"scaled-dot-product"},
     .label = "scaled dot product (float32 by the kernel of sdp-no-mem)",
     .arithmetic = "attune-cuda-sdp-1",
     .priority = 70,
     .determinism = ATTUNE_DETERMINISM_INVARIANT,
     .routes = {FLASH, PORTABLE}},
    {.name = "xformers",
     .aliases = {"memory-efficient"},
     .label = "memory-efficient attention (not that library)",
     .arithmetic = "attune-cuda-memory-efficient-1",
     .priority = 100,
     .determinism = ATTUNE_DETERMINISM_REPEATABLE,
     .routes = {EFFICIENT, PORTABLE}},
    {.name = "math",
     .aliases = {"None"},
     .label = "no optimization: the matrix of all scores, by cuBLAS",
     .arithmetic = "attune-cuda-math-1",
     .priority = 0,
     .determinism = ATTUNE_DETERMINISM_REPEATABLE,
     .products = 1,
     .routes = {{attune_cuda_plan_softmax, CUDA_IMAGE_softmax, ATTUNE_DETERMINISM_REPEATABLE, 0}}}};

const cuda_backend *cuda_backend_at(cuda_instance *cuda, uint32_t index, cuda_device **device,
                                    const char *where, attune_error *error) {
    if (index < cuda->count * CUDA_BACKENDS) {
        *device = &cuda->device[index / CUDA_BACKENDS];
        return &cuda_backends[index % CUDA_BACKENDS];
    }
    (void)attune_fail(error, ATTUNE_OUT_OF_RANGE, CUDA_PLUGIN_ID, where,
                      "backend %u does not exist (there are %u)", index, cuda->count * CUDA_BACKENDS);
    return NULL;
}

static uint32_t count(void *instance) {
    return ((const cuda_instance *)instance)->count * CUDA_BACKENDS;
}

static attune_code describe(void *instance, uint32_t index, attune_attention_info *out, attune_error *error) {
    cuda_device *device;
    const cuda_backend *one = cuda_backend_at(instance, index, &device, "attention.describe", error);
    if (!one)
        return ATTUNE_OUT_OF_RANGE;
    if (!cuda_struct_fits(out->struct_size, sizeof *out, "attention.describe", error))
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t size = out->struct_size;
    memset(out, 0, sizeof *out);
    out->struct_size = size;
    out->priority = one->priority;
    out->determinism = one->determinism;
    out->dtypes = ATTUNE_DTYPE_BIT_F32 | ATTUNE_DTYPE_BIT_F16 | ATTUNE_DTYPE_BIT_BF16;
    out->masks = ATTUNE_MASK_BIT_NONE | ATTUNE_MASK_BIT_BOOL | ATTUNE_MASK_BIT_FLOAT | ATTUNE_MASK_BIT_CAUSAL;
    out->head_dim_min = 1;
    out->device = device->id;
    (void)snprintf(out->name, sizeof out->name, "%s", one->name);
    for (int i = 0; i < ATTUNE_MAX_ALIASES && one->aliases[i]; ++i)
        (void)snprintf(out->aliases[i], sizeof out->aliases[i], "%s", one->aliases[i]);
    (void)snprintf(out->label, sizeof out->label, "%s", one->label);
    (void)snprintf(out->vendor, sizeof out->vendor, "NVIDIA");
    (void)snprintf(out->arithmetic, sizeof out->arithmetic, "%s", one->arithmetic);
    (void)snprintf(out->isa, sizeof out->isa, "sm_%d", device->cc);
    return ATTUNE_OK;
}

static attune_code query(void *instance, uint32_t index, const attune_attention_problem *problem,
                         attune_attention_answer *answer, attune_error *error) {
    cuda_device *device;
    cuda_work work;
    const cuda_backend *one = cuda_backend_at(instance, index, &device, "attention.query", error);
    if (!one)
        return ATTUNE_OUT_OF_RANGE;
    const attune_code code = cuda_attention_check(problem, "attention.query", error);
    if (code != ATTUNE_OK)
        return code;
    if (!answer)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, "attention.query",
                           "answer is NULL");
    if (!cuda_struct_fits(answer->struct_size, sizeof *answer, "attention.query", error))
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t size = answer->struct_size;
    memset(answer, 0, sizeof *answer);
    answer->struct_size = size;
    cuda_attention_answer(device, one, problem, answer, &work);
    return ATTUNE_OK;
}

const attune_attention_interface cuda_attention_table = {.struct_size = sizeof cuda_attention_table,
                                                         .count = count,
                                                         .describe = describe,
                                                         .query = query,
                                                         .run = cuda_attention_run};
