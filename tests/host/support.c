/* support.c: what the families of the host suite share. */
#include "cases.h"
#include <pthread.h>
#include <stdarg.h>

static char log_text[65536];
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep_line(void *context, int32_t level, const char *domain, const char *message) {
    (void)context;
    pthread_mutex_lock(&log_lock);
    size_t used = strlen(log_text);
    (void)snprintf(log_text + used, sizeof log_text - used, "%d %s: %s\n", level, domain, message);
    pthread_mutex_unlock(&log_lock);
}

const char *test_log(void) {
    return log_text;
}

attune *open_host(void) {
    attune_options options = {
        .struct_size = sizeof options, .threads = 2, .plugin_dir = "/nonexistent", .log = keep_line};
    attune_error error;
    attune *host = NULL;
    assert_ok(attune_open(&options, &host, &error), error);
    return host;
}

attune *open_with(const char *name, ...) {
    attune *host = open_host();
    attune_error error;
    va_list names;
    va_start(names, name);
    for (; name; name = va_arg(names, const char *))
        assert_ok(attune_load(host, fixture_plugins(name, NULL), &error), error);
    va_end(names);
    return host;
}

attune_plugin_status plugin_status(attune *host, uint32_t i) {
    attune_plugin_status status = {.struct_size = sizeof status};
    attune_error error;
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    assert_ok(attune_snapshot_plugin(snapshot, i, &status, &error), error);
    attune_snapshot_release(snapshot);
    return status;
}

uint32_t plugin_count(attune *host) {
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    uint32_t count = attune_snapshot_count(snapshot);
    attune_snapshot_release(snapshot);
    return count;
}

attune_tensor filled(float *data, int64_t b, int64_t h, int64_t n, int64_t d, unsigned seed) {
    const attune_device_id cpu = {.type = ATTUNE_DEVICE_CPU};
    const int64_t shape[4] = {b, h, n, d};
    for (int64_t i = 0; i < b * h * n * d; ++i) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (float)(int32_t)seed / 2147483648.0f;
    }
    return attune_tensor_view(data, ATTUNE_F32, cpu, 4, shape);
}
