/* app.c: options, set-up and the end of every command. */
#include "app.h"
#include "nearest.h"
#include "webui.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { VAL_HELP = 'h', VAL_WEBUI = 1000, MAX_WEBUI = 16 };

static struct app the_app; /* popt's tables need addresses that are constant */
static pthread_mutex_t warnings_lock = PTHREAD_MUTEX_INITIALIZER;

static struct poptOption webui_table[MAX_WEBUI + 1];
static const struct poptOption global_table[] = {
    {"plugin", 0, POPT_ARG_ARGV, &the_app.plugins, 0, "load this manifest first (may be repeated)",
     "MANIFEST"},
    {"device", 0, POPT_ARG_STRING, &the_app.device, 0, "use only this device: cpu, cuda:0", "NAME"},
    {"vendor", 0, POPT_ARG_STRING, &the_app.vendor, 0, "use only devices of this vendor: AMD, Intel, NVIDIA",
     "NAME"},
    {"min-memory", 0, POPT_ARG_STRING, &the_app.min_memory, 0,
     "use only devices with at least this memory (K, M, G)", "SIZE"},
    {"memory-limit", 0, POPT_ARG_STRING, &the_app.memory_limit, 0,
     "refuse pictures that need more than this besides the weights (K, M, G)", "SIZE"},
    {"threads", 0, POPT_ARG_INT, &the_app.threads, 0, "CPU threads [default the allowed CPUs]", "N"},
    {"determinism", 0, POPT_ARG_STRING, &the_app.determinism, 0,
     "lowest class that will do: none, repeatable, invariant, portable", "CLASS"},
    {"attention", 0, POPT_ARG_STRING, &the_app.attention, 0,
     "attention backend; another serves, and says why, where it cannot", "NAME"},
    {"attention-required", 0, POPT_ARG_STRING, &the_app.attention_required, 0,
     "attention backend; an error where it cannot serve", "NAME"},
    {"explain", 0, POPT_ARG_NONE, &the_app.explain, 0, "say why each backend was chosen or not", NULL},
    {"json", 0, POPT_ARG_NONE, &the_app.json, 0, "one JSON object on standard output, on failure too", NULL},
    {"quiet", 'q', POPT_ARG_NONE, &the_app.quiet, 0, "no progress, no notes", NULL},
    {"help", 'h', POPT_ARG_NONE, NULL, VAL_HELP, "this help", NULL},
    POPT_TABLEEND};

static void fill_webui_table(void) {
    for (size_t i = 0; i < webui_flag_count && i < MAX_WEBUI; ++i)
        webui_table[i] = (struct poptOption){
            webui_flags[i].flag, 0, POPT_ARG_NONE, NULL, VAL_WEBUI + (int)i, webui_flags[i].help, NULL};
}

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

/* A name of the form TYPE or TYPE:NUMBER of a type that exists. */
static int is_device_name(const char *name) {
    static const char *const types[] = {"cpu", "cuda", "opencl"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; ++i) {
        size_t length = strlen(types[i]);
        if (strncmp(name, types[i], length) == 0 &&
            (!name[length] || (name[length] == ':' && name[length + 1] &&
                               strspn(name + length + 1, "0123456789") == strlen(name + length + 1))))
            return 1;
    }
    return 0;
}

static attune_code parse_determinism(struct app *app) {
    if (!app->determinism)
        return ATTUNE_OK;
    app->determinism_given = 1;
    for (int32_t i = 0; attune_determinism_name(i); ++i)
        if (strcmp(app->determinism, attune_determinism_name(i)) == 0) {
            app->wish.determinism = i;
            return ATTUNE_OK;
        }
    return app_usage(app,
                     "--determinism %s is no class; the classes are none, repeatable, invariant, portable",
                     app->determinism);
}

/* Which backend the options ask for: --attention-required > --attention > web UI flags by their own priority.
 */
static void parse_attention(struct app *app) {
    const webui_flag *flag = webui_pick(app->webui);
    app->wish.attention = app->attention_required ? app->attention_required
                          : app->attention        ? app->attention
                          : flag                  ? flag->backend
                                                  : NULL;
    app->wish.required = app->attention_required != NULL;
    for (size_t i = 0; flag && i < webui_flag_count; ++i) {
        if (!(app->webui >> i & 1) || &webui_flags[i] == flag)
            continue;
        if (app->attention_required || app->attention)
            break;
        app_warn(app, "--%s and --%s were both given; %s is used, as in the web UI", flag->flag,
                 webui_flags[i].flag, flag->backend);
    }
    if (flag && app->wish.attention != flag->backend)
        app_warn(app, "--%s is overruled by %s %s", flag->flag,
                 app->attention_required ? "--attention-required" : "--attention", app->wish.attention);
}

static attune_code parse_wish(struct app *app) {
    app->wish.struct_size = sizeof app->wish;
    app->wish.vendor = app->vendor;
    app->wish.device = app->device;
    if (app->threads < 0 || app->threads > 1024)
        return app_usage(app, "--threads %d is outside 1 to 1024", app->threads);
    if (app->device && !is_device_name(app->device))
        return app_usage(app, "--device %s is no device name; names are cpu, cuda:0, opencl:0, …",
                         app->device);
    if (app->memory_limit &&
        (app_parse_size(app->memory_limit, &app->wish.memory_limit) || !app->wish.memory_limit))
        return app_usage(app, "--memory-limit %s is no size; write 512M or 8G", app->memory_limit);
    if (app->min_memory && app_parse_size(app->min_memory, &app->wish.min_memory))
        return app_usage(app, "--min-memory %s is no size; write 512M or 8G", app->min_memory);
    attune_code code = parse_determinism(app);
    if (code == ATTUNE_OK)
        parse_attention(app);
    return code;
}

/* The option nearest to an unknown one, over the command's and the global tables. */
static const char *nearest_option(const command *which, const char *bad) {
    const struct poptOption *tables[] = {which->table, global_table, webui_table};
    const char *names[128];
    size_t count = 0;
    for (size_t t = 0; t < 3; ++t)
        for (const struct poptOption *o = tables[t]; o->longName && count < 128; ++o)
            names[count++] = o->longName;
    while (*bad == '-')
        ++bad;
    return nearest_word(bad, names, count);
}

static attune_code parse_error(struct app *app, const command *which, poptContext context, int result,
                               int argc, const char **argv) {
    const char *bad = poptBadOption(context, POPT_BADOPTION_NOALIAS), *option = bad;
    if (result == POPT_ERROR_BADOPT) {
        const char *close = nearest_option(which, bad);
        return app_usage(app, "unknown option %s%s%s%s", bad, close ? "; did you mean --" : "",
                         close ? close : "", close ? "?" : "");
    }
    for (int i = 2; i < argc && result != POPT_ERROR_NOARG;
         ++i) /* popt names the value; the option stands before it */
        if (strcmp(argv[i], bad) == 0 && argv[i - 1][0] == '-')
            option = argv[i - 1];
    if (result == POPT_ERROR_BADNUMBER || result == POPT_ERROR_OVERFLOW)
        return app_usage(app, "%s: \"%s\" is no number that it takes", option, bad);
    if (result == POPT_ERROR_NOARG)
        return app_usage(app, "option %s needs a value", bad);
    return app_usage(app, "option %s: %s", bad, poptStrerror(result));
}

static attune_code parse_options(struct app *app, const command *which, poptContext context, int argc,
                                 const char **argv) {
    int result;
    while ((result = poptGetNextOpt(context)) >= 0) {
        if (result == VAL_HELP)
            app->help = 1;
        else if (result >= VAL_WEBUI)
            app->webui |= 1u << (result - VAL_WEBUI);
    }
    if (result != -1)
        return parse_error(app, which, context, result, argc, argv);
    return app->help ? ATTUNE_OK : parse_wish(app);
}

static void print_help(const command *which, poptContext context) {
    char usage[256];
    printf("%s.\n\n", which->summary);
    fflush(stdout);
    (void)snprintf(usage, sizeof usage, "%s [OPTION...]", which->arguments);
    poptSetOtherOptionHelp(context, usage);
    poptPrintHelp(context, stdout, 0);
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

static int answers_to(const attune_attention_info *info, const char *name) {
    int found = strcmp(info->name, name) == 0;
    for (int a = 0; a < ATTUNE_MAX_ALIASES; ++a)
        found |= info->aliases[a][0] && strcmp(info->aliases[a], name) == 0;
    return found;
}

/* Find the backend that the wish names. A name that no plugin offers and the web UI does not know is a typing
 * error. */
static attune_code find_backend(struct app *app, attune_snapshot *snapshot) {
    char known[ATTUNE_MAX_CANDIDATES][32], list[256] = "";
    const char *names[ATTUNE_MAX_CANDIDATES];
    size_t count = 0;
    if (!app->wish.attention)
        return ATTUNE_OK;
    for (uint32_t i = 0; i < attune_snapshot_count(snapshot); ++i) {
        attune_attention_info info = {.struct_size = sizeof info};
        for (uint32_t j = 0; attune_snapshot_attention(snapshot, i, j, &info, NULL) == ATTUNE_OK; ++j) {
            if (answers_to(&info, app->wish.attention)) {
                memcpy(app->backend, info.name, sizeof app->backend);
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
    if (webui_knows(app->wish.attention))
        return ATTUNE_OK;
    const char *close = nearest_word(app->wish.attention, names, count);
    return app_usage(app, "no attention backend is called \"%s\"%s%s%s; loaded are %s", app->wish.attention,
                     close ? "; did you mean " : "", close ? close : "", close ? "?" : "", list);
}

/* A manifest that was asked for by name must load whole: a library of it that is refused is an error, not a
 * note. */
static attune_code check_refused(struct app *app, const char *manifest) {
    attune_code code = ATTUNE_OK;
    attune_snapshot *snapshot = attune_snapshot_acquire(app->host);
    for (uint32_t i = 0; code == ATTUNE_OK && i < attune_snapshot_count(snapshot); ++i) {
        attune_plugin_status status = {.struct_size = sizeof status};
        if (attune_snapshot_plugin(snapshot, i, &status, NULL) == ATTUNE_OK && status.refused[0])
            code = attune_fail(&app->error, ATTUNE_FAILED_PRECONDITION, "sample_host", manifest,
                               "%s: %s was refused: %s", manifest, status.id, status.refused);
    }
    attune_snapshot_release(snapshot);
    return code;
}

static attune_code open_host(struct app *app) {
    find_folders(app);
    attune_options options = {.struct_size = sizeof options,
                              .threads = (uint32_t)app->threads,
                              .plugin_dir = app->plugin_dir,
                              .vocabulary = app->vocabulary,
                              .log = host_log,
                              .log_context = app};
    attune_code code = attune_open(&options, &app->host, &app->error);
    for (char **plugin = app->plugins; code == ATTUNE_OK && plugin && *plugin; ++plugin) {
        code = attune_load(app->host, *plugin, &app->error);
        if (code == ATTUNE_OK)
            code = check_refused(app, *plugin);
    }
    if (code != ATTUNE_OK)
        return code;
    code = attune_load_default(app->host, &app->error);
    if (code != ATTUNE_OK && !app->plugins)
        return code;
    attune_snapshot *snapshot = attune_snapshot_acquire(app->host);
    code = find_backend(app, snapshot);
    attune_snapshot_release(snapshot);
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

attune_code app_cpu_stream(struct app *app, attune_stream *stream) {
    attune_device_id cpu;
    attune_code code = attune_cpu_device(app->host, &cpu, &app->error);
    if (code == ATTUNE_OK)
        code = attune_stream_create(app->host, &cpu, (uint32_t)app->threads, stream, &app->error);
    return code;
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

/* jansson's memory: an object that lacks what there was no memory for must not pass for a whole one. */
static int json_starved;

static void *json_memory(size_t bytes) {
    void *memory = malloc(bytes);
    json_starved |= !memory;
    return memory;
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
    free(text);
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

/* What popt allocated for string options. */
static void free_options(const struct poptOption *table) {
    for (const struct poptOption *o = table; o->longName; ++o)
        if (o->argInfo == POPT_ARG_STRING && o->arg) {
            free(*(char **)o->arg);
            *(char **)o->arg = NULL;
        }
}

int app_run(const command *which, int argc, const char **argv) {
    struct app *app = &the_app;
    app->command = which->name;
    json_set_alloc_funcs(json_memory, free);
    app->reply = json_object();
    app->warnings = json_array();
    fill_webui_table();
    for (int i = 1; i < argc; ++i) /* a wrong option before --json is reported as JSON too */
        app->json |= strcmp(argv[i], "--json") == 0;
    struct poptOption table[] = {
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, (void *)(uintptr_t)which->table, 0, "Options:", NULL},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, webui_table, 0, "The web UI's own flags:", NULL},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, (void *)(uintptr_t)global_table, 0,
         "Options of every command:", NULL},
        POPT_TABLEEND};
    char name[64];
    (void)snprintf(name, sizeof name, "sample_host %s", which->name);
    argv[0] = name; /* what popt's usage line shows */
    poptContext context = poptGetContext("sample_host", argc, argv, table, 0);
    attune_code code = ATTUNE_RESOURCE_EXHAUSTED;
    if (!context || !app->reply || !app->warnings)
        attune_fail(&app->error, code, "sample_host", which->name, "no memory to start");
    else
        code = parse_options(app, which, context, argc, argv);
    if (code == ATTUNE_OK && app->help) {
        print_help(which, context);
        app->json = 0;
    } else if (code == ATTUNE_OK) {
        const char **words = poptGetArgs(context);
        int count = 0;
        while (words && words[count])
            ++count;
        code = open_host(app);
        if (code == ATTUNE_OK)
            code = which->run(app, count, words);
    }
    int status = report(app, code);
    attune_close(app->host);
    json_decref(app->reply);
    json_decref(app->warnings);
    poptFreeContext(context);
    free_options(which->table);
    free_options(global_table);
    for (char **plugin = app->plugins; plugin && *plugin; ++plugin)
        free(*plugin);
    free(app->plugins);
    return status;
}
