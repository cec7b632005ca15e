/* rig.c: a small host around the sampler. */
#include "tests/sampler/rig.h"
#include "kernels/cpu/dispatch.h"
#include "tests/support/run.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

attune_code attune_plugin_entry(uint32_t *abi, const attune_plugin **out);

/* Each block starts with its size, in a cache line of its own. */
enum { HEADER = 64 };

static void *take(void *context, uint64_t bytes, const char *tag) {
    rig *r = context;
    ck_assert_ptr_nonnull(tag);
    if (atomic_fetch_add(&r->allocs, 1) + 1 == r->fail_at || bytes > (uint64_t)1 << 40)
        return NULL;
    char *block = aligned_alloc(HEADER, HEADER + (bytes + HEADER - 1) / HEADER * HEADER);
    if (!block)
        return NULL;
    memcpy(block, &bytes, sizeof bytes);
    memset(block + HEADER, 0xff,
           bytes < 4096 ? bytes : 4096); /* NaN, and no pointer: nobody may rely on zeros */
    atomic_fetch_add(&r->live, 1);
    int64_t now = atomic_fetch_add(&r->bytes, (int64_t)bytes) + (int64_t)bytes, seen = atomic_load(&r->peak);
    while (now > seen && !atomic_compare_exchange_weak(&r->peak, &seen, now))
        ;
    return block + HEADER;
}

static void give(void *context, void *memory) {
    rig *r = context;
    uint64_t bytes;
    if (!memory)
        return;
    char *block = (char *)memory - HEADER;
    memcpy(&bytes, block, sizeof bytes);
    atomic_fetch_sub(&r->live, 1);
    atomic_fetch_sub(&r->bytes, (int64_t)bytes);
    free(block);
}

static void keep_line(void *context, int32_t level, const char *message) {
    rig *r = context;
    (void)snprintf(r->logged, sizeof r->logged, "%d %s", level, message);
}

static uint64_t now(void *context) {
    struct timespec time;
    (void)context;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

typedef struct loop {
    attune_task task;
    void *context;
    uint64_t n;
    _Atomic uint64_t next;
    _Atomic uint32_t worker;
    pthread_mutex_t lock;
    uint64_t failed;
    attune_code code;
    attune_error error;
} loop;

static void *run_loop(void *argument) {
    loop *l = argument;
    uint32_t worker = atomic_fetch_add(&l->worker, 1);
    for (uint64_t task; (task = atomic_fetch_add(&l->next, 1)) < l->n;) {
        attune_error error;
        attune_code code = l->task(l->context, task, worker, &error);
        if (code == ATTUNE_OK)
            continue;
        pthread_mutex_lock(&l->lock);
        if (task < l->failed) {
            l->failed = task;
            l->code = code;
            l->error = error;
        }
        pthread_mutex_unlock(&l->lock);
        atomic_store(&l->next, l->n);
    }
    return NULL;
}

static attune_code parallel_for(void *context, const attune_stream *stream, uint64_t n, attune_task task,
                                void *task_context, attune_error *error) {
    pthread_t threads[16];
    loop l = {.task = task, .context = task_context, .n = n, .failed = UINT64_MAX};
    uint32_t more = stream->workers - 1;
    (void)context;
    pthread_mutex_init(&l.lock, NULL);
    for (uint32_t i = 0; i < more; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_loop, &l), 0);
    run_loop(&l);
    for (uint32_t i = 0; i < more; ++i)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&l.lock);
    if (l.code != ATTUNE_OK && error)
        *error = l.error;
    return l.code;
}

static attune_code bind(void *context, const attune_attention_problem *problem, attune_bound *out,
                        attune_error *error) {
    rig *r = context;
    if (problem->budget < r->workspace)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "rig", "bind", "%llu bytes are needed",
                           (unsigned long long)r->workspace);
    uint32_t index = atomic_fetch_add(&r->problems, 1);
    ck_assert_uint_lt(index, ATTENTION_MAX_PROBLEMS);
    r->problem[index] = *problem;
    out->determinism = r->determinism;
    out->workspace = r->workspace;
    out->binding = index + 1;
    (void)snprintf(out->backend, sizeof out->backend, "rig-attention");
    (void)snprintf(out->plugin, sizeof out->plugin, "rig-plugin");
    return ATTUNE_OK;
}

/* Any kernel gives the reference's bits (tests/kernels); this machine's best keeps the tests quick, unless
 * ATTUNE_CPU_MASK caps it. */
static void run_kernel(const attune_attention_f32 *call) {
    attune_cpu_isa isa = attune_cpu_detect();
    attune_cpu_kernels kernels;
    ck_assert_int_eq(attune_cpu_cap(getenv("ATTUNE_CPU_MASK"), &isa), 1);
    attune_cpu_dispatch(isa, &kernels);
    uint64_t bytes = kernels.attention_f32->workspace(call), tasks = kernels.attention_f32->tasks(call);
    void *workspace = aligned_alloc(HEADER, bytes + HEADER - bytes % HEADER);
    ck_assert_ptr_nonnull(workspace);
    for (uint64_t task = 0; task < tasks; ++task) /* one pass, nothing shared */
        kernels.attention_f32->run(call, task, workspace);
    free(workspace);
}

static attune_code attend(void *context, uint64_t binding, const attune_attention_args *args,
                          const attune_stream *stream, const attune_control *control, attune_error *error) {
    rig *r = context;
    const attune_attention_problem *p = &r->problem[binding - 1];
    attune_attention_f32 call = {.batch = p->batch,
                                 .heads_q = p->heads_q,
                                 .heads_kv = p->heads_kv,
                                 .n_q = p->n_q,
                                 .n_k = p->n_k,
                                 .d_qk = p->d_qk,
                                 .d_v = p->d_v};
    const attune_tensor *tensors[] = {args->q, args->k, args->v, args->out};
    const int64_t *strides[] = {p->stride_q, p->stride_k, p->stride_v, p->stride_out};
    int64_t *to[] = {call.stride_q, call.stride_k, call.stride_v, call.stride_out};
    (void)stream;
    (void)control;
    (void)error;
    ck_assert_uint_ge(args->workspace_bytes, r->workspace);
    for (int i = 0; i < 4; ++i) {
        ck_assert_mem_eq(tensors[i]->stride, strides[i], 4 * sizeof(int64_t));
        ck_assert_uint_le(attune_tensor_span(tensors[i]), tensors[i]->bytes);
        memcpy(to[i], strides[i], 4 * sizeof(int64_t));
    }
    call.q = args->q->data;
    call.k = args->k->data;
    call.v = args->v->data;
    call.out = args->out->data;
    call.causal = p->causal;
    call.scale = p->scale;
    run_kernel(&call);
    if (atomic_fetch_add(&r->attends, 1) + 1 == r->nan_at)
        ((float *)args->out->data)[attune_tensor_span(args->out) / sizeof(float) - 1] = NAN;
    return ATTUNE_OK;
}

static const void *get_service(const attune_host *host, const char *id) {
    rig *r = host->context;
    if (strcmp(id, "attune.memory/1") == 0)
        return &r->memory;
    if (strcmp(id, "attune.log/1") == 0)
        return &r->log;
    if (strcmp(id, "attune.parallel/1") == 0)
        return &r->parallel;
    return strcmp(id, "attune.clock/1") == 0 ? &r->clock : NULL;
}

void rig_open(rig *r, uint32_t workers) {
    attune_error error;
    uint32_t abi = ATTUNE_ABI_VERSION;
    memset(r, 0, sizeof *r);
    r->memory = (attune_memory_service){sizeof r->memory, 0, take, give, r};
    r->log = (attune_log_service){sizeof r->log, 0, keep_line, r};
    r->parallel = (attune_parallel_service){sizeof r->parallel, 0, parallel_for, r};
    r->clock = (attune_clock_service){sizeof r->clock, 0, now, r};
    r->services = (services){&r->memory, &r->log, &r->parallel, &r->clock};
    r->host = (attune_host){sizeof r->host, ATTUNE_ABI_VERSION, r, get_service};
    r->binder = (attune_binder){sizeof r->binder, 0, r, bind, attend};
    r->determinism = ATTUNE_DETERMINISM_PORTABLE;
    r->stream.struct_size = sizeof r->stream;
    r->stream.workers = workers;
    ck_assert_int_eq(attune_plugin_entry(&abi, &r->plugin), ATTUNE_OK);
    ck_assert_int_eq(r->plugin->create(&r->host, &r->instance, &error), ATTUNE_OK);
    r->sampler = r->plugin->get_interface(r->instance, ATTUNE_SAMPLER_INTERFACE);
    attune_sampler_info info = {.struct_size = sizeof info};
    ck_assert_int_eq(r->sampler->describe(r->instance, &info, &error), ATTUNE_OK);
    r->stream.device = info.device;
}

void rig_close(rig *r) {
    attune_error error;
    ck_assert_int_eq(r->plugin->quiesce(r->instance, &error), ATTUNE_OK);
    r->plugin->destroy(r->instance);
    ck_assert_int_eq(atomic_load(&r->live), 0);
}

const char *rig_model_path(const char *name) {
    static char path[4352];
    (void)snprintf(path, sizeof path, "%s/%s", run_source(),
                   strcmp(name, "emoji") == 0 ? "models/emoji" : "tests/golden/data/tiny");
    return path;
}

model *rig_model(rig *r, const char *name) {
    attune_error error;
    void *handle = NULL;
    attune_code code =
        r->sampler->model_open(r->instance, rig_model_path(name), NULL, &r->stream, NULL, &handle, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    return handle;
}

void rig_pass_plan(rig *r, model *m, pass *p) {
    pass_plan(p, &r->services, m->ops, m->dev, &r->stream, ATTUNE_DETERMINISM_NONE);
    pass_plan_phase(p, PHASE_UNET);
}

void rig_pass_run(rig *r, model *m, pass *p) {
    attune_error error = {0};
    int32_t determinism;
    uint32_t weakest;
    pass_plan_end(p);
    ck_assert_int_eq(attention_bind(p, &r->binder, UINT64_MAX, &determinism, &weakest, &error), ATTUNE_OK);
    attune_code code = m->ops->pack(m->dev, &r->stream, m->pool.layers, m->pool.count, &error);
    if (code == ATTUNE_OK)
        code = pass_start(p, &error);
    if (code == ATTUNE_OK)
        code = pass_enter(p, PHASE_UNET, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
}

const char *rig_copy_model(const char *name) {
    static char path[4352];
    run_result made = run("cp -r '%s' '%s/model' && chmod -R u+w '%s/model'", rig_model_path(name),
                          run_folder(), run_folder());
    ck_assert_int_eq(made.status, 0);
    run_free(&made);
    (void)snprintf(path, sizeof path, "%s/model", run_folder());
    return path;
}

double rig_distance(const float *a, const float *b, size_t n) {
    double most = 0.0;
    for (size_t i = 0; i < n; ++i) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most))
            most = d;
    }
    return most;
}
