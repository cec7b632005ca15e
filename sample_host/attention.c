/* attention.c: `sample_host attention`, one attention on .npy files, for anyone who wants to compare with
 * their own. */
#include "app.h"
#include "interrupt.h"
#include "npy.h"
#include "output.h"
#include "progress.h"
#include "staging.h"

#include <math.h>
#include <stdlib.h>

static struct { char *q, *k, *v, *mask, *output, *scale; } options;

static const struct poptOption table[] = {
    {"q", 0, POPT_ARG_STRING, &options.q, 0, "queries (B, H, N, D), float32 or float16", "Q.npy"},
    {"k", 0, POPT_ARG_STRING, &options.k, 0, "keys (B, H, M, D), of the same type", "K.npy"},
    {"v", 0, POPT_ARG_STRING, &options.v, 0, "values (B, H, M, E), of the same type", "V.npy"},
    {"mask", 0, POPT_ARG_STRING, &options.mask, 0,
     "mask, bool (true takes part) or float32 (added), broadcast to (B, H, N, M)", "M.npy"},
    {"scale", 0, POPT_ARG_STRING, &options.scale, 0, "factor of q·k [default 1/sqrt(D)]", "S"},
    {"output", 'o', POPT_ARG_STRING, &options.output, 0, "where the result (B, H, N, E) goes", "OUT.npy"},
    POPT_TABLEEND};

typedef struct arrays {
    npy_array q, k, v, mask, out;
} arrays;

static attune_code read_array(struct app *app, const char *path, const attune_device_id *cpu, int is_mask,
                              npy_array *array) {
    attune_code code = npy_read(path, array, &app->error);
    if (code != ATTUNE_OK)
        return code;
    array->tensor.device = *cpu;
    int type_fits = attune_dtype_equal(array->tensor.dtype, ATTUNE_F32) ||
                    attune_dtype_equal(array->tensor.dtype, is_mask ? ATTUNE_BOOL : ATTUNE_F16);
    if (!type_fits)
        return app_usage(app, "%s must be float32 or %s", path, is_mask ? "bool" : "float16");
    if (is_mask ? array->tensor.ndim > 4 : array->tensor.ndim != 4)
        return app_usage(app, "%s has %d axes, expected %s", path, array->tensor.ndim,
                         is_mask ? "at most 4" : "4: (batch, heads, tokens, channels)");
    return ATTUNE_OK;
}

static attune_code read_arrays(struct app *app, const attune_device_id *cpu, arrays *a) {
    attune_code code = read_array(app, options.q, cpu, 0, &a->q);
    if (code == ATTUNE_OK)
        code = read_array(app, options.k, cpu, 0, &a->k);
    if (code == ATTUNE_OK)
        code = read_array(app, options.v, cpu, 0, &a->v);
    if (code == ATTUNE_OK && options.mask)
        code = read_array(app, options.mask, cpu, 1, &a->mask);
    if (code != ATTUNE_OK)
        return code;
    int64_t shape[4] = {a->q.tensor.shape[0], a->q.tensor.shape[1], a->q.tensor.shape[2],
                        a->v.tensor.shape[3]};
    a->out.tensor = attune_tensor_view(NULL, a->q.tensor.dtype, *cpu, 4, shape);
    if (a->out.tensor.ndim < 0)
        return app_usage(app, "the result would be too large");
    a->out.memory = aligned_alloc(64, (a->out.tensor.bytes + 64) / 64 * 64);
    a->out.tensor.data = a->out.memory;
    if (!a->out.memory)
        return attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", options.output,
                           "no memory for the result's %llu bytes", (unsigned long long)a->out.tensor.bytes);
    return ATTUNE_OK;
}

/* The arrays as they lie on the stream's device. */
typedef struct views {
    attune_tensor q, k, v, mask, out;
} views;

static attune_code stage(struct app *app, const arrays *a, staging *on, views *to) {
    *to = (views){a->q.tensor, a->k.tensor, a->v.tensor, a->mask.tensor, a->out.tensor};
    attune_code code = staging_tensor(on, &to->q, 1, &app->error);
    if (code == ATTUNE_OK)
        code = staging_tensor(on, &to->k, 1, &app->error);
    if (code == ATTUNE_OK)
        code = staging_tensor(on, &to->v, 1, &app->error);
    if (code == ATTUNE_OK && options.mask)
        code = staging_tensor(on, &to->mask, 1, &app->error);
    return code == ATTUNE_OK ? staging_tensor(on, &to->out, 0, &app->error) : code;
}

static attune_code attend(struct app *app, const arrays *a, const views *at, const staging *on) {
    const attune_stream *stream = on->stream;
    attune_attention_problem problem;
    const attune_tensor *mask = options.mask ? &at->mask : NULL;
    attune_code code =
        attune_attention_problem_init(&problem, &at->q, &at->k, &at->v, mask, &at->out, &app->error);
    if (code != ATTUNE_OK) {
        app->status = EXIT_USAGE;
        return code;
    }
    problem.workers = stream->workers;
    if (options.scale)
        problem.scale = strtof(options.scale, NULL);
    static attune_attention_record record; /* too large for comfort on a stack */
    attune_choice *choice = &record.choice;
    record.problem = problem;
    choice->struct_size = sizeof *choice;
    attune_binding *binding = NULL;
    code = attune_choose(app->host, &app->wish, &problem, choice, &binding, &app->error);
    json_object_set_new(app->reply, "choice", choice_json(choice));
    if (app->explain)
        choice_explain(&record, 1);
    if (code != ATTUNE_OK)
        return app_not_served(app, code);
    if (choice->fallback[0])
        app_warn(app, "%s", choice->fallback);
    attune_tensor wide; /* the mask as the problem broadcasts it */
    if (mask) {
        int64_t shape[4] = {problem.batch, problem.heads_q, problem.n_q, problem.n_k};
        wide = *mask;
        wide.ndim = 4;
        memcpy(wide.shape, shape, sizeof shape);
        memcpy(wide.stride, problem.stride_mask, sizeof problem.stride_mask);
    }
    attune_attention_args args = {.struct_size = sizeof args,
                                  .q = &at->q,
                                  .k = &at->k,
                                  .v = &at->v,
                                  .mask = mask ? &wide : NULL,
                                  .out = &at->out};
    double start = progress_now();
    code = attune_attend(binding, &args, stream, interrupt_control(), &app->error);
    if (code == ATTUNE_OK)
        code = staging_fetch(on, &at->out, &a->out.tensor, &app->error);
    attune_binding_release(binding);
    if (code != ATTUNE_OK)
        return code;
    json_object_set_new(app->reply, "seconds", json_pack("{s:f}", "total", progress_now() - start));
    json_object_set_new(app->reply, "attention",
                        json_pack("[{s:o, s:s, s:i}]", "problem", problem_json(&problem), "backend",
                                  choice->backend, "calls", 1));
    app_say(app, "Applying attention optimization: %s... done.", choice->backend);
    return ATTUNE_OK;
}

static attune_code check(struct app *app, int argc, const char **argv) {
    char *end;
    if (argc)
        return app_usage(app, "unexpected argument \"%s\"", argv[0]);
    if (!options.q || !options.k || !options.v || !options.output)
        return app_usage(app, "option %s is missing",
                         !options.q   ? "--q"
                         : !options.k ? "--k"
                         : !options.v ? "--v"
                                      : "-o");
    if (!options.scale)
        return ATTUNE_OK;
    float scale = strtof(options.scale, &end);
    if (end == options.scale || *end || !isfinite(scale) || scale == 0)
        return app_usage(app, "--scale %s is no finite number other than 0", options.scale);
    return ATTUNE_OK;
}

static attune_code run(struct app *app, int argc, const char **argv) {
    arrays a;
    views at;
    attune_device_id cpu;
    attune_stream stream = {.struct_size = sizeof stream};
    memset(&a, 0, sizeof a);
    attune_code code = check(app, argc, argv);
    if (code == ATTUNE_OK)
        code = output_check(options.output, &app->error);
    if (code == ATTUNE_OK)
        code = attune_cpu_device(app->host, &cpu, &app->error);
    if (code == ATTUNE_OK)
        code = app_stream(app, &stream);
    if (code != ATTUNE_OK)
        return code;
    staging on = {.host = app->host, .stream = &stream};
    code = read_arrays(app, &cpu, &a);
    if (code == ATTUNE_OK)
        code = stage(app, &a, &on, &at);
    if (code == ATTUNE_OK)
        code = attend(app, &a, &at, &on);
    if (code == ATTUNE_OK)
        code = npy_write(options.output, &a.out.tensor, &app->error);
    if (code == ATTUNE_OK) {
        json_object_set_new(app->reply, "outputs", json_pack("[o]", json_text(options.output)));
        if (!app->json)
            puts(options.output);
    }
    staging_free(&on);
    npy_free(&a.q);
    npy_free(&a.k);
    npy_free(&a.v);
    npy_free(&a.mask);
    npy_free(&a.out);
    attune_stream_destroy(&stream);
    return code;
}

const command attention_command = {.name = "attention",
                                   .arguments = "--q Q.npy --k K.npy --v V.npy -o OUT.npy",
                                   .summary = "One attention on .npy files, (B, H, N, D), float32 or float16",
                                   .table = table,
                                   .run = run};
