/* plugins.c: `sample_host plugins`, what is loaded. */
#include "app.h"
#include "interrupt.h"

static int watching;

static const struct poptOption options[] = {
    {"watch", 0, POPT_ARG_NONE, &watching, 0,
     "swap what changes in the plugin folders, and show generations as they change", NULL},
    POPT_TABLEEND};

static void size_text(uint64_t bytes, char *text, size_t size) {
    (void)snprintf(text, size, "%.1f GiB", (double)bytes / (double)(1u << 30));
}

static json_t *backend_json(const attune_attention_info *info, const char *lacks) {
    json_t *aliases = json_array();
    for (int a = 0; a < ATTUNE_MAX_ALIASES; ++a)
        if (info->aliases[a][0])
            json_array_append_new(aliases, json_string(info->aliases[a]));
    const char *determinism = attune_determinism_name(info->determinism);
    return json_pack("{s:s, s:o, s:i, s:s, s:s, s:s, s:i, s:i, s:s, s:s?}", "name", info->name, "aliases",
                     aliases, "priority", (int)info->priority, "determinism",
                     determinism ? determinism : "none", "arithmetic", info->arithmetic, "isa", info->isa,
                     "head_dim_min", (int)info->head_dim_min, "head_dim_max", (int)info->head_dim_max,
                     "label", info->label, "lacks", *lacks ? lacks : NULL);
}

static void print_backend(const attune_attention_info *info, const char *lacks) {
    char dims[48], dtypes[48];
    if (info->head_dim_max)
        (void)snprintf(dims, sizeof dims, "%u to %u", info->head_dim_min, info->head_dim_max);
    else
        (void)snprintf(dims, sizeof dims, "from %u", info->head_dim_min);
    (void)snprintf(dtypes, sizeof dtypes, "%s%s%s", info->dtypes & ATTUNE_DTYPE_BIT_F32 ? " float32" : "",
                   info->dtypes & ATTUNE_DTYPE_BIT_F16 ? " float16" : "",
                   info->dtypes & ATTUNE_DTYPE_BIT_BF16 ? " bfloat16" : "");
    printf("      %-14s %-10s%s, head sizes %s, arithmetic %s, %s%s%s\n", info->name,
           attune_determinism_name(info->determinism), dtypes, dims, info->arithmetic, info->isa,
           *lacks ? ", not served: lacks " : "", lacks);
}

/* The backends of plugin i that run on one device. */
static json_t *list_backends(const struct app *app, const attune_snapshot *snapshot, uint32_t i,
                             const attune_device_id *device) {
    json_t *list = json_array();
    attune_attention_info info = {.struct_size = sizeof info};
    for (uint32_t j = 0; attune_snapshot_attention(snapshot, i, j, &info, NULL) == ATTUNE_OK; ++j) {
        if (!attune_device_same(&info.device, device))
            continue;
        const char *const lacks = attune_snapshot_lacks(snapshot, i, j);
        json_array_append_new(list, backend_json(&info, lacks));
        if (!app->json)
            print_backend(&info, lacks);
    }
    return list;
}

static json_t *list_samplers(const struct app *app, const attune_snapshot *snapshot, uint32_t i) {
    json_t *list = json_array();
    attune_sampler_info info = {.struct_size = sizeof info};
    for (uint32_t j = 0; attune_snapshot_sampler(snapshot, i, j, &info, NULL) == ATTUNE_OK; ++j) {
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s}", "name", info.name, "vendor", info.vendor, "determinism",
                            attune_determinism_name(info.determinism), "arithmetic", info.arithmetic));
        if (!app->json)
            printf("    sampler %s: %s, %s%s%s\n", info.name, info.label,
                   attune_determinism_name(info.determinism), *info.limited_by ? ", limited by " : "",
                   info.limited_by);
    }
    return list;
}

static json_t *list_devices(const struct app *app, const attune_snapshot *snapshot, uint32_t i) {
    json_t *list = json_array();
    attune_device_info device = {.struct_size = sizeof device};
    for (uint32_t j = 0; attune_snapshot_device(snapshot, i, j, &device, NULL) == ATTUNE_OK; ++j) {
        if (!app_device_passes(app, &device))
            continue;
        if (!app->json) {
            char total[32], free_now[32];
            size_text(device.memory_total, total, sizeof total);
            size_text(device.memory_free, free_now, sizeof free_now);
            printf("    device %s: %s, %s, %s, memory %s, free %s\n", device.name, device.vendor,
                   device.label, device.capability, total, free_now);
        }
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:o}", "name", device.name, "vendor",
                                        device.vendor, "label", device.label, "capability", device.capability,
                                        "memory_total", (json_int_t)device.memory_total, "memory_free",
                                        (json_int_t)device.memory_free, "backends",
                                        list_backends(app, snapshot, i, &device.id)));
    }
    return list;
}

json_t *plugins_list(struct app *app) {
    attune_snapshot *snapshot = attune_snapshot_acquire(app->host);
    json_t *list = json_array();
    for (uint32_t i = 0; i < attune_snapshot_count(snapshot); ++i) {
        attune_plugin_status status = {.struct_size = sizeof status};
        if (attune_snapshot_plugin(snapshot, i, &status, NULL) != ATTUNE_OK)
            continue;
        if (!app->json)
            printf("%s %s (%s)  %s%s%s\n    %s\n", status.id, status.version, status.vendor, status.state,
                   status.refused[0] ? ": " : "", status.refused, status.path);
        json_t *entry =
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:s?}", "id", status.id, "version", status.version, "path",
                      status.path, "state", status.state, "generation", (json_int_t)status.generation,
                      "refused", status.refused[0] ? status.refused : NULL);
        json_object_set_new(entry, "devices", list_devices(app, snapshot, i));
        json_object_set_new(entry, "samplers", list_samplers(app, snapshot, i));
        json_array_append_new(list, entry);
    }
    attune_snapshot_release(snapshot);
    return list;
}

/* The generations as lines; NULL = no memory. The caller frees. */
static char *generation_lines(attune *host) {
    char *text = NULL;
    size_t size;
    FILE *lines = open_memstream(&text, &size);
    if (!lines)
        return NULL;
    attune_generation_info info = {.struct_size = sizeof info};
    for (uint32_t i = 0; attune_generation_at(host, i, &info, NULL) == ATTUNE_OK; ++i)
        fprintf(lines, "generation %llu  %s %s  %s  %u leases  %s%s%s\n",
                (unsigned long long)info.plugin.generation, info.plugin.id, info.plugin.version,
                info.plugin.state, info.leases, info.plugin.path, *info.unload_risk ? "  stays mapped: " : "",
                info.unload_risk);
    if (fclose(lines) == 0)
        return text;
    free(text);
    return NULL;
}

/* Whenever the generations have changed they are printed, until an interrupt or until nobody reads. */
static attune_code watch_generations(struct app *app) {
    attune_watch *watch;
    char *before = NULL;
    const attune_control *interrupt = interrupt_control();
    attune_code code = attune_watch_open(app->host, &watch, &app->error);
    if (code)
        return code;
    while (!interrupt->cancelled(interrupt->context)) {
        char *now = generation_lines(app->host);
        if (now && (!before || strcmp(before, now) != 0)) {
            printf("%s\n", now);
            if (fflush(stdout) != 0) { /* the error is told when the output ends */
                free(now);
                break;
            }
        }
        free(before);
        before = now;
        attune_swap_report report = {.struct_size = sizeof report};
        attune_error reason = {.code = ATTUNE_OK};
        attune_code seen = attune_watch_wait(watch, 200, &report, &reason);
        if (seen && seen != ATTUNE_DEADLINE_EXCEEDED && !report.refused) /* the log has told a refusal */
            app_warn(app, "%s: %s; what was loaded serves on", reason.where, reason.message);
    }
    free(before);
    attune_watch_close(watch);
    return ferror(stdout)
               ? ATTUNE_OK
               : attune_fail(&app->error, ATTUNE_CANCELLED, "sample_host", "plugins", "interrupted");
}

static attune_code run(struct app *app, int argc, const char **argv) {
    if (argc)
        return app_usage(app, "unexpected argument \"%s\"", argv[0]);
    if (watching && app->json)
        return app_usage(app, "--watch writes lines, --json one object: only one of the two");
    if (watching)
        return watch_generations(app);
    json_t *list = plugins_list(app);
    json_object_set_new(app->reply, "plugins", list);
    for (size_t i = 0; i < json_array_size(list); ++i)
        if (json_array_size(json_object_get(json_array_get(list, i), "devices")))
            return ATTUNE_OK;
    return app->wish.device || app->wish.vendor || app->wish.min_memory
               ? attune_fail(&app->error, ATTUNE_UNAVAILABLE, "sample_host", "plugins",
                             "no device passes --device, --vendor and --min-memory")
               : ATTUNE_OK;
}

const command plugins_command = {.name = "plugins",
                                 .arguments = "",
                                 .summary =
                                     "What is loaded: vendor, device, memory, each backend with its class",
                                 .table = options,
                                 .run = run};
