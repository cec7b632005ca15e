/* plugin/cpu/attention.c: interface attune.attention/1: `sdp-no-mem` and `sdp`, one exact kernel under the
 * web UI's two names. Both keep class `portable`: the fastest order of work is the one whose bits are defined
 * (docs/arithmetic.md). */
#include "kernels/attention.h"
#include "kernels/arithmetic.h"
#include "plugin/cpu/plugin.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct backend {
    const char *name;
    const char *alias;
    const char *label;
    int32_t priority;
} backend;

static const backend backends[] = {
    {"sdp-no-mem", "sdp_no_mem", "scaled dot product without memory efficient attention", 80},
    {"sdp", "scaled-dot-product", "scaled dot product", 70}};
enum { BACKENDS = sizeof backends / sizeof *backends };

/* The layout of plan[4]: what it was made for; run recomputes it and refuses another. */
enum { PLAN_ISA = 0, PLAN_WORKER_BYTES = 1, PLAN_TASKS = 2, PLAN_WORKERS = 3 };

static uint32_t count(void *instance) {
    (void)instance;
    return BACKENDS;
}

static attune_code check_index(uint32_t index, const char *where, attune_error *error) {
    if (index < BACKENDS)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_OUT_OF_RANGE, CPU_PLUGIN_ID, where,
                       "backend %u does not exist (there are %d)", index, BACKENDS);
}

static attune_code describe(void *instance, uint32_t index, attune_attention_info *out, attune_error *error) {
    const cpu_instance *cpu = instance;
    const attune_code code = check_index(index, "attention.describe", error);
    if (code != ATTUNE_OK)
        return code;
    if (!cpu_struct_fits(out->struct_size, sizeof *out, "attention.describe", error))
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t size = out->struct_size;
    memset(out, 0, sizeof *out);
    out->struct_size = size;
    out->priority = backends[index].priority;
    out->determinism = ATTUNE_DETERMINISM_PORTABLE;
    out->dtypes = ATTUNE_DTYPE_BIT_F32;
    out->masks = ATTUNE_MASK_BIT_NONE | ATTUNE_MASK_BIT_BOOL | ATTUNE_MASK_BIT_FLOAT | ATTUNE_MASK_BIT_CAUSAL;
    out->head_dim_min = 1;
    out->device = cpu->device;
    (void)snprintf(out->name, sizeof out->name, "%s", backends[index].name);
    (void)snprintf(out->aliases[0], sizeof out->aliases[0], "%s", backends[index].alias);
    (void)snprintf(out->label, sizeof out->label, "%s", backends[index].label);
    (void)snprintf(out->vendor, sizeof out->vendor, "%s", cpu->vendor);
    (void)snprintf(out->arithmetic, sizeof out->arithmetic, "%s", ATTUNE_ARITHMETIC_F32);
    (void)snprintf(out->isa, sizeof out->isa, "%s", cpu->kernels.attention_f32->isa);
    return ATTUNE_OK;
}

/* ---- query: one check per function, each fills the answer's reason and returns 0 where it refuses ---- */

__attribute__((format(printf, 3, 4))) static int refuse(attune_attention_answer *answer, attune_code code,
                                                        const char *format, ...) {
    va_list list;
    va_start(list, format);
    (void)vsnprintf(answer->reason, sizeof answer->reason, format, list);
    va_end(list);
    answer->code = code;
    return 0;
}

static int check_kind(const cpu_instance *cpu, const attune_attention_problem *p,
                      attune_attention_answer *answer) {
    if (!attune_dtype_equal(p->dtype, ATTUNE_F32))
        return refuse(answer, ATTUNE_UNIMPLEMENTED, "%s is not supported on the CPU (float32 is)",
                      attune_dtype_name(p->dtype));
    if (!attune_device_same(&p->device, &cpu->device))
        return refuse(answer, ATTUNE_FAILED_PRECONDITION,
                      "the tensors are on another device (type %d, index %d) than the CPU; copy them first",
                      p->device.type, p->device.index);
    if (p->mask < ATTUNE_MASK_NONE || p->mask > ATTUNE_MASK_FLOAT)
        return refuse(answer, ATTUNE_UNIMPLEMENTED, "mask kind %d is unknown", p->mask);
    if (p->causal != 0 && p->causal != 1)
        return refuse(answer, ATTUNE_INVALID_ARGUMENT, "causal is %d, which is neither 0 nor 1", p->causal);
    if (p->determinism < ATTUNE_DETERMINISM_NONE || p->determinism > ATTUNE_DETERMINISM_PORTABLE)
        return refuse(answer, ATTUNE_INVALID_ARGUMENT, "determinism class %d is unknown", p->determinism);
    if (p->reserved != 0)
        return refuse(answer, ATTUNE_INVALID_ARGUMENT, "a reserved field is %u, not 0", p->reserved);
    if (p->workers == 0)
        return refuse(answer, ATTUNE_INVALID_ARGUMENT, "workers is 0; a CPU stream has at least 1");
    if (p->heads_q % p->heads_kv != 0)
        return refuse(answer, ATTUNE_INVALID_ARGUMENT,
                      "%lld query heads are not a multiple of %lld key heads", (long long)p->heads_q,
                      (long long)p->heads_kv);
    if (!isfinite(attune_attention_f32_factor(p->scale, p->d_qk)))
        return refuse(answer, ATTUNE_INVALID_ARGUMENT, "scale %g times log2(e) is not a finite float32",
                      (double)p->scale);
    return 1;
}

/* A view of one array, to measure its span; data stays NULL. */
static attune_tensor view(attune_dtype dtype, const int64_t shape[4], const int64_t stride[4]) {
    attune_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    tensor.dtype = dtype;
    tensor.ndim = 4;
    memcpy(tensor.shape, shape, 4 * sizeof *shape);
    memcpy(tensor.stride, stride, 4 * sizeof *stride);
    return tensor;
}

static int check_strides(const char *name, attune_dtype dtype, const int64_t shape[4],
                         const int64_t stride[4], attune_attention_answer *answer) {
    static const char *const axes[4] = {"batch", "head", "token", "channel"};
    for (int i = 0; i < 4; ++i)
        if (stride[i] < 0)
            return refuse(answer, ATTUNE_INVALID_ARGUMENT, "%s's %s stride %lld is negative", name, axes[i],
                          (long long)stride[i]);
    const attune_tensor tensor = view(dtype, shape, stride);
    if (attune_tensor_span(&tensor) > INT64_MAX)
        return refuse(answer, ATTUNE_OUT_OF_RANGE, "%s's shape and strides overflow 63 bits", name);
    return 1;
}

static int check_channel_stride(const char *name, int64_t channels, int64_t stride,
                                attune_attention_answer *answer) {
    if (channels == 1 || stride == 1)
        return 1;
    return refuse(answer, ATTUNE_UNIMPLEMENTED,
                  "%s's channel stride is %lld, only 1 is supported; make it contiguous", name,
                  (long long)stride);
}

/* No two elements of the output may share an address: ordered by stride, each axis must step over all below
 * it. */
static int check_out_disjoint(const int64_t shape[4], const int64_t stride[4],
                              attune_attention_answer *answer) {
    int order[4] = {0, 1, 2, 3};
    int64_t below = 0; /* the last element that the axes so far reach */
    for (int i = 0; i < 4; ++i)
        for (int j = i + 1; j < 4; ++j)
            if (stride[order[j]] < stride[order[i]]) {
                const int swap = order[i];
                order[i] = order[j];
                order[j] = swap;
            }
    for (int i = 0; i < 4; ++i) {
        const int64_t extent = shape[order[i]], step = stride[order[i]];
        if (extent > 1 && step <= below)
            return refuse(answer, ATTUNE_INVALID_ARGUMENT,
                          "out's elements overlap: axis %d of %lld has stride %lld", order[i],
                          (long long)extent, (long long)step);
        below += (extent - 1) * step; /* no overflow: check_strides has measured the span */
    }
    return 1;
}

static int check_layout(const attune_attention_problem *p, attune_attention_answer *answer) {
    const int64_t q[4] = {p->batch, p->heads_q, p->n_q, p->d_qk},
                  k[4] = {p->batch, p->heads_kv, p->n_k, p->d_qk};
    const int64_t v[4] = {p->batch, p->heads_kv, p->n_k, p->d_v},
                  out[4] = {p->batch, p->heads_q, p->n_q, p->d_v};
    const int64_t mask[4] = {p->batch, p->heads_q, p->n_q, p->n_k};
    return check_strides("q", ATTUNE_F32, q, p->stride_q, answer) &&
           check_strides("k", ATTUNE_F32, k, p->stride_k, answer) &&
           check_strides("v", ATTUNE_F32, v, p->stride_v, answer) &&
           check_strides("out", ATTUNE_F32, out, p->stride_out, answer) &&
           (p->mask == ATTUNE_MASK_NONE ||
            check_strides("mask", p->mask == ATTUNE_MASK_BOOL ? ATTUNE_BOOL : ATTUNE_F32, mask,
                          p->stride_mask, answer)) &&
           check_channel_stride("q", p->d_qk, p->stride_q[3], answer) &&
           check_channel_stride("k", p->d_qk, p->stride_k[3], answer) &&
           check_channel_stride("v", p->d_v, p->stride_v[3], answer) &&
           check_channel_stride("out", p->d_v, p->stride_out[3], answer) &&
           check_out_disjoint(out, p->stride_out, answer);
}

static attune_attention_f32 kernel_args(const attune_attention_problem *p) {
    attune_attention_f32 a;
    memset(&a, 0, sizeof a);
    a.batch = p->batch;
    a.heads_q = p->heads_q;
    a.heads_kv = p->heads_kv;
    a.n_q = p->n_q;
    a.n_k = p->n_k;
    a.d_qk = p->d_qk;
    a.d_v = p->d_v;
    memcpy(a.stride_q, p->stride_q, sizeof a.stride_q);
    memcpy(a.stride_k, p->stride_k, sizeof a.stride_k);
    memcpy(a.stride_v, p->stride_v, sizeof a.stride_v);
    memcpy(a.stride_out, p->stride_out, sizeof a.stride_out);
    memcpy(a.stride_mask, p->stride_mask, sizeof a.stride_mask);
    a.mask_kind = p->mask == ATTUNE_MASK_BOOL    ? ATTUNE_KERNEL_MASK_BOOL
                  : p->mask == ATTUNE_MASK_FLOAT ? ATTUNE_KERNEL_MASK_FLOAT
                                                 : ATTUNE_KERNEL_MASK_NONE;
    a.causal = p->causal;
    a.scale = p->scale;
    return a;
}

static uint64_t saturate(double x) {
    return x >= 0x1p63 ? (uint64_t)1 << 63 : (uint64_t)x;
}

/*
 * Cost: the slower of the products, at what one core of about 3.7 GHz reaches with these kernels, and of
 * moving each array once at 15 bytes per nanosecond; 2 microseconds for the call. A model for choosing among
 * backends, not a promise.
 */
static void estimate(const cpu_instance *cpu, const attune_attention_problem *p,
                     attune_attention_answer *answer) {
    static const double flops_per_nanosecond[] = {1.5, 90.0, 95.0}; /* by attune_cpu_isa */
    const double rows = (double)p->batch * (double)p->heads_q * (double)p->n_q;
    const double keys = (double)p->batch * (double)p->heads_kv * (double)p->n_k;
    const double channels = (double)p->d_qk + (double)p->d_v;
    const double mask_bytes = p->mask == ATTUNE_MASK_NONE ? 0.0 : p->mask == ATTUNE_MASK_BOOL ? 1.0 : 4.0;
    const double flops = 2.0 * rows * (double)p->n_k * channels;
    const double bytes = 4.0 * (rows + keys) * channels + mask_bytes * rows * (double)p->n_k;
    const double compute = flops / (flops_per_nanosecond[cpu->kernels.isa] * (double)p->workers);
    answer->flops = saturate(flops);
    answer->bytes_moved = saturate(bytes);
    answer->nanoseconds = saturate(2000.0 + (compute > bytes / 15.0 ? compute : bytes / 15.0));
}

/* Fills an answer whose fields are 0. */
static void answer_problem(const cpu_instance *cpu, const attune_attention_problem *p,
                           attune_attention_answer *answer) {
    if (!check_kind(cpu, p, answer) || !check_layout(p, answer))
        return;
    const attune_attention_f32 a = kernel_args(p);
    const attune_attention_f32_kernel *kernel = cpu->kernels.attention_f32;
    const uint64_t each = kernel->workspace(&a);
    uint64_t all;
    if (each == UINT64_MAX || __builtin_mul_overflow(each, (uint64_t)p->workers, &all)) {
        (void)refuse(answer, ATTUNE_OUT_OF_RANGE, "head sizes %lld and %lld need a workspace beyond 64 bits",
                     (long long)p->d_qk, (long long)p->d_v);
        return;
    }
    if (all > p->budget) {
        (void)refuse(answer, ATTUNE_RESOURCE_EXHAUSTED, "needs %llu bytes of workspace, the budget is %llu",
                     (unsigned long long)all, (unsigned long long)p->budget);
        return;
    }
    answer->code = ATTUNE_OK;
    answer->determinism = ATTUNE_DETERMINISM_PORTABLE;
    answer->workspace = all;
    estimate(cpu, p, answer);
    answer->plan[PLAN_ISA] = (uint64_t)cpu->kernels.isa;
    answer->plan[PLAN_WORKER_BYTES] = each;
    answer->plan[PLAN_TASKS] = kernel->tasks(&a);
    answer->plan[PLAN_WORKERS] = p->workers;
}

static attune_code check_problem(const attune_attention_problem *p, const char *where, attune_error *error) {
    if (!cpu_struct_fits(p->struct_size, sizeof *p, where, error))
        return ATTUNE_INVALID_ARGUMENT;
    const int64_t extents[] = {p->batch, p->heads_q, p->heads_kv, p->n_q, p->n_k, p->d_qk, p->d_v};
    static const char *const names[] = {"batch", "heads_q", "heads_kv", "n_q", "n_k", "d_qk", "d_v"};
    for (size_t i = 0; i < sizeof extents / sizeof *extents; ++i)
        if (extents[i] < 1)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                               "%s is %lld; it must be at least 1", names[i], (long long)extents[i]);
    return ATTUNE_OK;
}

static attune_code query(void *instance, uint32_t index, const attune_attention_problem *problem,
                         attune_attention_answer *answer, attune_error *error) {
    attune_code code = check_index(index, "attention.query", error);
    if (code == ATTUNE_OK)
        code = check_problem(problem, "attention.query", error);
    if (code != ATTUNE_OK)
        return code;
    if (!cpu_struct_fits(answer->struct_size, sizeof *answer, "attention.query", error))
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t size = answer->struct_size;
    memset(answer, 0, sizeof *answer);
    answer->struct_size = size;
    answer_problem(instance, problem, answer);
    return ATTUNE_OK;
}

/* ---- run ---- */

typedef struct job {
    const cpu_instance *cpu;
    attune_attention_f32 args;
    char *workspace;
    uint64_t worker_bytes;
    uint32_t workers;
    const attune_control *control;
} job;

static attune_code check_control(const cpu_instance *cpu, const attune_control *control,
                                 attune_error *error) {
    if (!control)
        return ATTUNE_OK;
    if (control->cancelled && control->cancelled(control->context))
        return attune_fail(error, ATTUNE_CANCELLED, CPU_PLUGIN_ID, "attention.run",
                           "cancelled by the caller");
    if (control->deadline && cpu->clock->now(cpu->clock->context) >= control->deadline)
        return attune_fail(error, ATTUNE_DEADLINE_EXCEEDED, CPU_PLUGIN_ID, "attention.run",
                           "the deadline has passed");
    return ATTUNE_OK;
}

static attune_code run_task(void *context, uint64_t task, uint32_t worker, attune_error *error) {
    const job *work = context;
    const attune_code code = check_control(work->cpu, work->control, error);
    if (code != ATTUNE_OK)
        return code;
    if (worker >= work->workers)
        return attune_fail(error, ATTUNE_INTERNAL, CPU_PLUGIN_ID, "attention.run",
                           "the host gave worker %u of %u: parallel_for broke its rule", worker,
                           work->workers);
    work->cpu->kernels.attention_f32->run(&work->args, task, work->workspace + worker * work->worker_bytes);
    return ATTUNE_OK;
}

/* One array of the call against the problem. An extent of 1 may stand for a broadcast axis (stride 0) of the
 * mask. */
static attune_code check_tensor(const attune_tensor *tensor, const char *name, attune_dtype dtype,
                                const attune_device_id *device, const int64_t shape[4],
                                const int64_t stride[4], attune_error *error) {
    static const char where[] = "attention.run";
    if (!tensor)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where, "%s is missing", name);
    if (tensor->ndim != 4)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s has %d dimensions, not 4", name, tensor->ndim);
    if (!attune_dtype_equal(tensor->dtype, dtype))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s is %s, the problem says %s", name, attune_dtype_name(tensor->dtype),
                           attune_dtype_name(dtype));
    if (!attune_device_same(&tensor->device, device))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s is on another device than the problem's", name);
    for (int i = 0; i < 4; ++i) {
        const int broadcast = tensor->shape[i] == 1 && stride[i] == 0;
        if (tensor->shape[i] != shape[i] && !broadcast)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                               "%s's axis %d has extent %lld, the problem says %lld", name, i,
                               (long long)tensor->shape[i], (long long)shape[i]);
        if (shape[i] > 1 && !broadcast && tensor->stride[i] != stride[i])
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                               "%s's axis %d has stride %lld, the problem says %lld", name, i,
                               (long long)tensor->stride[i], (long long)stride[i]);
    }
    const attune_tensor reached = view(dtype, shape, stride);
    const uint64_t span = attune_tensor_span(&reached);
    if (!tensor->data || tensor->bytes < span)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s has %llu bytes, its shape and strides reach %llu", name,
                           tensor->data ? (unsigned long long)tensor->bytes : 0, (unsigned long long)span);
    if ((uintptr_t)tensor->data % attune_dtype_bytes(dtype) != 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                           "%s is not aligned to its %d-bit elements", name, dtype.bits);
    return ATTUNE_OK;
}

static attune_code check_tensors(const attune_attention_problem *p, const attune_attention_args *args,
                                 attune_error *error) {
    const int64_t q[4] = {p->batch, p->heads_q, p->n_q, p->d_qk},
                  k[4] = {p->batch, p->heads_kv, p->n_k, p->d_qk};
    const int64_t v[4] = {p->batch, p->heads_kv, p->n_k, p->d_v},
                  out[4] = {p->batch, p->heads_q, p->n_q, p->d_v};
    const int64_t mask[4] = {p->batch, p->heads_q, p->n_q, p->n_k};
    const attune_dtype mask_dtype = p->mask == ATTUNE_MASK_BOOL ? ATTUNE_BOOL : ATTUNE_F32;
    attune_code code = check_tensor(args->q, "q", ATTUNE_F32, &p->device, q, p->stride_q, error);
    if (code == ATTUNE_OK)
        code = check_tensor(args->k, "k", ATTUNE_F32, &p->device, k, p->stride_k, error);
    if (code == ATTUNE_OK)
        code = check_tensor(args->v, "v", ATTUNE_F32, &p->device, v, p->stride_v, error);
    if (code == ATTUNE_OK)
        code = check_tensor(args->out, "out", ATTUNE_F32, &p->device, out, p->stride_out, error);
    if (code == ATTUNE_OK && p->mask != ATTUNE_MASK_NONE)
        code = check_tensor(args->mask, "mask", mask_dtype, &p->device, mask, p->stride_mask, error);
    if (code != ATTUNE_OK)
        return code;
    if (p->mask == ATTUNE_MASK_NONE && args->mask)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "attention.run",
                           "a mask is given, the problem says there is none");
    if (args->out->data == args->q->data || args->out->data == args->k->data ||
        args->out->data == args->v->data)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "attention.run",
                           "out overlaps an input");
    return ATTUNE_OK;
}

static attune_code check_plan(const cpu_instance *cpu, const attune_attention_problem *p,
                              const uint64_t plan[4], const attune_attention_args *args,
                              const attune_stream *stream, attune_error *error) {
    static const char where[] = "attention.run";
    attune_attention_answer answer;
    memset(&answer, 0, sizeof answer);
    answer_problem(cpu, p, &answer);
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
    return ATTUNE_OK;
}

static attune_code run(void *instance, uint32_t index, const attune_attention_problem *problem,
                       const uint64_t plan[4], const attune_attention_args *args, const attune_stream *stream,
                       const attune_control *control, attune_error *error) {
    const cpu_instance *cpu = instance;
    attune_code code = check_index(index, "attention.run", error);
    if (code == ATTUNE_OK)
        code = check_problem(problem, "attention.run", error);
    if (code != ATTUNE_OK)
        return code;
    if (!cpu_struct_fits(args->struct_size, sizeof *args, "attention.run: args", error) ||
        !cpu_struct_fits(stream->struct_size, sizeof *stream, "attention.run: stream", error) ||
        (control && !cpu_struct_fits(control->struct_size, sizeof *control, "attention.run: control", error)))
        return ATTUNE_INVALID_ARGUMENT;
    code = check_plan(cpu, problem, plan, args, stream, error);
    if (code == ATTUNE_OK)
        code = check_tensors(problem, args, error);
    if (code != ATTUNE_OK)
        return code;
    job work = {.cpu = cpu,
                .args = kernel_args(problem),
                .workspace = args->workspace,
                .worker_bytes = plan[PLAN_WORKER_BYTES],
                .workers = stream->workers,
                .control = control};
    work.args.q = args->q->data;
    work.args.k = args->k->data;
    work.args.v = args->v->data;
    work.args.mask = problem->mask == ATTUNE_MASK_NONE ? NULL : args->mask->data;
    work.args.out = args->out->data;
    return cpu->parallel->parallel_for(cpu->parallel->context, stream, plan[PLAN_TASKS], run_task, &work,
                                       error);
}

const attune_attention_interface cpu_attention_table = {.struct_size = sizeof cpu_attention_table,
                                                        .count = count,
                                                        .describe = describe,
                                                        .query = query,
                                                        .run = run};
