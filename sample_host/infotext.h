/*
 * infotext.h: the web UI's text about a picture, kept in the PNG's tEXt chunk "parameters"
 * (modules/processing.py and modules/infotext_utils.py, web UI 1.10), plus what Attune adds. It holds nothing
 * that two equal pictures may differ in.
 */
#ifndef ATTUNE_INFOTEXT_H
#define ATTUNE_INFOTEXT_H

#include <stddef.h>
#include <stdint.h>

typedef struct infotext {
    const char *prompt, *negative_prompt, *sampler, *scheduler, *model, *model_hash;
    const char *attention;      /* "sdp-no-mem (attune-cpu 1.0.0, portable)", several joined by "; " */
    const char *arithmetic;     /* arithmetic ids */
    const char *determinism;    /* class of the whole image */
    const char *sampler_plugin; /* "attune-sampler-cpu 1.0.0" */
    const char *randn_source;   /* "CPU" or "NV" */
    uint64_t seed, subseed;
    uint32_t steps, width, height;
    uint32_t clip_skip; /* written where above 1 */
    float cfg_scale;
    float subseed_strength; /* written, with the subseed, where above 0 */
} infotext;

/* The text, allocated; the caller frees it. NULL when memory is out. */
char *infotext_format(const infotext *info);

#endif
