/* plugin/cuda/attention_run.c: a call checked against its problem and plan, then enqueued on its stream. */
#include "plugin/cuda/attention.h"

#include <string.h>

static const char where[] = "attention.run";

static attune_code check_control(const cuda_instance *cuda, const attune_control *control,
                                 attune_error *error) {
    if (!control)
        return ATTUNE_OK;
    if (control->cancelled && control->cancelled(control->context))
        return attune_fail(error, ATTUNE_CANCELLED, CUDA_PLUGIN_ID, where, "cancelled by the caller");
    if (control->deadline && cuda->clock->now(cuda->clock->context) >= control->deadline)
        return attune_fail(error, ATTUNE_DEADLINE_EXCEEDED, CUDA_PLUGIN_ID, where, "the deadline has passed");
    return ATTUNE_OK;
}

static attune_code check_structs(const attune_attention_args *args, const uint64_t *plan,
                                 const attune_stream *stream, const attune_control *control,
                                 attune_error *error) {
    if (!args || !plan || !stream)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where, "%s is NULL",
                           !args   ? "args"
                           : !plan ? "plan"
                                   : "stream");
    if (!cuda_struct_fits(args->struct_size, sizeof *args, "attention.run: args", error) ||
        !cuda_struct_fits(stream->struct_size, sizeof *stream, "attention.run: stream", error) ||
        (control &&
         !cuda_struct_fits(control->struct_size, sizeof *control, "attention.run: control", error)))
        return ATTUNE_INVALID_ARGUMENT;
    return ATTUNE_OK;
}

static attune_code check_plan(const cuda_device *device, const cuda_backend *backend,
                              const attune_attention_problem *p, const uint64_t plan[4],
                              const attune_attention_args *args, const attune_stream *stream, cuda_work *work,
                              attune_error *error) {
    attune_attention_answer answer;
    memset(&answer, 0, sizeof answer);
    cuda_attention_answer(device, backend, p, &answer, work);
    if (answer.code != ATTUNE_OK)
        return attune_fail(error, answer.code, CUDA_PLUGIN_ID, where, "%s", answer.reason);
    if (memcmp(answer.plan, plan, sizeof answer.plan) != 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where,
                           "the plan is not the one that query gives for this problem");
    if (!attune_device_same(&stream->device, &device->id))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where,
                           "the stream is of another device than %s", device->name);
    if (args->workspace_bytes < answer.workspace || (answer.workspace > 0 && !args->workspace))
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, CUDA_PLUGIN_ID, where,
                           "the workspace has %llu bytes, the plan needs %llu",
                           args->workspace ? (unsigned long long)args->workspace_bytes : 0,
                           (unsigned long long)answer.workspace);
    if (answer.workspace > 0 && (uintptr_t)args->workspace % CUDA_ALIGNMENT != 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where,
                           "the workspace is not aligned to %u bytes", CUDA_ALIGNMENT);
    return layout_check_tensors(p, args, answer.workspace, CUDA_PLUGIN_ID, error);
}

/* The plan with pointers in place: see attune_cuda_planner. */
static attune_code set_pointers(const cuda_device *device, const attune_attention_problem *p,
                                const attune_attention_args *args, cuda_work *work, attune_error *error) {
    attune_attention_f32 *a = &work->args;
    a->q = args->q->data;
    a->k = args->k->data;
    a->v = args->v->data;
    a->mask = p->mask == ATTUNE_MASK_NONE ? NULL : args->mask->data;
    a->out = args->out->data;
    a->matrix = work->kernel_bytes ? args->workspace : NULL;
    if (work->route->plan(a, device->cc, &work->plan) && work->plan.workspace == work->kernel_bytes)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_INTERNAL, CUDA_PLUGIN_ID, where,
                       "the planner changed its mind when it saw the pointers: %s", work->plan.refusal);
}

static attune_code launch_all(cuda_device *device, const cuda_work *work, cudaStream_t stream,
                              attune_error *error) {
    attune_code code = ATTUNE_OK;
    for (uint32_t i = 0; i < work->plan.count && code == ATTUNE_OK; ++i) {
        const attune_cuda_launch *launch = &work->plan.launches[i];
        attune_attention_f32 a = work->args;
        float factor = attune_attention_f32_factor(a.scale, a.d_qk);
        a.pass = launch->pass;
        a.chunk_q = launch->chunk_q;
        a.chunk_k = launch->chunk_k;
        void *parameters[] = {&a, &factor}; /* copied by the launch */
        code = cuda_launch(&device->kernels, device->ordinal, work->route->image, launch, parameters, stream,
                           error);
    }
    return code;
}

static attune_code enqueue(cuda_device *device, const cuda_backend *backend,
                           const attune_attention_args *args, const cuda_work *work, cudaStream_t stream,
                           attune_error *error) {
    char *const behind = (char *)args->workspace + work->kernel_bytes;
    attune_code code = ATTUNE_OK;
    if (backend->products)
        code =
            cuda_products_scores(&device->products, &work->args, behind, work->product_bytes, stream, error);
    if (code == ATTUNE_OK)
        code = launch_all(device, work, stream, error);
    if (code == ATTUNE_OK && backend->products)
        code =
            cuda_products_values(&device->products, &work->args, behind, work->product_bytes, stream, error);
    return code;
}

attune_code cuda_attention_run(void *instance, uint32_t index, const attune_attention_problem *problem,
                               const uint64_t plan[4], const attune_attention_args *args,
                               const attune_stream *stream, const attune_control *control,
                               attune_error *error) {
    cuda_device *device;
    cuda_work work;
    int before;
    const cuda_backend *backend = cuda_backend_at(instance, index, &device, where, error);
    if (!backend)
        return ATTUNE_OUT_OF_RANGE;
    attune_code code = cuda_attention_check(problem, where, error);
    if (code == ATTUNE_OK)
        code = check_structs(args, plan, stream, control, error);
    if (code == ATTUNE_OK)
        code = check_plan(device, backend, problem, plan, args, stream, &work, error);
    if (code == ATTUNE_OK)
        code = check_control(instance, control, error);
    if (code == ATTUNE_OK)
        code = set_pointers(device, problem, args, &work, error);
    if (code == ATTUNE_OK)
        code = cuda_enter(device, &before, where, error);
    if (code != ATTUNE_OK)
        return code;
    code = enqueue(device, backend, args, &work, stream->native, error);
    cuda_leave(before);
    return code;
}
