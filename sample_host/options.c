/* options.c: option tables, argv, COMMANDLINE_ARGS, and the wish that they make. */
#include "options.h"
#include "commandline_args.h"
#include "nearest.h"
#include "webui.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <strings.h>

enum { TABLES = 4, MAX_OPTIONS = 64 };

struct app the_app = {.sub_quad = {-1, -1, -1}};

static struct poptOption webui_table[] = {
    [WEBUI_FLAGS] = {"sub-quad-q-chunk-size", 0, POPT_ARG_INT, &the_app.sub_quad.q_chunk_size, 1,
                     "sub-quadratic: queries of a chunk [default 1024]", "N"},
    {"sub-quad-kv-chunk-size", 0, POPT_ARG_INT, &the_app.sub_quad.kv_chunk_size, 0,
     "sub-quadratic: keys of a chunk [default 0, their number's square root]", "N"},
    {"sub-quad-chunk-threshold", 0, POPT_ARG_INT, &the_app.sub_quad.chunk_threshold, 0,
     "sub-quadratic: one chunk of keys where all scores fit into this share of the memory [default 0, never]",
     "PERCENT"},
    POPT_TABLEEND};

static const struct poptOption global_table[] = {
    {"plugin", 0, POPT_ARG_ARGV, &the_app.plugins, 0, "load this manifest first (may be repeated)",
     "MANIFEST"},
    {"device", 0, POPT_ARG_STRING, &the_app.device, 0, "use only this device: cpu, cuda:0", "NAME"},
    {"vendor", 0, POPT_ARG_STRING, &the_app.vendor, 0, "use only devices of this vendor: AMD, Intel, NVIDIA",
     "NAME"},
    {"min-memory", 0, POPT_ARG_STRING, &the_app.min_memory, 0,
     "use only devices with at least this memory (K, M, G)", "SIZE"},
    {"memory-limit", 0, POPT_ARG_STRING, &the_app.memory_limit, 0,
     "the most that a picture may take, weights included (K, M, G); never changes its bits", "SIZE"},
    {"medvram", 0, POPT_ARG_NONE, &the_app.medvram, 0,
     "only the weights of the network that runs are in memory", NULL},
    {"lowvram", 0, POPT_ARG_NONE, &the_app.lowvram, 0,
     "of the UNet's weights only those of the layer that runs are in memory; slower", NULL},
    {"threads", 0, POPT_ARG_INT, &the_app.threads, 1, "CPU threads [default the allowed CPUs]", "N"},
    {"determinism", 0, POPT_ARG_STRING, &the_app.determinism, 0,
     "lowest class that will do: none, repeatable, invariant, portable", "CLASS"},
    {"attention", 0, POPT_ARG_STRING, &the_app.attention, 0,
     "attention backend, None or Automatic; another serves, and says why, where it cannot", "NAME"},
    {"attention-required", 0, POPT_ARG_STRING, &the_app.attention_required, 0,
     "attention backend; an error where it cannot serve", "NAME"},
    {"explain", 0, POPT_ARG_NONE, &the_app.explain, 0, "say why each backend was chosen or not", NULL},
    {"json", 0, POPT_ARG_NONE, &the_app.json, 0, "one JSON object on standard output, on failure too", NULL},
    {"quiet", 'q', POPT_ARG_NONE, &the_app.quiet, 0, "no progress, no notes", NULL},
    {"help", 'h', POPT_ARG_NONE, &the_app.help, 0, "this help", NULL},
    POPT_TABLEEND};

/* popt's own storing loses the string of an option that is given twice and takes "" for 0: it reads copies of
 * the tables that store nothing, whose values say which option it met, and store() does the rest. */
static const struct poptOption *tables[TABLES] = {NULL, webui_table, webui_ignored, global_table};
static struct poptOption copies[TABLES][MAX_OPTIONS + 1], root[TABLES + 1];

/* An option of the command itself replaces the global one of its name: popt finds it first, and help shows it
 * alone. */
static int is_replaced(const struct poptOption *own, const char *name) {
    for (; own->longName; ++own)
        if (strcmp(own->longName, name) == 0)
            return 1;
    return 0;
}

static void copy_tables(const command *which) {
    static const char *const titles[] = {
        "Options:", "The web UI's attention flags; of several the highest priority wins:",
        "Flags of the web UI that change nothing here:", "Options of every command:"};
    tables[0] = which->table;
    for (int i = 0; i < WEBUI_FLAGS; ++i)
        webui_table[i] = (struct poptOption){webui_flags[i].flag, 0,   POPT_ARG_NONE, &the_app.webui[i], 0,
                                             webui_flags[i].help, NULL};
    for (int t = 0; t < TABLES; ++t) {
        for (int i = 0; i < MAX_OPTIONS && tables[t][i].longName; ++i) {
            copies[t][i] = tables[t][i];
            copies[t][i].argInfo = tables[t][i].argInfo == POPT_ARG_NONE ? POPT_ARG_NONE : POPT_ARG_STRING;
            if (t > 0 && is_replaced(which->table, tables[t][i].longName))
                copies[t][i].argInfo |= POPT_ARGFLAG_DOC_HIDDEN;
            copies[t][i].arg = NULL;
            copies[t][i].val = t * MAX_OPTIONS + i + 1;
        }
        root[t] = (struct poptOption){NULL, 0, POPT_ARG_INCLUDE_TABLE, copies[t], 0, titles[t], NULL};
    }
}

/* Words in order, and what was passed over among them: no options here. */
typedef struct words {
    const char *where; /* "" = argv; elsewhere words that are no options are no error */
    int count;
    const char **word;
    char passed_over[512];
} words;

static void pass_over(words *in, const char *prefix, const char *word) {
    size_t used = strlen(in->passed_over);
    (void)snprintf(in->passed_over + used, sizeof in->passed_over - used, " %s%s", prefix, word);
    for (char *c = in->passed_over + used; *c; ++c)
        if (iscntrl((unsigned char)*c))
            *c = '?';
}

static attune_code store_number(const words *in, const struct poptOption *option, const char *text) {
    char *end;
    long long number = strtoll(text, &end, 10); /* what overflows is outside int too */
    if (end == text || *end || isspace((unsigned char)*text) || number < INT_MIN || number > INT_MAX)
        return app_usage(&the_app, "%s--%s: \"%s\" is no number that it takes", in->where, option->longName,
                         text);
    if (number < option->val)
        return app_usage(&the_app, "%s--%s %lld is less than %d", in->where, option->longName, number,
                         option->val);
    *(int *)option->arg = (int)number;
    return ATTUNE_OK;
}

/* The caller frees what is in `*value` afterwards: of a string option the one that was given earlier. */
static attune_code store(words *in, const struct poptOption *option, char **value) {
    if (!option->arg) {
        pass_over(in, "--", option->longName);
        if (*value)
            pass_over(in, "", *value);
    } else if (option->argInfo == POPT_ARG_NONE)
        *(int *)option->arg = 1;
    else if (option->argInfo == POPT_ARG_INT)
        return store_number(in, option, *value);
    else if (option->argInfo == POPT_ARG_ARGV)
        (void)poptSaveString(option->arg, POPT_ARG_ARGV, *value);
    else {
        char **string = option->arg, *earlier = *string;
        *string = *value;
        *value = earlier;
    }
    return ATTUNE_OK;
}

/* The option nearest to an unknown one. */
static const char *nearest_option(const char *bad) {
    const char *names[TABLES * MAX_OPTIONS];
    size_t count = 0;
    for (int t = 0; t < TABLES; ++t)
        for (const struct poptOption *o = tables[t]; o->longName; ++o)
            names[count++] = o->longName;
    while (*bad == '-')
        ++bad;
    return nearest_word(bad, names, count);
}

static attune_code parse_error(const words *in, int result, const char *bad) {
    const char *close = result == POPT_ERROR_BADOPT ? nearest_option(bad) : NULL;
    if (result == POPT_ERROR_BADOPT)
        return app_usage(&the_app, "unknown option %s%s%s%s", bad, close ? "; did you mean --" : "",
                         close ? close : "", close ? "?" : "");
    if (result == POPT_ERROR_NOARG)
        return app_usage(&the_app, "%soption %s needs a value", in->where, bad);
    return app_usage(&the_app, "%soption %s: %s", in->where, bad, poptStrerror(result));
}

static attune_code no_memory(void) {
    return attune_fail(&the_app.error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", the_app.command,
                       "no memory to start");
}

static attune_code read_words(words *in) {
    if (!in->count)
        return ATTUNE_OK;
    for (int i = 0; i < in->count; ++i) /* a wrong option before --json is reported as JSON too */
        the_app.json |= strcmp(in->word[i], "--json") == 0;
    poptContext context = poptGetContext("sample_host", in->count, in->word, root,
                                         POPT_CONTEXT_KEEP_FIRST | POPT_CONTEXT_ARG_OPTS);
    attune_code code = context ? ATTUNE_OK : no_memory();
    int result;
    while (code == ATTUNE_OK && (result = poptGetNextOpt(context)) != -1) {
        const char *bad = poptBadOption(context, POPT_BADOPTION_NOALIAS);
        char *value = poptGetOptArg(context);
        if (result > 0)
            code = store(in, &tables[(result - 1) / MAX_OPTIONS][(result - 1) % MAX_OPTIONS], &value);
        else if (*in->where && (result == 0 || result == POPT_ERROR_BADOPT))
            pass_over(in, "", bad);
        else if (result == 0)
            (void)poptSaveString((const char ***)&the_app.words, POPT_ARG_ARGV, value);
        else
            code = parse_error(in, result, bad);
        free(value);
    }
    poptFreeContext(context);
    return code;
}

static attune_code read_commandline_args(words *in) {
    const char *text = getenv("COMMANDLINE_ARGS");
    attune_code code;
    in->count = text ? commandline_args_split(text, &in->word) : 0;
    if (in->count == -2)
        code = no_memory();
    else if (in->count == -1)
        code = app_usage(&the_app, "%sa quote is not closed, or a backslash ends it", in->where);
    else
        code = read_words(in);
    free(in->word);
    return code;
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
    const char *setting = app->attention;
    if (setting && strcasecmp(setting, "Automatic") == 0)
        setting = NULL;
    if (app->attention_required)
        setting = app->attention_required;
    app->wish.attention = setting ? setting : flag ? flag->attention : NULL;
    app->wish.required = app->attention_required != NULL;
    if (flag && setting && !webui_title_is(setting, flag->attention))
        app_warn(app, "--%s is overruled by %s %s", flag->flag,
                 app->attention_required ? "--attention-required" : "--attention", setting);
    for (int i = 0; flag && !setting && i < WEBUI_FLAGS; ++i)
        if (app->webui[i] && strcmp(webui_flags[i].attention, flag->attention) != 0)
            app_warn(app, "--%s and --%s were both given; %s is used, as in the web UI", flag->flag,
                     webui_flags[i].flag, flag->attention);
}

/* -1 stands for an option that was not given, 0 for a default. */
static uint32_t given_size(int option) {
    return option > 0 ? (uint32_t)option : 0;
}

static attune_code parse_wish(struct app *app) {
    app->wish.struct_size = sizeof app->wish;
    app->wish.vendor = app->vendor;
    app->wish.device = app->device;
    app->memory = app->lowvram   ? ATTUNE_MEMORY_LEAST
                  : app->medvram ? ATTUNE_MEMORY_PHASES
                                 : ATTUNE_MEMORY_KEEP;
    if (app->threads > 1024)
        return app_usage(app, "--threads %d is outside 1 to 1024", app->threads);
    if (app->sub_quad.chunk_threshold > 100)
        return app_usage(app, "--sub-quad-chunk-threshold %d is more than 100 per cent",
                         app->sub_quad.chunk_threshold);
    app->wish.chunks = (attune_chunks){.q = given_size(app->sub_quad.q_chunk_size),
                                       .kv = given_size(app->sub_quad.kv_chunk_size),
                                       .threshold = given_size(app->sub_quad.chunk_threshold)};
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

attune_code options_read(const command *which, int argc, const char **argv) {
    words from[2] = {{.where = "", .count = argc, .word = argv}, {.where = "COMMANDLINE_ARGS: "}};
    copy_tables(which);
    attune_code code = read_words(&from[0]);
    if (code == ATTUNE_OK && which->draws && !the_app.help)
        code = read_commandline_args(&from[1]);
    if (code != ATTUNE_OK || the_app.help)
        return code;
    for (int i = 0; i < 2; ++i)
        if (from[i].passed_over[0])
            app_warn(&the_app, "%sno counterpart in Attune, ignored:%s", from[i].where, from[i].passed_over);
    return parse_wish(&the_app);
}

void options_help(const command *which) {
    char name[64], usage[256];
    (void)snprintf(name, sizeof name, "sample_host %s", which->name);
    (void)snprintf(usage, sizeof usage, "%s [OPTION...]", which->arguments);
    const char *argv[] = {name, NULL};
    poptContext context = poptGetContext("sample_host", 1, argv, root, 0);
    printf("%s.\n\n", which->summary);
    fflush(stdout);
    poptSetOtherOptionHelp(context, usage);
    poptPrintHelp(context, stdout, 0);
    poptFreeContext(context);
}

static void free_list(char ***list) {
    for (char **one = *list; one && *one; ++one)
        free(*one);
    free(*list);
    *list = NULL;
}

void options_free(void) {
    for (int t = 0; t < TABLES; ++t)
        for (const struct poptOption *o = tables[t]; o && o->longName; ++o)
            if (o->argInfo == POPT_ARG_STRING && o->arg) {
                free(*(char **)o->arg);
                *(char **)o->arg = NULL;
            }
    free_list(&the_app.plugins);
    free_list(&the_app.words);
}
