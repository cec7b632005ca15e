/* rig.c: plugins put in place, a host, what the process holds. */
#include "rig.h"
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void write_bytes(const char *path, const void *bytes, size_t size, put_how how) {
    char temporary[PATH_MAX];
    (void)snprintf(temporary, sizeof temporary, "%s%s", path, how == PUT_RENAMED ? ".new" : "");
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    ck_assert_int_eq(fchmod(fd, 0755), 0);
    ck_assert_int_eq(close(fd), 0);
    if (how == PUT_RENAMED)
        ck_assert_int_eq(rename(temporary, path), 0);
}

json_t *put_library(const char *folder, const char *name, put_how how) {
    char from[PATH_MAX], to[PATH_MAX], digest[2 * SHA256_DIGEST_SIZE + 1];
    uint8_t bytes[SHA256_DIGEST_SIZE];
    struct sha256_ctx context;
    size_t size;
    (void)snprintf(from, sizeof from, "%s/tests/fixtures/%s.so", run_build(), name);
    (void)snprintf(to, sizeof to, "%s/plug.so", folder);
    char *content = run_read(from, &size);
    write_bytes(to, content, size, how);
    sha256_init(&context);
    sha256_update(&context, size, (const uint8_t *)content);
    sha256_digest(&context, sizeof bytes, bytes);
    for (size_t i = 0; i < sizeof bytes; ++i)
        (void)snprintf(digest + 2 * i, 3, "%02x", bytes[i]);
    free(content);
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.path", json_string("plug.so"));
    fixture_set(manifest, "libraries.0.unload", json_string("safe"));
    fixture_set(manifest, "libraries.0.size", json_integer((json_int_t)size));
    fixture_set(manifest, "libraries.0.sha256", json_string(digest));
    return manifest;
}

const char *put_manifest(const char *folder, json_t *manifest) {
    static char paths[64][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 64], *text = json_dumps(manifest, 0);
    (void)snprintf(path, PATH_MAX, "%s/manifest.json", folder);
    write_bytes(path, text, strlen(text), PUT_RENAMED);
    free(text);
    json_decref(manifest);
    return path;
}

const char *put_plain(const char *folder, const char *name, put_how how) {
    return put_manifest(folder, put_library(folder, name, how));
}

const char *real_build(void) {
    static char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/manifest.json", run_build());
    return path;
}

const char *second_build(void) {
    static char path[PATH_MAX];
    const char *folder = fixture_folder();
    run_result made = run(
        "cp \"$B/attune-cpu.so\" \"$B/attune-sampler-cpu.so\" '%s' && printf again >> '%s/attune-cpu.so' && "
        "chmod go-w '%s'/* && \"$B/tools/fill_manifest\" \"$S/manifest.json\" '%s' '%s/manifest.json' "
        "attune-cuda "
        "&& "
        "chmod go-w '%s/manifest.json'",
        folder, folder, folder, folder, folder, folder);
    ck_assert_msg(made.status == 0, "%s", made.err);
    run_free(&made);
    (void)snprintf(path, sizeof path, "%s/manifest.json", folder);
    return path;
}

const char *emoji_model(void) {
    static char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/models/emoji", run_source());
    return path;
}

unsigned how_many(unsigned few, unsigned many) {
    const char *asked = getenv("SWAPS"), *times = getenv("ATTUNE_CHECK_TIMES");
    if (asked)
        return (unsigned)strtoul(asked, NULL, 10);
    return times && strtoul(times, NULL, 10) > 1 ? many : few;
}

static char log_text[1 << 18];
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep_line(void *context, int32_t level, const char *domain, const char *message) {
    (void)context;
    (void)pthread_mutex_lock(&log_lock);
    size_t used = strlen(log_text);
    if (used < sizeof log_text - 2048)
        (void)snprintf(log_text + used, 2048, "%d %s: %s\n", level, domain, message);
    (void)pthread_mutex_unlock(&log_lock);
}

const char *rig_log(void) {
    return log_text;
}

attune *rig_open(void) {
    attune_options options = {
        .struct_size = sizeof options, .threads = 2, .plugin_dir = "/nonexistent", .log = keep_line};
    attune_error error;
    attune *host = NULL;
    (void)unsetenv("ATTUNE_PLUGIN_PATH");
    (void)setenv("XDG_DATA_HOME", "/nonexistent/home", 1);
    (void)setenv("XDG_DATA_DIRS", "/nonexistent/dirs", 1);
    assert_ok(attune_open(&options, &host, &error), error);
    if (SANITIZED)
        host->parked_most = UINT32_MAX;
    return host;
}

uint64_t serving(attune *host) {
    uint64_t found = 0;
    attune_plugin_status status = {.struct_size = sizeof status};
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    for (uint32_t i = 0; attune_snapshot_plugin(snapshot, i, &status, NULL) == ATTUNE_OK; ++i)
        if (strcmp(status.id, "fixture-plain") == 0 && strcmp(status.state, "active") == 0)
            found = status.generation;
    attune_snapshot_release(snapshot);
    return found;
}

uint32_t in_state(attune *host, const char *state) {
    uint32_t count = 0;
    attune_generation_info info = {.struct_size = sizeof info};
    for (uint32_t i = 0; attune_generation_at(host, i, &info, NULL) == ATTUNE_OK; ++i)
        count += strcmp(info.plugin.state, state) == 0;
    return count;
}

static unsigned entries(const char *path) {
    unsigned count = 0;
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    for (const struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    (void)closedir(folder);
    return count;
}

holdings held_now(void) {
    char line[1024];
    holdings now = {.descriptors = entries("/proc/self/fd"), .threads = entries("/proc/self/task")};
    FILE *maps = fopen("/proc/self/maps", "r");
    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof line, maps))
        now.copies += strstr(line, "memfd:") != NULL;
    (void)fclose(maps);
    return now;
}

uint64_t attend_once(attune *host) {
    enum { N = 24, D = 16 };
    float data[3][N * D], out[N * D];
    attune_device_id cpu;
    const int64_t shape[4] = {1, 1, N, D};
    attune_tensor view[4];
    if (attune_cpu_device(host, &cpu, NULL))
        return 0;
    for (int t = 0; t < 3; ++t) {
        for (int i = 0; i < N * D; ++i)
            data[t][i] = (float)((i * 37 + t * 11) % 64 - 32) / 32;
        view[t] = attune_tensor_view(data[t], ATTUNE_F32, cpu, 4, shape);
    }
    view[3] = attune_tensor_view(out, ATTUNE_F32, cpu, 4, shape);
    attune_attention_args args = {sizeof args, 0, &view[0], &view[1], &view[2], NULL, &view[3], NULL, 0};
    attune_attention_problem problem;
    attune_stream stream;
    attune_binding *binding = NULL;
    attune_choice *choice = calloc(1, sizeof *choice);
    uint64_t served = 0;
    choice->struct_size = sizeof *choice;
    if (attune_attention_problem_init(&problem, &view[0], &view[1], &view[2], NULL, &view[3], NULL) ==
            ATTUNE_OK &&
        attune_stream_create(host, &cpu, 1, &stream, NULL) == ATTUNE_OK) {
        if (attune_choose(host, NULL, &problem, choice, &binding, NULL) == ATTUNE_OK) {
            served = choice->generation;
            if (attune_attend(binding, &args, &stream, NULL, NULL))
                served = 0;
            attune_binding_release(binding);
        }
        attune_stream_destroy(&stream);
    }
    free(choice);
    /* softmax in double, row by row: what the fixture must give whoever serves */
    for (int i = 0; i < N && served; ++i) {
        double weight[N], most = -1e9, total = 0;
        for (int j = 0; j < N; ++j) {
            weight[j] = 0;
            for (int c = 0; c < D; ++c)
                weight[j] += (double)data[0][i * D + c] * (double)data[1][j * D + c];
            weight[j] *= 0.25;
            most = weight[j] > most ? weight[j] : most;
        }
        for (int j = 0; j < N; ++j)
            total += weight[j] = exp(weight[j] - most);
        for (int c = 0; c < D; ++c) {
            double sum = 0;
            for (int j = 0; j < N; ++j)
                sum += weight[j] / total * (double)data[2][j * D + c];
            if (!(fabs(sum - (double)out[i * D + c]) < 1e-6)) /* rounding to float32 of values below 1 */
                served = 0;
        }
    }
    return served;
}
