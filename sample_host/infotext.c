/* infotext.c: the picture's parameters as the web UI writes them. */
#include "infotext.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    FILE *out;
    int failed; /* memory ran out: a stream in memory does not remember that itself */
} writer;

__attribute__((format(printf, 2, 3))) static void add(writer *text, const char *format, ...) {
    va_list list;
    va_start(list, format);
    text->failed |= vfprintf(text->out, format, list) < 0;
    va_end(list);
}

/* ", KEY: VALUE"; a value with a comma, colon or newline is quoted as JSON. */
static void put(writer *text, const char *key, const char *value) {
    if (!value || !value[0])
        return;
    add(text, ", %s: ", key);
    if (!strpbrk(value, ",:\n")) {
        add(text, "%s", value);
        return;
    }
    json_t *string = json_string(value);
    text->failed |= json_dumpf(string, text->out, JSON_ENCODE_ANY) != 0;
    json_decref(string);
}

char *infotext_format(const infotext *info) {
    char *text = NULL;
    size_t size = 0;
    writer out = {.out = open_memstream(&text, &size)};
    if (!out.out)
        return NULL;
    add(&out, "%s\n", info->prompt);
    if (info->negative_prompt[0])
        add(&out, "Negative prompt: %s\n", info->negative_prompt);
    add(&out, "Steps: %u, Sampler: %s", info->steps, info->sampler);
    put(&out, "Schedule type", info->scheduler);
    add(&out, ", CFG scale: %g, Seed: %llu, Size: %ux%u", (double)info->cfg_scale,
        (unsigned long long)info->seed, info->width, info->height);
    put(&out, "Model hash", info->model_hash);
    put(&out, "Model", info->model);
    if (info->subseed_strength > 0)
        add(&out, ", Variation seed: %llu, Variation seed strength: %g", (unsigned long long)info->subseed,
            (double)info->subseed_strength);
    if (info->clip_skip > 1)
        add(&out, ", Clip skip: %u", info->clip_skip);
    put(&out, "RNG", info->randn_source);
    put(&out, "Attention", info->attention);
    put(&out, "Arithmetic", info->arithmetic);
    put(&out, "Determinism", info->determinism);
    put(&out, "Sampler plugin", info->sampler_plugin);
    put(&out, "Version", "attune " ATTUNE_VERSION);
    if (fclose(out.out) != 0 || out.failed) {
        free(text);
        return NULL;
    }
    return text;
}
