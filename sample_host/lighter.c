/* lighter.c: see lighter.h. */
#include "lighter.h"
#include "interrupt.h"

enum { MAX_BACKENDS = 64 };

__attribute__((format(printf, 2, 3))) static void add(attune_error *error, const char *format, ...) {
    size_t used = strlen(error->hint);
    va_list list;
    if (used)
        used += (size_t)snprintf(error->hint + used, sizeof error->hint - used, "; ");
    if (used >= sizeof error->hint)
        return;
    va_start(list, format);
    (void)vsnprintf(error->hint + used, sizeof error->hint - used, format, list);
    va_end(list);
}

static int fits(attune_model *model, const attune_request *request, const attune_wish *wish) {
    attune_session *session = NULL;
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_choice choice = {.struct_size = sizeof choice};
    attune_error error = {0};
    const int opened = attune_session_open(model, request, wish, interrupt_control(), &session, &plan,
                                           &choice, &error) == ATTUNE_OK;
    attune_session_close(session);
    return opened;
}

void lighter_hint(struct app *app, attune_model *model, const attune_request *request) {
    char names[MAX_BACKENDS][32];
    attune_wish wish = app->wish;
    if (app->error.code != ATTUNE_RESOURCE_EXHAUSTED)
        return;
    if (!wish.memory_limit) {
        if (request->memory != ATTUNE_MEMORY_LEAST)
            add(&app->error, request->memory == ATTUNE_MEMORY_KEEP ? "--medvram or --lowvram take less memory"
                                                                   : "--lowvram takes less memory");
        return;
    }
    const uint32_t count = wish.required ? app_backends(app, names, MAX_BACKENDS) : 0;
    for (uint32_t i = 0; i < count; ++i) {
        wish.attention = names[i];
        if (strcmp(names[i], app->backend) != 0 && fits(model, request, &wish)) {
            add(&app->error, "--attention-required %s fits", names[i]);
            return;
        }
    }
}
