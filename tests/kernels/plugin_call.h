/*
 * tests/kernels/plugin_call.h: a call of a plugin's attention made of a kernel's problem.
 */
#ifndef ATTUNE_TEST_KERNELS_PLUGIN_CALL_H
#define ATTUNE_TEST_KERNELS_PLUGIN_CALL_H

#include "tests/kernels/cases.h"
#include "tests/kernels/plugin_host.h"

typedef struct plugin_call {
    plugin_host *host;
    uint32_t backend;
    attention_arrays arrays; /* for the caller's use */
    attune_attention_problem problem;
    attune_attention_answer answer;
    attune_tensor q, k, v, mask, out;
    attune_attention_args args; /* with a workspace of what the answer says */
    attune_stream stream;
} plugin_call;

/* Query `backend` for a float problem whose arrays outlive the call; fails the test unless it is served. */
void plugin_call_make(plugin_call *c, plugin_host *host, uint32_t backend, const attune_attention_f32 *args,
                      uint32_t workers);
attune_code plugin_call_run(plugin_call *c, const attune_control *control, attune_error *error);
/* Frees the workspace. */
void plugin_call_free(plugin_call *c);

#endif
