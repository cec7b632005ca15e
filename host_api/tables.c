/* tables.c: what a plugin's tables say, read once, and compared with the manifest field by field. */
#include "loader.h"
#include "structs.h"
#include <stdlib.h>

/* A generation being read, and where errors go. */
typedef struct reading {
    attune_generation *generation;
    const attune_manifest_library *library;
    attune_error *error;
} reading;

/* A table entry is there where the table reaches that far and holds something. */
#define HAS(table, field)                                                                                    \
    ((table)->struct_size >= offsetof(__typeof__(*(table)), field) + sizeof((table)->field) && (table)->field)

static attune_code lacks(const reading *in, const char *interface, uint32_t size, const char *entry) {
    (void)attune_fail(in->error, ATTUNE_UNIMPLEMENTED, ATTUNE_DOMAIN, in->generation->path,
                      "its %s table has %u bytes and lacks %s, which this host needs", interface, size,
                      entry);
    attune_hint(in->error, "build the plugin against this libattune's headers");
    return ATTUNE_UNIMPLEMENTED;
}

__attribute__((format(printf, 3, 4))) static attune_code disagree(const reading *in, const char *field,
                                                                  const char *format, ...) {
    char detail[320];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(detail, sizeof detail, format, list);
    va_end(list);
    return attune_fail(in->error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, in->generation->path, "%s: %s",
                       field, detail);
}

static const char *kind_name(int32_t type) {
    switch (type) {
    case ATTUNE_DEVICE_CPU:
        return "cpu";
    case ATTUNE_DEVICE_CUDA:
        return "cuda";
    case ATTUNE_DEVICE_OPENCL:
        return "opencl";
    }
    return "unknown";
}

/* Fixed text fields of a plugin may lack their NUL, and may hold what a terminal would obey. */
static void clean(char *text, size_t size) {
    text[size - 1] = 0;
    attune_printable(text);
}

/* An interface's table, or NULL where neither manifest nor library has it; one without the other is an error.
 */
static attune_code find_interface(const reading *in, const char *id, const void **out) {
    bool listed = false;
    for (uint32_t i = 0; i < in->library->interfaces.count; ++i)
        listed |= strcmp(in->library->interfaces.name[i], id) == 0;
    *out = in->generation->plugin->get_interface(in->generation->instance, id);
    if (listed == (*out != NULL))
        return ATTUNE_OK;
    return disagree(in, "interfaces", "%s is %s the manifest and %s the library", id,
                    listed ? "in" : "not in", listed ? "not in" : "in");
}

/* Interfaces that this host does not use must still be there where the manifest lists them. */
static attune_code check_others(const reading *in) {
    for (uint32_t i = 0; i < in->library->interfaces.count; ++i)
        if (!in->generation->plugin->get_interface(in->generation->instance, in->library->interfaces.name[i]))
            return disagree(in, "interfaces", "%s is in the manifest and not in the library",
                            in->library->interfaces.name[i]);
    return ATTUNE_OK;
}

static attune_code no_memory(const reading *in) {
    return attune_fail(in->error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, in->generation->path,
                       "no memory for its tables");
}

/* More than this is a table that lies, not a machine. */
#define MAX_ENTRIES 256u

static attune_code read_devices(const reading *in) {
    attune_generation *generation = in->generation;
    const attune_device_interface *table;
    const void *found;
    attune_code code = find_interface(in, ATTUNE_DEVICE_INTERFACE, &found);
    if (code || !found)
        return code;
    table = found;
    const char *missing = !HAS(table, count)                ? "count"
                          : !HAS(table, describe)           ? "describe"
                          : !HAS(table, alloc)              ? "alloc"
                          : !HAS(table, free)               ? "free"
                          : !HAS(table, copy)               ? "copy"
                          : !HAS(table, stream_create)      ? "stream_create"
                          : !HAS(table, stream_destroy)     ? "stream_destroy"
                          : !HAS(table, stream_synchronize) ? "stream_synchronize"
                                                            : NULL;
    if (missing)
        return lacks(in, ATTUNE_DEVICE_INTERFACE, table->struct_size, missing);
    uint32_t count = table->count(generation->instance);
    if (count > MAX_ENTRIES)
        return disagree(in, "devices", "%u devices are more than this host believes (%u)", count,
                        MAX_ENTRIES);
    generation->devices = calloc(count ? count : 1, sizeof *generation->devices);
    if (!generation->devices)
        return no_memory(in);
    for (uint32_t i = 0; i < count; ++i) {
        attune_device_info *info = &generation->devices[i];
        info->struct_size = sizeof *info;
        attune_error reason = {.code = ATTUNE_OK};
        code = table->describe(generation->instance, i, info, &reason);
        if (attune_plugin_said(code, in->library->id, "describe", &reason, in->error))
            return code;
        info->struct_size = sizeof *info;
        clean(info->name, sizeof info->name);
        clean(info->vendor, sizeof info->vendor);
        clean(info->label, sizeof info->label);
        clean(info->capability, sizeof info->capability);
        if (!*info->name)
            return disagree(in, "devices", "device %u has no name", i);
        if (!info->alignment || info->alignment & (info->alignment - 1))
            return disagree(in, "devices", "the alignment of %s is %u, not a power of 2", info->name,
                            info->alignment);
    }
    generation->device = table;
    generation->device_count = count;
    return ATTUNE_OK;
}

/* The fields that attention backends and samplers share. */
static attune_code compare_common(const reading *in, const char *kind,
                                  const attune_manifest_backend *manifest, const attune_device_id *device,
                                  const char *vendor, int32_t determinism, const char *arithmetic) {
    char field[80];
    (void)snprintf(field, sizeof field, "%s \"%s\"", kind, manifest->id);
    if (determinism != manifest->determinism)
        return disagree(in, field, "determinism is %s in the manifest and %s in the library",
                        attune_text_class(manifest->determinism), attune_text_class(determinism));
    if (strcmp(arithmetic, manifest->arithmetic) != 0)
        return disagree(in, field, "arithmetic is \"%s\" in the manifest and \"%s\" in the library",
                        manifest->arithmetic, arithmetic);
    if (!attune_names_match(&manifest->devices, kind_name(device->type)))
        return disagree(in, field, "devices in the manifest lack %s, where the library runs it",
                        kind_name(device->type));
    if (!attune_names_match(&manifest->vendors, vendor))
        return disagree(in, field, "vendors in the manifest lack \"%s\", which the library names", vendor);
    return ATTUNE_OK;
}

static attune_code compare_aliases(const reading *in, const char *field,
                                   const attune_manifest_backend *manifest,
                                   const attune_attention_info *info) {
    uint32_t count = 0;
    for (int i = 0; i < ATTUNE_MAX_ALIASES; ++i) {
        bool listed = false;
        if (!*info->aliases[i])
            continue;
        ++count;
        for (uint32_t k = 0; k < manifest->aliases.count; ++k)
            listed |= strcmp(manifest->aliases.name[k], info->aliases[i]) == 0;
        if (!listed)
            return disagree(in, field, "the alias \"%s\" is not in the manifest and in the library",
                            info->aliases[i]);
    }
    if (count != manifest->aliases.count)
        return disagree(in, field, "%u aliases are in the manifest and %u in the library",
                        manifest->aliases.count, count);
    return ATTUNE_OK;
}

static attune_code compare_attention(const reading *in, const attune_manifest_backend *manifest,
                                     const attune_attention_info *info) {
    char field[80];
    attune_code code = compare_common(in, "attention", manifest, &info->device, info->vendor,
                                      info->determinism, info->arithmetic);
    (void)snprintf(field, sizeof field, "attention \"%s\"", manifest->id);
    if (!code)
        code = compare_aliases(in, field, manifest, info);
    if (code)
        return code;
    if (info->priority != manifest->priority)
        return disagree(in, field, "priority is %d in the manifest and %d in the library", manifest->priority,
                        info->priority);
    if (info->dtypes != manifest->dtypes)
        return disagree(in, field, "dtypes are set 0x%x in the manifest and 0x%x in the library",
                        manifest->dtypes, info->dtypes);
    if (info->masks != manifest->masks)
        return disagree(in, field, "masks are set 0x%x in the manifest and 0x%x in the library",
                        manifest->masks, info->masks);
    if (info->head_dim_min != manifest->head_dim_min || info->head_dim_max != manifest->head_dim_max)
        return disagree(in, field, "head_dim is %u to %u in the manifest and %u to %u in the library",
                        manifest->head_dim_min, manifest->head_dim_max, info->head_dim_min,
                        info->head_dim_max);
    return ATTUNE_OK;
}

static const attune_manifest_backend *find_backend(const attune_manifest_backend *list, uint32_t count,
                                                   const char *id) {
    for (uint32_t i = 0; i < count; ++i)
        if (strcmp(list[i].id, id) == 0)
            return &list[i];
    return NULL;
}

/* What the manifest lists and the library does not describe. */
static attune_code check_listed(const reading *in) {
    const attune_generation *generation = in->generation;
    for (uint32_t i = 0; i < in->library->attention_count; ++i) {
        bool offered = false;
        for (uint32_t k = 0; k < generation->attention_count; ++k)
            offered |= strcmp(generation->backends[k].name, in->library->attention[i].id) == 0;
        if (!offered)
            return disagree(in, "attention", "\"%s\" is in the manifest and not in the library",
                            in->library->attention[i].id);
    }
    for (uint32_t i = 0; i < in->library->sampler_count; ++i)
        if (!generation->sampler || strcmp(generation->sampler_info.name, in->library->samplers[i].id) != 0)
            return disagree(in, "samplers", "\"%s\" is in the manifest and not in the library",
                            in->library->samplers[i].id);
    return ATTUNE_OK;
}

static attune_code read_one_backend(const reading *in, const attune_attention_interface *table, uint32_t i) {
    attune_generation *generation = in->generation;
    attune_attention_info *info = &generation->backends[i];
    info->struct_size = sizeof *info;
    attune_error reason = {.code = ATTUNE_OK};
    attune_code code = table->describe(generation->instance, i, info, &reason);
    if (attune_plugin_said(code, in->library->id, "describe", &reason, in->error))
        return code;
    info->struct_size = sizeof *info;
    clean(info->name, sizeof info->name);
    clean(info->label, sizeof info->label);
    clean(info->vendor, sizeof info->vendor);
    clean(info->arithmetic, sizeof info->arithmetic);
    clean(info->isa, sizeof info->isa);
    for (int k = 0; k < ATTUNE_MAX_ALIASES; ++k)
        clean(info->aliases[k], sizeof info->aliases[k]);
    const attune_manifest_backend *manifest =
        find_backend(in->library->attention, in->library->attention_count, info->name);
    if (!manifest)
        return disagree(in, "attention", "\"%s\" is not in the manifest and in the library", info->name);
    generation->memory_min[i] = manifest->memory_min;
    const char *const lacks = attune_loader_lacks(generation, &manifest->required);
    if (lacks) {
        attune_text_copy(generation->lacks[i], sizeof generation->lacks[i], lacks);
        attune_log(&generation->host->logger, ATTUNE_LOG_INFO, generation->id, "%s: %s is not found",
                   info->name, lacks);
    }
    return compare_attention(in, manifest, info);
}

static attune_code read_attention(const reading *in) {
    attune_generation *generation = in->generation;
    const attune_attention_interface *table;
    const void *found;
    attune_code code = find_interface(in, ATTUNE_ATTENTION_INTERFACE, &found);
    if (code || !found)
        return code;
    table = found;
    const char *missing = !HAS(table, count)      ? "count"
                          : !HAS(table, describe) ? "describe"
                          : !HAS(table, query)    ? "query"
                          : !HAS(table, run)      ? "run"
                                                  : NULL;
    if (missing)
        return lacks(in, ATTUNE_ATTENTION_INTERFACE, table->struct_size, missing);
    uint32_t count = table->count(generation->instance);
    if (count > MAX_ENTRIES)
        return disagree(in, "attention", "%u backends are more than this host believes (%u)", count,
                        MAX_ENTRIES);
    generation->backends = calloc(count ? count : 1, sizeof *generation->backends);
    generation->memory_min = calloc(count ? count : 1, sizeof *generation->memory_min);
    generation->lacks = calloc(count ? count : 1, sizeof *generation->lacks);
    if (!generation->backends || !generation->memory_min || !generation->lacks)
        return no_memory(in);
    for (uint32_t i = 0; i < count && !code; ++i)
        code = read_one_backend(in, table, i);
    generation->attention = table;
    generation->attention_count = count;
    return code;
}

static attune_code read_sampler(const reading *in) {
    attune_generation *generation = in->generation;
    attune_sampler_info *info = &generation->sampler_info;
    const attune_sampler_interface *table;
    const void *found;
    attune_code code = find_interface(in, ATTUNE_SAMPLER_INTERFACE, &found);
    if (code || !found)
        return code;
    table = found;
    const char *missing = !HAS(table, describe)          ? "describe"
                          : !HAS(table, list)            ? "list"
                          : !HAS(table, model_open)      ? "model_open"
                          : !HAS(table, model_describe)  ? "model_describe"
                          : !HAS(table, model_close)     ? "model_close"
                          : !HAS(table, session_begin)   ? "session_begin"
                          : !HAS(table, session_step)    ? "session_step"
                          : !HAS(table, session_preview) ? "session_preview"
                          : !HAS(table, session_image)   ? "session_image"
                          : !HAS(table, session_close)   ? "session_close"
                                                         : NULL;
    if (missing)
        return lacks(in, ATTUNE_SAMPLER_INTERFACE, table->struct_size, missing);
    info->struct_size = sizeof *info;
    attune_error reason = {.code = ATTUNE_OK};
    code = table->describe(generation->instance, info, &reason);
    if (attune_plugin_said(code, in->library->id, "describe", &reason, in->error))
        return code;
    info->struct_size = sizeof *info;
    clean(info->name, sizeof info->name);
    clean(info->label, sizeof info->label);
    clean(info->vendor, sizeof info->vendor);
    clean(info->arithmetic, sizeof info->arithmetic);
    clean(info->limited_by, sizeof info->limited_by);
    const attune_manifest_backend *manifest =
        find_backend(in->library->samplers, in->library->sampler_count, info->name);
    if (!manifest)
        return disagree(in, "samplers", "\"%s\" is not in the manifest and in the library", info->name);
    generation->sampler = table;
    generation->sampler_memory_min = manifest->memory_min;
    return compare_common(in, "sampler", manifest, &info->device, info->vendor, info->determinism,
                          info->arithmetic);
}

attune_code attune_tables_read(attune_generation *generation, const attune_manifest_library *library,
                               attune_error *error) {
    reading in = {generation, library, error};
    attune_code code = read_devices(&in);
    if (!code)
        code = read_attention(&in);
    if (!code)
        code = read_sampler(&in);
    if (!code)
        code = check_others(&in);
    return code ? code : check_listed(&in);
}
