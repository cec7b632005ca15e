/* tests/cuda/device_call.h: attention problems whose arrays are the host's, run by attune-cuda on a device.
 */
#ifndef TESTS_CUDA_DEVICE_CALL_H
#define TESTS_CUDA_DEVICE_CALL_H

#include "tests/kernels/cases.h"
#include "tests/kernels/plugin_host.h"

/* Who runs a problem, and how. */
typedef struct device_way {
    plugin_host *host;
    uint32_t backend;
    int32_t determinism; /* asked for */
    attune_stream stream;
} device_way;

/* attune-cuda.so with an instance and a stream on its first device. */
void device_way_open(device_way *way, plugin_host *host, const char *backend, int32_t determinism);
void device_way_close(device_way *way);

/* One problem with its arrays on the device, as device_run has them. */
typedef struct device_call {
    device_way *way;
    const attune_attention_f32 *args;
    attune_attention_problem problem;
    attune_attention_answer answer;
    attune_tensor on[5]; /* q, k, v, out, mask */
    void *memory[5], *workspace;
    int arrays;
} device_call;
void device_call_open(device_call *call, const attune_attention_f32 *args, device_way *way);
void device_call_run(device_call *call);
/* Copies `out` back, waits, and frees. */
void device_call_close(device_call *call);

/* An attention_runner, `context` a device_way: copies the arrays to the device, each to the same distance
 * from an aligned address and into memory that ends where it ends, asks, runs in a workspace of just what is
 * asked for, and copies `out` back, gaps included. */
void device_run(const attune_attention_f32 *args, void *context);

#endif
