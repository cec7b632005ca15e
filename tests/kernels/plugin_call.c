/* tests/kernels/plugin_call.c: see plugin_call.h. */
#include "tests/kernels/plugin_call.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 256 };

static attune_tensor tensor(const plugin_host *host, const void *data, attune_dtype dtype, int64_t tokens,
                            int64_t channels, int64_t batch, int64_t heads, const int64_t stride[4]) {
    attune_tensor t = {.data = (void *)(uintptr_t)data,
                       .device = host->id,
                       .dtype = dtype,
                       .ndim = 4,
                       .shape = {batch, heads, tokens, channels}};
    memcpy(t.stride, stride, 4 * sizeof *stride);
    t.bytes = attune_tensor_span(&t);
    return t;
}

void call_of(call *c, const plugin_host *host, uint32_t backend, const attune_attention_f32 *a,
             uint32_t workers) {
    memset(c, 0, sizeof *c);
    c->host = host, c->backend = backend;
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_F16, ATTUNE_BF16};
    const attune_dtype dtype = dtypes[a->storage];
    attune_attention_problem *p = &c->problem;
    *p = (attune_attention_problem){.struct_size = sizeof *p,
                                    .mask = a->mask_kind,
                                    .causal = a->causal,
                                    .scale = a->scale,
                                    .batch = a->batch,
                                    .heads_q = a->heads_q,
                                    .heads_kv = a->heads_kv,
                                    .n_q = a->n_q,
                                    .n_k = a->n_k,
                                    .d_qk = a->d_qk,
                                    .d_v = a->d_v,
                                    .dtype = dtype,
                                    .determinism = ATTUNE_DETERMINISM_PORTABLE,
                                    .budget = UINT64_MAX,
                                    .device = host->id,
                                    .workers = workers};
    memcpy(p->stride_q, a->stride_q, sizeof p->stride_q);
    memcpy(p->stride_k, a->stride_k, sizeof p->stride_k);
    memcpy(p->stride_v, a->stride_v, sizeof p->stride_v);
    memcpy(p->stride_out, a->stride_out, sizeof p->stride_out);
    memcpy(p->stride_mask, a->stride_mask, sizeof p->stride_mask);
    c->q = tensor(host, a->q, dtype, a->n_q, a->d_qk, a->batch, a->heads_q, a->stride_q);
    c->k = tensor(host, a->k, dtype, a->n_k, a->d_qk, a->batch, a->heads_kv, a->stride_k);
    c->v = tensor(host, a->v, dtype, a->n_k, a->d_v, a->batch, a->heads_kv, a->stride_v);
    c->out = tensor(host, a->out, dtype, a->n_q, a->d_v, a->batch, a->heads_q, a->stride_out);
    c->mask = tensor(host, a->mask, a->mask_kind == ATTUNE_MASK_BOOL ? ATTUNE_BOOL : ATTUNE_F32, a->n_q,
                     a->n_k, a->batch, a->heads_q, a->stride_mask);
    c->args = (attune_attention_args){.struct_size = sizeof c->args,
                                      .q = &c->q,
                                      .k = &c->k,
                                      .v = &c->v,
                                      .out = &c->out,
                                      .mask = a->mask_kind ? &c->mask : NULL};
    c->stream = plugin_host_stream(host, workers);
    call_ask(c);
}

void call_make(call *c, const plugin_host *host, uint32_t backend, const attention_case *from,
               uint32_t workers) {
    const attention_arrays arrays = arrays_make(from);
    call_of(c, host, backend, &arrays.stored, workers);
    c->arrays = arrays;
}

void call_ask(call *c) {
    memset(&c->answer, 0, sizeof c->answer);
    c->answer.struct_size = sizeof c->answer;
    ck_assert_int_eq(c->host->attention->query(c->host->instance, c->backend, &c->problem, &c->answer, NULL),
                     ATTUNE_OK);
    ck_assert_msg(c->answer.code == ATTUNE_OK, "backend %u: %s", c->backend, c->answer.reason);
    free(c->memory);
    c->memory = aligned_alloc(64, c->answer.workspace + 2 * GUARD);
    ck_assert_ptr_nonnull(c->memory);
    memset(c->memory, 0xff, c->answer.workspace + 2 * GUARD); /* NaN: to be written before it is read */
    c->args.workspace = c->memory + GUARD;
    c->args.workspace_bytes = c->answer.workspace;
}

attune_code call_run(call *c, const attune_control *control, attune_error *error) {
    memset(error, 0, sizeof *error);
    const attune_code code = c->host->attention->run(c->host->instance, c->backend, &c->problem,
                                                     c->answer.plan, &c->args, &c->stream, control, error);
    for (int i = 0; i < GUARD; ++i)
        ck_assert_msg(c->memory[i] == 0xff && c->memory[GUARD + c->answer.workspace + (uint64_t)i] == 0xff,
                      "backend %u writes outside of its workspace", c->backend);
    return code;
}

void call_free(call *c) {
    free(c->memory);
    arrays_free(&c->arrays);
}
