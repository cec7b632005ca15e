/* bench_attention.c: `sample_host bench attention`, time, GFLOP/s and workspace per backend; runs
 * interleaved. */
#include "app.h"
#include "interrupt.h"
#include "progress.h"
#include "staging.h"
#include "times.h"

#include <errno.h>
#include <stdlib.h>

enum { MAX_RUNS = 31, MAX_BACKENDS = 16 };

static char **shapes, *dtype_name;

static const struct poptOption table[] = {
    {"shape", 0, POPT_ARG_ARGV, &shapes, 0, "batch, heads, queries, keys, head size (may be repeated)",
     "B,H,Nq,Nk,D"},
    {"dtype", 0, POPT_ARG_STRING, &dtype_name, 0, "float32 [default], float16 or bfloat16", "TYPE"},
    POPT_TABLEEND};

/* Stable Diffusion 1.5 at 512×512 with classifier-free guidance, its VAE's, and AnimateDiff's. */
static const int64_t default_shapes[][5] = {
    {2, 8, 4096, 4096, 40}, {2, 8, 4096, 77, 40}, {2, 8, 1024, 1024, 80},  {2, 8, 1024, 77, 80},
    {2, 8, 256, 256, 160},  {2, 8, 64, 64, 160},  {1, 1, 4096, 4096, 512}, {8192, 8, 16, 16, 40}};

typedef struct contestant {
    char name[32];
    attune_binding *binding; /* NULL = declined */
    attune_attention_record record;
    char refused[512];
    double milliseconds[MAX_RUNS];
} contestant;

typedef struct bench {
    attune_stream stream;
    attune_attention_problem problem;
    attune_dtype dtype;
    attune_tensor q, k, v, out;
    void *memory;
    staging on;
    void *workspace; /* on a device: the largest that a backend needs; on a CPU the host makes it */
    uint64_t workspace_bytes;
    contestant *list;
    uint32_t count;
    int runs;
} bench;

static attune_code parse_shape(struct app *app, const char *text, int64_t shape[5]) {
    const char *at = text;
    for (int i = 0; i < 5; ++i) {
        char *end;
        errno = 0;
        long long extent = strtoll(at, &end, 10);
        if (end == at || errno || extent < 1 || extent > 1 << 24 || *end != (i < 4 ? ',' : 0))
            return app_usage(app, "--shape %s is no shape; write B,H,Nq,Nk,D such as 2,8,4096,77,40", text);
        shape[i] = extent;
        at = end + 1;
    }
    return ATTUNE_OK;
}

/* Inputs between −1 and 1 from a linear congruential generator (Knuth, TAOCP 2, 3.3.4: MMIX). 16-bit ones
 * have a random sign, one of four exponents below 1, and a random fraction. */
static void fill(void *to, size_t count, attune_dtype dtype) {
    uint64_t state = 1;
    for (size_t i = 0; i < count; ++i) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const float value = (float)(int32_t)(state >> 32) * 0x1p-31f;
        const uint32_t bits = (uint32_t)(state >> 48), exponent = bits >> 10 & 3, sign = bits & 0x8000;
        if (attune_dtype_equal(dtype, ATTUNE_F32))
            memcpy((float *)to + i, &value, sizeof value);
        else if (attune_dtype_equal(dtype, ATTUNE_F16))
            ((uint16_t *)to)[i] = (uint16_t)(sign | (11 + exponent) << 10 | (bits & 0x3ff));
        else
            ((uint16_t *)to)[i] = (uint16_t)(sign | (123 + exponent) << 7 | (bits & 0x7f));
    }
}

/* Arrays on the CPU, then where the stream is. */
static attune_code make_arrays(struct app *app, bench *b, const int64_t s[5]) {
    attune_device_id cpu;
    int64_t nq[4] = {s[0], s[1], s[2], s[4]}, nk[4] = {s[0], s[1], s[3], s[4]};
    attune_code code = attune_cpu_device(app->host, &cpu, &app->error);
    if (code != ATTUNE_OK)
        return code;
    b->q = attune_tensor_view(NULL, b->dtype, cpu, 4, nq);
    b->k = b->v = attune_tensor_view(NULL, b->dtype, cpu, 4, nk);
    b->out = b->q;
    uint64_t total = 2 * b->q.bytes + 2 * b->k.bytes;
    if (b->q.ndim < 0 || b->k.ndim < 0 || !(b->memory = aligned_alloc(64, (total + 63) / 64 * 64)))
        return attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "bench attention",
                           "no memory for the shape %lld,%lld,%lld,%lld,%lld", (long long)s[0],
                           (long long)s[1], (long long)s[2], (long long)s[3], (long long)s[4]);
    fill(b->memory, (b->q.bytes + 2 * b->k.bytes) / attune_dtype_bytes(b->dtype), b->dtype);
    attune_tensor *const tensors[] = {&b->q, &b->k, &b->v, &b->out};
    char *at = b->memory;
    for (int i = 0; i < 4; ++i) {
        tensors[i]->data = at;
        at += tensors[i]->bytes;
    }
    b->on = (staging){.host = app->host, .stream = &b->stream};
    for (int i = 0; i < 4 && code == ATTUNE_OK; ++i)
        code = staging_tensor(&b->on, tensors[i], i < 3, &app->error);
    return code;
}

static attune_code set_problem(struct app *app, bench *b, const int64_t s[5]) {
    attune_code code = make_arrays(app, b, s);
    if (code == ATTUNE_OK)
        code = attune_attention_problem_init(&b->problem, &b->q, &b->k, &b->v, NULL, &b->out, &app->error);
    b->problem.workers = b->stream.workers;
    return code;
}

/* The backends to time: the one asked for, or every one that is loaded. */
static void list_backends(struct app *app, bench *b) {
    char names[MAX_BACKENDS][32];
    b->count = app_backends(app, names, MAX_BACKENDS);
    for (uint32_t i = 0; i < b->count; ++i)
        memcpy(b->list[i].name, names[i], sizeof names[i]);
    if (app->wish.attention) {
        b->count = 1;
        (void)snprintf(b->list[0].name, sizeof b->list[0].name, "%s", app->wish.attention);
    }
}

/* Bind a contestant or keep the reason; never a fallback. */
static void enter(struct app *app, bench *b, contestant *c) {
    attune_wish wish = app->wish;
    attune_error error;
    wish.attention = c->name;
    wish.required = 1;
    c->record.problem = b->problem;
    c->record.choice.struct_size = sizeof c->record.choice;
    memset(&error, 0, sizeof error);
    if (attune_choose(app->host, &wish, &b->problem, &c->record.choice, &c->binding, &error) != ATTUNE_OK) {
        c->binding = NULL;
        (void)snprintf(c->refused, sizeof c->refused, "%s", error.message);
    }
    if (app->explain)
        choice_explain(&c->record, 1);
}

/* On a device the call allocates nothing, as an application's would not. */
static attune_code make_workspace(struct app *app, bench *b) {
    b->workspace = NULL;
    b->workspace_bytes = 0;
    for (uint32_t i = 0; i < b->count; ++i)
        if (b->list[i].binding && b->list[i].record.choice.workspace > b->workspace_bytes)
            b->workspace_bytes = b->list[i].record.choice.workspace;
    return b->stream.device.type == ATTUNE_DEVICE_CPU
               ? ATTUNE_OK
               : staging_memory(&b->on, b->workspace_bytes, &b->workspace, &app->error);
}

/* From the call until the stream has passed it. */
static attune_code time_once(struct app *app, bench *b, contestant *c, double *seconds) {
    attune_attention_args args = {.struct_size = sizeof args,
                                  .q = &b->q,
                                  .k = &b->k,
                                  .v = &b->v,
                                  .out = &b->out,
                                  .workspace = b->workspace,
                                  .workspace_bytes = b->workspace_bytes};
    double start = progress_now();
    attune_code code = attune_attend(c->binding, &args, &b->stream, interrupt_control(), &app->error);
    if (code == ATTUNE_OK)
        code = attune_stream_synchronize(&b->stream, &app->error);
    *seconds = progress_now() - start;
    return code;
}

/* What a backend lacks may show when it first runs (a library that it opens then): the others are still
 * timed. */
static attune_code drop(struct app *app, contestant *c) {
    (void)snprintf(c->refused, sizeof c->refused, "%.330s; %.170s", app->error.message, app->error.hint);
    memset(&app->error, 0, sizeof app->error);
    attune_binding_release(c->binding);
    c->binding = NULL;
    return ATTUNE_OK;
}

/* One warm-up per backend, then rounds in which each runs once, so that drift of the machine meets all alike.
 */
static attune_code run_rounds(struct app *app, bench *b, const progress_bar *bar, uint64_t done) {
    double slowest = 0;
    attune_code code = ATTUNE_OK;
    for (int run = -1; run < b->runs && code == ATTUNE_OK; ++run) {
        for (uint32_t i = 0; i < b->count && code == ATTUNE_OK; ++i) {
            double seconds;
            if (!b->list[i].binding)
                continue;
            code = time_once(app, b, &b->list[i], &seconds);
            if (code == ATTUNE_UNAVAILABLE && run < 0) {
                code = drop(app, &b->list[i]);
                continue;
            }
            if (run >= 0)
                b->list[i].milliseconds[run] = 1e3 * seconds;
            else if (seconds > slowest)
                slowest = seconds;
        }
        if (run < 0)
            b->runs = slowest > 0.3 ? 5 : slowest > 0.02 ? 9 : MAX_RUNS;
        progress_show(bar, done, "shapes");
    }
    return code;
}

static void put_result(struct app *app, bench *b, contestant *c, json_t *results) {
    const attune_attention_problem *p = &b->problem;
    json_t *entry =
        json_pack("{s:s, s:[I,I,I,I,I], s:s, s:i}", "backend", c->name, "shape", (json_int_t)p->batch,
                  (json_int_t)p->heads_q, (json_int_t)p->n_q, (json_int_t)p->n_k, (json_int_t)p->d_qk,
                  "dtype", attune_dtype_name(p->dtype), "threads", (int)b->stream.workers);
    char shape[160];
    problem_text(p, shape, sizeof shape);
    json_array_append_new(results, entry);
    if (!c->binding) {
        json_object_set_new(entry, "refused", json_text(c->refused));
        if (!app->json)
            printf("%-12s %-44s refused: %s\n", c->name, shape, c->refused);
        return;
    }
    times_summary t = times_of(c->milliseconds, b->runs);
    double gflops = 2e-6 * (double)p->batch * (double)p->heads_q * (double)p->n_q * (double)p->n_k *
                    (double)(p->d_qk + p->d_v) / t.median;
    json_object_set_new(entry, "isa", json_string(c->record.choice.isa));
    json_object_set_new(entry, "milliseconds", times_json(t));
    json_object_set_new(entry, "gflops", json_real(gflops));
    json_object_set_new(entry, "workspace_bytes", json_integer((json_int_t)c->record.choice.workspace));
    if (!app->json)
        printf("%-12s %-44s %9.3f ms (%.3f to %.3f), %7.1f GFLOP/s, workspace %llu bytes, %u threads, %s\n",
               c->name, shape, t.median, t.min, t.max, gflops, (unsigned long long)c->record.choice.workspace,
               b->stream.workers, c->record.choice.isa);
}

static attune_code run_shape(struct app *app, bench *b, const int64_t shape[5], const progress_bar *bar,
                             uint64_t done, json_t *results) {
    memset(b->list, 0, MAX_BACKENDS * sizeof *b->list);
    b->count = 0;
    attune_code code = set_problem(app, b, shape);
    if (code == ATTUNE_OK) {
        list_backends(app, b);
        for (uint32_t i = 0; i < b->count; ++i)
            enter(app, b, &b->list[i]);
        code = make_workspace(app, b);
        if (code == ATTUNE_OK)
            code = run_rounds(app, b, bar, done);
        progress_end(bar);
        for (uint32_t i = 0; i < b->count; ++i) {
            if (code == ATTUNE_OK)
                put_result(app, b, &b->list[i], results);
            attune_binding_release(b->list[i].binding);
        }
    }
    staging_free(&b->on);
    free(b->memory);
    b->memory = NULL;
    return code;
}

static attune_code read_dtype(struct app *app, attune_dtype *out) {
    const attune_dtype known[] = {ATTUNE_F32, ATTUNE_F16, ATTUNE_BF16};
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
        if (!dtype_name || strcmp(dtype_name, attune_dtype_name(known[i])) == 0) {
            *out = known[i];
            return ATTUNE_OK;
        }
    return app_usage(app, "--dtype %s is none of float32, float16, bfloat16", dtype_name);
}

static attune_code run(struct app *app, int argc, const char **argv) {
    if (argc)
        return app_usage(app, "unexpected argument \"%s\"", argv[0]);
    bench b = {.stream = {.struct_size = sizeof b.stream}};
    attune_code code = read_dtype(app, &b.dtype);
    if (code == ATTUNE_OK)
        code = app_stream(app, &b.stream);
    if (code != ATTUNE_OK)
        return code;
    size_t count = 0;
    while (shapes && shapes[count])
        ++count;
    size_t total = count ? count : sizeof default_shapes / sizeof default_shapes[0];
    json_t *results = json_array();
    progress_bar bar;
    progress_begin(&bar, "bench attention", total, app->quiet);
    b.list = calloc(MAX_BACKENDS, sizeof *b.list);
    if (!b.list)
        code = attune_fail(&app->error, ATTUNE_RESOURCE_EXHAUSTED, "sample_host", "bench attention",
                           "no memory");
    for (size_t i = 0; i < total && code == ATTUNE_OK; ++i) {
        int64_t shape[5] = {0};
        if (!count)
            memcpy(shape, default_shapes[i], sizeof shape);
        else
            code = parse_shape(app, shapes[i], shape);
        if (code == ATTUNE_OK)
            code = run_shape(app, &b, shape, &bar, i, results);
    }
    free(b.list);
    json_object_set_new(app->reply, "results", results);
    attune_stream_destroy(&b.stream);
    for (char **shape = shapes; shape && *shape; ++shape)
        free(*shape);
    free(shapes);
    return code;
}

const command bench_attention_command = {.name = "bench attention",
                                         .arguments = "[--shape B,H,Nq,Nk,D]...",
                                         .summary = "Time, GFLOP/s and workspace of each attention backend",
                                         .table = table,
                                         .compares = 1,
                                         .run = run};
