/* structs.c: the struct_size rule of abi.h, and two helpers for text. */
#include "structs.h"

/* Nothing of the contract is near this size: a larger struct_size is garbage, and its tail is not read. */
#define STRUCT_LIMIT 65536u

static uint32_t size_of(const void *given) {
    uint32_t size;
    memcpy(&size, given, sizeof size);
    return size;
}

attune_code attune_struct_in(const void *given, size_t known, const char *name, attune_error *error) {
    if (!given)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, name, "%s is NULL", name);
    uint32_t size = size_of(given);
    if (size < known || size > STRUCT_LIMIT) {
        (void)attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, name,
                          "%s.struct_size is %u, at least %zu is expected", name, size, known);
        attune_hint(error, "set struct_size to sizeof(%s)", name);
        return ATTUNE_INVALID_ARGUMENT;
    }
    for (size_t i = known; i < size; ++i)
        if (((const unsigned char *)given)[i])
            return attune_fail(error, ATTUNE_UNIMPLEMENTED, ATTUNE_DOMAIN, name,
                               "%s uses a field at byte %zu that this libattune (%s) does not know", name, i,
                               ATTUNE_VERSION);
    return ATTUNE_OK;
}

attune_code attune_struct_room(const void *out, size_t known, const char *name, attune_error *error) {
    if (!out)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, name, "%s is NULL", name);
    uint32_t size = size_of(out);
    if (size >= known && size <= STRUCT_LIMIT)
        return ATTUNE_OK;
    (void)attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, name,
                      "%s.struct_size is %u, at least %zu is expected", name, size, known);
    attune_hint(error, "set struct_size to sizeof(%s) before the call", name);
    return ATTUNE_INVALID_ARGUMENT;
}

attune_code attune_struct_out(void *out, const void *full, size_t known, const char *name,
                              attune_error *error) {
    attune_code code = attune_struct_room(out, known, name, error);
    if (code)
        return code;
    uint32_t size = size_of(out);
    memcpy(out, full, known);
    memset((unsigned char *)out + known, 0, size - known);
    memcpy(out, &size, sizeof size);
    return ATTUNE_OK;
}

void attune_text_copy(char *out, size_t size, const char *text) {
    (void)snprintf(out, size, "%s", text ? text : "");
}

attune_code attune_plugin_said(attune_code code, const char *plugin, const char *call,
                               const attune_error *reason, attune_error *error) {
    if (!code || !error)
        return code;
    if (reason->code != code)
        return attune_fail(error, code, plugin, call, "%s failed and gave no reason (%s)", call,
                           attune_code_name(code));
    *error = *reason;
    char *const texts[] = {error->domain, error->where, error->message, error->hint};
    const size_t sizes[] = {sizeof error->domain, sizeof error->where, sizeof error->message,
                            sizeof error->hint};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i) {
        texts[i][sizes[i] - 1] = 0;
        attune_printable(texts[i]);
    }
    return code;
}

void attune_text_bytes(char out[32], uint64_t bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        (void)snprintf(out, 32, "%u bytes", (unsigned)bytes);
        return;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof *units; ++unit)
        value /= 1024;
    (void)snprintf(out, 32, "%.4g %s", value, units[unit]);
}

const char *attune_text_class(int32_t determinism) {
    const char *name = attune_determinism_name(determinism);
    return name ? name : "unknown";
}
