/* infotext.c: the picture's parameters as the web UI writes them. */
#include "infotext.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ", KEY: VALUE"; a value with a comma, colon or newline is quoted as JSON. */
static void put(FILE *out, const char *key, const char *value) {
    if (!value || !value[0])
        return;
    char *quoted = NULL;
    if (strpbrk(value, ",:\n")) {
        json_t *string = json_string(value);
        quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
        json_decref(string);
    }
    fprintf(out, ", %s: %s", key, quoted ? quoted : value);
    free(quoted);
}

char *infotext_format(const infotext *info) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    fprintf(out, "%s\n", info->prompt);
    if (info->negative_prompt[0])
        fprintf(out, "Negative prompt: %s\n", info->negative_prompt);
    fprintf(out, "Steps: %u, Sampler: %s", info->steps, info->sampler);
    put(out, "Schedule type", info->scheduler);
    fprintf(out, ", CFG scale: %g, Seed: %llu, Size: %ux%u", (double)info->cfg_scale,
            (unsigned long long)info->seed, info->width, info->height);
    put(out, "Model hash", info->model_hash);
    put(out, "Model", info->model);
    if (info->subseed_strength > 0)
        fprintf(out, ", Variation seed: %llu, Variation seed strength: %g", (unsigned long long)info->subseed,
                (double)info->subseed_strength);
    if (info->clip_skip > 1)
        fprintf(out, ", Clip skip: %u", info->clip_skip);
    put(out, "RNG", info->randn_source);
    put(out, "Attention", info->attention);
    put(out, "Arithmetic", info->arithmetic);
    put(out, "Determinism", info->determinism);
    put(out, "Sampler plugin", info->sampler_plugin);
    put(out, "Version", "attune " ATTUNE_VERSION);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
