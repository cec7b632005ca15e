/*
 * latent.h: (latent, sigma) → latent, the samplers of k-diffusion (Karras et al. 2022; Lu et al. 2022) one
 * step at a time, so that cancel, preview, progress and a swap between steps come for free.
 *
 * A latent is a batch of images, each `elements` floats one after another (channels × height × width in
 * whatever order the denoiser takes; the noise is drawn in that order, and torch's is NCHW). Images never
 * meet in any sum: an image's bits do not depend on its batch.
 */
#ifndef ATTUNE_SAMPLER_LATENT_H
#define ATTUNE_SAMPLER_LATENT_H

#include "plugin/sampler/noise.h"
#include "plugin/sampler/sigma.h"

/* The model as a denoiser D(x; sigma): x → the estimate of the image without noise, both [images][elements],
 * after classifier-free guidance. x and denoised do not overlap. */
typedef struct latent_denoiser {
    attune_code (*denoise)(void *context, const float *x, double sigma, float *denoised, attune_error *error);
    void *context;
} latent_denoiser;

typedef struct latent_state latent_state;

/* A sampler: what a step does. A new one is one line in the table and one function. */
typedef struct latent_sampler {
    names_list names;
    const char *scheduler; /* what Automatic means for it; without effect where `timesteps` */
    uint32_t history;      /* how many [images][elements] buffers it keeps beside x and denoised */
    uint32_t evaluations;  /* of the denoiser per step, at most: for estimates of time */
    uint32_t timesteps;    /* 1: works on sigma_timesteps, no schedule, and begins at unit noise */
    attune_code (*step)(latent_state *state, const latent_denoiser *denoiser, attune_error *error);
} latent_sampler;

/* The table: "Euler a" first, it is the default. */
extern const names_table latent_samplers;

/*
 * [any] The sampler and schedule that two names mean, either NULL for the default (Euler a, Automatic). The
 * web UI's old joined names ("DPM++ 2M Karras") are read, and their schedule wins over `scheduler`. Automatic
 * becomes the sampler's own schedule. Error: NOT_FOUND, with the known names and the nearest.
 */
attune_code latent_choose(const char *sampler, const char *scheduler, const latent_sampler **out_sampler,
                          const sigma_scheduler **out_scheduler, attune_error *error);

/* What latent_begin starts from. */
typedef struct latent_setup {
    const latent_sampler *sampler;
    const float *sigmas; /* steps + 1, as sigma_schedule writes them; copied */
    uint32_t steps;      /* ≥ 1 */
    uint32_t images;     /* ≥ 1 */
    uint64_t elements;   /* of one image */
    uint64_t seed;       /* of the first image; image i has seed + i */
    noise_source source;
    float variation;  /* 0 … 1: how much of the first noise is the variation seed's; then every image has
                         `seed`, and image i subseed + i */
    uint64_t subseed; /* of the first image's variation */
    uint64_t rows; /* latent rows and columns: elements = channels × rows × columns; for variation only */
    uint64_t columns;
} latent_setup;

/* [any] Bytes that latent_begin takes for such a setup (sigmas and seed are not looked at); UINT64_MAX on
 * overflow. */
uint64_t latent_bytes(const latent_setup *setup);

/*
 * [any] Draw each image's first noise and start at x = noise · sigmas[0], or at x = noise where the sampler
 * works on timesteps. Everything comes from `memory`,
 * which must outlive the state; the caller closes it. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
 */
attune_code latent_begin(const attune_memory_service *memory, const latent_setup *setup, latent_state **out,
                         attune_error *error);

/*
 * [session] The next step. An error of the denoiser is passed on, and the state may then only be closed.
 * FAILED_PRECONDITION when all steps are done.
 */
attune_code latent_step(latent_state *state, const latent_denoiser *denoiser, attune_error *error);

/* [session] How many steps are done, and the sigma that x is at now. */
uint32_t latent_steps_done(const latent_state *state);
float latent_sigma(const latent_state *state);

/* [session] Image `index`: the latent now, and the last estimate of the clean image (NULL before the first
 * step). Valid until the next step or close. */
const float *latent_x(const latent_state *state, uint32_t index);
const float *latent_denoised(const latent_state *state, uint32_t index);

void latent_close(latent_state *state);

/* [any] Classifier-free guidance (Ho & Salimans 2022): out = uncond + (cond − uncond) · scale. `out` may be
 * one of the two. */
void latent_guide(const float *cond, const float *uncond, float scale, float *out, uint64_t count);

#endif
