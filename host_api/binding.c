/* binding.c: a chosen backend for one problem: choosing it, running it, streams and workspaces. */
#include "choose.h"
#include "problem.h"
#include "structs.h"
#include <stdlib.h>

static const attune_wish no_wish = {.struct_size = sizeof no_wish};

attune_code attune_binding_new(attune *host, const attune_snapshot *snapshot, const attune_chosen *chosen,
                               const attune_attention_problem *problem, const attune_choice *choice,
                               attune_binding **out, attune_error *error) {
    attune_binding *binding = calloc(1, sizeof *binding);
    if (!binding)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_choose",
                           "no memory for a binding");
    const attune_device_info *device = attune_snapshot_find_device(
        snapshot, &problem->device, NULL, &binding->device_owner, &binding->device_index);
    binding->host = host;
    attune_host_hold(host);
    binding->chosen = *chosen;
    binding->problem = *problem;
    binding->choice = *choice;
    binding->alignment = device ? device->alignment : 64;
    if (problem->device.type == ATTUNE_DEVICE_CPU)
        binding->device_owner = NULL; /* the host makes a CPU's workspaces */
    if (binding->device_owner)
        (void)attune_generation_lease(binding->device_owner);
    *out = binding;
    return ATTUNE_OK;
}

attune_code attune_choose(attune *host, const attune_wish *wish, const attune_attention_problem *problem,
                          attune_choice *choice, attune_binding **binding, attune_error *error) {
    attune_attention_problem asked;
    attune_choice rows;
    attune_chosen chosen;
    if (!host)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_choose", "host is NULL");
    attune_code code = wish ? attune_wish_check(wish, error) : ATTUNE_OK;
    if (!code)
        code = attune_problem_check(problem, error);
    if (!code && choice)
        code = attune_struct_room(choice, sizeof *choice, "attune_choice", error);
    if (code)
        return code;
    memcpy(&asked, problem, sizeof asked);
    asked.struct_size = sizeof asked;
    if (wish) {
        asked.determinism = wish->determinism;
        asked.budget = wish->memory_limit ? wish->memory_limit : UINT64_MAX;
        asked.chunks = wish->chunks;
    }
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    code = attune_choose_from(snapshot, wish ? wish : &no_wish, &asked, &rows, &chosen, error);
    if (choice && (code == ATTUNE_OK || code == ATTUNE_UNAVAILABLE || code == ATTUNE_NOT_FOUND))
        (void)attune_struct_out(choice, &rows, sizeof rows, "attune_choice", NULL);
    if (!code) {
        attune_code bound =
            binding ? attune_binding_new(host, snapshot, &chosen, &asked, &rows, binding, error) : ATTUNE_OK;
        if (bound || !binding)
            attune_generation_release(chosen.generation);
        code = bound;
    }
    attune_snapshot_release(snapshot);
    return code;
}

void attune_binding_release(attune_binding *binding) {
    if (!binding)
        return;
    attune *host = binding->host;
    attune_services_free(&binding->chosen.generation->services, atomic_load(&binding->spare));
    attune_generation_release(binding->chosen.generation);
    attune_generation_release(binding->device_owner);
    free(binding);
    attune_host_drop(host);
}

static attune_code run(attune_binding *binding, const attune_attention_args *args,
                       const attune_stream *stream, const attune_control *control, attune_error *error) {
    const attune_chosen *chosen = &binding->chosen;
    attune_error reason = {.code = ATTUNE_OK};
    ++attune_inside;
    attune_code code =
        chosen->generation->attention->run(chosen->generation->instance, chosen->index, &binding->problem,
                                           chosen->answer.plan, args, stream, control, &reason);
    --attune_inside;
    return attune_plugin_said(code, chosen->generation->id, "run", &reason, error);
}

/* On a CPU one workspace is kept with the binding for the next call; a call that runs beside another makes
 * its own. */
static attune_code run_on_cpu(attune_binding *binding, attune_attention_args *args,
                              const attune_stream *stream, const attune_control *control,
                              attune_error *error) {
    attune_services *services = &binding->chosen.generation->services;
    void *workspace = atomic_exchange(&binding->spare, NULL), *none = NULL;
    if (!workspace)
        workspace = attune_services_alloc(services, binding->chosen.answer.workspace, "workspace");
    if (!workspace) {
        char needs[32];
        attune_text_bytes(needs, binding->chosen.answer.workspace);
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_attend",
                           "no memory for %s of workspace", needs);
    }
    args->workspace = workspace;
    args->workspace_bytes = binding->chosen.answer.workspace;
    attune_code code = run(binding, args, stream, control, error);
    if (!atomic_compare_exchange_strong(&binding->spare, &none, workspace))
        attune_services_free(services, workspace);
    return code;
}

/* Elsewhere the work is only enqueued, so a workspace of ours has to be waited for: the simple path, not the
 * fast one. */
static attune_code run_on_device(attune_binding *binding, attune_attention_args *args,
                                 const attune_stream *stream, const attune_control *control,
                                 attune_error *error) {
    attune_generation *owner = binding->device_owner;
    if (!owner)
        return attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, "attune_attend",
                           "no loaded plugin drives the device, so the caller must give the workspace");
    args->workspace_bytes = binding->chosen.answer.workspace;
    attune_code code = owner->device->alloc(owner->instance, binding->device_index, args->workspace_bytes,
                                            &args->workspace, error);
    if (code)
        return code;
    code = run(binding, args, stream, control, error);
    attune_error late;
    attune_code waited = owner->device->stream_synchronize(owner->instance, stream, &late);
    owner->device->free(owner->instance, binding->device_index, args->workspace);
    if (!code && waited && error)
        *error = late;
    return code ? code : waited;
}

static attune_code check_workspace(const attune_binding *binding, const attune_attention_args *args,
                                   attune_error *error) {
    uint64_t needs = binding->chosen.answer.workspace;
    if (args->workspace_bytes < needs)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_attend",
                           "the workspace has %llu bytes, %s needs %llu",
                           (unsigned long long)args->workspace_bytes, binding->choice.backend,
                           (unsigned long long)needs);
    if (needs && (uintptr_t)args->workspace % binding->alignment != 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_attend",
                           "the workspace is not aligned to %llu bytes",
                           (unsigned long long)binding->alignment);
    return ATTUNE_OK;
}

static attune_code check_stream(const attune_binding *binding, const attune_stream *stream,
                                attune_error *error) {
    attune_code code = attune_struct_in(stream, sizeof *stream, "attune_stream", error);
    if (code)
        return code;
    if (!attune_device_same(&stream->device, &binding->problem.device))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_attend",
                           "the stream is of another device than the tensors");
    if (stream->device.type != ATTUNE_DEVICE_CPU)
        return ATTUNE_OK;
    if (stream->native != binding->host->pool || stream->workers < 1)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_attend",
                           "the stream is not one of this host: make it with attune_stream_create");
    if (stream->workers > binding->problem.workers) {
        (void)attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_attend",
                          "the stream has %u workers, the problem was chosen for %u", stream->workers,
                          binding->problem.workers);
        attune_hint(error, "set problem.workers to the stream's before attune_choose");
        return ATTUNE_INVALID_ARGUMENT;
    }
    return ATTUNE_OK;
}

attune_code attune_attend(attune_binding *binding, const attune_attention_args *args,
                          const attune_stream *stream, const attune_control *control, attune_error *error) {
    static const attune_control no_control = {.struct_size = sizeof no_control};
    attune_views views;
    if (!binding)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_attend", "binding is NULL");
    attune_code code =
        control ? attune_struct_in(control, sizeof *control, "attune_control", error) : ATTUNE_OK;
    if (!code)
        code = check_stream(binding, stream, error);
    if (!code)
        code = attune_views_check(&binding->problem, args, &views, error);
    if (code)
        return code;
    if (!control)
        control = &no_control;
    if (views.args.workspace) {
        code = check_workspace(binding, &views.args, error);
        return code ? code : run(binding, &views.args, stream, control, error);
    }
    if (!binding->chosen.answer.workspace)
        return run(binding, &views.args, stream, control, error);
    return stream->device.type == ATTUNE_DEVICE_CPU
               ? run_on_cpu(binding, &views.args, stream, control, error)
               : run_on_device(binding, &views.args, stream, control, error);
}

/* ---- streams ---- */

attune_code attune_stream_create(attune *host, const attune_device_id *device, uint32_t threads,
                                 attune_stream *out, attune_error *error) {
    if (!host || !device || !out)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_stream_create",
                           "an argument is NULL");
    attune_stream stream = {.struct_size = sizeof stream, .device = *device};
    attune_generation *owner = NULL;
    uint32_t index = 0, most = attune_pool_threads(host->pool);
    attune_code code = ATTUNE_OK;
    if (device->type == ATTUNE_DEVICE_CPU) {
        stream.native = host->pool;
        stream.workers = threads && threads < most ? threads : most;
    }
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    /* A CPU's stream is the host's pool: to lease its plugin would keep an old one for as long as a model. */
    if (device->type != ATTUNE_DEVICE_CPU &&
        attune_snapshot_find_device(snapshot, device, NULL, &owner, &index)) {
        code = owner->device->stream_create(owner->instance, index, &stream, error);
        stream.owner = code ? NULL : attune_generation_lease(owner);
    } else if (device->type != ATTUNE_DEVICE_CPU)
        code = attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, "attune_stream_create",
                           "no loaded plugin drives this device");
    attune_snapshot_release(snapshot);
    if (!code)
        *out = stream;
    return code;
}

void attune_stream_destroy(attune_stream *stream) {
    attune_generation *owner = stream ? stream->owner : NULL;
    if (!stream)
        return;
    if (owner) {
        owner->device->stream_destroy(owner->instance, stream);
        attune_generation_release(owner);
    }
    memset(stream, 0, sizeof *stream);
}

attune_code attune_cpu_device(attune *host, attune_device_id *out, attune_error *error) {
    if (!host || !out)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_cpu_device",
                           "an argument is NULL");
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    bool found = false;
    for (uint32_t i = 0; i < snapshot->count && !found; ++i)
        for (uint32_t k = 0; k < snapshot->generation[i]->device_count && !found; ++k) {
            found = snapshot->generation[i]->devices[k].id.type == ATTUNE_DEVICE_CPU;
            if (found)
                *out = snapshot->generation[i]->devices[k].id;
        }
    attune_snapshot_release(snapshot);
    if (found)
        return ATTUNE_OK;
    (void)attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, "attune_cpu_device",
                      "no loaded plugin drives the CPU");
    attune_hint(error, "load one with the interface %s", ATTUNE_DEVICE_INTERFACE);
    return ATTUNE_UNAVAILABLE;
}
