/* study.c: `sample_host study determinism`, which pixels change between runs, thread counts and places in a
 * batch, uses of memory and instruction sets, for each attention backend. */
#include "study.h"
#include "interrupt.h"
#include "pictures.h"
#include "progress.h"
#include "request.h"
#include "study_capped.h"

#include <errno.h>
#include <stdlib.h>

enum { MAX_LIST = 16, MAX_BACKENDS = 64, MAX_RECORDS = 256, MOST = 10000, MAX_ISAS = 3 };

#ifdef __aarch64__
#define ISA_NAMES "generic,neon"
#else
#define ISA_NAMES "generic,avx2,avx512"
#endif

static struct {
    char *threads, *batch_sizes, *isa, *backends, *sampler, *seed, *model, *model_config, *output;
    int images, runs, steps, width, height;
} options = {.images = 3, .runs = 3, .steps = 4};

static const struct poptOption table[] = {
    {"images", 0, POPT_ARG_INT, &options.images, 0, "pictures per backend, of seeds N, N + 1, … [default 3]",
     "N"},
    {"runs", 0, POPT_ARG_INT, &options.runs, 0, "times that each is made at each thread count [default 3]",
     "N"},
    {"threads", 0, POPT_ARG_STRING, &options.threads, 0, "thread counts to compare [default 1,2,3]", "LIST"},
    {"batch-sizes", 0, POPT_ARG_STRING, &options.batch_sizes, 0,
     "batches to compare with a picture made alone, at each place [default 1,2]", "LIST"},
    {"isa", 0, POPT_ARG_STRING, &options.isa, 0,
     "instruction sets to compare with the best that is used, \"\" is none [default " ISA_NAMES "]", "LIST"},
    {"backends", 0, POPT_ARG_STRING, &options.backends, 0, "attention backends [default all that are loaded]",
     "LIST"},
    {"steps", 0, POPT_ARG_INT, &options.steps, 0, "sampler steps [default 4]", "N"},
    {"sampler", 0, POPT_ARG_STRING, &options.sampler, 0, "Euler a (default), Euler, DPM++ 2M, DDIM", "NAME"},
    {"seed", 0, POPT_ARG_STRING, &options.seed, 0, "first picture's seed, -1 is random [default 1]", "N"},
    {"width", 0, POPT_ARG_INT, &options.width, 8, "pixels, a multiple of 8 [default the model's]", "N"},
    {"height", 0, POPT_ARG_INT, &options.height, 8, "pixels, a multiple of 8 [default the model's]", "N"},
    {"model", 0, POPT_ARG_STRING, &options.model, 0,
     "a Stable Diffusion 1.x checkpoint (.safetensors) or diffusers folder [default the embedded emoji "
     "model]",
     "PATH"},
    {"model-config", 0, POPT_ARG_STRING, &options.model_config, 0,
     "JSON with what a checkpoint's shapes do not tell [default NAME.json beside NAME.safetensors]", "FILE"},
    {"output", 'o', POPT_ARG_STRING, &options.output, 0,
     "write a picture of the worst difference of each kind there: BACKEND-runs.png, …", "FOLDER"},
    POPT_TABLEEND};

typedef struct list {
    uint32_t value[MAX_LIST];
    uint32_t count;
} list;

static list threads, batch_sizes; /* the first thread count is the base's */
static char isas[MAX_ISAS][16];
static uint32_t isa_count;

/* Three pictures at a time: the base, the first run at another thread count, and one to compare. */
enum { BASE, FIRST, OTHER, ABSOLUTE, PICTURES };

typedef struct study {
    struct app *app;
    const char *prompt;
    uint64_t seed;
    attune_model *model;
    study_backend *backends;
    uint32_t count;
    uint8_t *picture[PICTURES]; /* width × height × 3 each, in one block; NULL before the first plan */
    progress_bar bar;
    uint64_t done; /* pictures, of the bar's total */
    int drawn;     /* whether the last was made: not where a cap caps nothing */
} study;

/* "1,2,3", each from 1 to `most`. */
static attune_code parse_list(struct app *app, const char *name, const char *text, long most, list *out) {
    const char *at = text;
    for (out->count = 0;; ++out->count) {
        char *end;
        errno = 0;
        long value = strtol(at, &end, 10);
        if (end == at || errno || value < 1 || value > most || (*end && *end != ',') ||
            out->count == MAX_LIST)
            return app_usage(app, "%s %s is no list of at most %d numbers from 1 to %ld, such as 1,2,3", name,
                             text, MAX_LIST, most);
        out->value[out->count] = (uint32_t)value;
        if (!*end)
            break;
        at = end + 1;
    }
    ++out->count;
    return ATTUNE_OK;
}

/* "generic,avx2", of ISA_NAMES, each once; "" is none. */
static attune_code parse_isas(struct app *app, const char *text) {
    static const char names[] = "," ISA_NAMES ",";
    for (isa_count = 0; *text;) {
        char name[sizeof isas[0] + 2];
        const size_t length = strcspn(text, ",");
        (void)snprintf(name, sizeof name, ",%.*s,", (int)(length < sizeof isas[0] ? length : 0), text);
        int known = length && length < sizeof isas[0] - 1 && strstr(names, name) && isa_count < MAX_ISAS;
        for (uint32_t i = 0; i < isa_count; ++i)
            known &= strlen(isas[i]) != length || strncmp(isas[i], text, length) != 0;
        if (!known)
            return app_usage(app, "--isa: \"%.*s\" is none of " ISA_NAMES " or given twice", (int)length,
                             text);
        (void)snprintf(isas[isa_count++], sizeof isas[0], "%.*s", (int)length, text);
        text += length;
        text += *text == ',' && text[1];
    }
    return ATTUNE_OK;
}

/* Pictures to make per backend and seed. */
static uint64_t pictures_per_seed(void) {
    uint64_t total = (uint64_t)threads.count * (uint64_t)options.runs + ATTUNE_MEMORY_LEAST + isa_count;
    for (uint32_t i = 0; i < batch_sizes.count; ++i)
        total += batch_sizes.value[i] > 1 ? batch_sizes.value[i] : 0;
    return total;
}

/* The host gets as many threads as the largest count. */
static attune_code prepare(struct app *app) {
    attune_code code =
        parse_list(app, "--threads", options.threads ? options.threads : "1,2,3", 1024, &threads);
    if (code == ATTUNE_OK)
        code = parse_list(app, "--batch-sizes", options.batch_sizes ? options.batch_sizes : "1,2", 1024,
                          &batch_sizes);
    if (code == ATTUNE_OK)
        code = parse_isas(app, options.isa ? options.isa : ISA_NAMES);
    if (code == ATTUNE_OK && (options.images < 1 || options.images > MOST))
        code = app_usage(app, "--images %d is outside 1 to %d", options.images, MOST);
    if (code == ATTUNE_OK && (options.runs < 1 || options.runs > MOST))
        code = app_usage(app, "--runs %d is outside 1 to %d", options.runs, MOST);
    if (code == ATTUNE_OK && options.backends && app->wish.attention)
        code = app_usage(app, "--backends %s, and %s by another option: name backends in one place",
                         options.backends, app->wish.attention);
    if (code == ATTUNE_OK)
        code = request_extent(app, options.steps, options.width, options.height);
    for (uint32_t i = 0; i < threads.count; ++i)
        if ((int)threads.value[i] > app->threads)
            app->threads = (int)threads.value[i];
    return code;
}

static attune_code add_backend(study *s, const char *name) {
    struct app *app = s->app;
    if (s->count == MAX_BACKENDS)
        return app_usage(app, "more than %d backends are named", MAX_BACKENDS);
    study_backend *backend = &s->backends[s->count++];
    (void)snprintf(backend->name, sizeof backend->name, "%s", name);
    backend->choice.struct_size = sizeof backend->choice;
    char spelled[32];
    return app_find_backend(app, name, backend->name, spelled);
}

static attune_code add_loaded(study *s) {
    char names[MAX_BACKENDS][32];
    uint32_t count = app_backends(s->app, names, MAX_BACKENDS);
    attune_code code = ATTUNE_OK;
    for (uint32_t i = 0; i < count && code == ATTUNE_OK; ++i)
        code = add_backend(s, names[i]);
    return code;
}

/* The backends named by --backends, else the one that the wish names, else all. */
static attune_code add_backends(study *s) {
    char *names = options.backends, *name;
    attune_code code = ATTUNE_OK;
    if (!names)
        return s->app->wish.attention ? add_backend(s, s->app->wish.attention) : add_loaded(s);
    while (code == ATTUNE_OK && (name = strsep(&names, ",")))
        code = add_backend(s, name);
    return code;
}

/* --explain: the candidates of every attention problem of a session. */
static void explain(attune_session *session) {
    attune_attention_record *records = calloc(MAX_RECORDS, sizeof *records);
    uint32_t count = 0;
    while (records && count < MAX_RECORDS) {
        records[count].struct_size = sizeof *records;
        if (attune_session_attention(session, count, &records[count], NULL) != ATTUNE_OK)
            break;
        ++count;
    }
    choice_explain(records, count);
    free(records);
}

static attune_code allocate(study *s, const attune_session_plan *plan) {
    size_t bytes = (size_t)plan->width * plan->height * 3;
    s->picture[0] = malloc(PICTURES * bytes);
    if (!s->picture[0])
        return attune_fail(&s->app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "study determinism",
                           "no memory for the pictures");
    for (int i = 1; i < PICTURES; ++i)
        s->picture[i] = s->picture[i - 1] + bytes;
    return ATTUNE_OK;
}

/* Make one picture of `model` into picture[which]. The batch around it has the seeds next to its own, modulo
 * 2⁶⁴. */
static attune_code make(study *s, study_backend *b, attune_model *model, const study_member *m, int which) {
    struct app *app = s->app;
    attune_session *session = NULL;
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_choice choice = {.struct_size = sizeof choice};
    attune_request request = {.struct_size = sizeof request,
                              .determinism = app->wish.determinism,
                              .prompt = s->prompt,
                              .negative_prompt = "",
                              .sampler = options.sampler,
                              .seed = m->seed - m->place,
                              .memory_limit = app->wish.memory_limit ? app->wish.memory_limit : UINT64_MAX,
                              .memory = m->memory,
                              .steps = (uint32_t)options.steps,
                              .width = (uint32_t)options.width,
                              .height = (uint32_t)options.height,
                              .batch_size = m->batch,
                              .cfg_scale = 7};
    app->wish.attention = b->name;
    app->wish.required = 1;
    app->wish.threads = m->threads;
    attune_code code = attune_session_open(model, &request, &app->wish, interrupt_control(), &session, &plan,
                                           &choice, &app->error);
    int first = !b->plan.units;
    if (first)
        b->choice = choice;
    if (code != ATTUNE_OK)
        return app_not_served(app, code);
    s->drawn = !(*m->isa && *choice.isa && strcmp(choice.isa, b->choice.isa) == 0);
    if (!s->drawn) {
        attune_session_close(session);
        progress_show(&s->bar, ++s->done, b->name);
        return ATTUNE_OK;
    }
    if (first && app->explain)
        explain(session);
    if (first || plan.determinism < b->plan.determinism)
        b->plan = plan;
    if (!s->picture[0])
        code = allocate(s, &plan);
    attune_image image = {.struct_size = sizeof image,
                          .width = plan.width,
                          .height = plan.height,
                          .stride = plan.width * 3,
                          .pixels = s->picture[which]};
    if (code == ATTUNE_OK)
        code = request_draw(session, m->place, &image, &app->error);
    attune_session_close(session);
    progress_show(&s->bar, ++s->done, b->name);
    return code;
}

static attune_code compare(study *s, study_backend *b, int kind, int from, int to, const study_member *m) {
    study_variation *v = &b->variation[kind];
    size_t pixels = (size_t)b->plan.width * b->plan.height;
    difference d = difference_of(s->picture[from], s->picture[to], pixels, s->picture[ABSOLUTE]);
    ++v->comparisons;
    if (!d.pixels)
        return ATTUNE_OK;
    ++v->differ;
    v->largest = d.largest > v->largest ? d.largest : v->largest;
    v->mean = d.mean > v->mean ? d.mean : v->mean;
    if (d.pixels <= v->pixels)
        return ATTUNE_OK;
    if (!v->absolute && !(v->absolute = malloc(pixels * 3)))
        return attune_fail(&s->app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "study determinism",
                           "no memory for the difference");
    v->pixels = d.pixels;
    v->worst = *m;
    v->difference = d;
    memcpy(v->absolute, s->picture[ABSOLUTE], pixels * 3);
    return ATTUNE_OK;
}

static const char *model_path(const struct app *app) {
    return options.model ? options.model : app->model_dir;
}

/* Each set of instructions below the one that made the base. */
static attune_code study_isas(study *s, study_backend *b, study_member *m) {
    attune_code code = ATTUNE_OK;
    for (uint32_t i = 0; i < isa_count && code == ATTUNE_OK; ++i) {
        study_capped capped;
        m->isa = isas[i];
        code = study_capped_open(s->app, m->isa, model_path(s->app), options.model_config, &capped);
        if (code == ATTUNE_OK)
            code = make(s, b, capped.model, m, OTHER);
        if (code == ATTUNE_OK && s->drawn)
            code = compare(s, b, STUDY_ISA, BASE, OTHER, m);
        study_capped_close(&capped);
    }
    m->isa = "";
    return code;
}

/* One seed: the base is the first run, alone, at the first thread count. Each run is compared with the first
 * of its thread count, each first run, each place in a batch, each other use of memory and each instruction
 * set with the base. */
static attune_code study_seed(study *s, study_backend *b, uint64_t seed) {
    study_member m = {.seed = seed, .batch = 1, .memory = s->app->memory, .isa = ""};
    attune_code code = ATTUNE_OK;
    for (uint32_t t = 0; t < threads.count; ++t) {
        int first = t ? FIRST : BASE;
        m.threads = threads.value[t];
        for (m.run = 1; m.run <= (uint32_t)options.runs && code == ATTUNE_OK; ++m.run) {
            code = make(s, b, s->model, &m, m.run == 1 ? first : OTHER);
            if (code == ATTUNE_OK && m.run > 1)
                code = compare(s, b, STUDY_RUNS, first, OTHER, &m);
            else if (code == ATTUNE_OK && t > 0)
                code = compare(s, b, STUDY_THREADS, BASE, FIRST, &m);
        }
    }
    m.threads = threads.value[0];
    m.run = 1;
    for (uint32_t i = 0; i < batch_sizes.count; ++i) {
        m.batch = batch_sizes.value[i];
        for (m.place = 0; m.batch > 1 && m.place < m.batch && code == ATTUNE_OK; ++m.place) {
            code = make(s, b, s->model, &m, OTHER);
            if (code == ATTUNE_OK)
                code = compare(s, b, STUDY_BATCH, BASE, OTHER, &m);
        }
    }
    m.batch = 1;
    m.place = 0;
    for (m.memory = ATTUNE_MEMORY_KEEP; m.memory <= ATTUNE_MEMORY_LEAST && code == ATTUNE_OK; ++m.memory) {
        if (m.memory == s->app->memory)
            continue;
        code = make(s, b, s->model, &m, OTHER);
        if (code == ATTUNE_OK)
            code = compare(s, b, STUDY_MEMORY, BASE, OTHER, &m);
    }
    m.memory = s->app->memory;
    return code ? code : study_isas(s, b, &m);
}

/* All of one backend; that it cannot serve is a result. */
static attune_code study_one(study *s, study_backend *b) {
    struct app *app = s->app;
    attune_code code = ATTUNE_OK;
    for (int i = 0; i < options.images && code == ATTUNE_OK; ++i)
        code = study_seed(s, b, s->seed + (uint64_t)i);
    progress_end(&s->bar);
    if (app->status == EXIT_NO_BACKEND) {
        (void)snprintf(b->refused, sizeof b->refused, "%s", app->error.message);
        memset(&app->error, 0, sizeof app->error);
        app->status = 0;
        code = ATTUNE_OK;
    }
    return code ? code : study_report(app, b, options.output);
}

static attune_code study_all(study *s) {
    struct app *app = s->app;
    uint64_t each = pictures_per_seed() * (uint64_t)options.images;
    uint32_t served = 0, differ = 0;
    attune_code code = ATTUNE_OK;
    progress_begin(&s->bar, "study determinism", each * s->count, app->quiet);
    for (uint32_t i = 0; i < s->count && code == ATTUNE_OK; ++i) {
        study_backend *b = &s->backends[i];
        code = study_one(s, b);
        s->done = each * (i + 1);
        served += !b->refused[0];
        for (int kind = 0; kind < STUDY_VARIATIONS; ++kind)
            differ += b->variation[kind].differ;
    }
    if (code == ATTUNE_OK && differ && !options.output)
        app_say(app, "--output FOLDER writes the differences as pictures");
    for (uint32_t i = 0; i < s->count && code == ATTUNE_OK; ++i)
        code = study_judge(app, &s->backends[i]);
    if (code == ATTUNE_OK && !served) {
        app->status = EXIT_NO_BACKEND;
        code = attune_fail(&app->error, ATTUNE_UNAVAILABLE, "sample_host", "study determinism",
                           "no backend could be studied: %s",
                           s->count ? s->backends[s->count - 1].refused : "none is loaded");
    }
    return code;
}

static json_t *list_json(const list *from) {
    json_t *out = json_array();
    for (uint32_t i = 0; i < from->count; ++i)
        json_array_append_new(out, json_integer((json_int_t)from->value[i]));
    return out;
}

static attune_code check(study *s, int argc, const char **argv) {
    struct app *app = s->app;
    char probe[4400];
    if (argc > 1)
        return app_usage(app, "one prompt is expected, \"%s\" is a second; put the prompt in quotes",
                         argv[1]);
    s->prompt = argc ? argv[0] : "red apple";
    attune_code code = request_seed(app, "--seed", options.seed ? options.seed : "1", &s->seed);
    if (code == ATTUNE_OK)
        code = add_backends(s);
    if (code == ATTUNE_OK && options.output) {
        (void)snprintf(probe, sizeof probe, "%s/study.png", options.output);
        code = pictures_check(probe, 2, &app->error);
    }
    json_object_set_new(app->reply, "prompt", json_text(s->prompt));
    json_object_set_new(app->reply, "seed", json_integer((json_int_t)s->seed));
    json_object_set_new(app->reply, "images", json_integer(options.images));
    json_object_set_new(app->reply, "runs", json_integer(options.runs));
    json_object_set_new(app->reply, "threads", list_json(&threads));
    json_object_set_new(app->reply, "batch_sizes", list_json(&batch_sizes));
    json_object_set_new(app->reply, "backends", json_array());
    return code;
}

static attune_code run(struct app *app, int argc, const char **argv) {
    study s = {.app = app, .backends = calloc(MAX_BACKENDS, sizeof *s.backends)};
    if (!s.backends)
        return attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "study determinism",
                           "no memory to start");
    attune_code code = check(&s, argc, argv);
    if (code == ATTUNE_OK)
        code = request_model(app, model_path(app), options.model_config, s.prompt, &s.model);
    if (code == ATTUNE_OK)
        code = study_all(&s);
    attune_model_close(s.model);
    for (uint32_t i = 0; i < s.count; ++i)
        for (int kind = 0; kind < STUDY_VARIATIONS; ++kind)
            free(s.backends[i].variation[kind].absolute);
    free(s.backends);
    free(s.picture[0]);
    return code;
}

const command study_determinism_command = {
    .name = "study determinism",
    .arguments = "[\"PROMPT\"]",
    .summary =
        "Which pixels change between runs, threads, places in a batch, uses of memory and instruction sets",
    .table = table,
    .compares = 1,
    .prepare = prepare,
    .run = run};
