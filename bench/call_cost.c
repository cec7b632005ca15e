/* call_cost.c: nanoseconds of the C interface around an attention kernel, as JSON: call_cost PLUGIN_DIR. A
 * problem of one query and one key, called through attune_attend and straight through its kernel, in turns,
 * one thread. */
#include <attune/host.h>
#include <stdlib.h>

#include "kernels/cpu/dispatch.h"

#include "timing.h"

enum { ROUNDS = 41, CALLS = 2000, CHANNELS = 8 };

static attune_error error;
static float q[CHANNELS], k[CHANNELS], v[CHANNELS], out[CHANNELS];

static void must(attune_code code) {
    if (code == ATTUNE_OK)
        return;
    fprintf(stderr, "%s: %s; %s\n", error.where, error.message, error.hint);
    exit(1);
}

typedef struct bench {
    attune *host;
    attune_binding *binding;
    attune_stream stream;
    attune_attention_problem problem;
    attune_wish wish;
    attune_attention_args args;
    const attune_attention_f32_kernel *kernel;
    attune_attention_f32 kernel_args;
    void *workspace;
} bench;

static void call_attend(bench *b) {
    must(attune_attend(b->binding, &b->args, &b->stream, NULL, &error));
}

static void call_kernel(bench *b) {
    for (uint64_t task = 0, tasks = b->kernel->tasks(&b->kernel_args); task < tasks; ++task)
        b->kernel->run(&b->kernel_args, task, b->workspace);
}

static void call_choose(bench *b) {
    must(attune_choose(b->host, &b->wish, &b->problem, NULL, NULL, &error));
}

static double time_calls(bench *b, void (*call)(bench *)) {
    const double start = now();
    for (int i = 0; i < CALLS; ++i)
        call(b);
    return (now() - start) / CALLS;
}

static void set_kernel(bench *b) {
    attune_cpu_kernels kernels;
    attune_cpu_dispatch(attune_cpu_detect(), &kernels);
    b->kernel = kernels.attention_f32;
    b->kernel_args = (attune_attention_f32){.batch = 1,
                                            .heads_q = 1,
                                            .heads_kv = 1,
                                            .n_q = 1,
                                            .n_k = 1,
                                            .d_qk = CHANNELS,
                                            .d_v = CHANNELS,
                                            .q = q,
                                            .k = k,
                                            .v = v,
                                            .out = out};
    for (int i = 0; i < 3; ++i)
        b->kernel_args.stride_q[i] = b->kernel_args.stride_k[i] = b->kernel_args.stride_v[i] =
            b->kernel_args.stride_out[i] = CHANNELS;
    b->kernel_args.stride_q[3] = b->kernel_args.stride_k[3] = b->kernel_args.stride_v[3] =
        b->kernel_args.stride_out[3] = 1;
    b->workspace = aligned_alloc(64, b->kernel->workspace(&b->kernel_args));
    if (!b->workspace) {
        fprintf(stderr, "no memory for the kernel's workspace\n");
        exit(1);
    }
}

int main(int argc, char **argv) {
    static bench b = {.stream = {.struct_size = sizeof b.stream}, .wish = {.struct_size = sizeof b.wish}};
    static attune_choice choice = {.struct_size = sizeof choice};
    if (argc != 2) {
        fprintf(stderr, "usage: call_cost PLUGIN_DIR\n");
        return 2;
    }
    const attune_options options = {.struct_size = sizeof options, .threads = 1, .plugin_dir = argv[1]};
    attune_device_id cpu;
    must(attune_open(&options, &b.host, &error));
    must(attune_load_default(b.host, &error));
    must(attune_cpu_device(b.host, &cpu, &error));
    must(attune_stream_create(b.host, &cpu, 1, &b.stream, &error));
    const int64_t shape[4] = {1, 1, 1, CHANNELS};
    attune_tensor tensors[4];
    float *const data[4] = {q, k, v, out};
    for (int i = 0; i < 4; ++i)
        tensors[i] = attune_tensor_view(data[i], ATTUNE_F32, cpu, 4, shape);
    must(attune_attention_problem_init(&b.problem, &tensors[0], &tensors[1], &tensors[2], NULL, &tensors[3],
                                       &error));
    must(attune_choose(b.host, &b.wish, &b.problem, &choice, &b.binding, &error));
    b.args = (attune_attention_args){.struct_size = sizeof b.args,
                                     .q = &tensors[0],
                                     .k = &tensors[1],
                                     .v = &tensors[2],
                                     .out = &tensors[3]};
    set_kernel(&b);
    double attend[ROUNDS], kernel[ROUNDS], choose[ROUNDS];
    for (int round = 0; round < ROUNDS; ++round) {
        attend[round] = time_calls(&b, call_attend);
        kernel[round] = time_calls(&b, call_kernel);
        choose[round] = time_calls(&b, call_choose);
    }
    printf("{\"attend\": %.1f, \"kernel\": %.1f, \"choose\": %.1f, \"backends\": %u}\n",
           median(attend, ROUNDS), median(kernel, ROUNDS), median(choose, ROUNDS), choice.candidates);
    free(b.workspace);
    attune_binding_release(b.binding);
    attune_stream_destroy(&b.stream);
    attune_close(b.host);
    return 0;
}
