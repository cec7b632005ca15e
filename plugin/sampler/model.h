/*
 * model.h: an open model, a diffusers folder or one file: configuration, tokenizer, mapped weights, networks.
 * Immutable after model_open but for packed weights, which sessions add under `preparing`; shared by all its
 * sessions.
 */
#ifndef ATTUNE_SAMPLER_MODEL_H
#define ATTUNE_SAMPLER_MODEL_H

#include "plugin/sampler/embeddings.h"
#include "plugin/sampler/tokens.h"
#include "plugin/sampler/unet.h"
#include "plugin/sampler/vae.h"

#include <pthread.h>

enum { MODEL_FILES = 3 };

typedef struct model {
    services host;
    const device_ops *ops;
    device *dev;
    model_config config;
    sigma_model sigmas;
    tokenizer *tokens;
    safetensors files[MODEL_FILES]; /* one, or one for each part; the rest are clear */
    char unet_name[64];             /* the UNet's file beneath the folder, or beside it the one file */
    char dtype[16];                 /* of its weights */
    weights_pool pool;
    text_encoder text;
    unet unet;
    vae_decoder vae;
    pthread_mutex_t preparing; /* one session at a time plans and packs */
    uint32_t users[PHASES];    /* under it: sessions that are in the phase, and need its weights */
} model;

/* See attune_sampler_interface.model_open. `options` and `control` may be NULL. */
attune_code model_open(const services *host, const device_ops *ops, device *dev, const char *path,
                       const attune_model_options *options, const attune_control *control, model **out,
                       attune_error *error);
void model_close(model *m);
void model_describe(const model *m, attune_model_info *out);

#endif
