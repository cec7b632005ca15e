/* tests/kernels/plugin_host.c: see plugin_host.h. */
#include "tests/kernels/plugin_host.h"

#include <check.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static void *host_alloc(void *context, uint64_t bytes, const char *tag) {
    plugin_host *host = context;
    (void)tag;
    void *memory = host->memory_is_out ? NULL : aligned_alloc(64, (bytes + 127) / 64 * 64);
    host->allocations += memory != NULL;
    return memory;
}

static void host_free(void *context, void *memory) {
    plugin_host *host = context;
    host->allocations -= memory != NULL;
    free(memory);
}

static void host_log(void *context, int32_t level, const char *message) {
    plugin_host *host = context;
    (void)level;
    (void)snprintf(host->said, sizeof host->said, "%s", message);
}

static uint64_t host_now(void *context) {
    return ((plugin_host *)context)->now;
}

typedef struct loop {
    uint64_t count;
    attune_task task;
    void *context;
    atomic_uint_fast64_t next;
    pthread_mutex_t lock;
    uint64_t failed_task; /* the lowest, or count */
    attune_code code;
    attune_error error;
} loop;

typedef struct loop_worker {
    loop *loop;
    uint32_t worker;
} loop_worker;

static void *work(void *argument) {
    loop *l = ((loop_worker *)argument)->loop;
    for (;;) {
        const uint64_t task = atomic_fetch_add(&l->next, 1);
        attune_error error;
        if (task >= l->count)
            return NULL;
        const attune_code code = l->task(l->context, task, ((loop_worker *)argument)->worker, &error);
        if (code == ATTUNE_OK)
            continue;
        (void)pthread_mutex_lock(&l->lock);
        if (task < l->failed_task) {
            l->failed_task = task;
            l->code = code;
            l->error = error;
        }
        (void)pthread_mutex_unlock(&l->lock);
        atomic_store(&l->next, l->count);
        return NULL;
    }
}

/* Threads are made per call and inherit the caller's floating-point environment, as the worst of hosts would.
 */
static attune_code host_parallel_for(void *context, const attune_stream *stream, uint64_t n, attune_task task,
                                     void *task_context, attune_error *error) {
    (void)context;
    enum { MOST = 16 };
    pthread_t threads[MOST];
    loop_worker workers[MOST];
    loop l = {.count = n, .task = task, .context = task_context, .failed_task = n, .code = ATTUNE_OK};
    ck_assert_uint_le(stream->workers, MOST);
    ck_assert_int_eq(pthread_mutex_init(&l.lock, NULL), 0);
    for (uint32_t i = 0; i < stream->workers; ++i) {
        workers[i] = (loop_worker){&l, i};
        if (i > 0)
            ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    (void)work(&workers[0]);
    for (uint32_t i = 1; i < stream->workers; ++i)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    (void)pthread_mutex_destroy(&l.lock);
    if (l.code != ATTUNE_OK && error)
        *error = l.error;
    return l.code;
}

static const void *host_get_service(const attune_host *host, const char *id) {
    const plugin_host *self = host->context;
    if (self->without && strcmp(id, self->without) == 0)
        return NULL;
    if (strcmp(id, "attune.memory/1") == 0)
        return &self->memory;
    if (strcmp(id, "attune.log/1") == 0)
        return &self->log;
    if (strcmp(id, "attune.parallel/1") == 0)
        return &self->parallel;
    return strcmp(id, "attune.clock/1") == 0 ? (const void *)&self->clock : NULL;
}

void plugin_host_open_library(plugin_host *host, const char *name) {
    char path[1024];
    const char *build = getenv("ATTUNE_BUILD");
    memset(host, 0, sizeof *host);
    (void)snprintf(path, sizeof path, "%s/%s", build ? build : "build", name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    *(void **)&host->entry = dlsym(library, ATTUNE_PLUGIN_ENTRY);
    ck_assert(host->entry != NULL);
    host->host = (attune_host){sizeof host->host, ATTUNE_ABI_VERSION, host, host_get_service};
    host->memory = (attune_memory_service){sizeof host->memory, 0, host_alloc, host_free, host};
    host->log = (attune_log_service){sizeof host->log, 0, host_log, host};
    host->parallel = (attune_parallel_service){sizeof host->parallel, 0, host_parallel_for, host};
    host->clock = (attune_clock_service){sizeof host->clock, 0, host_now, host};
}

void plugin_host_open(plugin_host *host) {
    plugin_host_open_library(host, "attune-cpu.so");
}

static void start(plugin_host *host) {
    uint32_t abi = ATTUNE_ABI_VERSION;
    attune_error error;
    attune_device_info info = {.struct_size = sizeof info};
    ck_assert_int_eq(host->entry(&abi, &host->plugin), ATTUNE_OK);
    ck_assert_msg(host->plugin->create(&host->host, &host->instance, &error) == ATTUNE_OK, "%s",
                  error.message);
    host->attention = host->plugin->get_interface(host->instance, ATTUNE_ATTENTION_INTERFACE);
    host->device = host->plugin->get_interface(host->instance, ATTUNE_DEVICE_INTERFACE);
    ck_assert(host->attention && host->device);
    ck_assert_int_eq(host->device->describe(host->instance, 0, &info, &error), ATTUNE_OK);
    host->id = info.id;
}

void plugin_host_start(plugin_host *host) {
    plugin_host_open(host);
    start(host);
}

void plugin_host_start_library(plugin_host *host, const char *name) {
    plugin_host_open_library(host, name);
    start(host);
}

void plugin_host_stop(plugin_host *host) {
    ck_assert_int_eq(host->plugin->quiesce(host->instance, NULL), ATTUNE_OK);
    host->plugin->destroy(host->instance);
    ck_assert_int_eq(host->allocations, 0);
}

attune_stream plugin_host_stream(const plugin_host *host, uint32_t workers) {
    return (attune_stream){.struct_size = sizeof(attune_stream),
                           .workers = workers,
                           .device = host->id,
                           .native = (void *)(uintptr_t)1};
}
