/*
 * kernels/cuda/attention.h: what attention kernels for CUDA and their host share. NAME.cu holds kernels, each
 *
 *     extern "C" __global__ void kernel(const __grid_constant__ attune_attention_f32 args, float factor)
 *
 * with factor = attune_attention_f32_factor(args.scale, args.d_qk); NAME.c, plain C, holds the planner that
 * says how they are launched. NAME.cu is one fat binary, loaded when it is first used.
 *
 * In args strides are in elements, channel strides 1, `matrix` is the plan's workspace on the device, and
 * pass and chunk_k are the launch's. A kernel reads no element outside of what the strides reach, and
 * addresses in 64 bits.
 */
#ifndef ATTUNE_KERNELS_CUDA_ATTENTION_H
#define ATTUNE_KERNELS_CUDA_ATTENTION_H

#include "kernels/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    ATTUNE_CUDA_LAUNCHES = 4,       /* the most of one plan */
    ATTUNE_CUDA_GRID_X = 2147483647 /* the most blocks; y and z: 65,535 (CUDA C++ Programming Guide, Technical
                                       Specifications per Compute Capability) */
};

typedef struct attune_cuda_launch {
    const char *kernel; /* its name in the fat binary; static text */
    uint32_t grid[3], block[3];
    uint32_t shared;          /* bytes of dynamic shared memory */
    int32_t pass;             /* args.pass */
    int64_t chunk_q, chunk_k; /* args.chunk_q and args.chunk_k */
} attune_cuda_launch;

typedef struct attune_cuda_plan {
    uint64_t workspace; /* bytes at args.matrix, aligned to 256; a multiple of 256, 0 = none */
    uint32_t count;     /* launches, one after another on one stream */
    attune_cuda_launch launches[ATTUNE_CUDA_LAUNCHES];
    char refusal[160]; /* why not, one line; "" where the plan serves */
} attune_cuda_plan;

/*
 * [any] Fills `plan` for a problem on a device of compute capability `cc` (75 for 7.5; at least 75) and
 * returns 1, or fills plan->refusal and returns 0. Pure, no allocation, microseconds.
 *
 * Extents are >= 1, heads_kv divides heads_q, every array's span fits 63 bits, masks and storage are known
 * kinds, and scale's factor is finite: the caller has checked. Pointers are NULL where a workspace is only
 * asked for, and in place where the plan is run: by their alignment other kernels may be named then (NULL
 * counts as aligned), never another workspace, nor other bits. Nothing but the args and `cc` is looked at:
 * no SM count, no free memory.
 */
typedef int attune_cuda_planner(const attune_attention_f32 *args, int cc, attune_cuda_plan *plan);

/* attune-f32-1, every problem. */
attune_cuda_planner attune_cuda_plan_portable;
/* The softmax between the two matrix products of backend `math`: args.matrix holds the scores. */
attune_cuda_planner attune_cuda_plan_softmax;
/* float16 and bfloat16 by tensor cores: FlashAttention-2, and memory-efficient with keys split for short
 * queries. */
attune_cuda_planner attune_cuda_plan_flash;
attune_cuda_planner attune_cuda_plan_memory_efficient;

#ifdef __cplusplus
}
#endif
#endif
