/* plugin/cpu/attention_query.c: what a backend answers to a problem: whether it serves, in which workspace,
 * at which cost. */
#include "plugin/cpu/attention.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ATTUNE_KERNEL_…, or -1. */
static int32_t storage_of(attune_dtype dtype) {
    if (attune_dtype_equal(dtype, ATTUNE_F32))
        return ATTUNE_KERNEL_F32;
    if (attune_dtype_equal(dtype, ATTUNE_F16))
        return ATTUNE_KERNEL_F16;
    return attune_dtype_equal(dtype, ATTUNE_BF16) ? ATTUNE_KERNEL_BF16 : -1;
}

static int check_kind(const cpu_instance *cpu, const attune_attention_problem *p,
                      attune_attention_answer *answer) {
    if (storage_of(p->dtype) < 0)
        return layout_refuse(answer, ATTUNE_UNIMPLEMENTED,
                             "%s is not supported on the CPU (float32, float16, bfloat16 are)",
                             attune_dtype_name(p->dtype));
    if (!attune_device_same(&p->device, &cpu->device))
        return layout_refuse(
            answer, ATTUNE_FAILED_PRECONDITION,
            "the tensors are on another device (type %d, index %d) than the CPU; copy them first",
            p->device.type, p->device.index);
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
    if (p->chunks.threshold > 100)
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT, "the chunk threshold is %u per cent, above 100",
                             p->chunks.threshold);
    if (p->chunks.reserved != 0)
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT, "a reserved field of the chunks is %u, not 0",
                             p->chunks.reserved);
    if (p->workers == 0)
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT, "workers is 0; a CPU stream has at least 1");
    if (p->heads_q % p->heads_kv != 0)
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT,
                             "%lld query heads are not a multiple of %lld key heads", (long long)p->heads_q,
                             (long long)p->heads_kv);
    if (!isfinite(attune_attention_f32_factor(p->scale, p->d_qk)))
        return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT,
                             "scale %g times log2(e) is not a finite float32", (double)p->scale);
    return 1;
}

/* ---- the kernel's arguments ---- */

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

/* Slices are as long as a sixteenth of the budget lets them be, for the number of workers must not show in
 * how work is cut; and no longer than their scores are of use in the cache. */
enum { SLICE_MOST = 64, SLICE_LEAST = 16, SLICE_SHARE = 16 };

static void set_slices(cpu_work *work, const attune_attention_problem *p) {
    attune_attention_f32 *a = &work->args;
    for (a->chunk_q = SLICE_MOST; a->chunk_q > SLICE_LEAST; a->chunk_q /= 2)
        if (work->kernel->workspace(a) <= p->budget / SLICE_SHARE)
            return;
}

/* The square root, rounded down whatever the caller's rounding is. */
static int64_t whole_root(int64_t n) {
    int64_t root = (int64_t)sqrt((double)n);
    while (root > n / root)
        --root;
    while (root + 1 <= n / (root + 1))
        ++root;
    return root;
}

/* Bytes of all scores; UINT64_MAX = more. */
static uint64_t score_bytes(const attune_attention_problem *p) {
    const int64_t extents[] = {p->batch, p->heads_q, p->n_q, p->n_k};
    uint64_t bytes = sizeof(float);
    for (int i = 0; i < 4; ++i)
        if (__builtin_mul_overflow(bytes, (uint64_t)extents[i], &bytes))
            return UINT64_MAX;
    return bytes;
}

/* The web UI's rule: without a size chunks of keys are the square root of their number, and a problem whose
 * scores all fit into the threshold has one. Its share of the memory that happens to be free is a share of
 * the budget here, or of the whole memory. Returns whether that can show in the bits. */
static int set_chunks(const cpu_instance *cpu, cpu_work *work, const attune_attention_problem *p) {
    attune_attention_f32 *a = &work->args;
    const attune_chunks *asked = &p->chunks;
    const uint64_t memory = p->budget < UINT64_MAX ? p->budget : cpu->memory_total;
    a->chunk_q = asked->q ? asked->q : 1024;
    a->chunk_k = asked->kv ? asked->kv : whole_root(p->n_k);
    if (a->chunk_q > p->n_q)
        a->chunk_q = p->n_q;
    if (a->chunk_k > p->n_k)
        a->chunk_k = p->n_k;
    const int shows = asked->threshold > 0 && a->chunk_k < p->n_k;
    if (shows && score_bytes(p) <= memory / 100 * asked->threshold + memory % 100 * asked->threshold / 100)
        a->chunk_k = p->n_k;
    return shows;
}

static uint64_t saturate(double x) {
    return x >= 0x1p63 ? (uint64_t)1 << 63 : (uint64_t)x;
}

/*
 * Cost: the slower of the products, at what one core of about 3.7 GHz reaches with the panels' kernel, and of
 * moving each array once at 15 bytes per nanosecond; 2 microseconds for the call; and this times the
 * backend's slowness. A model for choosing among backends, not a promise.
 */
static void estimate(const cpu_instance *cpu, const cpu_backend *backend, const attune_attention_problem *p,
                     attune_attention_answer *answer) {
    static const double flops_per_nanosecond[] = {0.8, 90.0, 95.0}; /* by attune_cpu_isa */
    const double rows = (double)p->batch * (double)p->heads_q * (double)p->n_q;
    const double keys = (double)p->batch * (double)p->heads_kv * (double)p->n_k;
    const double channels = (double)p->d_qk + (double)p->d_v, element = p->dtype.bits / 8.0;
    const double mask_bytes = p->mask == ATTUNE_MASK_NONE ? 0.0 : p->mask == ATTUNE_MASK_BOOL ? 1.0 : 4.0;
    const double flops = 2.0 * rows * (double)p->n_k * channels;
    const double bytes = element * (rows + keys) * channels + mask_bytes * rows * (double)p->n_k;
    const double compute = flops / (flops_per_nanosecond[cpu->kernels.isa] * (double)p->workers);
    const double slower = compute > bytes / 15.0 ? compute : bytes / 15.0;
    answer->flops = saturate(flops);
    answer->bytes_moved = saturate(bytes);
    answer->nanoseconds = saturate(backend->slowness * (2000.0 + slower));
}

static int check_workspace(const cpu_work *work, const attune_attention_problem *p,
                           attune_attention_answer *answer) {
    uint64_t all;
    if (work->each == UINT64_MAX || work->shared == UINT64_MAX ||
        __builtin_mul_overflow(work->each, (uint64_t)p->workers, &all) ||
        __builtin_add_overflow(work->shared, all, &all))
        return layout_refuse(
            answer, ATTUNE_OUT_OF_RANGE,
            "%lld queries, %lld keys, head sizes %lld and %lld need a workspace beyond 64 bits",
            (long long)p->n_q, (long long)p->n_k, (long long)p->d_qk, (long long)p->d_v);
    if (all > p->budget)
        return layout_refuse(answer, ATTUNE_RESOURCE_EXHAUSTED,
                             "needs %llu bytes of workspace, the budget is %llu", (unsigned long long)all,
                             (unsigned long long)p->budget);
    answer->workspace = all;
    return 1;
}

void cpu_attention_answer(const cpu_instance *cpu, const cpu_backend *backend,
                          const attune_attention_problem *p, attune_attention_answer *answer,
                          cpu_work *work) {
    int memory_shows = 0;
    memset(work, 0, sizeof *work);
    if (!check_kind(cpu, p, answer) || !layout_check(p, answer))
        return;
    work->kernel = &cpu->kernels.attention_f32[backend->algorithm];
    work->args = kernel_args(p);
    if (backend->algorithm == ATTUNE_ATTENTION_SLICES)
        set_slices(work, p);
    if (backend->algorithm == ATTUNE_ATTENTION_CHUNKS)
        memory_shows = set_chunks(cpu, work, p);
    work->each = work->kernel->workspace(&work->args);
    work->shared = work->kernel->shared(&work->args);
    if (!check_workspace(work, p, answer))
        return;
    answer->code = ATTUNE_OK;
    answer->determinism = memory_shows ? ATTUNE_DETERMINISM_REPEATABLE : ATTUNE_DETERMINISM_PORTABLE;
    estimate(cpu, backend, p, answer);
    answer->plan[CPU_PLAN_ISA] = (uint64_t)cpu->kernels.isa;
    answer->plan[CPU_PLAN_WORKER_BYTES] = work->each;
    answer->plan[CPU_PLAN_TASKS] = work->kernel->tasks(&work->args);
    answer->plan[CPU_PLAN_WORKERS] = p->workers;
}

attune_code cpu_attention_check(const attune_attention_problem *p, const char *where, attune_error *error) {
    if (!p)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where, "problem is NULL");
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
