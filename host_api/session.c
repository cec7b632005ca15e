/* session.c: one batch being made: the binder that gives a sampler its attention, and the calls that pass
 * through. */
#include "pictures.h"
#include "problem.h"
#include "structs.h"
#include <stdlib.h>

/* One attention problem of the session, bound. */
typedef struct bound {
    attune_attention_problem problem; /* as the sampler asked it */
    attune_binding *binding;
    atomic_uint_fast64_t calls;
} bound;

struct attune_session {
    attune_model *model;
    void *session; /* the plugin's */
    attune_stream stream;
    attune_binder binder;
    attune_wish wish; /* its strings are the three below */
    char attention[64];
    char vendor[64];
    char device[64];
    uint64_t memory_limit;
    int32_t determinism; /* asked of every part */
    bool failed;         /* a step went wrong: only close may follow */
    bool done;
    uint32_t count;
    uint32_t room;
    bound **bound;         /* in the order of binding: number i + 1 is the sampler's name for it */
    uint32_t *by_flops;    /* the same, most arithmetic first */
    attune_choice refused; /* of the problem that could not be bound; candidates 0 = none */
};

static uint64_t flops(const attune_session *session, uint32_t i) {
    return session->bound[i]->binding->chosen.answer.flops;
}

static void answer_bound(const attune_session *session, uint32_t i, attune_bound *out) {
    const attune_binding *binding = session->bound[i]->binding;
    const attune_attention_answer *answer = &binding->chosen.answer;
    attune_bound made = {.struct_size = out->struct_size,
                         .determinism = answer->determinism,
                         .workspace = answer->workspace,
                         .binding = i + 1};
    attune_text_copy(made.backend, sizeof made.backend, binding->choice.backend);
    attune_text_copy(made.plugin, sizeof made.plugin, binding->choice.plugin);
    memcpy(out, &made, out->struct_size < sizeof made ? out->struct_size : sizeof made);
}

static attune_code grow(attune_session *session) {
    if (session->count < session->room)
        return ATTUNE_OK;
    uint32_t room = session->room ? 2 * session->room : 32;
    bound **more = realloc(session->bound, room * sizeof(struct bound *));
    if (more)
        session->bound = more;
    uint32_t *order = realloc(session->by_flops, room * sizeof *order);
    if (order)
        session->by_flops = order;
    if (!more || !order)
        return ATTUNE_RESOURCE_EXHAUSTED;
    session->room = room;
    return ATTUNE_OK;
}

/* Keep the list sorted; of equals the one that was bound first. */
static void insert_by_flops(attune_session *session, uint32_t added) {
    uint32_t at = session->count;
    while (at > 0 && flops(session, session->by_flops[at - 1]) < flops(session, added)) {
        session->by_flops[at] = session->by_flops[at - 1];
        --at;
    }
    session->by_flops[at] = added;
}

static attune_code bind_new(attune_session *session, const attune_attention_problem *problem,
                            attune_error *error) {
    attune *host = session->model->host;
    attune_attention_problem asked = *problem;
    attune_chosen chosen;
    attune_choice choice;
    if (asked.determinism < session->determinism)
        asked.determinism = session->determinism;
    asked.chunks = session->wish.chunks;
    bound *one = calloc(1, sizeof *one);
    if (!one || grow(session)) {
        free(one);
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "bind",
                           "no memory for a binding");
    }
    one->problem = *problem;
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    memset(&choice, 0, sizeof choice);
    attune_code code = attune_choose_from(snapshot, &session->wish, &asked, &choice, &chosen, error);
    if (code)
        session->refused = choice;
    else {
        code = attune_binding_new(host, snapshot, &chosen, &asked, &choice, &one->binding, error);
        if (code)
            attune_generation_release(chosen.generation);
    }
    attune_snapshot_release(snapshot);
    if (code) {
        free(one);
        return code;
    }
    session->bound[session->count] = one;
    insert_by_flops(session, session->count);
    ++session->count;
    return ATTUNE_OK;
}

/* attune_binder.bind: equal problems share a binding, so that the records say what served which problem how
 * often. */
static attune_code bind(void *context, const attune_attention_problem *problem, attune_bound *out,
                        attune_error *error) {
    attune_session *session = context;
    attune_attention_problem known;
    attune_code code = attune_problem_check(problem, error);
    if (code)
        return code;
    memcpy(&known, problem, sizeof known);
    known.struct_size = sizeof known;
    for (uint32_t i = 0; i < session->count; ++i) /* the scale's bits count; there is no padding */
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
        if (memcmp(&session->bound[i]->problem, &known, sizeof known) == 0) {
            answer_bound(session, i, out);
            return ATTUNE_OK;
        }
    code = bind_new(session, &known, error);
    if (!code)
        answer_bound(session, session->count - 1, out);
    return code;
}

static attune_code attend(void *context, uint64_t binding, const attune_attention_args *args,
                          const attune_stream *stream, const attune_control *control, attune_error *error) {
    attune_session *session = context;
    if (binding < 1 || binding > session->count)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attend",
                           "binding %llu was never made", (unsigned long long)binding);
    bound *one = session->bound[binding - 1];
    (void)atomic_fetch_add_explicit(&one->calls, 1, memory_order_relaxed);
    return attune_attend(one->binding, args, stream, control, error);
}

static void keep_text(char *out, size_t size, const char *text, const char **kept) {
    if (!text)
        return;
    attune_text_copy(out, size, text);
    *kept = out;
}

static void keep_wish(attune_session *session, const attune_wish *wish, const attune_request *request) {
    session->wish = (attune_wish){.struct_size = sizeof session->wish};
    session->memory_limit = request->memory_limit;
    session->determinism = request->determinism;
    if (!wish)
        return;
    session->wish.required = wish->required;
    session->wish.threads = wish->threads;
    session->wish.min_memory = wish->min_memory;
    session->wish.chunks = wish->chunks;
    keep_text(session->attention, sizeof session->attention, wish->attention, &session->wish.attention);
    keep_text(session->vendor, sizeof session->vendor, wish->vendor, &session->wish.vendor);
    keep_text(session->device, sizeof session->device, wish->device, &session->wish.device);
    if (wish->memory_limit && wish->memory_limit < session->memory_limit)
        session->memory_limit = wish->memory_limit;
    if (wish->determinism > session->determinism)
        session->determinism = wish->determinism;
}

/* The plan is the plugin's word; the parts that the host knows itself are checked. */
static attune_code check_plan(attune_session *session, attune_session_plan *plan, attune_error *error) {
    const attune_generation *generation = session->model->generation;
    plan->limited_by[sizeof plan->limited_by - 1] = 0;
    if (!attune_determinism_name(plan->determinism) ||
        plan->determinism > generation->sampler_info.determinism)
        return attune_fail(error, ATTUNE_INTERNAL, generation->id, "session_begin",
                           "plans class %d, its table says %s", plan->determinism,
                           attune_text_class(generation->sampler_info.determinism));
    for (uint32_t i = 0; i < session->count; ++i) {
        const attune_choice *choice = &session->bound[i]->binding->choice;
        if (choice->determinism >= plan->determinism)
            continue;
        plan->determinism = choice->determinism;
        (void)snprintf(plan->limited_by, sizeof plan->limited_by, "attention by %s (%s)", choice->backend,
                       choice->plugin);
    }
    if (plan->determinism < session->determinism)
        return attune_fail(error, ATTUNE_UNAVAILABLE, generation->id, "session_begin",
                           "determinism class %s is asked for; the image keeps %s, limited by %s",
                           attune_text_class(session->determinism), attune_text_class(plan->determinism),
                           plan->limited_by);
    uint64_t bytes;
    if (__builtin_add_overflow(plan->activations, plan->workspace, &bytes) || bytes > session->memory_limit) {
        char needs[32], limit[32];
        attune_text_bytes(needs, bytes);
        attune_text_bytes(limit, session->memory_limit);
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, generation->id, "session_begin",
                           "the session needs %s besides the weights, the limit is %s", needs, limit);
    }
    return ATTUNE_OK;
}

static attune_code begin(attune_session *session, const attune_request *request,
                         const attune_control *control, attune_session_plan *plan, attune_error *error) {
    attune_model *model = session->model;
    attune_request asked;
    memcpy(&asked, request, sizeof asked);
    asked.struct_size = sizeof asked;
    asked.determinism = session->determinism;
    asked.memory_limit = session->memory_limit;
    if (session->determinism > model->generation->sampler_info.determinism)
        return attune_sampler_class_failure(model->generation, session->determinism, error);
    attune_code code = attune_stream_create(model->host, &model->generation->sampler_info.device,
                                            session->wish.threads, &session->stream, error);
    if (code)
        return code;
    plan->struct_size = sizeof *plan;
    attune_error reason = {.code = ATTUNE_OK};
    attune_pool_enter(model->host->pool);
    code = model->generation->sampler->session_begin(model->model, &asked, &session->binder, &session->stream,
                                                     control, &session->session, plan, &reason);
    attune_pool_leave(model->host->pool);
    if (attune_plugin_said(code, model->generation->id, "session_begin", &reason, error))
        session->session = NULL;
    return code ? code : check_plan(session, plan, error);
}

static attune_code check_open(const attune_model *model, const attune_request *request,
                              const attune_wish *wish, const attune_session_plan *plan,
                              const attune_choice *choice, attune_error *error) {
    if (!model)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_session_open",
                           "model is NULL");
    attune_code code = attune_struct_in(request, sizeof *request, "attune_request", error);
    if (!code && wish)
        code = attune_wish_check(wish, error);
    if (!code && plan)
        code = attune_struct_room(plan, sizeof *plan, "attune_session_plan", error);
    if (!code && choice)
        code = attune_struct_room(choice, sizeof *choice, "attune_choice", error);
    if (!code && (!attune_determinism_name(request->determinism) || request->reserved || request->reserved2))
        code = attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_request",
                           "determinism class %d is unknown, or a reserved field is not 0",
                           request->determinism);
    return code;
}

attune_code attune_session_open(attune_model *model, const attune_request *request, const attune_wish *wish,
                                const attune_control *control, attune_session **out,
                                attune_session_plan *plan, attune_choice *choice, attune_error *error) {
    attune_code code = check_open(model, request, wish, plan, choice, error);
    if (!code && control)
        code = attune_struct_in(control, sizeof *control, "attune_control", error);
    if (code)
        return code;
    attune_session *session = calloc(1, sizeof *session);
    if (!session)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_session_open",
                           "no memory for a session");
    session->model = model;
    (void)atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
    session->binder = (attune_binder){sizeof session->binder, 0, session, bind, attend};
    keep_wish(session, wish, request);
    attune_session_plan made;
    memset(&made, 0, sizeof made);
    code = begin(session, request, control, &made, error);
    if (choice) {
        session->refused.struct_size = sizeof session->refused;
        const attune_choice *told = !code && session->count
                                        ? &session->bound[session->by_flops[0]]->binding->choice
                                        : &session->refused;
        (void)attune_struct_out(choice, told, sizeof *told, "attune_choice", NULL);
    }
    if (code) {
        attune_session_close(session);
        return code;
    }
    if (plan)
        (void)attune_struct_out(plan, &made, sizeof made, "attune_session_plan", NULL);
    *out = session;
    return ATTUNE_OK;
}

void attune_session_close(attune_session *session) {
    if (!session)
        return;
    attune_model *model = session->model;
    if (session->session)
        model->generation->sampler->session_close(session->session);
    for (uint32_t i = 0; i < session->count; ++i) {
        attune_binding_release(session->bound[i]->binding);
        free(session->bound[i]);
    }
    attune_stream_destroy(&session->stream);
    free(session->bound);
    free(session->by_flops);
    free(session);
    attune_model_drop(model);
}

/* What may still be called: after an error only close. */
static attune_code check_alive(const attune_session *session, const attune_control *control,
                               attune_error *error) {
    if (!session)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_session",
                           "session is NULL");
    if (session->failed)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, "attune_session",
                           "an earlier step of this session failed: only close it");
    return control ? attune_struct_in(control, sizeof *control, "attune_control", error) : ATTUNE_OK;
}

static const attune_control no_control = {.struct_size = sizeof no_control};

attune_code attune_session_step(attune_session *session, const attune_control *control,
                                attune_progress *progress, attune_error *error) {
    attune_progress made = {.struct_size = sizeof made};
    attune_code code = check_alive(session, control, error);
    if (!code && progress)
        code = attune_struct_room(progress, sizeof *progress, "attune_progress", error);
    if (!code && session->done)
        code = attune_fail(error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, "attune_session_step",
                           "all steps are done");
    if (code)
        return code;
    attune_pool *pool = session->model->host->pool;
    attune_error reason = {.code = ATTUNE_OK};
    attune_pool_enter(pool);
    code = session->model->generation->sampler->session_step(session->session,
                                                             control ? control : &no_control, &made, &reason);
    attune_pool_leave(pool);
    (void)attune_plugin_said(code, session->model->generation->id, "session_step", &reason, error);
    session->failed = code != ATTUNE_OK;
    session->done = !code && made.done;
    return code || !progress ? code
                             : attune_struct_out(progress, &made, sizeof made, "attune_progress", error);
}

attune_code attune_session_preview(attune_session *session, uint32_t index, const attune_control *control,
                                   attune_image *image, attune_error *error) {
    attune_code code = check_alive(session, control, error);
    if (!code)
        code = attune_struct_in(image, sizeof *image, "attune_image", error);
    if (code)
        return code;
    attune_pool *pool = session->model->host->pool;
    attune_image known = *image;
    attune_error reason = {.code = ATTUNE_OK};
    known.struct_size = sizeof known;
    attune_pool_enter(pool);
    code = session->model->generation->sampler->session_preview(
        session->session, index, control ? control : &no_control, &known, &reason);
    attune_pool_leave(pool);
    (void)attune_plugin_said(code, session->model->generation->id, "session_preview", &reason, error);
    return code ? code : attune_struct_out(image, &known, sizeof known, "attune_image", error);
}

attune_code attune_session_image(attune_session *session, uint32_t index, attune_image *image,
                                 attune_error *error) {
    attune_code code = check_alive(session, NULL, error);
    if (!code)
        code = attune_struct_in(image, sizeof *image, "attune_image", error);
    if (code)
        return code;
    attune_image known = *image;
    attune_error reason = {.code = ATTUNE_OK};
    known.struct_size = sizeof known;
    code = session->model->generation->sampler->session_image(session->session, index, &known, &reason);
    (void)attune_plugin_said(code, session->model->generation->id, "session_image", &reason, error);
    return code ? code : attune_struct_out(image, &known, sizeof known, "attune_image", error);
}

attune_code attune_session_attention(attune_session *session, uint32_t i, attune_attention_record *out,
                                     attune_error *error) {
    if (!session || i >= session->count)
        return attune_fail(error, session ? ATTUNE_OUT_OF_RANGE : ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN,
                           "attune_session_attention", "record %u of %u", i, session ? session->count : 0);
    bound *one = session->bound[session->by_flops[i]];
    attune_attention_record record = {.struct_size = sizeof record,
                                      .calls = atomic_load_explicit(&one->calls, memory_order_relaxed),
                                      .problem = one->binding->problem,
                                      .choice = one->binding->choice};
    return attune_struct_out(out, &record, sizeof record, "attune_attention_record", error);
}
