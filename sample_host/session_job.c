/* session_job.c: one picture request: its keys, its thread, its lines. */
#include "session_job.h"
#include "infotext.h"
#include "interrupt.h"
#include "model_name.h"
#include "pictures.h"
#include "progress.h"
#include "request.h"
#include "served.h"

#include <float.h>
#include <stdlib.h>

enum { MAX_RECORDS = 256 };

typedef struct session_job {
    struct session_job *next;
    session_shared *shared;
    pthread_t thread;
    json_t *id, *request; /* the request holds the texts */
    const char *prompt, *negative_prompt, *output;
    attune_request ask;
    attune_wish wish;
    char attention[32];
    attune_session_plan plan;
    attune_choice choice;
    uint64_t ticket;
    double begun;
    atomic_int cancelled, finished;
} session_job;

/* ---- reading ---- */

__attribute__((format(printf, 3, 4))) static attune_code wrong(attune_error *error, const char *key,
                                                               const char *format, ...) {
    char message[300];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(message, sizeof message, format, list);
    va_end(list);
    (void)attune_fail(error, ATTUNE_INVALID_ARGUMENT, "sample_host", key, "\"%s\": %s", key, message);
    attune_hint(error, "docs/cli.md lists the keys of a request");
    return ATTUNE_INVALID_ARGUMENT;
}

static attune_code read_text(const json_t *request, const char *key, const char **out, attune_error *error) {
    const json_t *value = json_object_get(request, key);
    if (value && !json_is_string(value))
        return wrong(error, key, "a text is expected");
    if (value)
        *out = json_string_value(value);
    return ATTUNE_OK;
}

static attune_code read_whole(const json_t *request, const char *key, json_int_t least, json_int_t most,
                              uint32_t *out, attune_error *error) {
    const json_t *value = json_object_get(request, key);
    if (!value)
        return ATTUNE_OK;
    if (!json_is_integer(value) || json_integer_value(value) < least || json_integer_value(value) > most)
        return wrong(error, key, "a whole number from %lld to %lld is expected", (long long)least,
                     (long long)most);
    *out = (uint32_t)json_integer_value(value);
    return ATTUNE_OK;
}

/* One of two words: *out = 0 or 1. */
static attune_code read_policy(const json_t *request, uint32_t *out, attune_error *error) {
    const char *word = "pin";
    attune_code code = read_text(request, "policy", &word, error);
    *out = strcmp(word, "step") == 0 ? ATTUNE_SWAP_STEP : ATTUNE_SWAP_PIN;
    if (!code && *out == ATTUNE_SWAP_PIN && strcmp(word, "pin") != 0)
        code = wrong(error, "policy", "%.32s is neither pin nor step", word);
    return code;
}

static attune_code read_choice(session_job *job, attune_error *error) {
    struct app *app = job->shared->app;
    const char *name = NULL, *class_name = NULL;
    char found[32] = "";
    attune_code code = read_text(job->request, "attention", &name, error);
    if (!code)
        code = read_text(job->request, "determinism", &class_name, error);
    if (!code && class_name) {
        int32_t level = ATTUNE_DETERMINISM_NONE;
        while (attune_determinism_name(level) && strcmp(attune_determinism_name(level), class_name) != 0)
            ++level;
        if (!attune_determinism_name(level))
            return wrong(error, "determinism", "%.32s is none of none, repeatable, invariant, portable",
                         class_name);
        job->wish.determinism = level;
    }
    if (!code && name) {
        code = app_find_backend(app, name, found, job->attention);
        job->wish.attention = job->attention;
        if (code) {
            *error = app->error;
            app->status = 0;
        }
    }
    if (!code)
        code = read_policy(job->request, &job->wish.swap, error);
    return code;
}

/* A number from 0 to `most`. */
static attune_code read_number(const json_t *request, const char *key, double most, float *out,
                               attune_error *error) {
    const json_t *value = json_object_get(request, key);
    if (!value)
        return ATTUNE_OK;
    if (!json_is_number(value) || !(json_number_value(value) >= 0 && json_number_value(value) <= most))
        return most < FLT_MAX ? wrong(error, key, "a number from 0 to %g is expected", most)
                              : wrong(error, key, "a number of at least 0 is expected");
    *out = (float)json_number_value(value);
    return ATTUNE_OK;
}

/* -1 or none: drawn at random. */
static attune_code read_seed(const session_job *job, const char *key, uint64_t *out, attune_error *error) {
    const json_t *value = json_object_get(job->request, key);
    const json_int_t most = INT64_MAX - REQUEST_MOST_IMAGES;
    if (value &&
        (!json_is_integer(value) || json_integer_value(value) < -1 || json_integer_value(value) > most))
        return wrong(error, key, "a whole number from 0 to %lld, or -1, is expected", (long long)most);
    if (value && json_integer_value(value) >= 0) {
        *out = (uint64_t)json_integer_value(value);
        return ATTUNE_OK;
    }
    attune_code code = request_seed(job->shared->app, key, NULL, out);
    if (code)
        *error = job->shared->app->error;
    return code;
}

static attune_code read_numbers(session_job *job, attune_error *error) {
    attune_request *ask = &job->ask;
    attune_code code = read_whole(job->request, "steps", 1, 1000, &ask->steps, error);
    if (!code)
        code = read_whole(job->request, "width", 8, 1 << 16, &ask->width, error);
    if (!code)
        code = read_whole(job->request, "height", 8, 1 << 16, &ask->height, error);
    if (!code)
        code = read_whole(job->request, "batch_size", 1, 64, &ask->batch_size, error);
    if (!code)
        code = read_whole(job->request, "clip_skip", 1, INT32_MAX, &ask->clip_skip, error);
    if (!code)
        code = read_number(job->request, "cfg_scale", FLT_MAX, &ask->cfg_scale, error);
    if (!code)
        code = read_number(job->request, "subseed_strength", 1, &ask->subseed_strength, error);
    if (!code)
        code = read_seed(job, "seed", &ask->seed, error);
    return code ? code : read_seed(job, "subseed", &ask->subseed, error);
}

static attune_code read_randn_source(const json_t *request, uint32_t *out, attune_error *error) {
    const char *name = "CPU";
    attune_code code = read_text(request, "randn_source", &name, error);
    if (!code && !request_randn(name, out))
        code = wrong(error, "randn_source", "%.32s is neither CPU nor NV", name);
    return code;
}

static attune_code read_job(session_job *job, attune_error *error) {
    static const char *const known[] = {
        "id",      "prompt",           "negative_prompt", "sampler",     "scheduler", "steps",  "seed",
        "subseed", "subseed_strength", "randn_source",    "clip_skip",   "width",     "height", "batch_size",
        "output",  "cfg_scale",        "attention",       "determinism", "policy"};
    const char *key;
    json_t *value;
    json_object_foreach(job->request, key, value) {
        int found = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
            found |= strcmp(known[i], key) == 0;
        if (!found)
            return wrong(error, "request", "the key %.48s is not known", key);
    }
    job->negative_prompt = "";
    attune_code code = read_text(job->request, "prompt", &job->prompt, error);
    if (!code && !job->prompt)
        code = wrong(error, "prompt", "it is missing");
    if (!code)
        code = read_text(job->request, "negative_prompt", &job->negative_prompt, error);
    if (!code)
        code = read_text(job->request, "sampler", &job->ask.sampler, error);
    if (!code)
        code = read_text(job->request, "scheduler", &job->ask.scheduler, error);
    if (!code)
        code = read_text(job->request, "output", &job->output, error);
    if (!code)
        code = read_numbers(job, error);
    if (!code)
        code = read_randn_source(job->request, &job->ask.randn_source, error);
    if (!code)
        code = read_choice(job, error);
    return code ? code : pictures_check(job->output, job->ask.batch_size, error);
}

/* ---- drawing ---- */

static int32_t stopped(void *context) {
    const session_job *job = context;
    const attune_control *interrupt = interrupt_control();
    return atomic_load(&job->cancelled) || interrupt->cancelled(interrupt->context);
}

static json_t *about(const session_job *job, const char *key, json_t *value) {
    return json_pack("{s:O, s:o}", "id", job->id, key, value);
}

/* Who served; what a move bound anew and nobody called again is left out. */
static json_t *records_json(attune_session *session, attune_attention_record *records, uint32_t *count) {
    json_t *list = json_array();
    *count = 0;
    for (uint32_t i = 0; *count < MAX_RECORDS; ++i) {
        attune_attention_record *r = &records[*count];
        r->struct_size = sizeof *r;
        if (attune_session_attention(session, i, r, NULL) != ATTUNE_OK)
            break;
        if (!r->calls)
            continue;
        ++*count;
        json_array_append_new(list, json_pack("{s:o, s:s, s:s, s:s, s:I, s:I, s:I}", "problem",
                                              problem_json(&r->problem), "backend", r->choice.backend,
                                              "plugin", r->choice.plugin, "version", r->choice.version,
                                              "generation", (json_int_t)r->choice.generation, "calls",
                                              (json_int_t)r->calls, "first_unit", (json_int_t)r->first_unit));
    }
    return list;
}

/* With a variation the seed stays. */
static uint64_t image_seed(const session_job *job, uint32_t index) {
    return job->ask.subseed_strength > 0 ? job->ask.seed : job->ask.seed + index;
}

static char *parameters(const session_job *job, const attune_attention_record *records, uint32_t count,
                        uint32_t index) {
    session_shared *shared = job->shared;
    char names[512], arithmetic[512], plugin[128], model[256];
    model_name(shared->model_path, model, sizeof model);
    served_text(records, count, &shared->sampler_info, names, arithmetic, sizeof names);
    (void)snprintf(plugin, sizeof plugin, "%s %s", shared->sampler_plugin.id, shared->sampler_plugin.version);
    model_hash_finish(&shared->hash);
    infotext info = {.prompt = job->prompt,
                     .negative_prompt = job->negative_prompt,
                     .sampler = job->plan.sampler,
                     .scheduler = job->plan.scheduler,
                     .model = model,
                     .model_hash = shared->hash.text,
                     .attention = names,
                     .arithmetic = arithmetic,
                     .determinism = attune_determinism_name(job->plan.determinism),
                     .sampler_plugin = plugin,
                     .randn_source = job->ask.randn_source == ATTUNE_RANDN_NV ? "NV" : "CPU",
                     .seed = image_seed(job, index),
                     .subseed = job->ask.subseed + index,
                     .subseed_strength = job->ask.subseed_strength,
                     .clip_skip = job->ask.clip_skip,
                     .steps = job->ask.steps,
                     .width = job->plan.width,
                     .height = job->plan.height,
                     .cfg_scale = job->ask.cfg_scale};
    return infotext_format(&info);
}

/* Under the files' lock: pictures, and the model's hash. */
static attune_code write_pictures(session_job *job, attune_session *session,
                                  const attune_attention_record *records, uint32_t count, json_t *outputs,
                                  json_t *seeds, attune_error *error) {
    attune_image image = {.struct_size = sizeof image,
                          .width = job->plan.width,
                          .height = job->plan.height,
                          .stride = job->plan.width * 3};
    image.pixels = malloc((size_t)image.stride * image.height);
    attune_code code = image.pixels ? ATTUNE_OK
                                    : attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "session",
                                                  "no memory for the picture");
    for (uint32_t i = 0; i < job->plan.images && !code; ++i) {
        char path[4400];
        char *text = parameters(job, records, count, i);
        code = text ? attune_session_image(session, i, &image, error)
                    : attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "session",
                                  "no memory for the infotext");
        if (!code)
            code = pictures_write(job->output, i, job->plan.images, image_seed(job, i), &image, text, path,
                                  error);
        if (!code) {
            json_array_append_new(outputs, json_text(path));
            json_array_append_new(seeds, json_integer((json_int_t)image_seed(job, i)));
        }
        free(text);
    }
    free(image.pixels);
    return code;
}

static attune_code tell_result(session_job *job, attune_session *session, attune_error *error) {
    session_shared *shared = job->shared;
    attune_session_moves moves = {.struct_size = sizeof moves};
    attune_attention_record *records = calloc(MAX_RECORDS, sizeof *records);
    uint32_t count;
    if (!records)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "session",
                           "no memory for the result");
    json_t *outputs = json_array(), *seeds = json_array(),
           *attention = records_json(session, records, &count);
    (void)pthread_mutex_lock(&shared->files);
    attune_code code = write_pictures(job, session, records, count, outputs, seeds, error);
    (void)pthread_mutex_unlock(&shared->files);
    if (!code)
        code = attune_session_moved(session, &moves, error);
    if (!code) {
        json_t *result =
            json_pack("{s:O, s:O, s:o, s:O, s:s, s:s, s:s?, s:f}", "outputs", outputs, "seeds", seeds,
                      "choice", choice_json(&job->choice), "attention", attention, "determinism",
                      attune_determinism_name(job->plan.determinism), "served_by",
                      moves.generations > 1 ? "mixed generations" : "one generation", "stayed",
                      *moves.stayed ? moves.stayed : NULL, "seconds", progress_now() - job->begun);
        if (job->ask.subseed_strength > 0)
            json_object_set_new(result, "subseed", json_integer((json_int_t)job->ask.subseed));
        session_say(shared, about(job, "result", result));
    }
    json_decref(outputs);
    json_decref(seeds);
    json_decref(attention);
    free(records);
    return code;
}

static attune_code draw(session_job *job, attune_error *error) {
    static const char *const phases[] = {"text", "steps", "decode"};
    const attune_control control = {.struct_size = sizeof control, .context = job, .cancelled = stopped};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_session *session = NULL;
    attune_code code = attune_session_open(job->shared->model, &job->ask, &job->wish, &control, &session,
                                           &job->plan, &job->choice, error);
    for (uint32_t unit = 1; !code && !progress.done; ++unit) {
        code = attune_session_step(session, &control, &progress, error);
        if (!code)
            session_say(job->shared,
                        about(job, "progress",
                              json_pack("{s:s, s:I, s:I}", "phase", phases[progress.phase], "done",
                                        (json_int_t)unit, "of", (json_int_t)job->plan.units)));
    }
    if (!code)
        code = tell_result(job, session, error);
    attune_session_close(session);
    return code;
}

static void *run_job(void *context) {
    session_job *job = context;
    session_shared *shared = job->shared;
    attune_error error = {.code = ATTUNE_OK};
    (void)pthread_mutex_lock(&shared->lock);
    while (shared->turn != job->ticket || shared->running == SESSION_AT_ONCE)
        (void)pthread_cond_wait(&shared->changed, &shared->lock);
    ++shared->turn;
    ++shared->running;
    (void)pthread_cond_broadcast(&shared->changed);
    (void)pthread_mutex_unlock(&shared->lock);
    job->begun = progress_now();
    attune_code code = stopped(job)
                           ? attune_fail(&error, ATTUNE_CANCELLED, "sample_host", "session", "cancelled")
                           : draw(job, &error);
    if (code) {
        json_t *line = about(job, "error", session_error(&error));
        if (job->choice.candidates)
            json_object_set_new(line, "choice", choice_json(&job->choice));
        session_say(shared, line);
    }
    (void)pthread_mutex_lock(&shared->lock);
    --shared->running;
    (void)pthread_cond_broadcast(&shared->changed);
    (void)pthread_mutex_unlock(&shared->lock);
    atomic_store(&job->finished, 1);
    return NULL;
}

static void free_job(session_job *job) {
    json_decref(job->id);
    json_decref(job->request);
    free(job);
}

attune_code session_job_start(session_shared *shared, const json_t *request, json_t *id,
                              attune_error *error) {
    for (const session_job *other = shared->jobs; other; other = other->next)
        if (!atomic_load(&other->finished) && json_equal(other->id, id))
            return wrong(error, "id", "an unfinished request has it");
    session_job *job = shared->count < SESSION_MOST_JOBS ? calloc(1, sizeof *job) : NULL;
    if (!job)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "session",
                           "%u requests are unfinished, which is the most", shared->count);
    job->shared = shared;
    job->id = json_incref(id);
    job->request = json_deep_copy(request);
    job->wish = shared->app->wish;
    job->plan.struct_size = sizeof job->plan;
    job->choice.struct_size = sizeof job->choice;
    job->ask = (attune_request){.struct_size = sizeof job->ask,
                                .steps = 20,
                                .batch_size = 1,
                                .cfg_scale = 7,
                                .clip_skip = 1,
                                .memory_limit = job->wish.memory_limit ? job->wish.memory_limit : UINT64_MAX};
    attune_code code = read_job(job, error);
    job->ask.prompt = job->prompt;
    job->ask.negative_prompt = job->negative_prompt;
    job->ask.determinism = job->wish.determinism;
    job->ticket = shared->tickets;
    if (!code && pthread_create(&job->thread, NULL, run_job, job) != 0)
        code = attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "session", "no thread for it");
    if (code) {
        free_job(job);
        return code;
    }
    ++shared->tickets;
    ++shared->count;
    job->next = shared->jobs;
    shared->jobs = job;
    return ATTUNE_OK;
}

attune_code session_job_cancel(session_shared *shared, const json_t *id, attune_error *error) {
    for (session_job *job = shared->jobs; job; job = job->next)
        if (!atomic_load(&job->finished) && json_equal(job->id, id)) {
            atomic_store(&job->cancelled, 1);
            return ATTUNE_OK;
        }
    return attune_fail(error, ATTUNE_NOT_FOUND, "sample_host", "cancel", "no unfinished request has that id");
}

void session_jobs_collect(session_shared *shared, int all) {
    for (session_job **at = &shared->jobs; *at;) {
        session_job *job = *at;
        if (!all && !atomic_load(&job->finished)) {
            at = &job->next;
            continue;
        }
        (void)pthread_join(job->thread, NULL);
        *at = job->next;
        --shared->count;
        free_job(job);
    }
}
