/* session.c: `sample_host session`, requests as JSON lines on standard input, answers on standard output. */
#include "interrupt.h"
#include "request.h"
#include "session_job.h"

#include <errno.h>
#include <stdlib.h>

enum { LONGEST_LINE = 1 << 20 };

static struct {
    char *model, *model_config;
    int watch;
} options;

static const struct poptOption table[] = {
    {"watch", 0, POPT_ARG_NONE, &options.watch, 0, "swap by itself what changes in the plugin folders", NULL},
    {"model", 0, POPT_ARG_STRING, &options.model, 0,
     "a Stable Diffusion 1.x checkpoint (.safetensors) or diffusers folder [default the embedded emoji "
     "model]",
     "PATH"},
    {"model-config", 0, POPT_ARG_STRING, &options.model_config, 0,
     "JSON with what a checkpoint's shapes do not tell [default NAME.json beside NAME.safetensors]", "FILE"},
    POPT_TABLEEND};

void session_say(session_shared *shared, json_t *object) {
    char *text =
        object ? json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) : NULL;
    (void)pthread_mutex_lock(&shared->out);
    puts(text ? text
              : "{\"error\": {\"code\": \"RESOURCE_EXHAUSTED\", \"message\": \"no memory for a line\"}}");
    (void)fflush(stdout);
    (void)pthread_mutex_unlock(&shared->out);
    free(text);
    json_decref(object);
}

json_t *session_error(const attune_error *error) {
    return json_pack("{s:s, s:o, s:o}", "code", attune_code_name(error->code), "message",
                     json_text(error->message), "hint", json_text(error->hint));
}

/* ---- swaps ---- */

static json_t *report_json(const attune_swap_report *report, attune_code code, const attune_error *error) {
    json_t *out = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "plugin", report->plugin, "version",
                            report->version, "swapped", (json_int_t)report->swapped, "added",
                            (json_int_t)report->added, "unchanged", (json_int_t)report->unchanged,
                            "generation", (json_int_t)report->generation, "replaced",
                            (json_int_t)report->replaced, "milliseconds", (double)report->nanoseconds / 1e6);
    if (code && *report->stage)
        json_object_set_new(out, "stage", json_text(report->stage));
    json_t *line = json_pack("{s:o}", "swap", out);
    if (code)
        json_object_set_new(line, "error", session_error(error));
    return line;
}

static void swap_now(session_shared *shared, const char *manifest) {
    attune_swap_report report = {.struct_size = sizeof report};
    attune_error error = {.code = ATTUNE_OK};
    attune_code code = attune_swap(shared->app->host, manifest, &report, &error);
    session_say(shared, report_json(&report, code, &error));
}

typedef struct watcher {
    session_shared *shared;
    attune_watch *watch;
    pthread_t thread;
    atomic_int stop;
} watcher;

static void *keep_watch(void *context) {
    watcher *w = context;
    while (!atomic_load(&w->stop)) {
        attune_swap_report report = {.struct_size = sizeof report};
        attune_error error = {.code = ATTUNE_OK};
        attune_code code = attune_watch_wait(w->watch, 200, &report, &error);
        if (code != ATTUNE_DEADLINE_EXCEEDED)
            session_say(w->shared, report_json(&report, code, &error));
    }
    return NULL;
}

static attune_code watch_start(watcher *w, attune_error *error) {
    attune_code code = attune_watch_open(w->shared->app->host, &w->watch, error);
    if (!code && pthread_create(&w->thread, NULL, keep_watch, w) != 0) {
        attune_watch_close(w->watch);
        w->watch = NULL;
        code = attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "session",
                           "no thread to watch with");
    }
    return code;
}

static void watch_stop(watcher *w) {
    if (!w->watch)
        return;
    atomic_store(&w->stop, 1);
    (void)pthread_join(w->thread, NULL);
    attune_watch_close(w->watch);
}

/* ---- lines ---- */

/* Does a whole line what it asks for; the code of one that asks for nothing known. */
static attune_code obey(session_shared *shared, const json_t *request, uint64_t line, attune_error *error) {
    const json_t *swap = json_object_get(request, "swap"), *cancel = json_object_get(request, "cancel");
    if (json_object_get(request, "plugins")) {
        session_say(shared, json_pack("{s:o}", "plugins", plugins_list(shared->app)));
        return ATTUNE_OK;
    }
    if (cancel)
        return session_job_cancel(shared, cancel, error);
    if (swap && !json_is_string(swap))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, "sample_host", "swap",
                           "\"swap\": the path of a manifest is expected");
    if (swap) {
        swap_now(shared, json_string_value(swap));
        return ATTUNE_OK;
    }
    json_t *given = json_object_get(request, "id");
    if (given && !json_is_string(given) && !json_is_integer(given))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, "sample_host", "id",
                           "\"id\": a text or a whole number is expected");
    json_t *id = given ? json_incref(given) : json_integer((json_int_t)line);
    attune_code code = session_job_start(shared, request, id, error);
    json_decref(id);
    return code;
}

static void read_request(session_shared *shared, const char *text, size_t length, uint64_t line) {
    attune_error error = {.code = ATTUNE_OK};
    json_error_t problem;
    json_t *request =
        length < LONGEST_LINE ? json_loadb(text, length, JSON_REJECT_DUPLICATES, &problem) : NULL;
    attune_code code = ATTUNE_OK;
    if (length >= LONGEST_LINE)
        code = attune_fail(&error, ATTUNE_OUT_OF_RANGE, "sample_host", "session",
                           "line %llu is longer than %d bytes", (unsigned long long)line, LONGEST_LINE - 1);
    else if (!json_is_object(request)) {
        code = attune_fail(&error, ATTUNE_INVALID_ARGUMENT, "sample_host", "session",
                           "line %llu is no JSON object: %s", (unsigned long long)line,
                           request ? "another value stands there" : problem.text);
        attune_hint(&error, "one request is one line: {\"id\": 1, \"prompt\": \"red apple\"}");
    } else
        code = obey(shared, request, line, &error);
    if (code) {
        json_t *out = json_pack("{s:I, s:o}", "line", (json_int_t)line, "error", session_error(&error));
        if (json_object_get(request, "id"))
            json_object_set(out, "id", json_object_get(request, "id"));
        session_say(shared, out);
    }
    json_decref(request);
}

/* Until end of input or an interrupt. */
static attune_code read_lines(session_shared *shared, char *buffer) {
    size_t used = 0;
    int c = 0;
    for (uint64_t line = 1; c != EOF;) {
        c = getchar();
        if (c != '\n' && c != EOF) {
            if (used < LONGEST_LINE)
                buffer[used++] = (char)c;
            continue;
        }
        if (strspn(buffer, " \t\r") < used)
            read_request(shared, buffer, used, line);
        memset(buffer, 0, used);
        used = 0;
        ++line;
        session_jobs_collect(shared, 0);
    }
    const attune_control *interrupt = interrupt_control();
    if (interrupt->cancelled(interrupt->context))
        return attune_fail(&shared->app->error, ATTUNE_CANCELLED, "sample_host", "session", "interrupted");
    return ferror(stdin) ? attune_fail(&shared->app->error, ATTUNE_UNAVAILABLE, "sample_host", "session",
                                       "standard input cannot be read: %s", strerror(errno))
                         : ATTUNE_OK;
}

static attune_code open_model(session_shared *shared) {
    struct app *app = shared->app;
    attune_model_info info = {.struct_size = sizeof info};
    shared->model_path = options.model ? options.model : app->model_dir;
    shared->sampler_info.struct_size = sizeof shared->sampler_info;
    shared->sampler_plugin.struct_size = sizeof shared->sampler_plugin;
    attune_code code = request_model(app, shared->model_path, options.model_config, "", &shared->model);
    if (!code)
        code = attune_model_describe(shared->model, &info, &app->error);
    if (!code)
        code =
            attune_model_sampler(shared->model, &shared->sampler_info, &shared->sampler_plugin, &app->error);
    if (!code)
        model_hash_start(&shared->hash, shared->model_path, info.weights_file);
    return code;
}

static attune_code run(struct app *app, int argc, const char **argv) {
    if (argc)
        return app_usage(app, "unexpected argument \"%s\"; requests come on standard input", argv[0]);
    session_shared *shared = calloc(1, sizeof *shared);
    char *buffer = calloc(1, LONGEST_LINE + 1);
    watcher w = {.shared = shared};
    attune_code code = shared && buffer ? ATTUNE_OK
                                        : attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host",
                                                      "session", "no memory to start");
    if (!code) {
        shared->app = app;
        app->json = app->quiet = 1; /* standard output is the lines' */
        (void)pthread_mutex_init(&shared->out, NULL);
        (void)pthread_mutex_init(&shared->files, NULL);
        (void)pthread_mutex_init(&shared->lock, NULL);
        (void)pthread_cond_init(&shared->changed, NULL);
        code = open_model(shared);
    }
    if (!code && options.watch)
        code = watch_start(&w, &app->error);
    if (!code)
        code = read_lines(shared, buffer);
    if (shared) {
        session_jobs_collect(shared, 1);
        watch_stop(&w);
        model_hash_finish(&shared->hash);
        attune_model_close(shared->model);
    }
    app->json = 0; /* an error is one line on standard error, as ever */
    free(shared);
    free(buffer);
    return code;
}

const command session_command = {
    .name = "session",
    .arguments = "",
    .summary = "Requests as JSON lines, answers as JSON lines; plugins are swapped meanwhile",
    .table = table,
    .draws = 1,
    .run = run};
