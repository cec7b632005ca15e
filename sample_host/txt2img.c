/* txt2img.c: `sample_host txt2img`, pictures from a prompt. */
#include "app.h"
#include "infotext.h"
#include "interrupt.h"
#include "lighter.h"
#include "model_hash.h"
#include "model_name.h"
#include "pictures.h"
#include "progress.h"
#include "request.h"
#include "served.h"

#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { MAX_RECORDS = 256 };

static struct {
    char *negative_prompt, *sampler, *scheduler, *seed, *model, *model_config, *output, *cfg_scale,
        *randn_source, *subseed, *subseed_strength;
    int steps, width, height, batch_size, batch_count, clip_skip;
} options = {.steps = 20, .batch_size = 1, .batch_count = 1, .clip_skip = 1};

static const struct poptOption table[] = {
    {"negative-prompt", 0, POPT_ARG_STRING, &options.negative_prompt, 0, "what the picture should not show",
     "TEXT"},
    {"steps", 0, POPT_ARG_INT, &options.steps, 0, "sampler steps [default 20]", "N"},
    {"sampler", 0, POPT_ARG_STRING, &options.sampler, 0, "Euler a (default), Euler, DPM++ 2M, DDIM", "NAME"},
    {"scheduler", 0, POPT_ARG_STRING, &options.scheduler, 0,
     "Automatic (default), Uniform, Karras, Exponential, SGM Uniform, Normal", "NAME"},
    {"cfg-scale", 0, POPT_ARG_STRING, &options.cfg_scale, 0, "classifier-free guidance [default 7]", "X"},
    {"seed", 0, POPT_ARG_STRING, &options.seed, 0, "first image's seed; default: -1, random", "N"},
    {"subseed", 0, POPT_ARG_STRING, &options.subseed, 0,
     "variation seed of the first image, -1 is random [default -1]; the seed then stays", "N"},
    {"subseed-strength", 0, POPT_ARG_STRING, &options.subseed_strength, 0,
     "share of the variation seed in the first noise, 0 (default) to 1", "X"},
    {"randn-source", 0, POPT_ARG_STRING, &options.randn_source, 0,
     "noise of torch's generator: CPU (default) or NV, a CUDA device's", "NAME"},
    {"clip-skip", 0, POPT_ARG_INT, &options.clip_skip, 0,
     "use the text encoder's N-th last layer [default 1, the last]", "N"},
    {"width", 0, POPT_ARG_INT, &options.width, 8, "pixels, a multiple of 8 [default the model's]", "N"},
    {"height", 0, POPT_ARG_INT, &options.height, 8, "pixels, a multiple of 8 [default the model's]", "N"},
    {"batch-size", 0, POPT_ARG_INT, &options.batch_size, 0, "images made together [default 1]", "N"},
    {"batch-count", 0, POPT_ARG_INT, &options.batch_count, 0, "batches made one after another [default 1]",
     "N"},
    {"model", 0, POPT_ARG_STRING, &options.model, 0,
     "a Stable Diffusion 1.x checkpoint (.safetensors) or diffusers folder [default the embedded emoji "
     "model]",
     "PATH"},
    {"model-config", 0, POPT_ARG_STRING, &options.model_config, 0,
     "JSON with what a checkpoint's shapes do not tell [default NAME.json beside NAME.safetensors]", "FILE"},
    {"output", 'o', POPT_ARG_STRING, &options.output, 0,
     "the picture's file; of several, STEM-0001.png and so on; default: ./attune-SEED.png", "FILE"},
    POPT_TABLEEND};

static uint64_t image_count(void) {
    return (uint64_t)options.batch_size * (uint64_t)options.batch_count;
}

typedef struct job {
    struct app *app;
    const char *prompt, *negative_prompt, *model_path;
    uint64_t seed, subseed;
    float cfg_scale, subseed_strength;
    uint32_t randn_source;
    attune_model *model;
    attune_model_info model_info;
    attune_sampler_info sampler_info;
    attune_plugin_status sampler_plugin;
    attune_session_plan plan;
    attune_choice choice;
    attune_attention_record records[MAX_RECORDS];
    uint64_t calls[MAX_RECORDS]; /* of earlier batches */
    uint32_t record_count;
    model_hash hash;
    double seconds[3]; /* by phase */
    double load_seconds;
    json_t *outputs, *seeds;
    progress_bar bar;
    uint64_t units_done;
} job;

static attune_code parse_noise(job *j) {
    struct app *app = j->app;
    const char *source = options.randn_source ? options.randn_source : "CPU";
    char *end = NULL;
    if (!request_randn(source, &j->randn_source))
        return app_usage(app, "--randn-source %s is unknown; CPU and NV are possible", source);
    j->subseed_strength = options.subseed_strength ? strtof(options.subseed_strength, &end) : 0.0f;
    if (options.subseed_strength &&
        (end == options.subseed_strength || *end || !(j->subseed_strength >= 0 && j->subseed_strength <= 1)))
        return app_usage(app, "--subseed-strength %s is no number from 0 to 1", options.subseed_strength);
    attune_code code = request_seed(app, "--seed", options.seed, &j->seed);
    return code ? code : request_seed(app, "--subseed", options.subseed, &j->subseed);
}

static attune_code check(job *j, int argc, const char **argv) {
    struct app *app = j->app;
    if (argc != 1)
        return argc ? app_usage(app, "one prompt is expected, \"%s\" is a second; put the prompt in quotes",
                                argv[1])
                    : app_usage(app, "a prompt is missing: sample_host txt2img \"red apple\"");
    j->prompt = argv[0];
    j->negative_prompt = options.negative_prompt ? options.negative_prompt : "";
    if (options.clip_skip < 1)
        return app_usage(app, "--clip-skip %d is less than 1", options.clip_skip);
    if (options.batch_size < 1 || options.batch_count < 1 ||
        options.batch_size > REQUEST_MOST_IMAGES / options.batch_count)
        return app_usage(app,
                         "--batch-size %d and --batch-count %d must be at least 1 and make at most %d images",
                         options.batch_size, options.batch_count, REQUEST_MOST_IMAGES);
    char *end = NULL;
    j->cfg_scale = options.cfg_scale ? strtof(options.cfg_scale, &end) : 7.0f;
    if (options.cfg_scale &&
        (end == options.cfg_scale || *end || !isfinite(j->cfg_scale) || j->cfg_scale < 0))
        return app_usage(app, "--cfg-scale %s is no number of at least 0", options.cfg_scale);
    attune_code code = request_extent(app, options.steps, options.width, options.height);
    if (code == ATTUNE_OK)
        code = parse_noise(j);
    if (code == ATTUNE_OK)
        code = pictures_check(options.output, image_count(), &app->error);
    if (code == ATTUNE_INVALID_ARGUMENT)
        app->status = EXIT_USAGE;
    return code;
}

static attune_code load_model(job *j) {
    struct app *app = j->app;
    double start = progress_now();
    j->model_path = options.model ? options.model : app->model_dir;
    attune_code code = request_model(app, j->model_path, options.model_config, j->prompt, &j->model);
    if (code != ATTUNE_OK)
        return code;
    j->load_seconds = progress_now() - start;
    j->model_info.struct_size = sizeof j->model_info;
    j->sampler_info.struct_size = sizeof j->sampler_info;
    j->sampler_plugin.struct_size = sizeof j->sampler_plugin;
    code = attune_model_describe(j->model, &j->model_info, &app->error);
    if (code == ATTUNE_OK)
        code = attune_model_sampler(j->model, &j->sampler_info, &j->sampler_plugin, &app->error);
    if (code != ATTUNE_OK)
        return code;
    model_hash_start(&j->hash, j->model_path, j->model_info.weights_file);
    /* who asks for the backend that promises bits wants them as far as the sampler can keep them */
    if (!app->determinism_given && strcmp(app->backend, "sdp-no-mem") == 0)
        app->wish.determinism = j->sampler_info.determinism;
    return ATTUNE_OK;
}

/* The first batch: say what was chosen and why. */
static void announce(job *j, attune_session *session) {
    struct app *app = j->app;
    attune_attention_record record = {.struct_size = sizeof record};
    app_say(app, "Applying attention optimization: %s... done.", j->choice.backend);
    for (uint32_t i = 0; attune_session_attention(session, i, &record, NULL) == ATTUNE_OK; ++i) {
        int said = record.choice.fallback[0] == 0;
        for (uint32_t k = 0; k < j->record_count; ++k)
            said |= strcmp(j->records[k].choice.fallback, record.choice.fallback) == 0;
        if (!said)
            app_warn(app, "%s", record.choice.fallback);
        if (j->record_count < MAX_RECORDS)
            j->records[j->record_count++] = record;
    }
    if (app->explain)
        choice_explain(j->records, j->record_count);
}

static void add_calls(job *j, attune_session *session) {
    attune_attention_record record = {.struct_size = sizeof record};
    for (uint32_t i = 0; i < j->record_count; ++i)
        if (attune_session_attention(session, i, &record, NULL) == ATTUNE_OK)
            j->calls[i] += record.calls;
}

/* Image `index` of all batches; with a variation the seed stays. */
static uint64_t image_seed(const job *j, uint64_t index) {
    return j->subseed_strength > 0 ? j->seed : j->seed + index;
}

static char *parameters(job *j, uint64_t index) {
    char names[512], arithmetic[512], plugin[128];
    char model[256];
    model_name(j->model_path, model, sizeof model);
    served_text(j->records, j->record_count, &j->sampler_info, names, arithmetic, sizeof names);
    (void)snprintf(plugin, sizeof plugin, "%s %s", j->sampler_plugin.id, j->sampler_plugin.version);
    model_hash_finish(&j->hash);
    infotext info = {.prompt = j->prompt,
                     .negative_prompt = j->negative_prompt,
                     .sampler = j->plan.sampler,
                     .scheduler = j->plan.scheduler,
                     .model = model,
                     .model_hash = j->hash.text,
                     .attention = names,
                     .arithmetic = arithmetic,
                     .determinism = attune_determinism_name(j->plan.determinism),
                     .sampler_plugin = plugin,
                     .randn_source = j->randn_source == ATTUNE_RANDN_NV ? "NV" : "CPU",
                     .seed = image_seed(j, index),
                     .subseed = j->subseed + index,
                     .subseed_strength = j->subseed_strength,
                     .clip_skip = (uint32_t)options.clip_skip,
                     .steps = (uint32_t)options.steps,
                     .width = j->plan.width,
                     .height = j->plan.height,
                     .cfg_scale = j->cfg_scale};
    return infotext_format(&info);
}

static attune_code write_images(job *j, attune_session *session, uint64_t first) {
    struct app *app = j->app;
    attune_image image = {.struct_size = sizeof image,
                          .width = j->plan.width,
                          .height = j->plan.height,
                          .stride = j->plan.width * 3};
    image.pixels = malloc((size_t)image.stride * image.height);
    attune_code code = ATTUNE_OK;
    if (!image.pixels)
        return attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "txt2img",
                           "no memory for the picture");
    for (uint32_t i = 0; i < j->plan.images && code == ATTUNE_OK; ++i) {
        char path[4400];
        uint64_t seed = image_seed(j, first + i);
        char *text = parameters(j, first + i);
        if (!text)
            code = attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "txt2img",
                               "no memory for the infotext");
        if (code == ATTUNE_OK)
            code = attune_session_image(session, i, &image, &app->error);
        if (code == ATTUNE_OK)
            code = pictures_write(options.output, first + i, image_count(), seed, &image, text, path,
                                  &app->error);
        if (code == ATTUNE_OK) {
            progress_end(&j->bar);
            json_array_append_new(j->outputs, json_text(path));
            json_array_append_new(j->seeds, json_integer((json_int_t)seed));
            if (!app->json)
                puts(path);
        }
        free(text);
    }
    free(image.pixels);
    return code;
}

static attune_code run_steps(job *j, attune_session *session) {
    static const char *const phases[] = {"text", "steps", "decode"};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_code code = ATTUNE_OK;
    while (!progress.done && code == ATTUNE_OK) {
        double start = progress_now();
        code = attune_session_step(session, interrupt_control(), &progress, &j->app->error);
        if (code == ATTUNE_OK) {
            j->seconds[progress.phase] += progress_now() - start;
            progress_show(&j->bar, ++j->units_done, phases[progress.phase]);
        }
    }
    progress_end(&j->bar);
    return code;
}

static attune_code run_batch(job *j, uint64_t first) {
    struct app *app = j->app;
    attune_session *session = NULL;
    attune_request request = {.struct_size = sizeof request,
                              .determinism = app->wish.determinism,
                              .prompt = j->prompt,
                              .negative_prompt = j->negative_prompt,
                              .sampler = options.sampler,
                              .scheduler = options.scheduler,
                              .seed = image_seed(j, first),
                              .memory_limit = app->wish.memory_limit ? app->wish.memory_limit : UINT64_MAX,
                              .memory = app->memory,
                              .steps = (uint32_t)options.steps,
                              .width = (uint32_t)options.width,
                              .height = (uint32_t)options.height,
                              .batch_size = (uint32_t)options.batch_size,
                              .cfg_scale = j->cfg_scale,
                              .clip_skip = (uint32_t)options.clip_skip,
                              .randn_source = j->randn_source,
                              .subseed = j->subseed + first,
                              .subseed_strength = j->subseed_strength};
    j->plan.struct_size = sizeof j->plan;
    j->choice.struct_size = sizeof j->choice;
    double start = progress_now();
    attune_code code = attune_session_open(j->model, &request, &app->wish, interrupt_control(), &session,
                                           &j->plan, &j->choice, &app->error);
    if (code != ATTUNE_OK) {
        lighter_hint(app, j->model, &request);
        if (j->choice.candidates)
            json_object_set_new(app->reply, "choice", choice_json(&j->choice));
        return app_not_served(app, code);
    }
    j->load_seconds += progress_now() - start; /* weights are made ready there */
    if (first == 0) {
        progress_begin(&j->bar, j->plan.sampler, (uint64_t)j->plan.units * (uint64_t)options.batch_count,
                       app->quiet);
        announce(j, session);
    }
    code = run_steps(j, session);
    if (code != ATTUNE_OK && !app->wish.memory_limit)
        lighter_hint(app, j->model, &request);
    add_calls(j, session);
    if (code == ATTUNE_OK)
        code = write_images(j, session, first);
    attune_session_close(session);
    return code;
}

/* A failure after some pictures says how many there are. */
static void say_written(job *j) {
    char *message = j->app->error.message;
    size_t used = strlen(message), written = json_array_size(j->outputs);
    if (written)
        (void)snprintf(message + used, sizeof j->app->error.message - used,
                       " (%zu of %llu pictures were written)", written, (unsigned long long)image_count());
}

/* What --json says of a run, finished or not. */
static void fill_reply(job *j, double total) {
    struct app *app = j->app;
    struct rusage usage;
    attune_memory_usage memory = {.struct_size = sizeof memory};
    getrusage(RUSAGE_SELF, &usage);
    (void)attune_memory(app->host, NULL, &memory, NULL);
    json_object_set(app->reply, "outputs", j->outputs);
    json_object_set(app->reply, "seeds", j->seeds);
    if (j->record_count) {
        json_t *list = json_array();
        for (uint32_t i = 0; i < j->record_count; ++i)
            json_array_append_new(
                list, json_pack("{s:o, s:s, s:I}", "problem", problem_json(&j->records[i].problem), "backend",
                                j->records[i].choice.backend, "calls", (json_int_t)j->calls[i]));
        json_object_set_new(app->reply, "choice", choice_json(&j->choice));
        json_object_set_new(app->reply, "attention", list);
        json_object_set_new(
            app->reply, "determinism",
            json_pack("{s:s, s:s, s:s}", "asked", attune_determinism_name(app->wish.determinism), "kept",
                      attune_determinism_name(j->plan.determinism), "limited_by", j->plan.limited_by));
    }
    json_object_set_new(app->reply, "seconds",
                        json_pack("{s:f, s:f, s:f, s:f, s:f}", "load", j->load_seconds, "text",
                                  j->seconds[ATTUNE_PHASE_TEXT], "sample", j->seconds[ATTUNE_PHASE_SAMPLE],
                                  "decode", j->seconds[ATTUNE_PHASE_DECODE], "total", total));
    json_object_set_new(app->reply, "peak_bytes", json_integer((json_int_t)usage.ru_maxrss * 1024));
    json_object_set_new(app->reply, "counted_bytes", json_integer((json_int_t)memory.peak));
}

static attune_code run(struct app *app, int argc, const char **argv) {
    job *j = calloc(1, sizeof *j);
    double start = progress_now();
    if (!j)
        return attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "txt2img",
                           "no memory to start");
    j->app = app;
    j->outputs = json_array();
    j->seeds = json_array();
    attune_code code = check(j, argc, argv);
    if (code == ATTUNE_OK)
        code = load_model(j);
    for (int b = 0; b < options.batch_count && code == ATTUNE_OK; ++b)
        code = run_batch(j, (uint64_t)b * (uint64_t)options.batch_size);
    if (code != ATTUNE_OK)
        say_written(j);
    if (j->model)
        fill_reply(j, progress_now() - start);
    if (code == ATTUNE_OK && !options.seed)
        app_say(app, "Seed: %llu", (unsigned long long)j->seed);
    if (code == ATTUNE_OK && !options.subseed && j->subseed_strength > 0)
        app_say(app, "Variation seed: %llu", (unsigned long long)j->subseed);
    model_hash_finish(&j->hash);
    attune_model_close(j->model);
    json_decref(j->outputs);
    json_decref(j->seeds);
    free(j);
    return code;
}

const command txt2img_command = {.name = "txt2img",
                                 .arguments = "\"PROMPT\"",
                                 .summary = "Pictures from a prompt",
                                 .table = table,
                                 .draws = 1,
                                 .run = run};
