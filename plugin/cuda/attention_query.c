/* plugin/cuda/attention_query.c: what a backend answers to a problem: whether it serves, in which workspace,
 * at which cost. */
#include "plugin/cuda/attention.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ATTUNE_KERNEL_..., or -1. */
static int32_t storage_of(attune_dtype dtype) {
    if (attune_dtype_equal(dtype, ATTUNE_F32))
        return ATTUNE_KERNEL_F32;
    if (attune_dtype_equal(dtype, ATTUNE_F16))
        return ATTUNE_KERNEL_F16;
    return attune_dtype_equal(dtype, ATTUNE_BF16) ? ATTUNE_KERNEL_BF16 : -1;
}

static int check_kind(const cuda_device *device, const attune_attention_problem *p,
                      attune_attention_answer *answer) {
    if (storage_of(p->dtype) < 0)
        return layout_refuse(answer, ATTUNE_UNIMPLEMENTED,
                             "%s is not supported (float32, float16, bfloat16 are)",
                             attune_dtype_name(p->dtype));
    if (!attune_device_same(&p->device, &device->id))
        return layout_refuse(answer, ATTUNE_FAILED_PRECONDITION,
                             "the tensors are on another device (type %d, index %d) than %s; copy them first",
                             p->device.type, p->device.index, device->name);
    if (p->mask < ATTUNE_MASK_NONE || p->mask > ATTUNE_MASK_FLOAT)
        return layout_refuse(answer, ATTUNE_UNIMPLEMENTED, "mask kind %d is unknown", p->mask);
    if (p->causal != 0 && p->causal != 1)
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT, "causal is %d, which is neither 0 nor 1",
                             p->causal);
    if (p->determinism < ATTUNE_DETERMINISM_NONE || p->determinism > ATTUNE_DETERMINISM_PORTABLE)
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT, "determinism class %d is unknown",
                             p->determinism);
    if (p->reserved != 0)
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT, "a reserved field is %u, not 0", p->reserved);
    if (p->heads_q % p->heads_kv != 0)
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT,
                             "%lld query heads are not a multiple of %lld key heads", (long long)p->heads_q,
                             (long long)p->heads_kv);
    if (!isfinite(attune_attention_f32_factor(p->scale, p->d_qk)))
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT,
                             "scale %g times log2(e) is not a finite float32", (double)p->scale);
    return 1;
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
    a.storage = storage_of(p->dtype);
    a.causal = p->causal;
    a.scale = p->scale;
    return a;
}

/* The first route that keeps the class and whose planner serves. */
static int find_route(const cuda_device *device, const cuda_backend *backend,
                      const attune_attention_problem *p, attune_attention_answer *answer, cuda_work *work) {
    if (p->determinism > backend->determinism)
        return layout_refuse(answer, ATTUNE_UNIMPLEMENTED, "keeps %s, %s is asked for",
                             attune_determinism_name(backend->determinism),
                             attune_determinism_name(p->determinism));
    if (backend->products && !cuda_products_fit(&work->args, work->plan.refusal))
        return layout_refuse(answer, ATTUNE_UNIMPLEMENTED, "%s", work->plan.refusal);
    for (int i = 0; i < CUDA_ROUTES && backend->routes[i].plan; ++i) {
        const cuda_route *route = &backend->routes[i];
        if (p->determinism > route->determinism || !route->plan(&work->args, device->cc, &work->plan))
            continue;
        work->route = route;
        return 1;
    }
    return layout_refuse(answer, ATTUNE_OUT_OF_RANGE, "%s", work->plan.refusal);
}

static int check_workspace(const attune_attention_problem *p, cuda_work *work,
                           attune_attention_answer *answer) {
    uint64_t all;
    if (__builtin_add_overflow(work->kernel_bytes, work->product_bytes, &all))
        return layout_refuse(answer, ATTUNE_OUT_OF_RANGE, "needs a workspace beyond 64 bits");
    if (all > p->budget)
        return layout_refuse(answer, ATTUNE_RESOURCE_EXHAUSTED,
                             "needs %llu bytes of workspace, the budget is %llu", (unsigned long long)all,
                             (unsigned long long)p->budget);
    answer->workspace = all;
    return 1;
}

static uint64_t saturate(double x) {
    return x >= 0x1p63 ? (uint64_t)1 << 63 : (uint64_t)x;
}

/* float32 and tensor-core sums per clock of a multiprocessor (CUDA C++ Programming Guide, Arithmetic
 * Instructions; the tensor cores' from NVIDIA's architecture whitepapers). */
static double sums_per_clock(int cc, int tensor_cores) {
    if (tensor_cores)
        return cc >= 90 && cc < 100 ? 2048.0 : cc == 80 ? 1024.0 : 512.0;
    return cc == 75 || cc == 80 ? 64.0 : 128.0;
}

/*
 * Cost: the slower of the sums, at half of what the multiprocessors do at 1.5 GHz, and of moving each array
 * once (and `math`'s scores four times) at 10 bytes per nanosecond and multiprocessor; 5 microseconds for
 * each launch. A model for choosing among backends, not a promise.
 */
static void estimate(const cuda_device *device, const attune_attention_problem *p, const cuda_work *work,
                     attune_attention_answer *answer) {
    const double rows = (double)p->batch * (double)p->heads_q * (double)p->n_q;
    const double keys = (double)p->batch * (double)p->heads_kv * (double)p->n_k;
    const double channels = (double)p->d_qk + (double)p->d_v, element = p->dtype.bits / 8.0;
    const double mask_bytes = p->mask == ATTUNE_MASK_NONE ? 0.0 : p->mask == ATTUNE_MASK_BOOL ? 1.0 : 4.0;
    const double flops = 2.0 * rows * (double)p->n_k * channels;
    const int products = work->product_bytes > 0;
    const double bytes = element * (rows + keys) * channels + mask_bytes * rows * (double)p->n_k +
                         (products ? 4.0 * (double)work->kernel_bytes : 0.0);
    const int tensor = work->route->tensor_cores || (products && p->dtype.bits == 16);
    const double speed = 1.5 * sums_per_clock(device->cc, tensor) * (double)device->multiprocessors;
    const double compute = flops / speed, moving = bytes / (10.0 * (double)device->multiprocessors);
    const double launches = 5000.0 * (double)(work->plan.count + (products ? 2 : 0));
    answer->flops = saturate(flops);
    answer->bytes_moved = saturate(bytes);
    answer->nanoseconds = saturate(launches + (compute > moving ? compute : moving));
}

void cuda_attention_answer(const cuda_device *device, const cuda_backend *backend,
                           const attune_attention_problem *p, attune_attention_answer *answer,
                           cuda_work *work) {
    memset(work, 0, sizeof *work);
    if (!check_kind(device, p, answer) || !layout_check(p, answer))
        return;
    work->args = kernel_args(p);
    if (!find_route(device, backend, p, answer, work))
        return;
    work->kernel_bytes = work->plan.workspace;
    work->product_bytes = backend->products ? cuda_products_workspace(device->cc) : 0;
    if (!check_workspace(p, work, answer))
        return;
    answer->code = ATTUNE_OK;
    answer->determinism =
        work->route->determinism < backend->determinism ? work->route->determinism : backend->determinism;
    estimate(device, p, work, answer);
    answer->plan[CUDA_PLAN_CC] = (uint64_t)device->cc;
    answer->plan[CUDA_PLAN_ROUTE] = (uint64_t)(work->route - backend->routes);
    answer->plan[CUDA_PLAN_KERNEL_BYTES] = work->kernel_bytes;
    answer->plan[CUDA_PLAN_PRODUCT_BYTES] = work->product_bytes;
}

attune_code cuda_attention_check(const attune_attention_problem *p, const char *where, attune_error *error) {
    if (!p)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where, "problem is NULL");
    if (!cuda_struct_fits(p->struct_size, sizeof *p, where, error))
        return ATTUNE_INVALID_ARGUMENT;
    const int64_t extents[] = {p->batch, p->heads_q, p->heads_kv, p->n_q, p->n_k, p->d_qk, p->d_v};
    static const char *const names[] = {"batch", "heads_q", "heads_kv", "n_q", "n_k", "d_qk", "d_v"};
    for (size_t i = 0; i < sizeof extents / sizeof *extents; ++i)
        if (extents[i] < 1)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CUDA_PLUGIN_ID, where,
                               "%s is %lld; it must be at least 1", names[i], (long long)extents[i]);
    return ATTUNE_OK;
}
