/* study_capped.c: see study_capped.h. */
#include "study_capped.h"
#include "interrupt.h"

#include <stdlib.h>

static const char variable[] = "ATTUNE_CPU_MASK";

static attune_code no_memory(struct app *app) {
    return attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", variable,
                       "no memory for the environment");
}

static attune_code open_both(struct app *app, const char *model, const char *config, study_capped *out) {
    const attune_model_options options = {.struct_size = sizeof options, .config = config};
    attune_code code = app_open_host(app, &out->host);
    return code ? code
                : attune_model_open_with(out->host, model, &options, &app->wish, interrupt_control(),
                                         &out->model, &app->error);
}

attune_code study_capped_open(struct app *app, const char *isa, const char *model, const char *config,
                              study_capped *out) {
    const char *present = getenv(variable);
    char *before = present ? strdup(present) : NULL;
    *out = (study_capped){NULL, NULL};
    if (present && !before)
        return no_memory(app);
    attune_code code = setenv(variable, isa, 1) ? no_memory(app) : open_both(app, model, config, out);
    if ((before ? setenv(variable, before, 1) : unsetenv(variable)) && code == ATTUNE_OK)
        code = no_memory(app);
    free(before);
    return code;
}

void study_capped_close(study_capped *capped) {
    attune_model_close(capped->model);
    attune_close(capped->host);
}
