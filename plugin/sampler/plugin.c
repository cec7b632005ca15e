/* plugin.c: entry and life of the sampler plugin, and its table of attune.sampler/1. */
#include "kernels/arithmetic.h"
#include "plugin/sampler/session.h"

typedef struct instance {
    services host;
    const device_ops *ops;
    device *dev;
} instance;

/* A caller's struct must hold all of this revision. */
static attune_code check_size(uint32_t size, size_t needed, const char *where, attune_error *error) {
    if (size >= needed)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, where,
                       "struct_size %u is less than the %zu bytes of this revision", size, needed);
}

static attune_code check_control(const attune_control *control, attune_error *error) {
    return control ? check_size(control->struct_size, sizeof *control, "attune_control", error) : ATTUNE_OK;
}

static attune_code find_service(const attune_host *host, const char *id, uint32_t needed, const void **out,
                                attune_error *error) {
    uint32_t size = 0;
    *out = host->get_service(host, id);
    if (*out)
        memcpy(&size, *out, sizeof size); /* each service's first member */
    if (size < needed)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, SAMPLER_DOMAIN, id,
                           "the host does not offer %s", id);
    return ATTUNE_OK;
}

static attune_code find_services(const attune_host *host, services *out, attune_error *error) {
    const void *memory = NULL, *log = NULL, *parallel = NULL, *clock = NULL;
    PASS_TRY(find_service(host, "attune.memory/1", sizeof *out->memory, &memory, error));
    PASS_TRY(find_service(host, "attune.log/1", sizeof *out->log, &log, error));
    PASS_TRY(find_service(host, "attune.parallel/1", sizeof *out->parallel, &parallel, error));
    PASS_TRY(find_service(host, "attune.clock/1", sizeof *out->clock, &clock, error));
    *out = (services){memory, log, parallel, clock};
    return ATTUNE_OK;
}

static void destroy(void *handle) {
    instance *self = handle;
    if (!self)
        return;
    services host = self->host;
    if (self->dev)
        self->ops->destroy(self->dev);
    services_free(&host, self);
}

static attune_code create(const attune_host *host, void **out, attune_error *error) {
    services found;
    if (!host || !out || host->struct_size < sizeof *host)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "create",
                           "no host, or an older one");
    PASS_TRY(find_services(host, &found, error));
    instance *self = services_clear_alloc(&found, 1, sizeof *self, "instance");
    if (!self)
        return services_no_memory("instance", sizeof *self, error);
    self->host = found;
    self->ops = device_ops_get();
    attune_code code = self->ops->create(&self->host, &self->dev, error);
    if (code == ATTUNE_OK)
        *out = self;
    else
        destroy(self);
    return code;
}

static attune_code quiesce(void *handle, attune_error *error) {
    (void)handle; /* no session is left: nothing is under way */
    (void)error;
    return ATTUNE_OK;
}

static attune_code describe(void *handle, attune_sampler_info *out, attune_error *error) {
    instance *self = handle;
    PASS_TRY(check_size(out->struct_size, sizeof *out, "attune_sampler_info", error));
    memset(out, 0, sizeof *out);
    out->struct_size = sizeof *out;
    out->determinism = self->ops->determinism;
    self->ops->describe(self->dev, &out->device, out->vendor);
    (void)snprintf(out->name, sizeof out->name, "stable-diffusion");
    (void)snprintf(out->label, sizeof out->label, "Stable Diffusion 1.x");
    (void)snprintf(out->arithmetic, sizeof out->arithmetic, "%s", self->ops->arithmetic);
    (void)snprintf(out->limited_by, sizeof out->limited_by, "%s", self->ops->limited_by);
    return ATTUNE_OK;
}

static attune_code list(void *handle, int32_t which, uint32_t index, char name[64]) {
    const char *label = NULL;
    (void)handle;
    if (which == ATTUNE_LIST_SAMPLERS)
        label = names_label(&latent_samplers, index);
    else if (which == ATTUNE_LIST_SCHEDULERS)
        label = names_label(&sigma_schedulers, index);
    if (!label)
        return ATTUNE_OUT_OF_RANGE;
    (void)snprintf(name, 64, "%s", label);
    return ATTUNE_OK;
}

static attune_code open_model(void *handle, const char *path, const attune_model_options *options,
                              const attune_stream *stream, const attune_control *control, void **out,
                              attune_error *error) {
    instance *self = handle;
    model *m = NULL;
    attune_model_options known = {.struct_size = sizeof known};
    PASS_TRY(check_control(control, error));
    if (options) { /* a host of the first revision gives no `config` */
        const size_t first = offsetof(attune_model_options, config);
        PASS_TRY(check_size(options->struct_size, first, "attune_model_options", error));
        memcpy(&known, options, options->struct_size < sizeof known ? first : sizeof known);
    }
    (void)stream; /* weights are packed when a session begins, on its own stream */
    const uint64_t environment =
        attune_fp_enter(); /* here and below: the caller's may flush or round otherwise */
    attune_code code = model_open(&self->host, self->ops, self->dev, path, &known, control, &m, error);
    attune_fp_leave(environment);
    if (code == ATTUNE_OK)
        *out = m;
    return code;
}

static attune_code describe_model(void *handle, attune_model_info *out, attune_error *error) {
    PASS_TRY(check_size(out->struct_size, sizeof *out, "attune_model_info", error));
    model_describe(handle, out);
    return ATTUNE_OK;
}

static void close_model(void *handle) {
    model_close(handle);
}

static attune_code begin(void *handle, const attune_request *request, const attune_binder *binder,
                         const attune_stream *stream, const attune_control *control, void **out,
                         attune_session_plan *plan, attune_error *error) {
    session *s = NULL;
    PASS_TRY(check_control(control, error));
    PASS_TRY(check_size(plan->struct_size, sizeof *plan, "attune_session_plan", error));
    PASS_TRY(check_size(binder->struct_size, sizeof *binder, "attune_binder", error));
    PASS_TRY(check_size(stream->struct_size, sizeof *stream, "attune_stream", error));
    const uint64_t environment = attune_fp_enter();
    attune_code code = session_begin(handle, request, binder, stream, control, &s, plan, error);
    attune_fp_leave(environment);
    if (code == ATTUNE_OK)
        *out = s;
    return code;
}

static attune_code step(void *handle, const attune_control *control, attune_progress *progress,
                        attune_error *error) {
    PASS_TRY(check_control(control, error));
    PASS_TRY(check_size(progress->struct_size, sizeof *progress, "attune_progress", error));
    const uint64_t environment = attune_fp_enter();
    attune_code code = session_step(handle, control, progress, error);
    attune_fp_leave(environment);
    return code;
}

static attune_code preview(void *handle, uint32_t index, const attune_control *control, attune_image *image,
                           attune_error *error) {
    PASS_TRY(check_control(control, error));
    const uint64_t environment = attune_fp_enter();
    attune_code code = session_preview(handle, index, control, image, error);
    attune_fp_leave(environment);
    return code;
}

static attune_code take_image(void *handle, uint32_t index, attune_image *image, attune_error *error) {
    return session_image(handle, index, image, error);
}

static void close_session(void *handle) {
    session_close(handle);
}

static const attune_sampler_interface sampler_table = {.struct_size = sizeof sampler_table,
                                                       .describe = describe,
                                                       .list = list,
                                                       .model_open = open_model,
                                                       .model_describe = describe_model,
                                                       .model_close = close_model,
                                                       .session_begin = begin,
                                                       .session_step = step,
                                                       .session_preview = preview,
                                                       .session_image = take_image,
                                                       .session_close = close_session};

static const void *get_interface(void *handle, const char *id) {
    (void)handle;
    return strcmp(id, ATTUNE_SAMPLER_INTERFACE) == 0 ? &sampler_table : NULL;
}

static const attune_plugin plugin_table = {.struct_size = sizeof plugin_table,
                                           .abi = ATTUNE_ABI_VERSION,
                                           .id = device_plugin_id,
                                           .version = ATTUNE_VERSION,
                                           .vendor = device_plugin_vendor,
                                           .licence = "Apache-2.0",
                                           .create = create,
                                           .get_interface = get_interface,
                                           .quiesce = quiesce,
                                           .destroy = destroy};

/* See attune/plugin.h. Only version 1 exists, so it is what any newer host speaks too. */
ATTUNE_EXPORT attune_code attune_plugin_entry(uint32_t *abi, const attune_plugin **out);
attune_code attune_plugin_entry(uint32_t *abi, const attune_plugin **out) {
    if (!abi || !out)
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t host_speaks = *abi;
    *abi = ATTUNE_ABI_VERSION;
    if (host_speaks < ATTUNE_ABI_VERSION)
        return ATTUNE_UNIMPLEMENTED;
    *out = &plugin_table;
    return ATTUNE_OK;
}
