/*
 * webui.h: the Stable Diffusion web UI's attention choices and their flags. As there (web UI 1.10,
 * modules/sd_hijack_optimizations.py and sd_hijack.py): of the flags given the one with the highest priority
 * wins, not the first on the command line; of equal ones the first of its list.
 */
#ifndef ATTUNE_WEBUI_H
#define ATTUNE_WEBUI_H

#include <popt.h>

enum { WEBUI_FLAGS = 9 };

typedef struct webui_flag {
    const char *flag;      /* without the dashes */
    const char *attention; /* the name that users know */
    int priority;
    const char *help;
} webui_flag;

extern const webui_flag webui_flags[WEBUI_FLAGS];

/* Flags that change nothing here; none has a place to be stored in. */
extern const struct poptOption webui_ignored[];

/* The flag that the web UI would follow where flag i was given if given[i], or NULL for none. */
const webui_flag *webui_pick(const int given[WEBUI_FLAGS]);

/* 1 where `text` is `name` or its title in the web UI's settings, "NAME - LABEL"; case does not count. */
int webui_title_is(const char *text, const char *name);

/* The attention choice of the web UI that `text` names, in its spelling, or NULL. */
const char *webui_attention(const char *text);

#endif
