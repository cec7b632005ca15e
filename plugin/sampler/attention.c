/* attention.c: attention problems, their binding and their calls. */
#include "plugin/sampler/attention.h"

static void set_strides(int64_t stride[4], const attention_view *view, int64_t head_dim) {
    stride[0] = view->batch;
    stride[1] = head_dim;
    stride[2] = view->row;
    stride[3] = 1;
}

static void describe(const pass *p, const attention_call *call, attune_attention_problem *problem) {
    memset(problem, 0, sizeof *problem);
    problem->struct_size = sizeof *problem;
    problem->mask = ATTUNE_MASK_NONE;
    problem->causal = call->causal;
    problem->batch = call->batch;
    problem->heads_q = problem->heads_kv = call->heads;
    problem->n_q = call->q.tokens;
    problem->n_k = call->k.tokens;
    problem->d_qk = problem->d_v = call->head_dim;
    problem->dtype = ATTUNE_F32;
    problem->determinism = p->determinism;
    problem->budget = UINT64_MAX;
    problem->device = p->device_id;
    problem->workers = p->run.stream->workers;
    set_strides(problem->stride_q, &call->q, call->head_dim);
    set_strides(problem->stride_k, &call->k, call->head_dim);
    set_strides(problem->stride_v, &call->v, call->head_dim);
    set_strides(problem->stride_out, &call->out, call->head_dim);
}

static attention_entry *find(pass *p, const attune_attention_problem *problem) {
    attune_attention_problem wanted = *problem;
    for (uint32_t i = 0; i < p->problems; ++i) {
        wanted.budget = p->attention[i].problem.budget;                    /* set when it was bound */
        if (memcmp(&p->attention[i].problem, &wanted, sizeof wanted) == 0) /* NOLINT: no padding */
            return &p->attention[i];
    }
    return NULL;
}

static attune_tensor tensor_of(const pass *p, const attention_call *call, const attention_view *view) {
    int64_t shape[4] = {call->batch, call->heads, view->tokens, call->head_dim};
    attune_tensor tensor = attune_tensor_view(view->data, ATTUNE_F32, p->device_id, 4, shape);
    set_strides(tensor.stride, view, call->head_dim);
    tensor.bytes = attune_tensor_span(&tensor);
    return tensor;
}

static attune_code list_problem(pass *p, const attune_attention_problem *problem, attune_error *error) {
    attention_entry *entry = find(p, problem);
    if (entry) {
        entry->phases |= 1u << p->phase;
        return ATTUNE_OK;
    }
    if (p->problems == ATTENTION_MAX_PROBLEMS)
        return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, "attention",
                           "more than %d attention problems", ATTENTION_MAX_PROBLEMS);
    entry = &p->attention[p->problems++];
    entry->problem = *problem;
    entry->phases = 1u << p->phase;
    return ATTUNE_OK;
}

/* Of which rows of heads · head_dim floats a view is made: those are finite, or *finite = 0. */
static attune_code look_at(pass *p, const attention_call *call, const attention_view *view, int32_t *finite,
                           attune_error *error) {
    int64_t rows = view->tokens * (view->batch ? call->batch : 1);
    return p->ops->finite(p->dev, &p->run, view->data, rows, call->heads * call->head_dim, view->row, finite,
                          error);
}

static attune_code fail_backend(const pass *p, const attention_call *call, const attune_bound *bound,
                                attune_error *error) {
    const char *query = p->ops->layer(call->query)->name[0], *dot = strrchr(query, '.');
    char name[DEVICE_NAME];
    (void)snprintf(name, sizeof name, "%.*s", (int)(dot ? (size_t)(dot - query) : strlen(query)), query);
    attune_code code = attune_fail(error, ATTUNE_OUT_OF_RANGE, SAMPLER_DOMAIN, name,
                                   "%s: attention '%s' by %s (%s) gives values that are not finite numbers, "
                                   "of queries, keys and values that are",
                                   p->part, name, bound->backend, bound->plugin);
    attune_hint(error, "ask for another backend with --attention");
    return code;
}

/* A backend is another's code, and may fail once and not again: what it gives is looked at each time, which
 * takes a thousandth of its own time. Where not all of it is finite though all that it got is, the fault is
 * its own; else the fault lies before it and is found at the walk's end. */
static attune_code check_result(pass *p, const attention_call *call, const attune_bound *bound,
                                attune_error *error) {
    const attention_view *inputs[] = {&call->q, &call->k, &call->v};
    int32_t finite;
    PASS_TRY(look_at(p, call, &call->out, &finite, error));
    if (finite)
        return ATTUNE_OK;
    for (int i = 0; i < 3; ++i) {
        PASS_TRY(look_at(p, call, inputs[i], &finite, error));
        if (!finite)
            return ATTUNE_OK;
    }
    return fail_backend(p, call, bound, error);
}

attune_code attention_run(pass *p, const attention_call *call, attune_error *error) {
    attune_attention_problem problem;
    attune_code code = pass_check(p, error);
    if (code != ATTUNE_OK)
        return code;
    describe(p, call, &problem);
    if (p->run.planning)
        return list_problem(p, &problem, error);
    const attention_entry *entry = find(p, &problem);
    if (!entry)
        return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, "attention",
                           "a problem that was not planned");
    attune_tensor q = tensor_of(p, call, &call->q), k = tensor_of(p, call, &call->k),
                  v = tensor_of(p, call, &call->v);
    attune_tensor out = tensor_of(p, call, &call->out);
    attune_attention_args args = {.struct_size = sizeof args, .q = &q, .k = &k, .v = &v, .out = &out};
    args.workspace = p->workspace;
    args.workspace_bytes = p->needs[p->phase].workspace;
    PASS_TRY(
        p->binder->attend(p->binder->context, entry->bound.binding, &args, p->run.stream, p->control, error));
    return check_result(p, call, &entry->bound, error);
}

attune_code attention_bind(pass *p, const attune_binder *binder, uint64_t budget, int32_t *determinism,
                           uint32_t *weakest, attune_error *error) {
    for (int32_t phase = 0; phase < PHASES; ++phase)
        p->needs[phase].workspace = 0;
    *determinism = ATTUNE_DETERMINISM_PORTABLE;
    *weakest = 0;
    p->binder = binder;
    for (uint32_t i = 0; i < p->problems; ++i) {
        attention_entry *entry = &p->attention[i];
        entry->problem.budget = budget;
        memset(&entry->bound, 0, sizeof entry->bound);
        entry->bound.struct_size = sizeof entry->bound;
        attune_code code = binder->bind(binder->context, &entry->problem, &entry->bound, error);
        if (code != ATTUNE_OK)
            return code;
        for (int32_t phase = 0; phase < PHASES; ++phase)
            if (entry->phases & 1u << phase && entry->bound.workspace > p->needs[phase].workspace)
                p->needs[phase].workspace = entry->bound.workspace;
        if (entry->bound.determinism < *determinism) {
            *determinism = entry->bound.determinism;
            *weakest = i;
        }
    }
    return ATTUNE_OK;
}
