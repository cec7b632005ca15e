/* webui.c: the web UI's attention flags. */
#include "webui.h"

#include <string.h>
#include <strings.h>

const webui_flag webui_flags[] = {
    {"xformers", "xformers", 100, "use xformers where a plugin offers it"},
    {"opt-sdp-no-mem-attention", "sdp-no-mem", 80, "scaled dot product, the same picture every time"},
    {"opt-sdp-attention", "sdp", 70, "scaled dot product"},
};
const size_t webui_flag_count = sizeof webui_flags / sizeof webui_flags[0];

/* Names in the web UI's settings; those without a flag above come with later backends. */
static const char *const names[] = {"xformers",      "Doggettx", "sdp-no-mem", "sdp",
                                    "sub-quadratic", "V1",       "InvokeAI"};

const webui_flag *webui_pick(uint32_t given) {
    const webui_flag *best = NULL;
    for (size_t i = 0; i < webui_flag_count; ++i)
        if (given >> i & 1 && (!best || webui_flags[i].priority > best->priority))
            best = &webui_flags[i];
    return best;
}

int webui_knows(const char *name) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
        if (strcasecmp(names[i], name) == 0)
            return 1;
    return 0;
}
