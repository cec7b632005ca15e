/*
 * webui.h: the Stable Diffusion web UI's attention flags and their rule: the flag with the highest priority
 * wins, not the first on the command line (modules/sd_hijack_optimizations.py, web UI 1.10).
 */
#ifndef ATTUNE_WEBUI_H
#define ATTUNE_WEBUI_H

#include <stddef.h>
#include <stdint.h>

typedef struct webui_flag {
    const char *flag;    /* without the dashes */
    const char *backend; /* the name that users know */
    int priority;
    const char *help;
} webui_flag;

extern const webui_flag webui_flags[];
extern const size_t webui_flag_count;

/* The flag that the web UI would follow of those in `given` (bit i = flag i), or NULL for none. */
const webui_flag *webui_pick(uint32_t given);

/* 1 where `name` is an attention choice of the web UI, loaded here or not. */
int webui_knows(const char *name);

#endif
