/*
 * pass.h: one walk through the networks. The same code runs twice: planning, where memory is only counted and
 * attention problems are only listed, and for real, where every pointer is the one that the planning walk
 * got.
 *
 * A pass belongs to one session: [session].
 */
#ifndef ATTUNE_SAMPLER_PASS_H
#define ATTUNE_SAMPLER_PASS_H

#include "plugin/sampler/ops.h"

/* Blocks of device memory by offset: first fit, lowest offset first, so that a walk repeated gives the same
 * offsets. */
enum { ARENA_MAX_BLOCKS = 256, ATTENTION_MAX_PROBLEMS = 128 };

typedef struct arena_block {
    uint64_t offset;
    uint64_t bytes;
} arena_block;

typedef struct arena {
    arena_block used[ARENA_MAX_BLOCKS]; /* ascending */
    uint32_t count;
    uint64_t peak;
} arena;

/* The networks run one after another; each phase has memory of its own, which is there while it lasts. */
enum { PHASE_TEXT, PHASE_UNET, PHASE_VAE, PHASES, PHASE_NONE = -1 };

/* What a phase needs, in bytes. */
typedef struct phase_needs {
    uint32_t serial; /* of its planning pass */
    uint64_t activations;
    uint64_t shared; /* scratch memory, as in device_pass */
    uint64_t worker;
    uint64_t workspace; /* of attention */
    uint64_t room;      /* for weights that are not kept packed */
} phase_needs;

/* An attention problem of the session and what serves it. */
typedef struct attention_entry {
    attune_attention_problem problem;
    attune_bound bound;
    uint32_t phases; /* a bit for each that has it */
} attention_entry;

typedef struct pass {
    const services *host;
    const device_ops *ops;
    device *dev;
    device_pass run;
    const attune_control *control; /* of the step that runs; NULL = none */
    const attune_binder *binder;
    phase_needs needs[PHASES];
    int32_t phase;
    arena memory;   /* of the phase */
    uintptr_t base; /* of the arena: a made-up address while planning, which nobody reads */
    arena kept;     /* what outlives a phase: keys and values of the text */
    uintptr_t kept_base;
    int32_t determinism; /* asked for: goes into every attention problem */
    uint32_t problems;
    attention_entry attention[ATTENTION_MAX_PROBLEMS];
    attune_device_id device_id;
    void *workspace;
    char part[48];    /* which network is walked through, for errors */
    int32_t watching; /* 1: each layer's result is looked at, and one that is not finite is an error */
} pass;

/* Leave the function with the code of a call that failed. A walk gives nothing back on its way out: the next
 * begins with pass_forget. */
#define PASS_TRY(call)                                                                                       \
    do {                                                                                                     \
        attune_code pass_try_code = (call);                                                                  \
        if (pass_try_code != ATTUNE_OK)                                                                      \
            return pass_try_code;                                                                            \
    } while (0)

/* Begin to plan on `stream`; of what the pass holds only its control stays. pass_close frees all. */
void pass_plan(pass *p, const services *host, const device_ops *ops, device *dev, const attune_stream *stream,
               int32_t determinism);
/* Plan a phase: the walk that follows is measured until pass_plan_end. */
void pass_plan_phase(pass *p, int32_t phase);
void pass_plan_end(pass *p);
/* Device memory that a phase takes, what is kept not included. UINT64_MAX on overflow. */
uint64_t pass_phase_bytes(const pass *p, int32_t phase);
uint64_t pass_kept_bytes(const pass *p);
/* Allocate what is kept, and begin to run. Errors: RESOURCE_EXHAUSTED. */
attune_code pass_start(pass *p, attune_error *error);
/* Allocate the phase's memory; give that of the present one back. Errors: RESOURCE_EXHAUSTED. */
attune_code pass_enter(pass *p, int32_t phase, attune_error *error);
void pass_leave(pass *p);
void pass_close(pass *p);

/* `count` floats that stay until the pass is closed; taken again from the first on after pass_forget. */
attune_code pass_keep(pass *p, int64_t count, float **out, attune_error *error);
/* A walk begins anew: the arena is empty, and with `kept` that of pass_keep. */
void pass_forget(pass *p, int32_t kept);

/* `count` floats of the arena. Errors: RESOURCE_EXHAUSTED (overflow), INTERNAL. */
attune_code pass_take(pass *p, int64_t count, float **out, attune_error *error);
/* Give floats back; NULL is allowed. Sets the pointer to NULL. */
void pass_give(pass *p, float **memory);
/* Give back what lies behind the first `count` floats of memory that was taken. */
void pass_shrink(pass *p, const float *memory, int64_t count);
/* CANCELLED or DEADLINE_EXCEEDED where the caller asks for it. */
attune_code pass_check(const pass *p, attune_error *error);

/* While watching, OUT_OF_RANGE where what `layer` made is not finite: `rows` rows of `channels` floats,
 * `stride` floats apart. */
attune_code pass_watch(pass *p, const char *layer, const float *made, int64_t rows, int64_t channels,
                       int64_t stride, attune_error *error);

/* The operations of ops.h, each after a look at the control, and watched. */
attune_code pass_linear(pass *p, device_weights *weights, const device_linear *args, attune_error *error);
attune_code pass_convolution(pass *p, device_weights *weights, const device_convolution *args,
                             attune_error *error);
attune_code pass_group_norm(pass *p, const device_group_norm *args, attune_error *error);
attune_code pass_layer_norm(pass *p, const device_layer_norm *args, attune_error *error);

#endif
