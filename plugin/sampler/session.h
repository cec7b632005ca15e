/*
 * session.h: one batch of images from a request to pixels: prompt → tokens → embeddings → (latent, sigma) →
 * UNet → latent → VAE → pixels, in units of one text encoder call, one sampler step, or one decoded image.
 */
#ifndef ATTUNE_SAMPLER_SESSION_H
#define ATTUNE_SAMPLER_SESSION_H

#include "plugin/sampler/latent.h"
#include "plugin/sampler/model.h"
#include "plugin/sampler/prompt.h"

/* What a session does with a layer's weights: nothing, or in the phase (its low bits) they are packed while
 * it lasts, or for each call. */
enum { LAYER_UNUSED = 0, LAYER_PACKED = 4, LAYER_STREAMED = 8, LAYER_PHASE = 3 };

typedef struct session {
    model *m;
    pass pass;
    prompt_tokens prompt;
    text_context context;
    float cfg_scale;
    int64_t images;
    int64_t height; /* of the latent, as width */
    int64_t width;
    int64_t chunk; /* latents, of all images and texts, that the UNet takes at once */
    uint32_t steps;
    uint32_t clip_skip; /* ≥ 1 */
    uint8_t *layers;    /* of each of the model's layers: LAYER_… and the phase that runs it */
    int32_t keep;       /* 1: the weights of UNet and VAE stay packed when their phase ends */
    latent_state *latent;
    float *staged; /* host: (texts · images, height, width, channels), what goes to and comes from the UNet */
    float *uncond;     /* host: (images, channels, height, width) */
    float *embeddings; /* host: (texts, chunks · 77, hidden size); NULL where no prompt has weights */
    float *timesteps;  /* host: (texts · images) */
    float *decoded;    /* host: one image from the VAE */
    uint8_t *pixels;   /* host: (images, height, width, 3) */
    int32_t text_done;
    uint32_t images_done;
    attune_code failed;
} session;

/* See attune_sampler_interface for each. */
attune_code session_begin(model *m, const attune_request *request, const attune_binder *binder,
                          const attune_stream *stream, const attune_control *control, session **out,
                          attune_session_plan *plan, attune_error *error);
attune_code session_step(session *s, const attune_control *control, attune_progress *progress,
                         attune_error *error);
attune_code session_preview(session *s, uint32_t index, const attune_control *control, attune_image *image,
                            attune_error *error);
attune_code session_image(session *s, uint32_t index, attune_image *image, attune_error *error);
void session_close(session *s);

/* The three walks, each planning or running as the session's pass does. */
attune_code session_read_text(session *s, attune_error *error);
attune_code session_predict(session *s, const float *x, double sigma, float *denoised, attune_error *error);
attune_code session_decode(session *s, const float *latent, uint8_t *pixels, attune_error *error);

/* session_phase.c: be in a phase, its memory and its weights there; or in none. Errors: RESOURCE_EXHAUSTED,
 * DATA_LOSS, CANCELLED. */
attune_code session_enter(session *s, int32_t phase, attune_error *error);
void session_leave(session *s);
/* Pack a phase's weights; under the model's lock. */
attune_code session_pack(session *s, int32_t phase, attune_error *error);

/* session_memory.c: choose what stays packed, what is packed for each call, and how many latents the UNet
 * takes at once, so that the request's limit is kept; bind attention. Fills the plan's bytes and its class.
 * The walks are planned again where they are cut. `host` is what lies beside the arenas. Errors: the
 * binder's, RESOURCE_EXHAUSTED with the least that would do. */
attune_code session_fit(session *s, const attune_request *request, const attune_binder *binder,
                        const attune_stream *stream, uint64_t host, attune_session_plan *plan,
                        uint32_t *weakest, attune_error *error);

/* session_plan.c: check `request`, fill the session but for its memory, bind, plan and allocate. */
attune_code session_prepare(session *s, const attune_request *request, const attune_binder *binder,
                            const attune_stream *stream, attune_session_plan *plan, attune_error *error);

#endif
