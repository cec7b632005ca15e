/*
 * attention.h: the networks' attention, always through the host's binder. While planning, each distinct
 * problem is listed; then attention_bind asks the host who serves it; then attention_run has it done.
 */
#ifndef ATTUNE_SAMPLER_ATTENTION_H
#define ATTUNE_SAMPLER_ATTENTION_H

#include "plugin/sampler/pass.h"

/* Rows of tokens seen as (batch, head, token, channel): the heads' channels lie side by side in a row, as
 * linear layers leave them. */
typedef struct attention_view {
    float *data;
    int64_t tokens;
    int64_t row;   /* floats from a token to the next */
    int64_t batch; /* floats from a batch entry to the next; 0: all share one */
} attention_view;

typedef struct attention_call {
    int64_t batch;
    int64_t heads;
    int64_t head_dim;
    int32_t causal;
    attention_view q;
    attention_view k;
    attention_view v;
    attention_view out;
    const device_weights *query; /* the layer that made q: errors call the attention by it */
} attention_call;

/* [session] softmax(q kᵀ / √head_dim) v. Errors: the backend's; OUT_OF_RANGE (a result that is not finite, of
 * queries, keys and values that are: layer, backend and its plugin are named); INTERNAL (more problems than
 * fit). */
attune_code attention_run(pass *p, const attention_call *call, attune_error *error);

/* [session] Bind every listed problem with at most `budget` bytes of workspace each; each phase's needs get
 * its largest. *determinism the lowest class kept and *weakest its problem's index (problems = 0:
 * PORTABLE). Errors: the binder's. */
attune_code attention_bind(pass *p, const attune_binder *binder, uint64_t budget, int32_t *determinism,
                           uint32_t *weakest, attune_error *error);

#endif
