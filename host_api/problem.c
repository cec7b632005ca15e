/* problem.c: attention problems from tensors, and tensors checked against a problem before a plugin sees
 * them. */
#include "problem.h"
#include "attune/host.h"
#include "structs.h"
#include <stdbool.h>

static const char *const where = "attention";

__attribute__((format(printf, 2, 3))) static attune_code wrong(attune_error *error, const char *format, ...) {
    char message[400];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(message, sizeof message, format, list);
    va_end(list);
    return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, where, "%s", message);
}

/* "(2, 8, 4096, 40)". */
static const char *shape_text(const attune_tensor *tensor, char text[160]) {
    size_t used = 1;
    text[0] = '(';
    text[1] = 0;
    for (int32_t i = 0; i < tensor->ndim && i < ATTUNE_MAX_DIMS && used < 160; ++i)
        used +=
            (size_t)snprintf(text + used, 160 - used, "%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
    if (used < 159)
        (void)snprintf(text + used, 160 - used, ")");
    return text;
}

/* A tensor that may be read: axes, element type, and enough bytes for what its strides reach. */
static attune_code check_tensor(const attune_tensor *tensor, const char *name, int32_t least_dims,
                                attune_error *error) {
    char text[160];
    if (!tensor)
        return wrong(error, "%s is NULL", name);
    if (tensor->ndim < least_dims || tensor->ndim > 4)
        return wrong(error, "%s has %d axes, expected %s(batch, head, token, channel)", name, tensor->ndim,
                     least_dims < 4 ? "at most 4, broadcast to " : "4: ");
    uint64_t span = attune_tensor_span(tensor);
    if (span == UINT64_MAX)
        return wrong(error, "%s %s has a negative extent or stride, or its size overflows", name,
                     shape_text(tensor, text));
    for (int32_t i = 0; i < tensor->ndim; ++i)
        if (tensor->shape[i] < 1)
            return wrong(error, "%s %s has an empty axis", name, shape_text(tensor, text));
    if (tensor->bytes < span || !tensor->data)
        return wrong(error, "%s %s needs %llu bytes by its strides, it has %llu", name,
                     shape_text(tensor, text), (unsigned long long)span,
                     tensor->data ? (unsigned long long)tensor->bytes : 0ull);
    return ATTUNE_OK;
}

/* Strides over (batch, head, query, key), as numpy broadcasts: axes are matched from the last, 1 stretches.
 */
static attune_code broadcast_mask(const attune_tensor *mask, const int64_t full[4], int64_t stride[4],
                                  attune_error *error) {
    char text[160];
    for (int axis = 3, from = mask->ndim - 1; axis >= 0; --axis, --from) {
        stride[axis] = 0;
        if (from < 0 || mask->shape[from] == 1)
            continue;
        if (mask->shape[from] != full[axis])
            return wrong(error, "the mask %s cannot be broadcast to (%lld, %lld, %lld, %lld)",
                         shape_text(mask, text), (long long)full[0], (long long)full[1], (long long)full[2],
                         (long long)full[3]);
        stride[axis] = mask->stride[from];
    }
    return ATTUNE_OK;
}

static attune_code mask_kind(const attune_tensor *mask, int32_t *kind, attune_error *error) {
    if (attune_dtype_equal(mask->dtype, ATTUNE_BOOL))
        *kind = ATTUNE_MASK_BOOL;
    else if (attune_dtype_equal(mask->dtype, ATTUNE_F32))
        *kind = ATTUNE_MASK_FLOAT;
    else
        return wrong(error, "the mask is %s, expected bool or float32", attune_dtype_name(mask->dtype));
    return ATTUNE_OK;
}

static attune_code check_same(const attune_tensor *const tensors[4], attune_error *error) {
    static const char *const names[] = {"q", "k", "v", "out"};
    for (int i = 1; i < 4; ++i) {
        if (!attune_dtype_equal(tensors[i]->dtype, tensors[0]->dtype))
            return wrong(error, "q is %s and %s is %s", attune_dtype_name(tensors[0]->dtype), names[i],
                         attune_dtype_name(tensors[i]->dtype));
        if (!attune_device_same(&tensors[i]->device, &tensors[0]->device))
            return wrong(error, "q and %s are on different devices, and nothing is copied implicitly",
                         names[i]);
    }
    return ATTUNE_OK;
}

static attune_code check_shapes(const attune_tensor *q, const attune_tensor *k, const attune_tensor *v,
                                const attune_tensor *out, attune_error *error) {
    char a[160], b[160];
    if (k->shape[0] != q->shape[0] || k->shape[3] != q->shape[3])
        return wrong(error, "q %s and k %s differ in batch or channels", shape_text(q, a), shape_text(k, b));
    if (q->shape[1] % k->shape[1] != 0)
        return wrong(error, "the heads of k %s do not divide those of q %s", shape_text(k, b),
                     shape_text(q, a));
    if (v->shape[0] != k->shape[0] || v->shape[1] != k->shape[1] || v->shape[2] != k->shape[2])
        return wrong(error, "k %s and v %s differ in batch, heads or tokens", shape_text(k, a),
                     shape_text(v, b));
    if (out->shape[0] != q->shape[0] || out->shape[1] != q->shape[1] || out->shape[2] != q->shape[2] ||
        out->shape[3] != v->shape[3])
        return wrong(error, "out %s, expected (%lld, %lld, %lld, %lld)", shape_text(out, a),
                     (long long)q->shape[0], (long long)q->shape[1], (long long)q->shape[2],
                     (long long)v->shape[3]);
    return ATTUNE_OK;
}

attune_code attune_attention_problem_init(attune_attention_problem *problem, const attune_tensor *q,
                                          const attune_tensor *k, const attune_tensor *v,
                                          const attune_tensor *mask, const attune_tensor *out,
                                          attune_error *error) {
    const attune_tensor *const tensors[4] = {q, k, v, out};
    static const char *const names[] = {"q", "k", "v", "out"};
    attune_code code = problem ? ATTUNE_OK : wrong(error, "problem is NULL");
    for (int i = 0; i < 4 && !code; ++i)
        code = check_tensor(tensors[i], names[i], 4, error);
    if (!code)
        code = check_same(tensors, error);
    if (!code)
        code = check_shapes(q, k, v, out, error);
    if (code)
        return code;
    attune_attention_problem full = {
        .struct_size = sizeof full,
        .batch = q->shape[0],
        .heads_q = q->shape[1],
        .heads_kv = k->shape[1],
        .n_q = q->shape[2],
        .n_k = k->shape[2],
        .d_qk = q->shape[3],
        .d_v = v->shape[3],
        .dtype = q->dtype,
        .budget = UINT64_MAX,
        .device = q->device,
        .workers = 1,
    };
    for (int i = 0; i < 4; ++i) {
        full.stride_q[i] = q->stride[i];
        full.stride_k[i] = k->stride[i];
        full.stride_v[i] = v->stride[i];
        full.stride_out[i] = out->stride[i];
    }
    if (mask) {
        const int64_t target[4] = {full.batch, full.heads_q, full.n_q, full.n_k};
        code = check_tensor(mask, "mask", 0, error);
        if (!code && !attune_device_same(&mask->device, &q->device))
            code = wrong(error, "q and mask are on different devices, and nothing is copied implicitly");
        if (!code)
            code = mask_kind(mask, &full.mask, error);
        if (!code)
            code = broadcast_mask(mask, target, full.stride_mask, error);
    }
    if (!code)
        *problem = full;
    return code;
}

attune_code attune_chunks_check(const attune_chunks *chunks, attune_error *error) {
    if (chunks->threshold > 100)
        return wrong(error, "the chunk threshold is %u per cent, above 100", chunks->threshold);
    return chunks->reserved ? wrong(error, "a reserved field of the chunks is not 0") : ATTUNE_OK;
}

attune_code attune_problem_check(const attune_attention_problem *problem, attune_error *error) {
    attune_code code = attune_struct_in(problem, sizeof *problem, "attune_attention_problem", error);
    if (code)
        return code;
    if (problem->batch < 1 || problem->heads_q < 1 || problem->heads_kv < 1 || problem->n_q < 1 ||
        problem->n_k < 1 || problem->d_qk < 1 || problem->d_v < 1)
        return wrong(error, "an extent of the problem is below 1");
    if (problem->heads_q % problem->heads_kv != 0)
        return wrong(error, "%lld key heads do not divide %lld query heads", (long long)problem->heads_kv,
                     (long long)problem->heads_q);
    if (problem->mask < ATTUNE_MASK_NONE || problem->mask > ATTUNE_MASK_FLOAT || problem->causal < 0 ||
        problem->causal > 1)
        return wrong(error, "mask kind %d or causal %d is unknown", problem->mask, problem->causal);
    if (!attune_determinism_name(problem->determinism))
        return wrong(error, "determinism class %d is unknown", problem->determinism);
    if (problem->reserved)
        return wrong(error, "a reserved field of the problem is not 0");
    code = attune_chunks_check(&problem->chunks, error);
    if (code)
        return code;
    if (!(problem->scale - problem->scale == 0)) /* infinite or NaN */
        return wrong(error, "the scale is not finite");
    if (problem->device.type == ATTUNE_DEVICE_CPU && problem->workers < 1)
        return wrong(error, "workers is 0, at least 1 is expected on a CPU");
    for (int i = 0; i < 4; ++i)
        if (problem->stride_q[i] < 0 || problem->stride_k[i] < 0 || problem->stride_v[i] < 0 ||
            problem->stride_out[i] < 0 || problem->stride_mask[i] < 0)
            return wrong(error, "a stride of the problem is negative");
    return ATTUNE_OK;
}

/* Compare one tensor with the problem, and give its view the problem's strides. */
static attune_code check_view(const attune_attention_problem *problem, const attune_tensor *tensor,
                              const char *name, const int64_t shape[4], const int64_t stride[4],
                              attune_tensor *view, attune_error *error) {
    char text[160];
    attune_code code = check_tensor(tensor, name, 4, error);
    if (code)
        return code;
    if (!attune_dtype_equal(tensor->dtype, problem->dtype))
        return wrong(error, "%s is %s, the problem says %s", name, attune_dtype_name(tensor->dtype),
                     attune_dtype_name(problem->dtype));
    if (!attune_device_same(&tensor->device, &problem->device))
        return wrong(error, "%s is not on the problem's device, and nothing is copied implicitly", name);
    for (int i = 0; i < 4; ++i)
        if (tensor->shape[i] != shape[i])
            return wrong(error, "%s is %s, the problem says (%lld, %lld, %lld, %lld)", name,
                         shape_text(tensor, text), (long long)shape[0], (long long)shape[1],
                         (long long)shape[2], (long long)shape[3]);
    *view = *tensor;
    for (int i = 0; i < 4; ++i) {
        if (tensor->stride[i] != stride[i] && shape[i] > 1)
            return wrong(error, "%s has stride %lld on axis %d, the problem says %lld", name,
                         (long long)tensor->stride[i], i, (long long)stride[i]);
        view->stride[i] = stride[i];
    }
    return ATTUNE_OK;
}

static attune_code check_mask(const attune_attention_problem *problem, const attune_tensor *mask,
                              attune_views *views, attune_error *error) {
    const int64_t full[4] = {problem->batch, problem->heads_q, problem->n_q, problem->n_k};
    int64_t stride[4] = {0};
    int32_t kind = ATTUNE_MASK_NONE;
    if (!mask != (problem->mask == ATTUNE_MASK_NONE))
        return wrong(error, "a mask is %s, the problem says %s", mask ? "given" : "not given",
                     mask ? "none" : "one");
    if (!mask)
        return ATTUNE_OK;
    attune_code code = check_tensor(mask, "mask", 0, error);
    if (!code)
        code = mask_kind(mask, &kind, error);
    if (!code && kind != problem->mask)
        code = wrong(error, "the mask is %s, the problem says otherwise", attune_dtype_name(mask->dtype));
    if (!code && !attune_device_same(&mask->device, &problem->device))
        code = wrong(error, "the mask is not on the problem's device, and nothing is copied implicitly");
    if (!code)
        code = broadcast_mask(mask, full, stride, error);
    if (code)
        return code;
    views->mask = *mask;
    views->mask.ndim = 4;
    for (int i = 0; i < 4; ++i) {
        if (stride[i] != problem->stride_mask[i] && full[i] > 1)
            return wrong(error, "the mask has stride %lld on axis %d, the problem says %lld",
                         (long long)stride[i], i, (long long)problem->stride_mask[i]);
        views->mask.shape[i] = full[i];
        views->mask.stride[i] = problem->stride_mask[i];
    }
    views->args.mask = &views->mask;
    return ATTUNE_OK;
}

static bool overlap(const attune_tensor *a, const attune_tensor *b) {
    uintptr_t a_start = (uintptr_t)a->data, b_start = (uintptr_t)b->data;
    return a_start < b_start + attune_tensor_span(b) && b_start < a_start + attune_tensor_span(a);
}

attune_code attune_views_check(const attune_attention_problem *problem, const attune_attention_args *args,
                               attune_views *views, attune_error *error) {
    attune_code code = attune_struct_in(args, sizeof *args, "attune_attention_args", error);
    if (code)
        return code;
    if (args->reserved)
        return wrong(error, "a reserved field of the arguments is not 0");
    const attune_attention_problem *p = problem;
    const int64_t q_shape[4] = {p->batch, p->heads_q, p->n_q, p->d_qk},
                  k_shape[4] = {p->batch, p->heads_kv, p->n_k, p->d_qk};
    const int64_t v_shape[4] = {p->batch, p->heads_kv, p->n_k, p->d_v},
                  out_shape[4] = {p->batch, p->heads_q, p->n_q, p->d_v};
    views->args = (attune_attention_args){.struct_size = sizeof views->args,
                                          .q = &views->q,
                                          .k = &views->k,
                                          .v = &views->v,
                                          .out = &views->out,
                                          .workspace = args->workspace,
                                          .workspace_bytes = args->workspace ? args->workspace_bytes : 0};
    code = check_view(p, args->q, "q", q_shape, p->stride_q, &views->q, error);
    if (!code)
        code = check_view(p, args->k, "k", k_shape, p->stride_k, &views->k, error);
    if (!code)
        code = check_view(p, args->v, "v", v_shape, p->stride_v, &views->v, error);
    if (!code)
        code = check_view(p, args->out, "out", out_shape, p->stride_out, &views->out, error);
    if (!code)
        code = check_mask(p, args->mask, views, error);
    if (!code && (overlap(args->out, args->q) || overlap(args->out, args->k) || overlap(args->out, args->v) ||
                  (args->mask && overlap(args->out, args->mask))))
        code = wrong(error, "out overlaps an input");
    return code;
}
