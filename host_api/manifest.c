/* manifest.c: the reader of manifest.json, on jansson, with the limits that untrusted input needs. */
#include "manifest.h"
#include "json_fields.h"
#include "structs.h"
#include <stdlib.h>
#include <strings.h>

static const json_word device_words[] = {{"cpu", 1}, {"cuda", 2}, {"opencl", 4}, {NULL, 0}};
static const json_word dtype_words[] = {{"float32", ATTUNE_DTYPE_BIT_F32},
                                        {"float16", ATTUNE_DTYPE_BIT_F16},
                                        {"bfloat16", ATTUNE_DTYPE_BIT_BF16},
                                        {NULL, 0}};
static const json_word mask_words[] = {{"none", ATTUNE_MASK_BIT_NONE},
                                       {"bool", ATTUNE_MASK_BIT_BOOL},
                                       {"float", ATTUNE_MASK_BIT_FLOAT},
                                       {"causal", ATTUNE_MASK_BIT_CAUSAL},
                                       {NULL, 0}};
static const json_word determinism_words[] = {{"none", ATTUNE_DETERMINISM_NONE},
                                              {"repeatable", ATTUNE_DETERMINISM_REPEATABLE},
                                              {"invariant", ATTUNE_DETERMINISM_INVARIANT},
                                              {"portable", ATTUNE_DETERMINISM_PORTABLE},
                                              {NULL, 0}};
static const json_word unload_words[] = {{"park", 0}, {"safe", 1}, {NULL, 0}};

int attune_names_match(const attune_names *names, const char *name) {
    for (uint32_t i = 0; i < names->count; ++i)
        if (strcmp(names->name[i], "*") == 0 || strcasecmp(names->name[i], name) == 0)
            return 1;
    return 0;
}

/* jansson parses up to 2,048 levels by recursion; count the brackets outside strings first. */
static attune_code check_depth(const char *text, size_t length, const char *file, attune_error *error) {
    int depth = 0, line = 1;
    for (size_t i = 0, quoted = 0; i < length; ++i) {
        char c = text[i];
        line += c == '\n';
        if (quoted) {
            if (c == '\\')
                ++i;
            quoted = c != '"';
            continue;
        }
        quoted = c == '"';
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (depth > ATTUNE_MANIFEST_DEPTH)
            return attune_fail(error, ATTUNE_OUT_OF_RANGE, ATTUNE_DOMAIN, file,
                               "line %d: nested deeper than %d levels", line, ATTUNE_MANIFEST_DEPTH);
    }
    return ATTUNE_OK;
}

/* What attention and samplers share. */
static attune_code read_backend(const json_place *place, attune_manifest_backend *out) {
    int64_t memory = 0;
    uint32_t determinism = 0, devices;
    attune_code code = json_text_field(place, "id", JSON_TEXT_NAME, out->id, sizeof out->id);
    if (!code)
        code = json_words_field(place, "devices", device_words, 1, &devices);
    if (!code)
        code = json_names_field(place, "devices", JSON_TEXT_NAME, 1, 3, &out->devices);
    if (!code)
        code = json_names_field(place, "vendors", JSON_TEXT_VENDOR, 1, ATTUNE_MANIFEST_NAMES, &out->vendors);
    if (!code)
        code = json_words_field(place, "dtypes", dtype_words, 1, &out->dtypes);
    if (!code)
        code = json_word_field(place, "determinism", determinism_words, &determinism);
    if (!code)
        code = json_text_field(place, "arithmetic", JSON_TEXT_NAME, out->arithmetic, sizeof out->arithmetic);
    if (!code && json_object_get(place->object, "memory")) {
        static const char *const memory_keys[] = {"min", NULL};
        json_place inner;
        code = json_object_field(place, "memory", memory_keys, &inner);
        if (!code)
            code = json_integer_field(&inner, "min", 0, INT64_MAX, &memory);
    }
    out->determinism = (int32_t)determinism;
    out->memory_min = (uint64_t)memory;
    return code;
}

static attune_code read_attention(const json_place *parent, const json_t *value, const char *path,
                                  attune_manifest_backend *out) {
    static const char *const keys[] = {"id",         "aliases",  "priority", "devices", "vendors",
                                       "dtypes",     "masks",    "head_dim", "memory",  "determinism",
                                       "arithmetic", "requires", NULL};
    static const char *const head_keys[] = {"min", "max", NULL};
    json_place place, head;
    int64_t priority = 0, least = 0, most = 0;
    attune_code code = json_enter(parent, value, path, keys, &place);
    if (!code)
        code = read_backend(&place, out);
    if (!code)
        code = json_names_field(&place, "aliases", JSON_TEXT_NAME, 0, ATTUNE_MAX_ALIASES, &out->aliases);
    if (!code && json_object_get(value, "requires"))
        code = json_required_field(&place, "requires", JSON_TEXT_LIBRARY, &out->required);
    if (!code)
        code = json_integer_field(&place, "priority", -1000000, 1000000, &priority);
    if (!code)
        code = json_words_field(&place, "masks", mask_words, 1, &out->masks);
    if (!code)
        code = json_object_field(&place, "head_dim", head_keys, &head);
    if (!code)
        code = json_integer_field(&head, "min", 1, UINT32_MAX, &least);
    if (!code)
        code = json_integer_field(&head, "max", 0, UINT32_MAX, &most);
    if (!code && most && most < least)
        code = json_field_wrong(&head, "max", json_object_get(head.object, "max"),
                                "0 (no limit) or at least min");
    out->priority = (int32_t)priority;
    out->head_dim_min = (uint32_t)least;
    out->head_dim_max = (uint32_t)most;
    return code;
}

static attune_code read_sampler(const json_place *parent, const json_t *value, const char *path,
                                attune_manifest_backend *out) {
    static const char *const keys[] = {"id",     "devices",     "vendors",    "dtypes",
                                       "memory", "determinism", "arithmetic", NULL};
    json_place place;
    attune_code code = json_enter(parent, value, path, keys, &place);
    return code ? code : read_backend(&place, out);
}

typedef attune_code (*backend_reader)(const json_place *, const json_t *, const char *,
                                      attune_manifest_backend *);

/* Read a list of backends; ids are unique in it. */
static attune_code read_backends(const json_place *place, const char *key, backend_reader reader,
                                 attune_manifest_backend **out, uint32_t *count) {
    const json_t *list;
    attune_code code = json_list_field(place, key, 0, ATTUNE_MANIFEST_BACKENDS, &list);
    if (code)
        return code;
    size_t size = json_array_size(list);
    *out = calloc(size ? size : 1, sizeof **out);
    if (!*out)
        return attune_fail(place->error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, place->file,
                           "no memory for the manifest");
    *count = (uint32_t)size;
    for (size_t i = 0; i < size; ++i) {
        char path[224];
        (void)snprintf(path, sizeof path, "%s.%s[%zu]", place->path, key, i);
        code = reader(place, json_array_get(list, i), path, &(*out)[i]);
        if (code)
            return code;
        for (size_t k = 0; k < i; ++k)
            if (strcmp((*out)[k].id, (*out)[i].id) == 0)
                return attune_fail(place->error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, place->file,
                                   "%s.id: \"%s\" is listed twice", path, (*out)[i].id);
    }
    return ATTUNE_OK;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static attune_code read_sha256(const json_place *place, uint8_t out[32]) {
    const json_t *value = json_object_get(place->object, "sha256");
    const char *text = json_string_value(value);
    size_t length = text ? strlen(text) : 0;
    for (size_t i = 0; length == 64 && i < 32; ++i) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            length = 0;
        else
            out[i] = (uint8_t)(high * 16 + low);
    }
    if (length == 64)
        return ATTUNE_OK;
    attune_code code = json_field_wrong(place, "sha256", value, "64 lower-case hexadecimal digits");
    attune_hint(place->error, "tools/fill_manifest fills in sizes and hashes");
    return code;
}

static attune_code read_identity(const json_place *place, attune_manifest_library *out) {
    int64_t size = 0;
    uint32_t unload = 0;
    attune_code code = json_text_field(place, "id", JSON_TEXT_NAME, out->id, sizeof out->id);
    if (!code)
        code = json_text_field(place, "version", JSON_TEXT_VERSION, out->version, sizeof out->version);
    if (!code)
        code = json_text_field(place, "path", JSON_TEXT_PATH, out->path, sizeof out->path);
    if (!code)
        code = json_text_field(place, "os", JSON_TEXT_NAME, out->os, sizeof out->os);
    if (!code)
        code = json_text_field(place, "arch", JSON_TEXT_NAME, out->arch, sizeof out->arch);
    if (!code)
        code = json_text_field(place, "isa_min", JSON_TEXT_NAME, out->isa_min, sizeof out->isa_min);
    if (!code)
        code = json_integer_field(place, "size", 1, INT64_C(1) << 40, &size);
    if (!code)
        code = read_sha256(place, out->sha256);
    if (!code)
        code = json_word_field(place, "unload", unload_words, &unload);
    out->size = (uint64_t)size;
    out->unload_safe = (int32_t)unload;
    return code;
}

static attune_code read_library(const json_place *parent, const json_t *value, const char *path,
                                attune_manifest_library *out) {
    static const char *const keys[] = {"id",         "version",   "path",     "os",     "arch",
                                       "isa_min",    "size",      "sha256",   "unload", "requires",
                                       "interfaces", "attention", "samplers", NULL};
    json_place place;
    attune_code code = json_enter(parent, value, path, keys, &place);
    if (!code)
        code = read_identity(&place, out);
    if (!code)
        code = json_required_field(&place, "requires", JSON_TEXT_REQUIRED, &out->required);
    if (!code)
        code = json_names_field(&place, "interfaces", JSON_TEXT_INTERFACE, 1, ATTUNE_MANIFEST_NAMES,
                                &out->interfaces);
    if (!code)
        code = read_backends(&place, "attention", read_attention, &out->attention, &out->attention_count);
    if (!code)
        code = read_backends(&place, "samplers", read_sampler, &out->samplers, &out->sampler_count);
    return code;
}

/* The same id may stand there for several machines, but not twice for one. */
static attune_code check_unique(const json_place *root, const attune_manifest *manifest, uint32_t i) {
    const attune_manifest_library *one = &manifest->library[i];
    for (uint32_t k = 0; k < i; ++k) {
        const attune_manifest_library *other = &manifest->library[k];
        if (strcmp(one->id, other->id) == 0 && strcmp(one->os, other->os) == 0 &&
            strcmp(one->arch, other->arch) == 0 && strcmp(one->isa_min, other->isa_min) == 0)
            return attune_fail(root->error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, root->file,
                               "$.libraries[%u].id: \"%s\" is listed twice for %s, %s, %s", i, one->id,
                               one->os, one->arch, one->isa_min);
    }
    return ATTUNE_OK;
}

static attune_code read_libraries(const json_place *root, attune_manifest *out) {
    const json_t *list;
    attune_code code = json_list_field(root, "libraries", 1, ATTUNE_MANIFEST_LIBRARIES, &list);
    if (code)
        return code;
    size_t count = json_array_size(list);
    out->library = calloc(count, sizeof *out->library);
    if (!out->library)
        return attune_fail(root->error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, root->file,
                           "no memory for the manifest");
    out->library_count = (uint32_t)count;
    for (uint32_t i = 0; i < count && !code; ++i) {
        char path[64];
        (void)snprintf(path, sizeof path, "$.libraries[%u]", i);
        code = read_library(root, json_array_get(list, i), path, &out->library[i]);
        if (!code)
            code = check_unique(root, out, i);
    }
    return code;
}

static attune_code read_manifest(const json_place *nowhere, const json_t *value, attune_manifest *out) {
    static const char *const keys[] = {"format",  "id",  "version",   "vendor",
                                       "licence", "abi", "libraries", NULL};
    static const char *const abi_keys[] = {"min", "max", NULL};
    json_place root, abi;
    int64_t format = 0, abi_min = 0, abi_max = 0;
    /* The format comes first: another one may have other keys. */
    if (json_is_object(value) && json_is_integer(json_object_get(value, "format")))
        format = json_integer_value(json_object_get(value, "format"));
    if (format > 1)
        return attune_fail(nowhere->error, ATTUNE_UNIMPLEMENTED, ATTUNE_DOMAIN, nowhere->file,
                           "$.format: %lld; this libattune (%s) reads format 1", (long long)format,
                           ATTUNE_VERSION);
    attune_code code = json_enter(nowhere, value, "$", keys, &root);
    if (!code)
        code = json_integer_field(&root, "format", 1, 1, &format);
    if (!code)
        code = json_text_field(&root, "id", JSON_TEXT_NAME, out->id, sizeof out->id);
    if (!code)
        code = json_text_field(&root, "version", JSON_TEXT_VERSION, out->version, sizeof out->version);
    if (!code)
        code = json_text_field(&root, "vendor", JSON_TEXT_ANY, out->vendor, sizeof out->vendor);
    if (!code)
        code = json_text_field(&root, "licence", JSON_TEXT_ANY, out->licence, sizeof out->licence);
    if (!code)
        code = json_object_field(&root, "abi", abi_keys, &abi);
    if (!code)
        code = json_integer_field(&abi, "min", 1, UINT32_MAX, &abi_min);
    if (!code)
        code = json_integer_field(&abi, "max", abi_min, UINT32_MAX, &abi_max);
    out->abi_min = (uint32_t)abi_min;
    out->abi_max = (uint32_t)abi_max;
    return code ? code : read_libraries(&root, out);
}

static attune_code parse(const char *text, size_t length, const char *file, attune_manifest *out,
                         attune_error *error) {
    if (length > ATTUNE_MANIFEST_BYTES)
        return attune_fail(error, ATTUNE_OUT_OF_RANGE, ATTUNE_DOMAIN, file, "larger than the limit of 1 MiB");
    attune_code code = check_depth(text, length, file, error);
    if (code)
        return code;
    json_error_t problem;
    json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES, &problem);
    if (!value)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, file, "line %d, column %d: %s",
                           problem.line, problem.column, problem.text);
    json_place nowhere = {.file = file, .error = error};
    code = read_manifest(&nowhere, value, out);
    json_decref(value);
    return code;
}

attune_code attune_manifest_parse(const char *text, size_t length, const char *file, attune_manifest *out,
                                  attune_error *error) {
    memset(out, 0, sizeof *out);
    attune_code code = parse(text, length, file, out, error);
    if (code)
        attune_manifest_free(out);
    return code;
}

void attune_manifest_free(attune_manifest *manifest) {
    for (uint32_t i = 0; i < manifest->library_count; ++i) {
        free(manifest->library[i].attention);
        free(manifest->library[i].samplers);
    }
    free(manifest->library);
    memset(manifest, 0, sizeof *manifest);
}
