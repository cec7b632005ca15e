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

/* One array of the call against the problem. An extent of 1 may stand for a broadcast axis (stride 0) of the
 * mask. */
static attune_code check_tensor(const attune_tensor *tensor, const cpu_array *array,
                                const attune_device_id *device, attune_error *error) {
    const char *const name = array->name;
    if (!tensor)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where, "%s is missing", name);
    if (tensor->ndim != 4)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s has %d dimensions, not 4", name, tensor->ndim);
    if (!attune_dtype_equal(tensor->dtype, array->dtype))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s is %s, the problem says %s", name, attune_dtype_name(tensor->dtype),
                           attune_dtype_name(array->dtype));
    if (!attune_device_same(&tensor->device, device))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s is on another device than the problem's", name);
    for (int i = 0; i < 4; ++i) {
        const int64_t extent = array->shape[i], stride = array->stride[i];
        const int broadcast = tensor->shape[i] == 1 && stride == 0;
        if (tensor->shape[i] != extent && !broadcast)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                               "%s's axis %d has extent %lld, the problem says %lld", name, i,
                               (long long)tensor->shape[i], (long long)extent);
        if (extent > 1 && !broadcast && tensor->stride[i] != stride)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                               "%s's axis %d has stride %lld, the problem says %lld", name, i,
                               (long long)tensor->stride[i], (long long)stride);
    }
    const uint64_t span = cpu_array_span(array);
    if (!tensor->data || tensor->bytes < span)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s has %llu bytes, its shape and strides reach %llu", name,
                           tensor->data ? (unsigned long long)tensor->bytes : 0, (unsigned long long)span);
    if ((uintptr_t)tensor->data % attune_dtype_bytes(array->dtype) != 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s is not aligned to its %d-bit elements", name, array->dtype.bits);
    return ATTUNE_OK;
}

/* Whether what is written, `bytes` from `at`, shares any with an array. */
static int overlaps(const void *at, uint64_t bytes, const attune_tensor *tensor, const cpu_array *array) {
    const uintptr_t start = (uintptr_t)at, other = (uintptr_t)tensor->data;
    return bytes > 0 && start < other + cpu_array_span(array) && other < start + bytes;
}

static attune_code check_tensors(const attune_attention_problem *p, const attune_attention_args *args,
                                 uint64_t workspace, attune_error *error) {
    const attune_tensor *const tensors[CPU_ARRAYS] = {args->q, args->k, args->v, args->out, args->mask};
    enum { OUT = 3 };
    cpu_array arrays[CPU_ARRAYS];
    const int count = cpu_arrays(p, arrays);
    for (int i = 0; i < count; ++i) {
        const attune_code code = check_tensor(tensors[i], &arrays[i], &p->device, error);
        if (code != ATTUNE_OK)
            return code;
    }
    if (p->mask == ATTUNE_MASK_NONE && args->mask)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "a mask is given, the problem says there is none");
    for (int i = 0; i < count; ++i) {
        if (i != OUT && overlaps(args->out->data, cpu_array_span(&arrays[OUT]), tensors[i], &arrays[i]))
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where, "out overlaps %s",
                               arrays[i].name);
        if (overlaps(args->workspace, workspace, tensors[i], &arrays[i]))
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                               "the workspace overlaps %s", arrays[i].name);
    }
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
    return check_tensors(p, args, answer.workspace, error);
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
