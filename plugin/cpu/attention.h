/*
 * plugin/cpu/attention.h: what the files of attune.attention/1 share: the backends (attention.c), how a
 * problem is checked and answered (attention_query.c), and how it is run (attention_run.c).
 */
#ifndef ATTUNE_PLUGIN_CPU_ATTENTION_H
#define ATTUNE_PLUGIN_CPU_ATTENTION_H

#include "plugin/cpu/plugin.h"
#include "plugin/layout.h"

typedef struct cpu_backend {
    const char *name;
    const char *aliases[ATTUNE_MAX_ALIASES];
    const char *label;
    const char *arithmetic;
    int32_t priority;
    int32_t algorithm; /* ATTUNE_ATTENTION_… */
    double slowness; /* time of all of `bench attention`'s shapes against the panels' (AVX-512, 2 threads) */
} cpu_backend;

/* [any] Backend `index`, or NULL with `error` filled. */
const cpu_backend *cpu_backend_at(uint32_t index, const char *where, attune_error *error);

/* The layout of an answer's plan[4]: what it was made for; run works it out again and refuses another. */
enum { CPU_PLAN_ISA = 0, CPU_PLAN_WORKER_BYTES = 1, CPU_PLAN_TASKS = 2, CPU_PLAN_WORKERS = 3 };

/* A problem made ready for a backend's kernel. */
typedef struct cpu_work {
    const attune_attention_f32_kernel *kernel;
    attune_attention_f32 args; /* without pointers */
    uint64_t each, shared;     /* bytes of workspace: each worker's, and what all share */
} cpu_work;

/* [any] Whether the struct and its extents can be looked at at all; the rest is cpu_attention_answer's. */
attune_code cpu_attention_check(const attune_attention_problem *p, const char *where, attune_error *error);

/* [any] Fills an answer whose fields are 0, and `work` where the answer's code is OK. Pure. */
void cpu_attention_answer(const cpu_instance *cpu, const cpu_backend *backend,
                          const attune_attention_problem *p, attune_attention_answer *answer, cpu_work *work);

attune_code cpu_attention_run(void *instance, uint32_t index, const attune_attention_problem *problem,
                              const uint64_t plan[4], const attune_attention_args *args,
                              const attune_stream *stream, const attune_control *control,
                              attune_error *error);

#endif
