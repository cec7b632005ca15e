/*
 * app.h: what every command shares: the global options, the host, and how a run ends (one error line, JSON,
 * exit status).
 */
#ifndef ATTUNE_APP_H
#define ATTUNE_APP_H

#include "attune/host.h"
#include "webui.h"

#include <jansson.h>
#include <popt.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_BACKEND = 3, EXIT_INTERRUPTED = 130 };

struct app {
    /* options as given (options.c), and the words that are none */
    char **plugins, **words;
    char *device, *vendor, *attention, *attention_required, *determinism, *memory_limit, *min_memory;
    int threads, explain, json, quiet, help, medvram, lowvram;
    int webui[WEBUI_FLAGS]; /* which of webui.h's flags were given */
    struct {
        int q_chunk_size, kv_chunk_size, chunk_threshold; /* per cent; −1 = not given */
    } sub_quad;
    /* derived */
    attune_wish wish;
    int determinism_given;
    uint32_t memory;  /* ATTUNE_MEMORY_… */
    char backend[32]; /* the loaded backend that the wish names, by its own name; "" = none */
    char asked[32];   /* the name or alias by which it does */
    char
        device_name[32]; /* the whole name of the device that app_stream has found, where --device is given */
    const char *command;
    char plugin_dir[4096], model_dir[4096], vocabulary[4200];
    /* while running */
    attune *host;
    int status; /* exit status where it does not follow from the code alone; 0 = it does */
    attune_error error;
    json_t *reply; /* what --json prints */
    json_t *warnings;
};

/* A command: its options are `table` (ended by POPT_TABLEEND; of types NONE, STRING, ARGV, and INT, whose val
 * is the least number that it takes). `run` returns an attune_code with app->error filled, and so does
 * `prepare` (may be NULL), which sees the options before the host is opened by them. */
typedef struct command {
    const char *name;      /* "txt2img", "bench attention" */
    const char *arguments; /* "\"PROMPT\"" */
    const char *summary;
    const struct poptOption *table;
    int draws;    /* makes pictures: COMMANDLINE_ARGS counts */
    int compares; /* runs every backend where none is asked for */
    attune_code (*prepare)(struct app *app);
    attune_code (*run)(struct app *app, int argc, const char **argv);
} command;

extern const command txt2img_command, session_command, plugins_command, attention_command,
    bench_attention_command, bench_image_command, study_determinism_command;

/* Parse argv for `which`, open the host, run, report, free. Returns the process's exit status. */
int app_run(const command *which, int argc, const char **argv);

/* Flush standard output at the end. Returns `status`; where 0 and the output cannot be written, 1 after a
 * line. */
int app_end_output(int status);

/* A wrong argument: fills app->error with a message and a hint that names --help; the exit status will be 2.
 */
__attribute__((format(printf, 2, 3))) attune_code app_usage(struct app *app, const char *format, ...);

/* One line on standard error unless -q, and an entry of "warnings". */
__attribute__((format(printf, 2, 3))) void app_warn(struct app *app, const char *format, ...);

/* One line on standard error unless -q or --json asks for silence. */
__attribute__((format(printf, 2, 3))) void app_say(const struct app *app, const char *format, ...);

/* "8G", "512M", "1000" in bytes, K/M/G = 1024ⁿ. 0 on success. */
int app_parse_size(const char *text, uint64_t *out);

/* The own name of the backend that a name, alias or title means, and `spelled`, the name asked for as its
 * plugin or the web UI writes it; `found` stays where only the web UI knows it. A name that is neither is a
 * typing error: INVALID_ARGUMENT with the nearest. */
attune_code app_find_backend(struct app *app, const char *asked, char found[32], char spelled[32]);

/* The names of the attention backends that are loaded, each once, at most `most`; how many. */
uint32_t app_backends(struct app *app, char names[][32], uint32_t most);

/* A host with the plugins that --plugin and the search order give; the caller closes it, on failure too. Only
 * the first has its warnings told. */
attune_code app_open_host(struct app *app, attune **host);

/* What is loaded, as the "plugins" of docs/cli.md (new reference); printed too unless --json. */
json_t *plugins_list(struct app *app);

/* The code of a failed choice: sets the exit status 3 where no backend can serve, 2 where the request itself
 * is wrong. */
attune_code app_not_served(struct app *app, attune_code code);

/* Whether a device passes --device, --vendor and --min-memory; "cuda" names every "cuda:N". */
int app_device_passes(const struct app *app, const attune_device_info *device);

/* A stream of the first device that passes the filters and has attention backends, the CPU before others;
 * where none does, of the CPU: the choice then tells why. On a CPU with the threads asked for. The caller
 * destroys it. */
attune_code app_stream(struct app *app, attune_stream *stream);

/* What jansson allocated: the text of json_dumps. */
void app_json_free(void *memory);

/* A JSON string (new reference); bytes that are no UTF-8 become '?'. */
json_t *json_text(const char *text);

/* A choice as the "choice" of docs/cli.md (new reference). */
json_t *choice_json(const attune_choice *choice);
/* --explain: the candidates of each choice on standard error; problems with the same reasons are listed
 * together. */
void choice_explain(const attune_attention_record *records, uint32_t count);
/* "(2, 8, 4096, 77, 40) float32, mask none": batch, heads, queries, keys, head size. */
void problem_text(const attune_attention_problem *problem, char *text, size_t size);
json_t *problem_json(const attune_attention_problem *problem);
const char *mask_name(int32_t mask, int32_t causal);

#endif
