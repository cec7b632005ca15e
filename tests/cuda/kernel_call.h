/* tests/cuda/kernel_call.h: attention problems whose arrays are the host's, run on the emulated device by a
 * planner's launches of one fat binary, without the plugin. */
#ifndef TESTS_CUDA_KERNEL_CALL_H
#define TESTS_CUDA_KERNEL_CALL_H

#include "kernels/cuda/attention.h"
#include "tests/cuda/suite.h"

typedef struct kernel_way {
    attune_cuda_planner *planner;
    cudaLibrary_t library;
    int cc;                /* 80 for 8.0, as ATTUNE_EMULATOR_CC says */
    attune_cuda_plan plan; /* of the last problem */
} kernel_way;

/* kernels/cuda/NAME.cu as it ships, for a device of this compute capability: to be called before any other
 * use of the emulator in the process. */
void kernel_way_open(kernel_way *way, const char *name, attune_cuda_planner *planner, const char *capability);

/* Plan and run: every array is copied to the same distance from an aligned address, into memory that ends
 * where it ends, likewise a workspace of just what the plan says; `out` comes back, gaps included. The
 * launch's error; fails the test where the planner refuses. */
cudaError_t kernel_try(kernel_way *way, const attune_attention_f32 *args);
/* The same, an attention_runner: fails the test, with the emulator's report, where a launch fails. */
void kernel_run(const attune_attention_f32 *args, void *way);

#endif
