/* plugin/cpu/attention_run.c: a call checked against its problem and plan, then run over the host's workers.
 */
#include "plugin/cpu/attention.h"

#include <string.h>

static const char where[] = "attention.run";

typedef struct job {
    const cpu_instance *cpu;
    cpu_work work;
    char *workspace; /* of worker 0; the others' lie behind it */
    uint32_t workers;
    const attune_control *control;
} job;

static attune_code check_control(const cpu_instance *cpu, const attune_control *control,
                                 attune_error *error) {
    if (!control)
        return ATTUNE_OK;
    if (control->cancelled && control->cancelled(control->context))
        return attune_fail(error, ATTUNE_CANCELLED, CPU_PLUGIN_ID, where, "cancelled by the caller");
    if (control->deadline && cpu->clock->now(cpu->clock->context) >= control->deadline)
        return attune_fail(error, ATTUNE_DEADLINE_EXCEEDED, CPU_PLUGIN_ID, where, "the deadline has passed");
    return ATTUNE_OK;
}

static attune_code run_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const job *j = context;
    const attune_code code = check_control(j->cpu, j->control, error);
    if (code != ATTUNE_OK)
        return code;
    if (worker >= j->workers)
        return attune_fail(error, ATTUNE_INTERNAL, CPU_PLUGIN_ID, where,
                           "the host gave worker %u of %u: parallel_for broke its rule", worker, j->workers);
    j->work.kernel->run(&j->work.args, task, j->workspace + worker * j->work.each);
    return ATTUNE_OK;
}

static attune_code check_plan(const cpu_instance *cpu, const cpu_backend *backend,
                              const attune_attention_problem *p, const uint64_t plan[4],
                              const attune_attention_args *args, const attune_stream *stream, cpu_work *work,
                              attune_error *error) {
    attune_attention_answer answer;
    memset(&answer, 0, sizeof answer);
    cpu_attention_answer(cpu, backend, p, &answer, work);
    if (answer.code != ATTUNE_OK)
        return attune_fail(error, answer.code, CPU_PLUGIN_ID, where, "%s", answer.reason);
    if (memcmp(answer.plan, plan, sizeof answer.plan) != 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "the plan is not the one that query gives for this problem");
    if (stream->workers == 0 || stream->workers > p->workers)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "the stream has %u workers, the plan is for 1 to %u", stream->workers, p->workers);
    if (args->workspace_bytes < answer.workspace || (answer.workspace > 0 && !args->workspace))
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, CPU_PLUGIN_ID, where,
                           "the workspace has %llu bytes, the plan needs %llu",
                           args->workspace ? (unsigned long long)args->workspace_bytes : 0,
                           (unsigned long long)answer.workspace);
    if (answer.workspace > 0 && (uintptr_t)args->workspace % CPU_ALIGNMENT != 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "the workspace is not aligned to %u bytes", CPU_ALIGNMENT);
    return layout_check_tensors(p, args, answer.workspace, CPU_PLUGIN_ID, error);
}

static attune_code check_structs(const attune_attention_args *args, const uint64_t *plan,
                                 const attune_stream *stream, const attune_control *control,
                                 attune_error *error) {
    if (!args || !plan || !stream)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where, "%s is NULL",
                           !args   ? "args"
                           : !plan ? "plan"
                                   : "stream");
    if (!cpu_struct_fits(args->struct_size, sizeof *args, "attention.run: args", error) ||
        !cpu_struct_fits(stream->struct_size, sizeof *stream, "attention.run: stream", error) ||
        (control && !cpu_struct_fits(control->struct_size, sizeof *control, "attention.run: control", error)))
        return ATTUNE_INVALID_ARGUMENT;
    return ATTUNE_OK;
}

static attune_code run_passes(job *j, const attune_stream *stream, uint64_t tasks, attune_error *error) {
    const attune_parallel_service *parallel = j->cpu->parallel;
    attune_attention_f32 *a = &j->work.args;
    attune_code code = ATTUNE_OK;
    for (a->pass = 0; a->pass < j->work.kernel->passes && code == ATTUNE_OK; ++a->pass)
        code = parallel->parallel_for(parallel->context, stream, tasks, run_task, j, error);
    return code;
}

attune_code cpu_attention_run(void *instance, uint32_t index, const attune_attention_problem *problem,
                              const uint64_t plan[4], const attune_attention_args *args,
                              const attune_stream *stream, const attune_control *control,
                              attune_error *error) {
    job j = {.cpu = instance, .control = control};
    const cpu_backend *backend = cpu_backend_at(index, where, error);
    if (!backend)
        return ATTUNE_OUT_OF_RANGE;
    attune_code code = cpu_attention_check(problem, where, error);
    if (code == ATTUNE_OK)
        code = check_structs(args, plan, stream, control, error);
    if (code == ATTUNE_OK)
        code = check_plan(j.cpu, backend, problem, plan, args, stream, &j.work, error);
    if (code != ATTUNE_OK)
        return code;
    j.workers = stream->workers;
    j.workspace = (char *)args->workspace + j.work.shared;
    attune_attention_f32 *a = &j.work.args;
    a->matrix = j.work.shared ? args->workspace : NULL;
    a->q = args->q->data;
    a->k = args->k->data;
    a->v = args->v->data;
    a->mask = problem->mask == ATTUNE_MASK_NONE ? NULL : args->mask->data;
    a->out = args->out->data;
    return run_passes(&j, stream, plan[CPU_PLAN_TASKS], error);
}
