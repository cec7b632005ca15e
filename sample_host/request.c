/* request.c: seeds, sizes and the model of a request. */
#include "request.h"
#include "interrupt.h"
#include "words.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

attune_code request_seed(struct app *app, const char *name, const char *given, uint64_t *seed) {
    char *end;
    const char *text = given ? given : "-1";
    errno = 0;
    if (strcmp(text, "-1") == 0) { /* 32 bits, as the web UI draws them */
        uint32_t drawn;
        if (getrandom(&drawn, sizeof drawn, 0) != sizeof drawn)
            return attune_fail(&app->error, ATTUNE_UNAVAILABLE, "sample_host", name,
                               "no random numbers to be had");
        *seed = drawn;
        return ATTUNE_OK;
    }
    *seed = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || *seed > INT64_MAX - REQUEST_MOST_IMAGES)
        return app_usage(app, "%s %s is no seed; write a whole number from 0 to %lld, or -1", name, text,
                         (long long)INT64_MAX - REQUEST_MOST_IMAGES);
    return ATTUNE_OK;
}

int request_randn(const char *name, uint32_t *out) {
    *out = strcasecmp(name, "NV") == 0 ? ATTUNE_RANDN_NV : ATTUNE_RANDN_CPU;
    return *out == ATTUNE_RANDN_NV || strcasecmp(name, "CPU") == 0;
}

attune_code request_extent(struct app *app, int steps, int width, int height) {
    if (steps < 1 || steps > 1000)
        return app_usage(app, "--steps %d is outside 1 to 1000", steps);
    if (width < 0 || height < 0 || width > 1 << 16 || height > 1 << 16)
        return app_usage(app, "a size of %d×%d is outside 8 to 65536", width, height);
    return ATTUNE_OK;
}

attune_code request_model(struct app *app, const char *path, const char *config, const char *prompt,
                          attune_model **model) {
    char unknown[1400];
    const attune_model_options options = {.struct_size = sizeof options, .config = config};
    app_say(app, "Loading %s", path);
    attune_code code = attune_model_open_with(app->host, path, &options, &app->wish, interrupt_control(),
                                              model, &app->error);
    if (code == ATTUNE_OK && words_unknown(path, prompt, unknown, sizeof unknown))
        app_warn(app, "%s", unknown);
    return code;
}

attune_code request_draw(attune_session *session, uint32_t index, attune_image *image, attune_error *error) {
    attune_progress progress = {.struct_size = sizeof progress};
    attune_code code = ATTUNE_OK;
    while (!progress.done && code == ATTUNE_OK)
        code = attune_session_step(session, interrupt_control(), &progress, error);
    return code ? code : attune_session_image(session, index, image, error);
}
