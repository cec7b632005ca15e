/* study_capped.h: a host and a model whose plugins use no better instructions than one set. */
#ifndef ATTUNE_STUDY_CAPPED_H
#define ATTUNE_STUDY_CAPPED_H

#include "app.h"

typedef struct study_capped {
    attune *host;
    attune_model *model;
} study_capped;

/* Plugins look at ATTUNE_CPU_MASK when they are loaded, so that each cap needs a host of its own. [main
 * thread, while no picture is being made: the environment changes for the moment] The caller closes it, on
 * failure too. Errors: those of loading plugins and models. */
attune_code study_capped_open(struct app *app, const char *isa, const char *model, const char *config,
                              study_capped *out);
void study_capped_close(study_capped *capped);

#endif
