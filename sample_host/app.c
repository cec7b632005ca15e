/* app.c: set-up and the end of every command. */
#include "app.h"
#include "nearest.h"
#include "options.h"
#include "webui.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

static pthread_mutex_t warnings_lock = PTHREAD_MUTEX_INITIALIZER;

attune_code app_usage(struct app *app, const char *format, ...) {
    char message[512];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(message, sizeof message, format, list);
    va_end(list);
    attune_fail(&app->error, ATTUNE_INVALID_ARGUMENT, "sample_host", app->command, "%s", message);
    attune_hint(&app->error, "sample_host %s --help lists the options", app->command);
    app->status = EXIT_USAGE;
    return ATTUNE_INVALID_ARGUMENT;
}

void app_warn(struct app *app, const char *format, ...) {
    char message[1024];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(message, sizeof message, format, list);
    va_end(list);
    pthread_mutex_lock(&warnings_lock);
    json_array_append_new(app->warnings, json_text(message));
    pthread_mutex_unlock(&warnings_lock);
    if (!app->quiet)
        fprintf(stderr, "sample_host: warning: %s\n", message);
}

void app_say(const struct app *app, const char *format, ...) {
    if (app->quiet)
        return;
    va_list list;
    va_start(list, format);
    (void)vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
}

static void host_log(void *context, int32_t level, const char *domain, const char *message) {
    if (level >= ATTUNE_LOG_WARNING)
        app_warn(context, "%s: %s", domain, message);
}

int app_parse_size(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    double number = strtod(text, &end);
    if (end == text || errno || !(number >= 0) || !isdigit((unsigned char)text[0]))
        return -1;
    int shift = 0;
    if (*end) {
        const char *units = "kmg", *unit = strchr(units, tolower((unsigned char)*end));
        if (!unit)
            return -1;
        shift = 10 * (int)(unit - units + 1);
        ++end;
        if (*end == 'B' || *end == 'b')
            ++end;
    }
    number = floor(ldexp(number, shift));
    if (*end || number >= 0x1p63)
        return -1;
    *out = (uint64_t)number;
    return 0;
}

/* Plugins and model lie beside the executable (build/) or in ../lib/attune and ../share/attune (installed).
 */
static void find_folders(struct app *app) {
    char exe[2048], probe[2200];
    ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[length > 0 ? length : 0] = 0;
    char *slash = strrchr(exe, '/');
    if (slash)
        *slash = 0;
    (void)snprintf(probe, sizeof probe, "%s/manifest.json", exe);
    int built = access(probe, F_OK) == 0;
    (void)snprintf(app->plugin_dir, sizeof app->plugin_dir, built ? "%s" : "%s/../lib/attune", exe);
    static const char *const places[] = {"models/emoji", "../share/attune/models/emoji"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; ++i) {
        (void)snprintf(app->model_dir, sizeof app->model_dir, "%s/%s", exe, places[i]);
        if (access(app->model_dir, F_OK) == 0)
            break;
    }
    (void)snprintf(app->vocabulary, sizeof app->vocabulary, "%s/tokenizer", app->model_dir);
}

/* The name or alias of a backend that `text` means, as the plugin spells it, or NULL. */
static const char *answers_to(const attune_attention_info *info, const char *text) {
    if (webui_title_is(text, info->name))
        return info->name;
    for (int a = 0; a < ATTUNE_MAX_ALIASES; ++a)
        if (info->aliases[a][0] && webui_title_is(text, info->aliases[a]))
            return info->aliases[a];
    return NULL;
}

static attune_code find_backend(struct app *app, const attune_snapshot *snapshot, const char *asked,
                                char found[32], char spelled[32]) {
    char known[ATTUNE_MAX_CANDIDATES][32], list[256] = "";
    const char *names[ATTUNE_MAX_CANDIDATES];
    size_t count = 0;
    for (uint32_t i = 0; i < attune_snapshot_count(snapshot); ++i) {
        attune_attention_info info = {.struct_size = sizeof info};
        for (uint32_t j = 0; attune_snapshot_attention(snapshot, i, j, &info, NULL) == ATTUNE_OK; ++j) {
            const char *name = answers_to(&info, asked);
            if (name) {
                memcpy(found, info.name, sizeof info.name);
                memcpy(spelled, name, sizeof info.name);
                return ATTUNE_OK;
            }
            if (count == ATTUNE_MAX_CANDIDATES)
                continue;
            size_t used = strlen(list);
            memcpy(known[count], info.name, sizeof known[count]);
            names[count] = known[count];
            (void)snprintf(list + used, sizeof list - used, "%s%s", count++ ? ", " : "", info.name);
        }
    }
    const char *known_there = webui_attention(asked);
    if (known_there) {
        (void)snprintf(spelled, sizeof known[0], "%s", known_there);
        return ATTUNE_OK;
    }
    const char *close = nearest_word(asked, names, count);
    return app_usage(app, "no attention backend is called \"%s\"%s%s%s; loaded are %s", asked,
                     close ? "; did you mean " : "", close ? close : "", close ? "?" : "", list);
}

attune_code app_find_backend(struct app *app, const char *asked, char found[32], char spelled[32]) {
    attune_snapshot *snapshot = attune_snapshot_acquire(app->host);
    attune_code code = find_backend(app, snapshot, asked, found, spelled);
    attune_snapshot_release(snapshot);
    return code;
}

uint32_t app_backends(struct app *app, char names[][32], uint32_t most) {
    uint32_t count = 0;
    attune_snapshot *snapshot = attune_snapshot_acquire(app->host);
    attune_attention_info info = {.struct_size = sizeof info};
    for (uint32_t i = 0; i < attune_snapshot_count(snapshot); ++i)
        for (uint32_t j = 0; attune_snapshot_attention(snapshot, i, j, &info, NULL) == ATTUNE_OK; ++j) {
            int known = count == most;
            for (uint32_t n = 0; n < count; ++n)
                known |= strcmp(names[n], info.name) == 0;
            if (!known)
                memcpy(names[count++], info.name, sizeof info.name);
        }
    attune_snapshot_release(snapshot);
    return count;
}

static void check_sub_quad(const command *which, struct app *app) {
    int given = app->sub_quad.q_chunk_size >= 0 || app->sub_quad.kv_chunk_size >= 0 ||
                app->sub_quad.chunk_threshold >= 0;
    int meant = strcmp(app->backend, "sub-quadratic") == 0 || (which->compares && !app->wish.attention);
    if (given && !meant)
        app_warn(app,
                 "the --sub-quad-* sizes have no effect: no sub-quadratic backend is asked for and loaded");
}

/* A manifest that was asked for by name must load whole: a library of it that is refused is an error, not a
 * note, but where this machine lacks what it needs, such as a GPU: the warning tells that. */
static attune_code check_refused(struct app *app, attune *host, const char *manifest) {
    attune_code code = ATTUNE_OK;
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    for (uint32_t i = 0; code == ATTUNE_OK && i < attune_snapshot_count(snapshot); ++i) {
        attune_plugin_status status = {.struct_size = sizeof status};
        if (attune_snapshot_plugin(snapshot, i, &status, NULL) == ATTUNE_OK && status.refused[0] &&
            status.refused_code != ATTUNE_UNAVAILABLE)
            code = attune_fail(&app->error, ATTUNE_FAILED_PRECONDITION, "sample_host", manifest,
                               "%s: %s was refused: %s", manifest, status.id, status.refused);
    }
    attune_snapshot_release(snapshot);
    return code;
}

attune_code app_open_host(struct app *app, attune **host) {
    attune_options options = {.struct_size = sizeof options,
                              .threads = (uint32_t)app->threads,
                              .plugin_dir = app->plugin_dir,
                              .vocabulary = app->vocabulary,
                              .log = app->host ? NULL : host_log, /* a further one would say the same */
                              .log_context = app};
    attune_code code = attune_open(&options, host, &app->error);
    for (char **plugin = app->plugins; code == ATTUNE_OK && plugin && *plugin; ++plugin) {
        code = attune_load(*host, *plugin, &app->error);
        if (code == ATTUNE_OK)
            code = check_refused(app, *host, *plugin);
    }
    if (code != ATTUNE_OK)
        return code;
    code = attune_load_default(*host, &app->error);
    return app->plugins ? ATTUNE_OK : code;
}

static attune_code open_host(const command *which, struct app *app) {
    find_folders(app);
    attune_code code = app_open_host(app, &app->host);
    if (code == ATTUNE_OK && app->wish.attention) {
        code = app_find_backend(app, app->wish.attention, app->backend, app->asked);
        app->wish.attention = app->asked;
    }
    if (code == ATTUNE_OK)
        check_sub_quad(which, app);
    return code;
}

attune_code app_not_served(struct app *app, attune_code code) {
    if (code == ATTUNE_UNAVAILABLE || code == ATTUNE_FAILED_PRECONDITION ||
        (code == ATTUNE_RESOURCE_EXHAUSTED && app->wish.memory_limit) ||
        (code == ATTUNE_NOT_FOUND && app->wish.required && strcmp(app->error.domain, "attune") == 0))
        app->status = EXIT_NO_BACKEND;
    else if (code == ATTUNE_INVALID_ARGUMENT || code == ATTUNE_NOT_FOUND || code == ATTUNE_OUT_OF_RANGE)
        app->status = EXIT_USAGE;
    return code;
}

int app_device_passes(const struct app *app, const attune_device_info *device) {
    const attune_wish *wish = &app->wish;
    size_t length = wish->device ? strlen(wish->device) : 0;
    int named = !wish->device || (strncmp(device->name, wish->device, length) == 0 &&
                                  (!device->name[length] || device->name[length] == ':'));
    return named && (!wish->vendor || strcasecmp(wish->vendor, device->vendor) == 0) &&
           device->memory_total >= wish->min_memory;
}

static int has_attention(const attune_snapshot *snapshot, const attune_device_id *device) {
    attune_attention_info info = {.struct_size = sizeof info};
    for (uint32_t i = 0; i < attune_snapshot_count(snapshot); ++i)
        for (uint32_t j = 0; attune_snapshot_attention(snapshot, i, j, &info, NULL) == ATTUNE_OK; ++j)
            if (attune_device_same(&info.device, device))
                return 1;
    return 0;
}

/* `cpu` is what the id becomes where no device passes. */
static void find_device(struct app *app, attune_device_id *cpu) {
    attune_device_info info = {.struct_size = sizeof info};
    int found = 0;
    attune_snapshot *snapshot = attune_snapshot_acquire(app->host);
    for (uint32_t i = 0; i < attune_snapshot_count(snapshot); ++i)
        for (uint32_t j = 0; attune_snapshot_device(snapshot, i, j, &info, NULL) == ATTUNE_OK; ++j) {
            const int is_cpu = info.id.type == ATTUNE_DEVICE_CPU;
            if ((found && !is_cpu) || !app_device_passes(app, &info) || !has_attention(snapshot, &info.id))
                continue;
            found = 1;
            *cpu = info.id;
            memcpy(app->device_name, info.name, sizeof app->device_name);
        }
    attune_snapshot_release(snapshot);
    if (found && app->wish.device)
        app->wish.device = app->device_name;
}

attune_code app_stream(struct app *app, attune_stream *stream) {
    attune_device_id device;
    attune_code code = attune_cpu_device(app->host, &device, &app->error);
    if (code != ATTUNE_OK)
        return code;
    find_device(app, &device);
    return attune_stream_create(app->host, &device, (uint32_t)app->threads, stream, &app->error);
}

static int exit_status(const struct app *app, attune_code code) {
    if (code == ATTUNE_OK)
        return EXIT_DONE;
    if (code == ATTUNE_CANCELLED)
        return EXIT_INTERRUPTED;
    if (app->status)
        return app->status;
    return code == ATTUNE_UNAVAILABLE ? EXIT_NO_BACKEND : EXIT_FAILED;
}

int app_end_output(int status) {
    int failed = fflush(stdout) != 0 || ferror(stdout);
    if (failed && status == EXIT_DONE) { /* else there is an error line already */
        fprintf(stderr, "sample_host: error: cannot write to standard output: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    return status;
}

/* jansson's memory. Its lexer (2.14, lex_save) does not look whether its buffer could grow and would write
 * past it, so where malloc has nothing there is a last resort. Where that is used up too, an object that
 * lacks what there was no memory for must not pass for a whole one. */
static int json_starved;
static _Alignas(max_align_t) char last_resort[1 << 14];
static atomic_size_t last_used;

static void *json_memory(size_t bytes) {
    void *memory = malloc(bytes);
    if (memory)
        return memory;
    if (bytes < sizeof last_resort) {
        const size_t unit = _Alignof(max_align_t), room = (bytes + unit - 1) / unit * unit;
        const size_t at = atomic_fetch_add(&last_used, room);
        if (at + room <= sizeof last_resort)
            return last_resort + at;
    }
    json_starved = 1;
    return NULL;
}

void app_json_free(void *memory) {
    const uintptr_t at = (uintptr_t)memory - (uintptr_t)last_resort;
    if (at >= sizeof last_resort)
        free(memory);
}

/* The JSON object, whole or not at all; the code, which becomes an error where memory ran out. */
static attune_code print_json(struct app *app, attune_code code) {
    attune_error *error = &app->error;
    if (code == ATTUNE_OK && json_starved)
        code = attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", app->command,
                           "no memory for the JSON object");
    json_starved = 0;
    json_object_set(app->reply, "warnings", app->warnings);
    if (code != ATTUNE_OK)
        json_object_set_new(app->reply, "error",
                            json_pack("{s:s, s:o, s:o}", "code", attune_code_name(code), "message",
                                      json_text(error->message), "hint", json_text(error->hint)));
    char *text = json_dumps(app->reply, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    if (text && !json_starved) /* jansson may leave something out and go on */
        puts(text);
    else if (code == ATTUNE_OK)
        code = attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", app->command,
                           "no memory for the JSON object");
    app_json_free(text);
    return code;
}

/* The one error line, or the JSON object with "error"; then the exit status. */
static int report(struct app *app, attune_code code) {
    const attune_error *error = &app->error;
    if (app->json)
        code = print_json(app, code);
    if (code != ATTUNE_OK) {
        /* a file's name, where the message does not say it itself */
        int named = !strpbrk(error->where, "/.") || strstr(error->message, error->where);
        fprintf(stderr, "sample_host: %s: %s%s%s%s%s\n",
                code == ATTUNE_CANCELLED ? "interrupted, nothing more was written" : "error",
                named ? "" : error->where, named ? "" : ": ", error->message, error->hint[0] ? "; " : "",
                error->hint);
    }
    return app_end_output(exit_status(app, code));
}

int app_run(const command *which, int argc, const char **argv) {
    struct app *app = &the_app;
    app->command = which->name;
    json_set_alloc_funcs(json_memory, app_json_free);
    app->reply = json_object();
    app->warnings = json_array();
    attune_code code = ATTUNE_RESOURCE_EXHAUSTED;
    if (!app->reply || !app->warnings)
        attune_fail(&app->error, code, "sample_host", which->name, "no memory to start");
    else
        code = options_read(which, argc - 1, argv + 1);
    if (code == ATTUNE_OK && app->help) {
        options_help(which);
        app->json = 0;
    } else if (code == ATTUNE_OK) {
        int count = 0;
        while (app->words && app->words[count])
            ++count;
        code = which->prepare ? which->prepare(app) : ATTUNE_OK;
        if (code == ATTUNE_OK)
            code = open_host(which, app);
        if (code == ATTUNE_OK)
            code = which->run(app, count, (const char **)app->words);
    }
    int status = report(app, code);
    attune_close(app->host);
    json_decref(app->reply);
    json_decref(app->warnings);
    options_free();
    return status;
}
