/* swap_cost.c: what a swap of attune-cpu costs beside a restart, as JSON: swap_cost FOLDER MODEL.
 * bench/swap_cost.sh fills the folder: manifest.json and its libraries, and two builds of one of them, 0.so
 * and 1.so, each with its manifest. `swap_cost FOLDER MODEL restart` is the restart: it ends with its first
 * request served. */
#include "registry.h"
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "timing.h"

enum { ROUNDS = 15, RESTARTS = 5, CALLS = 2000, CHANNELS = 8 };

static attune_error error;
static float q[CHANNELS], k[CHANNELS], v[CHANNELS], out[CHANNELS];
static attune_choice choice = {.struct_size = sizeof choice};

typedef struct bench {
    attune *host;
    attune_model *model;
    attune_stream stream;
    attune_attention_problem problem;
    attune_tensor tensors[4];
    attune_attention_args args;
    char manifest[PATH_MAX];
} bench;

static void must(attune_code code) {
    if (code == ATTUNE_OK)
        return;
    fprintf(stderr, "swap_cost: %s: %s; %s\n", error.where, error.message, error.hint);
    exit(1);
}

static void need(int done, const char *what) {
    if (done)
        return;
    perror(what);
    exit(1);
}

static void begin(bench *b, const char *folder, const char *model) {
    const attune_options options = {.struct_size = sizeof options, .threads = 1, .plugin_dir = folder};
    const int64_t shape[4] = {1, 1, 1, CHANNELS};
    float *const data[4] = {q, k, v, out};
    attune_device_id cpu;
    (void)snprintf(b->manifest, sizeof b->manifest, "%s/manifest.json", folder);
    b->stream.struct_size = sizeof b->stream;
    must(attune_open(&options, &b->host, &error));
    must(attune_load(b->host, b->manifest, &error));
    must(attune_model_open(b->host, model, NULL, NULL, &b->model, &error));
    must(attune_cpu_device(b->host, &cpu, &error));
    must(attune_stream_create(b->host, &cpu, 1, &b->stream, &error));
    for (int i = 0; i < 4; ++i)
        b->tensors[i] = attune_tensor_view(data[i], ATTUNE_F32, cpu, 4, shape);
    must(attune_attention_problem_init(&b->problem, &b->tensors[0], &b->tensors[1], &b->tensors[2], NULL,
                                       &b->tensors[3], &error));
    b->args = (attune_attention_args){.struct_size = sizeof b->args,
                                      .q = &b->tensors[0],
                                      .k = &b->tensors[1],
                                      .v = &b->tensors[2],
                                      .out = &b->tensors[3]};
}

static void end(bench *b) {
    attune_stream_destroy(&b->stream);
    attune_model_close(b->model);
    attune_close(b->host);
}

/* What a picture waits for before its first step. */
static void make_ready(bench *b) {
    const attune_request asked = {.struct_size = sizeof asked,
                                  .prompt = "red apple",
                                  .negative_prompt = "",
                                  .memory_limit = UINT64_MAX,
                                  .steps = 1,
                                  .batch_size = 1,
                                  .cfg_scale = 7};
    attune_session *session;
    must(attune_session_open(b->model, &asked, NULL, NULL, &session, NULL, NULL, &error));
    attune_session_close(session);
}

/* One request from choosing to its output; the generation that served it. */
static uint64_t request(bench *b) {
    attune_binding *binding;
    must(attune_choose(b->host, NULL, &b->problem, &choice, &binding, &error));
    must(attune_attend(binding, &b->args, &b->stream, NULL, &error));
    attune_binding_release(binding);
    return choice.generation;
}

/* Nanoseconds of a lease and its return, and of a smallest attention call, which takes none. */
static void time_lease(bench *b, double *lease, double *attend) {
    attune_binding *binding;
    must(attune_choose(b->host, NULL, &b->problem, &choice, &binding, &error));
    attune_snapshot *snapshot = attune_snapshot_acquire(b->host);
    attune_generation *generation = snapshot->generation[0];
    for (int round = 0; round < ROUNDS; ++round) {
        double start = now();
        for (int i = 0; i < CALLS; ++i)
            attune_generation_release(attune_generation_lease(generation));
        lease[round] = (now() - start) / CALLS;
        start = now();
        for (int i = 0; i < CALLS; ++i)
            must(attune_attend(binding, &b->args, &b->stream, NULL, &error));
        attend[round] = (now() - start) / CALLS;
    }
    attune_snapshot_release(snapshot);
    attune_binding_release(binding);
}

/* Put `from` in the place of `to`, by rename. */
static void put(const char *folder, int number, const char *end_of_name, const char *to) {
    char from[PATH_MAX], next[PATH_MAX], place[PATH_MAX];
    (void)snprintf(from, sizeof from, "%s/%d%s", folder, number, end_of_name);
    (void)snprintf(next, sizeof next, "%s/next", folder);
    (void)snprintf(place, sizeof place, "%s/%s", folder, to);
    need(link(from, next) == 0 && rename(next, place) == 0, place);
}

static void time_swaps(bench *b, const char *folder, double *published, double *served) {
    attune_swap_report report = {.struct_size = sizeof report};
    (void)request(b);
    for (int round = 0; round < ROUNDS; ++round) {
        put(folder, 1 - round % 2, ".so", "attune-cpu.so");
        put(folder, 1 - round % 2, ".json", "manifest.json");
        const double start = now();
        must(attune_swap(b->host, b->manifest, &report, &error));
        uint64_t by = request(b);
        served[round] = now() - start;
        published[round] = (double)report.nanoseconds;
        if (report.swapped != 1 || by != report.generation) {
            fprintf(stderr, "swap_cost: generation %llu served, %llu was swapped in\n",
                    (unsigned long long)by, (unsigned long long)report.generation);
            exit(1);
        }
    }
}

static void time_restarts(char *const *argv, double *restart) {
    char *const child[] = {argv[0], argv[1], argv[2], "restart", NULL};
    for (int round = 0; round < RESTARTS; ++round) {
        pid_t pid;
        int status = 1;
        const double start = now();
        need(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, child, environ) == 0, "posix_spawn");
        need(waitpid(pid, &status, 0) == pid && status == 0, "the restart");
        restart[round] = now() - start;
    }
}

int main(int argc, char **argv) {
    static bench b;
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: swap_cost FOLDER MODEL\n");
        return 2;
    }
    begin(&b, argv[1], argv[2]);
    if (argc == 4) {
        make_ready(&b);
        (void)request(&b);
        _exit(0); /* how long it takes to end is no part of it */
    }
    double lease[ROUNDS], attend[ROUNDS], published[ROUNDS], served[ROUNDS], restart[RESTARTS];
    time_lease(&b, lease, attend);
    time_swaps(&b, argv[1], published, served);
    time_restarts(argv, restart);
    printf("{\"lease_ns\": %.1f, \"attend_ns\": %.1f, \"published_ms\": %.2f, \"served_ms\": %.2f, "
           "\"restart_ms\": %.2f}\n",
           median(lease, ROUNDS), median(attend, ROUNDS), median(published, ROUNDS) / 1e6,
           median(served, ROUNDS) / 1e6, median(restart, RESTARTS) / 1e6);
    end(&b);
    return 0;
}
