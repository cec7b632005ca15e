/*
 * attune/sampler.h: interface "attune.sampler/1", a full text-to-image pipeline behind a step interface.
 *
 * model_open → session_begin (checks the request, says the plan) → session_step until `done` → session_image
 * → session_close → model_close. One step is one unit of work (the text encoder, one sampler step, one
 * decoded image), so cancel, preview, progress and swap points come for free. A sampler never sees an
 * attention backend: at begin it binds each of its attention problems through the binder, and later attends
 * through it.
 */
#ifndef ATTUNE_SAMPLER_H
#define ATTUNE_SAMPLER_H

#include "attune/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTUNE_SAMPLER_INTERFACE "attune.sampler/1"

typedef struct attune_sampler_info {
    uint32_t struct_size;
    int32_t determinism; /* the highest class that the sampler's own arithmetic keeps */
    attune_device_id device;
    char name[32]; /* "stable-diffusion" */
    char label[64];
    char vendor[32];
    char arithmetic[32];  /* arithmetic id of everything but attention */
    char limited_by[160]; /* what sets `determinism`, in words: "convolutions and products by oneDNN" */
} attune_sampler_info;
ATTUNE_STATIC_ASSERT(sizeof(attune_sampler_info) == 352, "attune_sampler_info is part of the ABI");

/* What session_list names. */
enum { ATTUNE_LIST_SAMPLERS = 0, ATTUNE_LIST_SCHEDULERS = 1 };

typedef struct attune_model_options {
    uint32_t struct_size;
    uint32_t reserved;
    const char
        *vocabulary;    /* folder with vocab.json and merges.txt for models that bring none; NULL = none */
    const char *config; /* for a checkpoint in one file: JSON that says what shapes do not tell; NULL = the
                           NAME.json beside it, where there is one. docs/cli.md has the format. */
} attune_model_options;
ATTUNE_STATIC_ASSERT(sizeof(attune_model_options) == 24, "attune_model_options is part of the ABI");

typedef struct attune_model_info {
    uint32_t struct_size;
    uint32_t width; /* pixels: the size that the model was made for */
    uint32_t height;
    uint32_t size_multiple; /* width and height must be multiples of it */
    uint64_t weights_bytes; /* resident or mapped */
    char kind[64];          /* "Stable Diffusion 1.x" */
    char dtype[16];         /* of the UNet's weights as stored: "float16" */
    char weights_file[64];  /* the UNet's file beneath the model's folder, for "Model hash";
                               of a checkpoint in one file that file's name, cut where it is longer */
} attune_model_info;
ATTUNE_STATIC_ASSERT(sizeof(attune_model_info) == 168, "attune_model_info is part of the ABI");

/* One batch. Strings are UTF-8, borrowed for the length of session_begin. */
typedef struct attune_request {
    uint32_t struct_size;
    int32_t determinism; /* the lowest class that will do for the whole image */
    const char *prompt;  /* with the web UI's weights, BREAK and any length: see docs/cli.md */
    const char *negative_prompt;
    const char *sampler;   /* "Euler a"; NULL = Euler a. Joined names ("DPM++ 2M Karras") are read too. */
    const char *scheduler; /* "Automatic", "Karras", …; NULL = Automatic */
    uint64_t seed;         /* of the batch's first image; image i has seed + i (see subseed_strength) */
    uint64_t memory_limit; /* bytes for the session besides the weights; UINT64_MAX = any */
    uint32_t steps;        /* 1 … 1000 */
    uint32_t width;        /* pixels, a multiple of 8; 0 = the model's */
    uint32_t height;
    uint32_t batch_size; /* ≥ 1 */
    float cfg_scale;     /* classifier-free guidance (Ho & Salimans 2022); 1 = the prompt alone */
    uint32_t reserved;
    uint32_t clip_skip;     /* N: the text encoder's N-th last layer, then its final norm; 0 = 1 = the last */
    uint32_t randn_source;  /* ATTUNE_RANDN_… */
    uint64_t subseed;       /* variation seed of the first image; image i has subseed + i */
    float subseed_strength; /* 0 … 1; above 0 every image has `seed`, and its first noise is part the
                               subseed's */
    uint32_t reserved2;
} attune_request;
ATTUNE_STATIC_ASSERT(sizeof(attune_request) == 104, "attune_request is part of the ABI");

/* Whose normal noise: torch's CPU generator, or a CUDA device's (Philox). */
enum { ATTUNE_RANDN_CPU = 0, ATTUNE_RANDN_NV = 1 };

typedef struct attune_bound {
    uint32_t struct_size;
    int32_t determinism; /* the class that the bound backend keeps for the problem */
    uint64_t workspace;  /* bytes that attend needs */
    uint64_t binding;    /* the host's name for it, passed to attend */
    char backend[32];    /* who serves it, for messages */
    char plugin[64];
} attune_bound;
ATTUNE_STATIC_ASSERT(sizeof(attune_bound) == 120, "attune_bound is part of the ABI");

/* The host's side of attention, given to session_begin; valid until session_close. */
typedef struct attune_binder {
    uint32_t struct_size;
    uint32_t reserved;
    void *context;
    /* Choose a backend for a problem. A refusal is an error whose message says why, and is passed on. */
    attune_code (*bind)(void *context, const attune_attention_problem *problem, attune_bound *out,
                        attune_error *error);
    /* Run it; `args` must have the problem's shapes and strides. See attention.h for lifetimes. */
    attune_code (*attend)(void *context, uint64_t binding, const attune_attention_args *args,
                          const attune_stream *stream, const attune_control *control, attune_error *error);
} attune_binder;
ATTUNE_STATIC_ASSERT(sizeof(attune_binder) == 32, "attune_binder is part of the ABI");

/* What a begun session will take and promise. Bytes by part; their sum is within request.memory_limit +
 * weights. */
typedef struct attune_session_plan {
    uint32_t struct_size;
    int32_t determinism;  /* kept for the whole image: the lowest of all parts */
    char limited_by[160]; /* the part that sets it */
    uint64_t weights;     /* packed copies that the session makes the model hold, besides the mapped files */
    uint64_t activations;
    uint64_t workspace; /* the largest of the bindings' */
    uint32_t width;
    uint32_t height;
    uint32_t images;
    uint32_t units; /* how many session_step calls there are in all */
    uint64_t seed;
    char sampler[64];   /* as the list names it, whatever alias or joined name was asked for */
    char scheduler[64]; /* the same; "Automatic" stays */
} attune_session_plan;
ATTUNE_STATIC_ASSERT(sizeof(attune_session_plan) == 344, "attune_session_plan is part of the ABI");

enum { ATTUNE_PHASE_TEXT = 0, ATTUNE_PHASE_SAMPLE = 1, ATTUNE_PHASE_DECODE = 2 };

typedef struct attune_progress {
    uint32_t struct_size;
    int32_t phase;  /* of the unit that was just done */
    uint32_t step;  /* how many of that phase are done */
    uint32_t steps; /* … of how many */
    uint32_t done;  /* 1: nothing is left, the images are there */
    float sigma;    /* noise level after the step (SAMPLE only) */
} attune_progress;
ATTUNE_STATIC_ASSERT(sizeof(attune_progress) == 24, "attune_progress is part of the ABI");

/* Caller-owned pixels: 8-bit sRGB, 3 channels, rows of `stride` bytes from the top. */
typedef struct attune_image {
    uint32_t struct_size;
    uint32_t width;
    uint32_t height;
    uint32_t stride;
    uint8_t *pixels;
} attune_image;
ATTUNE_STATIC_ASSERT(sizeof(attune_image) == 24, "attune_image is part of the ABI");

typedef struct attune_sampler_interface {
    uint32_t struct_size;
    uint32_t reserved;
    /* [any] What this sampler is. */
    attune_code (*describe)(void *instance, attune_sampler_info *out, attune_error *error);
    /* [any] The index-th name of a list (ATTUNE_LIST_…) into 64 bytes; OUT_OF_RANGE ends the list. */
    attune_code (*list)(void *instance, int32_t list, uint32_t index, char name[64]);
    /* [any] Open a diffusers folder or a checkpoint in one .safetensors file: configurations are read,
     * weights mapped and checked. Blocks. The handle is immutable and may serve several sessions at once; the
     * caller closes it after them. Errors: NOT_FOUND, DATA_LOSS (truncated), INVALID_ARGUMENT (missing
     * tensors: the first three are named), UNIMPLEMENTED (another kind of model), RESOURCE_EXHAUSTED,
     * CANCELLED. */
    attune_code (*model_open)(void *instance, const char *path, const attune_model_options *options,
                              const attune_stream *stream, const attune_control *control, void **model,
                              attune_error *error);
    attune_code (*model_describe)(void *model, attune_model_info *out, attune_error *error);
    void (*model_close)(void *model);
    /* [any] Check a request, bind its attention, plan its memory, make ready the weights that no session
     * needed before. Blocks; `control` may be NULL. `binder` and `stream` must live until session_close.
     * Errors: CANCELLED, INVALID_ARGUMENT, NOT_FOUND (unknown sampler or scheduler, with the known ones),
     * FAILED_PRECONDITION (determinism above what a part keeps: it is named), RESOURCE_EXHAUSTED (with the
     * least that would do). */
    attune_code (*session_begin)(void *model, const attune_request *request, const attune_binder *binder,
                                 const attune_stream *stream, const attune_control *control, void **session,
                                 attune_session_plan *plan, attune_error *error);
    /* [session] One unit of work. After an error only session_close may follow; FAILED_PRECONDITION when all
     * is done. */
    attune_code (*session_step)(void *session, const attune_control *control, attune_progress *progress,
                                attune_error *error);
    /* [session] The present estimate of image `index` (the denoised latent decoded), after at least one
     * sampler step. */
    attune_code (*session_preview)(void *session, uint32_t index, const attune_control *control,
                                   attune_image *image, attune_error *error);
    /* [session] Copy out image `index` when all is done. */
    attune_code (*session_image)(void *session, uint32_t index, attune_image *image, attune_error *error);
    void (*session_close)(void *session);
} attune_sampler_interface;

#ifdef __cplusplus
}
#endif
#endif
