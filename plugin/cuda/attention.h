/*
 * plugin/cuda/attention.h: what the files of attune.attention/1 share: the backends (attention.c), how a
 * problem is answered (attention_query.c), and how it is run (attention_run.c).
 */
#ifndef ATTUNE_PLUGIN_CUDA_ATTENTION_H
#define ATTUNE_PLUGIN_CUDA_ATTENTION_H

#include "plugin/cuda/plugin.h"
#include "plugin/layout.h"

/* One way to serve a problem: kernels of one fat binary. */
typedef struct cuda_route {
    attune_cuda_planner *plan;
    int image;           /* CUDA_IMAGE_... */
    int32_t determinism; /* class */
    int tensor_cores;    /* what its speed is estimated by */
} cuda_route;
enum { CUDA_ROUTES = 2 };

typedef struct cuda_backend {
    const char *name;
    const char *aliases[ATTUNE_MAX_ALIASES];
    const char *label;
    const char *arithmetic;
    int32_t priority;
    int32_t determinism;            /* the most that it promises under its arithmetic id */
    int products;                   /* cuBLAS before and after the kernel */
    cuda_route routes[CUDA_ROUTES]; /* the first that serves the problem and keeps the class is taken */
} cuda_backend;

enum { CUDA_BACKENDS = 4 };
extern const cuda_backend cuda_backends[CUDA_BACKENDS];

/* The layout of an answer's plan[4]: what it was made for; run works it out again and refuses another. */
enum { CUDA_PLAN_CC = 0, CUDA_PLAN_ROUTE = 1, CUDA_PLAN_KERNEL_BYTES = 2, CUDA_PLAN_PRODUCT_BYTES = 3 };

/* A problem made ready for a backend. */
typedef struct cuda_work {
    const cuda_route *route;
    attune_attention_f32 args; /* without pointers */
    attune_cuda_plan plan;
    uint64_t kernel_bytes, product_bytes; /* of workspace: the kernels', and behind it cuBLAS's */
} cuda_work;

/* [any] Backend `index` of all devices, a device's own after one another; NULL with `error` filled. */
const cuda_backend *cuda_backend_at(cuda_instance *cuda, uint32_t index, cuda_device **device,
                                    const char *where, attune_error *error);

/* [any] Whether the struct and its extents can be looked at at all; the rest is cuda_attention_answer's. */
attune_code cuda_attention_check(const attune_attention_problem *p, const char *where, attune_error *error);

/* [any] Fills an answer whose fields are 0, and `work` where the answer's code is OK. Pure. */
void cuda_attention_answer(const cuda_device *device, const cuda_backend *backend,
                           const attune_attention_problem *p, attune_attention_answer *answer,
                           cuda_work *work);

attune_code cuda_attention_run(void *instance, uint32_t index, const attune_attention_problem *problem,
                               const uint64_t plan[4], const attune_attention_args *args,
                               const attune_stream *stream, const attune_control *control,
                               attune_error *error);

#endif
