/* webui.c: the web UI's attention flags, and those that Attune has no counterpart for. */
#include "webui.h"

#include <limits.h>
#include <string.h>
#include <strings.h>

/*
 * In the order of the web UI's list. Without CUDA it lifts InvokeAI to 1000, on mps sub-quadratic; here the
 * same flags ask for the same backend on every machine. --disable-opt-split-attention beats every flag there.
 * --force-enable-xformers is no choice there: it makes xformers available, which without a flag is then the
 * first.
 */
const webui_flag webui_flags[WEBUI_FLAGS] = {
    {"xformers", "xformers", 100, "xformers (priority 100)"},
    {"opt-sdp-no-mem-attention", "sdp-no-mem", 80, "sdp-no-mem (80), the same picture every time"},
    {"opt-sdp-attention", "sdp", 70, "sdp (70), scaled dot product"},
    {"opt-sub-quad-attention", "sub-quadratic", 10, "sub-quadratic (10)"},
    {"opt-split-attention-v1", "V1", 10, "V1 (10)"},
    {"opt-split-attention-invokeai", "InvokeAI", 10, "InvokeAI (10)"},
    {"opt-split-attention", "Doggettx", 90, "Doggettx (90)"},
    {"disable-opt-split-attention", "None", INT_MAX, "None, no optimization (beats the others)"},
    {"force-enable-xformers", "xformers", 0, "xformers where no other flag is given"},
};

const struct poptOption webui_ignored[] = {
    {"no-half", 0, POPT_ARG_NONE, NULL, 0, "all is computed in float32", NULL},
    {"no-half-vae", 0, POPT_ARG_NONE, NULL, 0, "all is computed in float32", NULL},
    {"precision", 0, POPT_ARG_STRING, NULL, 0, "all is computed in float32", "X"},
    {"upcast-sampling", 0, POPT_ARG_NONE, NULL, 0, "all is computed in float32", NULL},
    POPT_TABLEEND};

const webui_flag *webui_pick(const int given[WEBUI_FLAGS]) {
    const webui_flag *best = NULL;
    for (int i = 0; i < WEBUI_FLAGS; ++i)
        if (given[i] && (!best || webui_flags[i].priority > best->priority))
            best = &webui_flags[i];
    return best;
}

int webui_title_is(const char *text, const char *name) {
    size_t length = strlen(name);
    return strncasecmp(text, name, length) == 0 && (!text[length] || strncmp(text + length, " - ", 3) == 0);
}

const char *webui_attention(const char *text) {
    for (int i = 0; i < WEBUI_FLAGS; ++i)
        if (webui_title_is(text, webui_flags[i].attention))
            return webui_flags[i].attention;
    return NULL;
}
