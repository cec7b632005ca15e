/* plugin/cpu/attention.c: interface attune.attention/1: the backends under the web UI's names, and what they
 * say of themselves. All have class `portable`: the fastest order of work is one whose bits are defined
 * (docs/arithmetic.md). */
#include "plugin/cpu/attention.h"

#include "kernels/arithmetic.h"

#include <stdio.h>
#include <string.h>

/* `sdp` and `sdp-no-mem` are one kernel under the web UI's two names. */
static const cpu_backend backends[] = {
    {.name = "sdp-no-mem",
     .aliases = {"sdp_no_mem"},
     .label = "scaled dot product without memory efficient attention",
     .arithmetic = ATTUNE_ARITHMETIC_F32,
     .priority = 80,
     .algorithm = ATTUNE_ATTENTION_PANELS,
     .slowness = 1.0},
    {.name = "sdp",
     .aliases = {"scaled-dot-product"},
     .label = "scaled dot product",
     .arithmetic = ATTUNE_ARITHMETIC_F32,
     .priority = 70,
     .algorithm = ATTUNE_ATTENTION_PANELS,
     .slowness = 1.0},
    {.name = "xformers",
     .aliases = {"memory-efficient"},
     .label = "memory-efficient attention by row blocks (not that library)",
     .arithmetic = ATTUNE_ARITHMETIC_F32,
     .priority = 100,
     .algorithm = ATTUNE_ATTENTION_ROW_BLOCKS,
     .slowness = 1.06},
    {.name = "split",
     .aliases = {"Doggettx", "V1", "InvokeAI"},
     .label = "softmax over slices of the queries",
     .arithmetic = ATTUNE_ARITHMETIC_F32_FULL,
     .priority = 90,
     .algorithm = ATTUNE_ATTENTION_SLICES,
     .slowness = 1.07},
    {.name = "sub-quadratic",
     .aliases = {"sub_quadratic"},
     .label = "chunks of queries by chunks of keys",
     .arithmetic = ATTUNE_ARITHMETIC_F32_CHUNKED,
     .priority = 10,
     .algorithm = ATTUNE_ATTENTION_CHUNKS,
     .slowness = 1.21},
    {.name = "math",
     .aliases = {"None"},
     .label = "no optimization: the matrix of all scores",
     .arithmetic = ATTUNE_ARITHMETIC_F32_FULL,
     .priority = 0,
     .algorithm = ATTUNE_ATTENTION_MATRIX,
     .slowness = 1.44}};
enum { BACKENDS = sizeof backends / sizeof *backends };

const cpu_backend *cpu_backend_at(uint32_t index, const char *where, attune_error *error) {
    if (index < BACKENDS)
        return &backends[index];
    (void)attune_fail(error, ATTUNE_OUT_OF_RANGE, CPU_PLUGIN_ID, where,
                      "backend %u does not exist (there are %d)", index, BACKENDS);
    return NULL;
}

static uint32_t count(void *instance) {
    (void)instance;
    return BACKENDS;
}

static attune_code describe(void *instance, uint32_t index, attune_attention_info *out, attune_error *error) {
    const cpu_instance *cpu = instance;
    const cpu_backend *one = cpu_backend_at(index, "attention.describe", error);
    if (!one)
        return ATTUNE_OUT_OF_RANGE;
    if (!cpu_struct_fits(out->struct_size, sizeof *out, "attention.describe", error))
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t size = out->struct_size;
    memset(out, 0, sizeof *out);
    out->struct_size = size;
    out->priority = one->priority;
    out->determinism = ATTUNE_DETERMINISM_PORTABLE;
    out->dtypes = ATTUNE_DTYPE_BIT_F32 | ATTUNE_DTYPE_BIT_F16 | ATTUNE_DTYPE_BIT_BF16;
    out->masks = ATTUNE_MASK_BIT_NONE | ATTUNE_MASK_BIT_BOOL | ATTUNE_MASK_BIT_FLOAT | ATTUNE_MASK_BIT_CAUSAL;
    out->head_dim_min = 1;
    out->device = cpu->device;
    (void)snprintf(out->name, sizeof out->name, "%s", one->name);
    for (int i = 0; i < ATTUNE_MAX_ALIASES && one->aliases[i]; ++i)
        (void)snprintf(out->aliases[i], sizeof out->aliases[i], "%s", one->aliases[i]);
    (void)snprintf(out->label, sizeof out->label, "%s", one->label);
    (void)snprintf(out->vendor, sizeof out->vendor, "%s", cpu->vendor);
    (void)snprintf(out->arithmetic, sizeof out->arithmetic, "%s", one->arithmetic);
    (void)snprintf(out->isa, sizeof out->isa, "%s", cpu->kernels.attention_f32[one->algorithm].isa);
    return ATTUNE_OK;
}

static attune_code query(void *instance, uint32_t index, const attune_attention_problem *problem,
                         attune_attention_answer *answer, attune_error *error) {
    cpu_work work;
    const cpu_backend *one = cpu_backend_at(index, "attention.query", error);
    if (!one)
        return ATTUNE_OUT_OF_RANGE;
    const attune_code code = cpu_attention_check(problem, "attention.query", error);
    if (code != ATTUNE_OK)
        return code;
    if (!answer)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "attention.query",
                           "answer is NULL");
    if (!cpu_struct_fits(answer->struct_size, sizeof *answer, "attention.query", error))
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t size = answer->struct_size;
    memset(answer, 0, sizeof *answer);
    answer->struct_size = size;
    cpu_attention_answer(instance, one, problem, answer, &work);
    return ATTUNE_OK;
}

const attune_attention_interface cpu_attention_table = {.struct_size = sizeof cpu_attention_table,
                                                        .count = count,
                                                        .describe = describe,
                                                        .query = query,
                                                        .run = cpu_attention_run};
