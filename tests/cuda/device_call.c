/* tests/cuda/device_call.c: see device_call.h. */
#include "tests/cuda/device_call.h"

#include "attune/host.h"

#include <check.h>
#include <string.h>

#define DONE(call)                                                                                           \
    do {                                                                                                     \
        attune_error error;                                                                                  \
        memset(&error, 0, sizeof error);                                                                     \
        const attune_code code = (call);                                                                     \
        ck_assert_msg(code == ATTUNE_OK, "%s: %s", #call, error.message);                                    \
    } while (0)

void device_way_open(device_way *way, plugin_host *host, const char *backend, int32_t determinism) {
    attune_attention_info info = {.struct_size = sizeof info};
    memset(way, 0, sizeof *way);
    plugin_host_start_library(host, "attune-cuda.so");
    way->host = host;
    way->determinism = determinism;
    for (const uint32_t count = host->attention->count(host->instance); way->backend < count;
         ++way->backend) {
        DONE(host->attention->describe(host->instance, way->backend, &info, &error));
        if (strcmp(info.name, backend) == 0)
            break;
    }
    ck_assert_str_eq(info.name, backend);
    way->stream.struct_size = sizeof way->stream;
    DONE(host->device->stream_create(host->instance, 0, &way->stream, &error));
}

void device_way_close(device_way *way) {
    way->host->device->stream_destroy(way->host->instance, &way->stream);
    plugin_host_stop(way->host);
}

/* A copy of a tensor's bytes on the device; `memory` is what to free. */
static attune_tensor to_device(device_way *way, const attune_tensor *from, void **memory) {
    const plugin_host *host = way->host;
    const uint64_t shift = (uintptr_t)from->data % 64;
    attune_tensor made = *from;
    DONE(host->device->alloc(host->instance, 0, shift + from->bytes, memory, &error));
    made.data = (char *)*memory + shift;
    DONE(host->device->copy(host->instance, &way->stream, made.data, from->data, from->bytes,
                            ATTUNE_COPY_TO_DEVICE, &error));
    return made;
}

static attune_tensor tensor_of(const device_way *way, const void *data, attune_dtype dtype, int64_t batch,
                               int64_t heads, int64_t tokens, int64_t channels, const int64_t stride[4]) {
    attune_tensor t = {.data = (void *)(uintptr_t)data,
                       .device = way->host->id,
                       .dtype = dtype,
                       .ndim = 4,
                       .shape = {batch, heads, tokens, channels}};
    memcpy(t.stride, stride, 4 * sizeof *stride);
    t.bytes = attune_tensor_span(&t);
    return t;
}

enum { Q, K, V, OUT, MASK, ARRAYS };

void device_call_open(device_call *call, const attune_attention_f32 *a, device_way *way) {
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_F16, ATTUNE_BF16};
    const plugin_host *host = way->host;
    const attune_dtype dtype = dtypes[a->storage];
    const int masked = a->mask_kind != ATTUNE_KERNEL_MASK_NONE;
    const attune_tensor from[ARRAYS] = {
        tensor_of(way, a->q, dtype, a->batch, a->heads_q, a->n_q, a->d_qk, a->stride_q),
        tensor_of(way, a->k, dtype, a->batch, a->heads_kv, a->n_k, a->d_qk, a->stride_k),
        tensor_of(way, a->v, dtype, a->batch, a->heads_kv, a->n_k, a->d_v, a->stride_v),
        tensor_of(way, a->out, dtype, a->batch, a->heads_q, a->n_q, a->d_v, a->stride_out),
        tensor_of(way, a->mask, a->mask_kind == ATTUNE_KERNEL_MASK_BOOL ? ATTUNE_BOOL : ATTUNE_F32, a->batch,
                  a->heads_q, a->n_q, a->n_k, a->stride_mask)};
    memset(call, 0, sizeof *call);
    call->way = way;
    call->args = a;
    call->arrays = 4 + masked;
    for (int i = 0; i < call->arrays; ++i)
        call->on[i] = to_device(way, &from[i], &call->memory[i]);
    DONE(attune_attention_problem_init(&call->problem, &call->on[Q], &call->on[K], &call->on[V],
                                       masked ? &call->on[MASK] : NULL, &call->on[OUT], &error));
    call->problem.causal = a->causal;
    call->problem.scale = a->scale;
    call->problem.determinism = way->determinism;
    call->answer.struct_size = sizeof call->answer;
    DONE(host->attention->query(host->instance, way->backend, &call->problem, &call->answer, &error));
    ck_assert_msg(call->answer.code == ATTUNE_OK, "%s", call->answer.reason);
    if (call->answer.workspace)
        DONE(host->device->alloc(host->instance, 0, call->answer.workspace, &call->workspace, &error));
}

void device_call_run(device_call *call) {
    const plugin_host *host = call->way->host;
    const attune_attention_args args = {.struct_size = sizeof args,
                                        .q = &call->on[Q],
                                        .k = &call->on[K],
                                        .v = &call->on[V],
                                        .mask = call->arrays > MASK ? &call->on[MASK] : NULL,
                                        .out = &call->on[OUT],
                                        .workspace = call->workspace,
                                        .workspace_bytes = call->answer.workspace};
    DONE(host->attention->run(host->instance, call->way->backend, &call->problem, call->answer.plan, &args,
                              &call->way->stream, NULL, &error));
}

void device_call_close(device_call *call) {
    const plugin_host *host = call->way->host;
    DONE(host->device->copy(host->instance, &call->way->stream, call->args->out, call->on[OUT].data,
                            call->on[OUT].bytes, ATTUNE_COPY_FROM_DEVICE, &error));
    DONE(host->device->stream_synchronize(host->instance, &call->way->stream, &error));
    for (int i = 0; i < call->arrays; ++i)
        host->device->free(host->instance, 0, call->memory[i]);
    if (call->workspace)
        host->device->free(host->instance, 0, call->workspace);
}

void device_run(const attune_attention_f32 *args, void *context) {
    device_call call;
    device_call_open(&call, args, context);
    device_call_run(&call);
    device_call_close(&call);
}
