/* bench_image.c: `sample_host bench image`, seconds and peak memory of four pictures per attention backend,
 * which take turns. */
#include "app.h"
#include "bench_plot.h"
#include "interrupt.h"
#include "output.h"
#include "progress.h"
#include "request.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* The article's request: 768×512, batch count 4, the web UI's other defaults. */
enum { RUNS = 5, IMAGES = 4, STEPS = 20, QUICK_STEPS = 4, WIDTH = 768, HEIGHT = 512, MAX_BACKENDS = 64 };

static struct {
    char *model, *model_config, *output;
    int quick;
} options;

static const struct poptOption table[] = {
    {"model", 0, POPT_ARG_STRING, &options.model, 0,
     "a Stable Diffusion 1.x checkpoint (.safetensors) or diffusers folder [default the embedded emoji "
     "model]",
     "PATH"},
    {"model-config", 0, POPT_ARG_STRING, &options.model_config, 0,
     "JSON with what a checkpoint's shapes do not tell [default NAME.json beside NAME.safetensors]", "FILE"},
    {"output", 'o', POPT_ARG_STRING, &options.output, 0, "draw the table there too, as SVG", "FILE"},
    {"quick", 0, POPT_ARG_NONE, &options.quick, 0, "1 run of 4 steps instead of 5 runs of 20 steps", NULL},
    POPT_TABLEEND};

typedef struct entrant {
    char name[32];
    char refused[512]; /* why it cannot serve the request, or "" */
    attune_choice choice;
    attune_session_plan plan;
    double seconds[RUNS]; /* of IMAGES pictures */
    times_summary summary;
    uint64_t peak; /* bytes: the largest resident set of a run; 0 where the system does not tell */
} entrant;

typedef struct bench {
    struct app *app;
    attune_model *model;
    entrant *list;
    uint32_t count;
    int runs, steps;
    progress_bar bar;
    uint64_t done; /* pictures, of the bar's total */
} bench;

/* ---- the process's largest resident set, since the last reset (proc(5)) ---- */

/* 0 where the system does not let us: the peak would be that of whoever needed most so far. */
static int reset_peak(void) {
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    int done = write(file, "5", 1) == 1;
    close(file);
    return done;
}

static uint64_t read_peak(void) {
    char line[256];
    unsigned long long kilobytes = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %llu kB", &kilobytes) == 1)
            break;
    if (status)
        fclose(status);
    return (uint64_t)kilobytes * 1024;
}

/* ---- a run ---- */

static attune_code draw(bench *b, entrant *e, uint32_t index) {
    struct app *app = b->app;
    attune_session *session = NULL;
    attune_request request = {.struct_size = sizeof request,
                              .determinism = app->wish.determinism,
                              .prompt = "red apple",
                              .negative_prompt = "",
                              .seed = 1 + index,
                              .memory_limit = app->wish.memory_limit ? app->wish.memory_limit : UINT64_MAX,
                              .memory = app->memory,
                              .steps = (uint32_t)b->steps,
                              .width = WIDTH,
                              .height = HEIGHT,
                              .batch_size = 1,
                              .cfg_scale = 7};
    e->plan.struct_size = sizeof e->plan;
    e->choice.struct_size = sizeof e->choice;
    app->wish.attention = e->name;
    app->wish.required = 1;
    attune_code code = attune_session_open(b->model, &request, &app->wish, interrupt_control(), &session,
                                           &e->plan, &e->choice, &app->error);
    if (code != ATTUNE_OK)
        return app_not_served(app, code);
    attune_image image = {.struct_size = sizeof image,
                          .width = e->plan.width,
                          .height = e->plan.height,
                          .stride = e->plan.width * 3};
    image.pixels = malloc((size_t)image.stride * image.height);
    code = image.pixels ? request_draw(session, 0, &image, &app->error)
                        : attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "bench image",
                                      "no memory for a picture of %u×%u", image.width, image.height);
    free(image.pixels);
    attune_session_close(session);
    progress_show(&b->bar, ++b->done, e->name);
    return code;
}

/* One run of one backend; `run` < 0 is the warm-up, one picture. That it cannot serve is a result. */
static attune_code run_once(bench *b, entrant *e, int run) {
    struct app *app = b->app;
    attune_code code = ATTUNE_OK;
    int known = reset_peak();
    double start = progress_now();
    for (uint32_t i = 0; i < (run < 0 ? 1 : IMAGES) && code == ATTUNE_OK; ++i)
        code = draw(b, e, i);
    if (app->status == EXIT_NO_BACKEND) {
        (void)snprintf(e->refused, sizeof e->refused, "%s", app->error.message);
        memset(&app->error, 0, sizeof app->error);
        app->status = 0;
        return ATTUNE_OK;
    }
    if (code == ATTUNE_OK && run >= 0) {
        const uint64_t peak = known ? read_peak() : 0;
        e->seconds[run] = progress_now() - start;
        e->peak = peak > e->peak ? peak : e->peak;
    }
    return code;
}

/* Rounds in which each backend runs once, so that drift of the machine meets all alike; before them a picture
 * of each, which makes the weights and plans ready. */
static attune_code run_rounds(bench *b) {
    attune_code code = ATTUNE_OK;
    for (int run = -1; run < b->runs; ++run)
        for (uint32_t i = 0; i < b->count && code == ATTUNE_OK; ++i)
            if (!b->list[i].refused[0])
                code = run_once(b, &b->list[i], run);
    progress_end(&b->bar);
    return code;
}

/* ---- the table ---- */

static json_t *put_result(const bench *b, entrant *e) {
    json_t *entry = json_pack("{s:s, s:i, s:i, s:i, s:[i,i]}", "backend", e->name, "images", IMAGES, "steps",
                              b->steps, "runs", b->runs, "size", WIDTH, HEIGHT);
    if (e->refused[0]) {
        json_object_set_new(entry, "refused", json_text(e->refused));
        if (!b->app->json)
            printf("%-14s refused: %s\n", e->name, e->refused);
        return entry;
    }
    const times_summary t = e->summary = times_of(e->seconds, b->runs);
    json_object_set_new(entry, "seconds", times_json(t));
    json_object_set_new(entry, "peak_bytes", e->peak ? json_integer((json_int_t)e->peak) : json_null());
    json_object_set_new(entry, "determinism", json_string(attune_determinism_name(e->plan.determinism)));
    json_object_set_new(entry, "plugin", json_text(e->choice.plugin));
    if (!b->app->json)
        printf("%-14s %9.3f s (%.3f to %.3f), peak %7.1f MiB, %s\n", e->name, t.median, t.min, t.max,
               ldexp((double)e->peak, -20), attune_determinism_name(e->plan.determinism));
    return entry;
}

/* The backends that were timed, as bars. */
static attune_code draw_plot(bench *b) {
    plot_bar bars[MAX_BACKENDS];
    char title[128];
    uint32_t count = 0;
    for (uint32_t i = 0; i < b->count; ++i)
        if (!b->list[i].refused[0])
            bars[count++] = (plot_bar){b->list[i].name, attune_determinism_name(b->list[i].plan.determinism),
                                       b->list[i].summary, b->list[i].peak};
    (void)snprintf(title, sizeof title, "%d pictures of %d×%d, %d steps, median of %d run%s", IMAGES, WIDTH,
                   HEIGHT, b->steps, b->runs, b->runs > 1 ? "s" : "");
    attune_code code = bench_plot_write(options.output, title, bars, count, &b->app->error);
    if (code != ATTUNE_OK)
        return code;
    json_object_set_new(b->app->reply, "output", json_text(options.output));
    if (!b->app->json)
        puts(options.output);
    return ATTUNE_OK;
}

static attune_code report(bench *b) {
    struct app *app = b->app;
    json_t *results = json_array();
    int served = 0;
    if (!app->json)
        printf("%d pictures of %d×%d one after another, %d steps, median of %d run%s:\n", IMAGES, WIDTH,
               HEIGHT, b->steps, b->runs, b->runs > 1 ? "s" : "");
    for (uint32_t i = 0; i < b->count; ++i) {
        served += !b->list[i].refused[0];
        json_array_append_new(results, put_result(b, &b->list[i]));
    }
    json_object_set_new(app->reply, "results", results);
    if (served)
        return options.output ? draw_plot(b) : ATTUNE_OK;
    app->status = EXIT_NO_BACKEND;
    return attune_fail(&app->error, ATTUNE_UNAVAILABLE, "sample_host", "bench image",
                       "no backend can serve: %s",
                       b->count ? b->list[b->count - 1].refused : "none is loaded");
}

/* The backend asked for, or every one that is loaded. */
static void enter_all(bench *b) {
    const struct app *app = b->app;
    const char *asked = app->backend[0] ? app->backend : app->wish.attention;
    char names[MAX_BACKENDS][32];
    b->count = asked ? 1 : app_backends(b->app, names, MAX_BACKENDS);
    for (uint32_t i = 0; i < b->count; ++i)
        (void)snprintf(b->list[i].name, sizeof b->list[i].name, "%s", asked ? asked : names[i]);
}

static attune_code run(struct app *app, int argc, const char **argv) {
    if (argc)
        return app_usage(app, "unexpected argument \"%s\"", argv[0]);
    attune_code code = options.output ? output_check(options.output, &app->error) : ATTUNE_OK;
    if (code != ATTUNE_OK)
        return code;
    bench b = {.app = app,
               .list = calloc(MAX_BACKENDS, sizeof *b.list),
               .runs = options.quick ? 1 : RUNS,
               .steps = options.quick ? QUICK_STEPS : STEPS};
    if (!b.list)
        return attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "bench image",
                           "no memory to start");
    enter_all(&b);
    code = request_model(app, options.model ? options.model : app->model_dir, options.model_config, "",
                         &b.model);
    if (code == ATTUNE_OK) {
        progress_begin(&b.bar, "bench image", (uint64_t)b.count * (uint64_t)(1 + b.runs * IMAGES),
                       app->quiet);
        code = run_rounds(&b);
    }
    if (code == ATTUNE_OK)
        code = report(&b);
    attune_model_close(b.model);
    free(b.list);
    return code;
}

const command bench_image_command = {.name = "bench image",
                                     .arguments = "",
                                     .summary =
                                         "Seconds and peak memory of 4 pictures for each attention backend",
                                     .table = table,
                                     .compares = 1,
                                     .run = run};
