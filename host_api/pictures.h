/* pictures.h: models and sessions, the host's side of attune.sampler/1. */
#ifndef HOST_API_PICTURES_H
#define HOST_API_PICTURES_H

#include "choose.h"

struct attune_model {
    atomic_uint references; /* the application's, and one of each session */
    attune *host;           /* held */
    attune_generation *generation;
    void *model; /* the plugin's */
    attune_stream stream;
};

/* [any] Give back a reference to the model; the last one closes it in the plugin. */
void attune_model_drop(attune_model *model);

/* [any] Fail because a sampler keeps less than the class that is wanted: what keeps what, and what lacks. */
attune_code attune_sampler_class_failure(const attune_generation *generation, int32_t wanted,
                                         attune_error *error);

#endif
