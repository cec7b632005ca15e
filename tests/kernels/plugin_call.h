/*
 * tests/kernels/plugin_call.h: one call of a backend of attune-cpu, made of a case: its arrays, problem,
 * answer and workspace.
 */
#ifndef ATTUNE_TEST_KERNELS_PLUGIN_CALL_H
#define ATTUNE_TEST_KERNELS_PLUGIN_CALL_H

#include "tests/kernels/cases.h"
#include "tests/kernels/plugin_host.h"

typedef struct call {
    const plugin_host *host;
    uint32_t backend;
    attention_arrays arrays; /* empty where they are the caller's */
    attune_attention_problem problem;
    attune_attention_answer answer;
    attune_tensor q, k, v, mask, out;
    attune_attention_args args;
    attune_stream stream;
    unsigned char *memory; /* the workspace between its guards */
} call;

/* Asks backend `backend`, which must serve the problem, for `workers` workers; the arrays are the caller's
 * and outlive the call. */
void call_of(call *c, const plugin_host *host, uint32_t backend, const attune_attention_f32 *args,
             uint32_t workers);
/* The same with arrays made of a case, the call's own. */
void call_make(call *c, const plugin_host *host, uint32_t backend, const attention_case *from,
               uint32_t workers);
/* Asks again, after a change of the problem that leaves it served, and makes the workspace of the answer. */
void call_ask(call *c);
/* Runs it; fails the test where anything outside of the workspace was written. */
attune_code call_run(call *c, const attune_control *control, attune_error *error);
void call_free(call *c);

#endif
