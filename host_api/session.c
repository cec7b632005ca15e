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
    attune_binding *next; /* while a move is being prepared */
    uint32_t first_unit;
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
    bound **bound;             /* in the order of binding: number i + 1 is the sampler's name for it */
    uint32_t *by_flops;        /* the same, most arithmetic first */
    attune_choice refused;     /* of the problem that could not be bound; candidates 0 = none */
    attune_snapshot *snapshot; /* what its bindings are chosen from: one view for all of them */
    attune_snapshot *declined; /* the one that it did not move to */
    uint64_t workspace;        /* the largest that its memory was planned for */
    int32_t promised;          /* the plan's class */
    uint32_t units;            /* steps taken */
    uint32_t moves;
    uint32_t past_count;
    attune_attention_record *past; /* what served before the moves */
    char stayed[256];
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

/* Choose a backend of `snapshot` for a problem of the sampler's. `choice` is filled on failure too. */
static attune_code choose_for(const attune_session *session, const attune_snapshot *snapshot,
                              const attune_attention_problem *problem, attune_choice *choice,
                              attune_binding **out, attune_error *error) {
    attune_attention_problem asked = *problem;
    attune_chosen chosen;
    if (asked.determinism < session->determinism)
        asked.determinism = session->determinism;
    asked.chunks = session->wish.chunks;
    memset(choice, 0, sizeof *choice);
    attune_code code = attune_choose_from(snapshot, &session->wish, &asked, choice, &chosen, error);
    if (code)
        return code;
    code = attune_binding_new(session->model->host, snapshot, &chosen, &asked, choice, out, error);
    if (code)
        attune_generation_release(chosen.generation);
    return code;
}

static attune_code bind_new(attune_session *session, const attune_attention_problem *problem,
                            attune_error *error) {
    attune_choice choice;
    bound *one = calloc(1, sizeof *one);
    if (!one || grow(session)) {
        free(one);
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "bind",
                           "no memory for a binding");
    }
    one->problem = *problem;
    one->first_unit = session->units;
    attune_code code = choose_for(session, session->snapshot, problem, &choice, &one->binding, error);
    if (code) {
        session->refused = choice;
        free(one);
        return code;
    }
    if (one->binding->chosen.answer.workspace > session->workspace)
        session->workspace = one->binding->chosen.answer.workspace;
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
    session->wish.swap = wish->swap;
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
    if (__builtin_add_overflow(plan->activations, plan->workspace, &bytes) ||
        __builtin_add_overflow(plan->weights, bytes, &bytes) || bytes > session->memory_limit) {
        char needs[32], limit[32];
        attune_text_bytes(needs, bytes);
        attune_text_bytes(limit, session->memory_limit);
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, generation->id, "session_begin",
                           "the session needs %s, the limit is %s", needs, limit);
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
    ++attune_inside;
    code = model->generation->sampler->session_begin(model->model, &asked, &session->binder, &session->stream,
                                                     control, &session->session, plan, &reason);
    --attune_inside;
    if (attune_plugin_said(code, model->generation->id, "session_begin", &reason, error))
        session->session = NULL;
    if (!code)
        code = check_plan(session, plan, error);
    session->promised = plan->determinism;
    return code;
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
    if (!code && (!attune_determinism_name(request->determinism) || request->memory > ATTUNE_MEMORY_LEAST ||
                  request->reserved2))
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
    session->snapshot = attune_snapshot_acquire(model->host);
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
    attune_snapshot_release(session->snapshot);
    attune_snapshot_release(session->declined);
    free(session->past);
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

/* ---- moving to the generations that a swap brought ---- */

/* What a session may not move to: more workspace than was planned, or less than was promised. */
static attune_code check_move(const attune_session *session, const attune_binding *old,
                              const attune_binding *next, attune_error *error) {
    const attune_choice *was = &old->choice, *is = &next->choice;
    uint64_t needs = next->chosen.answer.workspace;
    if (needs > session->workspace)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, is->plugin,
                           "%s (%s %s) needs %llu bytes of workspace, the session was planned with %llu",
                           is->backend, is->plugin, is->version, (unsigned long long)needs,
                           (unsigned long long)session->workspace);
    if (is->determinism < session->promised)
        return attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, is->plugin,
                           "%s (%s %s) keeps %s, the session promised %s", is->backend, is->plugin,
                           is->version, attune_text_class(is->determinism),
                           attune_text_class(session->promised));
    bool same_bits = was->generation == is->generation || (strcmp(was->arithmetic, is->arithmetic) == 0 &&
                                                           was->determinism >= ATTUNE_DETERMINISM_INVARIANT &&
                                                           is->determinism >= ATTUNE_DETERMINISM_INVARIANT);
    if (!same_bits && session->determinism > ATTUNE_DETERMINISM_NONE)
        return attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, is->plugin,
                           "%s (%s %s, arithmetic %s) would change the bits of an image that was asked for "
                           "as %s (so far arithmetic %s)",
                           is->backend, is->plugin, is->version, is->arithmetic,
                           attune_text_class(session->determinism), was->arithmetic);
    return ATTUNE_OK;
}

/* Every problem bound anew, or none. */
static attune_code prepare_move(attune_session *session, const attune_snapshot *snapshot,
                                attune_error *error) {
    attune_choice choice;
    attune_code code = ATTUNE_OK;
    for (uint32_t i = 0; i < session->count && !code; ++i) {
        bound *one = session->bound[i];
        code = choose_for(session, snapshot, &one->problem, &choice, &one->next, error);
        if (!code)
            code = check_move(session, one->binding, one->next, error);
    }
    attune_attention_record *past =
        code ? NULL
             : realloc(session->past, (session->past_count + session->count + 1) * sizeof *session->past);
    if (past)
        session->past = past;
    else if (!code)
        code = attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_session_step",
                           "no memory to move to another generation");
    for (uint32_t i = 0; i < session->count && code; ++i) {
        attune_binding_release(session->bound[i]->next);
        session->bound[i]->next = NULL;
    }
    return code;
}

static attune_attention_record record_of(const bound *one) {
    return (attune_attention_record){.struct_size = sizeof(attune_attention_record),
                                     .first_unit = one->first_unit,
                                     .calls = atomic_load_explicit(&one->calls, memory_order_relaxed),
                                     .problem = one->binding->problem,
                                     .choice = one->binding->choice};
}

/* The moment of the move. What stays with the same generation keeps its binding and its count. */
static void take_move(attune_session *session) {
    uint32_t moved = 0;
    for (uint32_t i = session->count; i-- > 0;) {
        bound *one = session->bound[session->by_flops[i]];
        attune_binding *old = one->binding, *next = one->next;
        one->next = NULL;
        if (old->choice.generation == next->choice.generation &&
            strcmp(old->choice.backend, next->choice.backend) == 0) {
            attune_binding_release(next);
            continue;
        }
        if (atomic_load(&one->calls)) /* else it never served */
            session->past[session->past_count++] = record_of(one);
        one->binding = next;
        one->first_unit = session->units;
        atomic_store(&one->calls, 0);
        attune_binding_release(old);
        ++moved;
    }
    session->moves += moved > 0;
}

/* At a step boundary: where the registry has changed, move, or say why not and go on as before. */
static void follow_swap(attune_session *session) {
    attune_error reason = {.code = ATTUNE_OK};
    attune_snapshot *now = attune_snapshot_acquire(session->model->host);
    if (now == session->snapshot || now == session->declined) {
        attune_snapshot_release(now);
        return;
    }
    attune_snapshot **place = &session->snapshot;
    if (prepare_move(session, now, &reason) == ATTUNE_OK) {
        take_move(session);
        *session->stayed = 0;
    } else {
        place = &session->declined;
        (void)snprintf(session->stayed, sizeof session->stayed, "%.250s", reason.message);
        attune_log(&session->model->host->logger, ATTUNE_LOG_INFO, session->model->generation->id,
                   "a session stays with the generations that it began with: %s", reason.message);
    }
    attune_snapshot_release(*place);
    *place = now;
}

/* Of record i: first what serves, then what served. */
static uint64_t generation_of(const attune_session *session, uint32_t i) {
    return i < session->count ? session->bound[i]->binding->choice.generation
                              : session->past[i - session->count].choice.generation;
}

attune_code attune_session_moved(attune_session *session, attune_session_moves *out, attune_error *error) {
    if (!session)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_session_moved",
                           "session is NULL");
    attune_session_moves moves = {.struct_size = sizeof moves, .moves = session->moves};
    attune_text_copy(moves.stayed, sizeof moves.stayed, session->stayed);
    uint32_t count = session->count + session->past_count;
    for (uint32_t i = 0; i < count; ++i) {
        bool known = i < session->count && atomic_load(&session->bound[i]->calls) == 0;
        for (uint32_t k = 0; k < i && !known; ++k)
            known = generation_of(session, k) == generation_of(session, i) &&
                    !(k < session->count && atomic_load(&session->bound[k]->calls) == 0);
        moves.generations += !known;
    }
    return attune_struct_out(out, &moves, sizeof moves, "attune_session_moves", error);
}

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
    if (session->wish.swap == ATTUNE_SWAP_STEP)
        follow_swap(session);
    attune_error reason = {.code = ATTUNE_OK};
    ++attune_inside;
    code = session->model->generation->sampler->session_step(session->session,
                                                             control ? control : &no_control, &made, &reason);
    --attune_inside;
    (void)attune_plugin_said(code, session->model->generation->id, "session_step", &reason, error);
    session->failed = code != ATTUNE_OK;
    session->done = !code && made.done;
    ++session->units;
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
    attune_image known = *image;
    attune_error reason = {.code = ATTUNE_OK};
    known.struct_size = sizeof known;
    ++attune_inside;
    code = session->model->generation->sampler->session_preview(
        session->session, index, control ? control : &no_control, &known, &reason);
    --attune_inside;
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
    uint32_t count = session ? session->count + session->past_count : 0;
    if (i >= count)
        return attune_fail(error, session ? ATTUNE_OUT_OF_RANGE : ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN,
                           "attune_session_attention", "record %u of %u", i, count);
    attune_attention_record record =
        i < session->count ? record_of(session->bound[session->by_flops[i]]) : session->past[count - 1 - i];
    return attune_struct_out(out, &record, sizeof record, "attune_attention_record", error);
}
