/* model.c: opening a model with the sampler that the wish lets through. */
#include "pictures.h"
#include "structs.h"
#include <stdlib.h>

static const attune_wish no_wish = {.struct_size = sizeof no_wish};

attune_code attune_sampler_class_failure(const attune_generation *generation, int32_t wanted,
                                         attune_error *error) {
    const attune_sampler_info *info = &generation->sampler_info;
    const char *kept = attune_text_class(info->determinism);
    (void)attune_fail(error, ATTUNE_UNAVAILABLE, generation->id, info->name,
                      "determinism class %s is asked for; the sampler %s (%s) keeps %s, limited by %s",
                      attune_text_class(wanted), info->name, generation->id, kept,
                      *info->limited_by ? info->limited_by : "its own arithmetic");
    attune_hint(error, "ask for %s, or load a sampler that keeps %s", kept, attune_text_class(wanted));
    return ATTUNE_UNAVAILABLE;
}

/* The first sampler that passes the filters, leased. */
static attune_code choose_sampler(attune *host, const attune_wish *wish, attune_generation **out,
                                  attune_error *error) {
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    attune_code code = attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, "attune_model_open",
                                   "no sampler plugin is loaded");
    const attune_generation *refused = attune_snapshot_refused(snapshot);
    if (refused)
        attune_hint(error, "%s was refused: %s", refused->id, refused->refused);
    else
        attune_hint(error, "load a plugin with the interface %s", ATTUNE_SAMPLER_INTERFACE);
    for (uint32_t i = 0; i < snapshot->count && code; ++i) {
        attune_generation *generation = snapshot->generation[i];
        const attune_sampler_info *info = &generation->sampler_info;
        char reason[192];
        if (!generation->sampler)
            continue;
        if (attune_wish_device(snapshot, wish, &info->device, info->vendor, generation->sampler_memory_min,
                               reason) != ATTUNE_FILTER_PASSED)
            (void)attune_fail(error, ATTUNE_UNAVAILABLE, generation->id, info->name,
                              "no sampler can serve this: %s (%s): %s", info->name, generation->id, reason);
        else if (info->determinism < wish->determinism)
            (void)attune_sampler_class_failure(generation, wish->determinism, error);
        else {
            *out = attune_generation_lease(generation);
            code = ATTUNE_OK;
        }
    }
    attune_snapshot_release(snapshot);
    return code;
}

attune_code attune_model_open(attune *host, const char *path, const attune_wish *wish,
                              const attune_control *control, attune_model **out, attune_error *error) {
    return attune_model_open_with(host, path, NULL, wish, control, out, error);
}

/* What the sampler is told: the caller's options, and of the host what they leave open. */
static attune_model_options options_for(const attune *host, const attune_model_options *given) {
    attune_model_options options = {.struct_size = sizeof options, .vocabulary = host->vocabulary};
    if (given && given->vocabulary)
        options.vocabulary = given->vocabulary;
    if (given)
        options.config = given->config;
    return options;
}

attune_code attune_model_open_with(attune *host, const char *path, const attune_model_options *given,
                                   const attune_wish *wish, const attune_control *control, attune_model **out,
                                   attune_error *error) {
    static const attune_control no_control = {.struct_size = sizeof no_control};
    attune_error reason;
    memset(&reason, 0, sizeof reason);
    if (!host || !path || !out)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_model_open",
                           "an argument is NULL");
    attune_code code = wish ? attune_wish_check(wish, error) : ATTUNE_OK;
    if (!code && control)
        code = attune_struct_in(control, sizeof *control, "attune_control", error);
    if (!code && given)
        code = attune_struct_in(given, sizeof *given, "attune_model_options", error);
    if (code)
        return code;
    attune_model *model = calloc(1, sizeof *model);
    if (!model)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, path,
                           "no memory to open the model");
    atomic_init(&model->references, 1);
    model->host = host;
    code = choose_sampler(host, wish ? wish : &no_wish, &model->generation, &reason);
    if (!code)
        code =
            attune_stream_create(host, &model->generation->sampler_info.device, 0, &model->stream, &reason);
    if (code) {
        attune_generation_release(model->generation);
        free(model);
        if (error)
            *error = reason;
        return code;
    }
    const attune_model_options options = options_for(host, given);
    attune_generation *generation = model->generation;
    attune_host_hold(host);
    ++attune_inside;
    code = generation->sampler->model_open(generation->instance, path, &options, &model->stream,
                                           control ? control : &no_control, &model->model, &reason);
    --attune_inside;
    if (!code) {
        *out = model;
        return ATTUNE_OK;
    }
    (void)attune_plugin_said(code, generation->id, "model_open", &reason, error);
    model->model = NULL;
    attune_model_drop(model);
    return code;
}

void attune_model_drop(attune_model *model) {
    if (atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) != 1)
        return;
    attune *host = model->host;
    if (model->model)
        model->generation->sampler->model_close(model->model);
    attune_stream_destroy(&model->stream);
    attune_generation_release(model->generation);
    free(model);
    attune_host_drop(host);
}

void attune_model_close(attune_model *model) {
    if (model)
        attune_model_drop(model);
}

attune_code attune_model_describe(attune_model *model, attune_model_info *out, attune_error *error) {
    attune_model_info info = {.struct_size = sizeof info};
    if (!model)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_model_describe",
                           "model is NULL");
    attune_code code = model->generation->sampler->model_describe(model->model, &info, error);
    return code ? code : attune_struct_out(out, &info, sizeof info, "attune_model_info", error);
}

attune_code attune_model_sampler(attune_model *model, attune_sampler_info *info, attune_plugin_status *plugin,
                                 attune_error *error) {
    attune_plugin_status status;
    if (!model)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_model_sampler",
                           "model is NULL");
    attune_generation_status(model->generation, &status);
    attune_code code = info ? attune_struct_out(info, &model->generation->sampler_info, sizeof *info,
                                                "attune_sampler_info", error)
                            : ATTUNE_OK;
    if (!code && plugin)
        code = attune_struct_out(plugin, &status, sizeof status, "attune_plugin_status", error);
    return code;
}
