/* plugin/layout.c: see layout.h. */
#include "plugin/layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char where[] = "attention.run";

int layout_arrays(const attune_attention_problem *p, layout_array arrays[LAYOUT_ARRAYS]) {
    const layout_array all[LAYOUT_ARRAYS] = {
        {"q", p->dtype, {p->batch, p->heads_q, p->n_q, p->d_qk}, p->stride_q},
        {"k", p->dtype, {p->batch, p->heads_kv, p->n_k, p->d_qk}, p->stride_k},
        {"v", p->dtype, {p->batch, p->heads_kv, p->n_k, p->d_v}, p->stride_v},
        {"out", p->dtype, {p->batch, p->heads_q, p->n_q, p->d_v}, p->stride_out},
        {"mask",
         p->mask == ATTUNE_MASK_BOOL ? ATTUNE_BOOL : ATTUNE_F32,
         {p->batch, p->heads_q, p->n_q, p->n_k},
         p->stride_mask}};
    memcpy(arrays, all, sizeof all);
    return p->mask == ATTUNE_MASK_NONE ? LAYOUT_ARRAYS - 1 : LAYOUT_ARRAYS;
}

uint64_t layout_span(const layout_array *array) {
    attune_tensor view; /* data stays NULL */
    memset(&view, 0, sizeof view);
    view.dtype = array->dtype;
    view.ndim = 4;
    memcpy(view.shape, array->shape, sizeof array->shape);
    memcpy(view.stride, array->stride, sizeof array->shape);
    return attune_tensor_span(&view);
}

int layout_refuse(attune_attention_answer *answer, attune_code code, const char *format, ...) {
    va_list list;
    va_start(list, format);
    (void)vsnprintf(answer->reason, sizeof answer->reason, format, list);
    va_end(list);
    answer->code = code;
    return 0;
}

static int check_strides(const layout_array *a, attune_attention_answer *answer) {
    static const char *const axes[4] = {"batch", "head", "token", "channel"};
    for (int i = 0; i < 4; ++i)
        if (a->stride[i] < 0)
            return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT, "%s's %s stride %lld is negative", a->name,
                                 axes[i], (long long)a->stride[i]);
    if (layout_span(a) > INT64_MAX)
        return layout_refuse(answer, ATTUNE_OUT_OF_RANGE, "%s's shape and strides overflow 63 bits", a->name);
    return 1;
}

static int check_channel_stride(const layout_array *a, attune_attention_answer *answer) {
    if (a->shape[3] == 1 || a->stride[3] == 1)
        return 1;
    return layout_refuse(answer, ATTUNE_UNIMPLEMENTED,
                         "%s's channel stride is %lld, only 1 is supported; make it contiguous", a->name,
                         (long long)a->stride[3]);
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
            return layout_refuse(answer, ATTUNE_INVALID_ARGUMENT,
                                 "out's elements overlap: axis %d of %lld has stride %lld", order[i],
                                 (long long)extent, (long long)step);
        below += (extent - 1) * step; /* no overflow: check_strides has measured the span */
    }
    return 1;
}

int layout_check(const attune_attention_problem *p, attune_attention_answer *answer) {
    layout_array arrays[LAYOUT_ARRAYS];
    const int count = layout_arrays(p, arrays);
    for (int i = 0; i < count; ++i)
        if (!check_strides(&arrays[i], answer))
            return 0;
    for (int i = 0; i < LAYOUT_ARRAYS - 1; ++i) /* a mask may have any */
        if (!check_channel_stride(&arrays[i], answer))
            return 0;
    return check_out_disjoint(arrays[3].shape, p->stride_out, answer);
}

/* ---- a call against its problem ---- */

/* One array of the call against the problem. An extent of 1 may stand for a broadcast axis (stride 0) of the
 * mask. */
static attune_code check_tensor(const attune_tensor *tensor, const layout_array *array,
                                const attune_device_id *device, const char *plugin, attune_error *error) {
    const char *const name = array->name;
    if (!tensor)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where, "%s is missing", name);
    if (tensor->ndim != 4)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where, "%s has %d dimensions, not 4", name,
                           tensor->ndim);
    if (!attune_dtype_equal(tensor->dtype, array->dtype))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where, "%s is %s, the problem says %s",
                           name, attune_dtype_name(tensor->dtype), attune_dtype_name(array->dtype));
    if (!attune_device_same(&tensor->device, device))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where,
                           "%s is on another device than the problem's", name);
    for (int i = 0; i < 4; ++i) {
        const int64_t extent = array->shape[i], stride = array->stride[i];
        const int broadcast = tensor->shape[i] == 1 && stride == 0;
        if (tensor->shape[i] != extent && !broadcast)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where,
                               "%s's axis %d has extent %lld, the problem says %lld", name, i,
                               (long long)tensor->shape[i], (long long)extent);
        if (extent > 1 && !broadcast && tensor->stride[i] != stride)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where,
                               "%s's axis %d has stride %lld, the problem says %lld", name, i,
                               (long long)tensor->stride[i], (long long)stride);
    }
    const uint64_t span = layout_span(array);
    if (!tensor->data || tensor->bytes < span)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where,
                           "%s has %llu bytes, its shape and strides reach %llu", name,
                           tensor->data ? (unsigned long long)tensor->bytes : 0, (unsigned long long)span);
    if ((uintptr_t)tensor->data % attune_dtype_bytes(array->dtype) != 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where,
                           "%s is not aligned to its %d-bit elements", name, array->dtype.bits);
    return ATTUNE_OK;
}

/* Whether what is written, `bytes` from `at`, shares any with an array. */
static int overlaps(const void *at, uint64_t bytes, const attune_tensor *tensor, const layout_array *array) {
    const uintptr_t start = (uintptr_t)at, other = (uintptr_t)tensor->data;
    return bytes > 0 && start < other + layout_span(array) && other < start + bytes;
}

attune_code layout_check_tensors(const attune_attention_problem *p, const attune_attention_args *args,
                                 uint64_t workspace, const char *plugin, attune_error *error) {
    const attune_tensor *const tensors[LAYOUT_ARRAYS] = {args->q, args->k, args->v, args->out, args->mask};
    enum { OUT = 3 };
    layout_array arrays[LAYOUT_ARRAYS];
    const int count = layout_arrays(p, arrays);
    for (int i = 0; i < count; ++i) {
        const attune_code code = check_tensor(tensors[i], &arrays[i], &p->device, plugin, error);
        if (code != ATTUNE_OK)
            return code;
    }
    if (p->mask == ATTUNE_MASK_NONE && args->mask)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where,
                           "a mask is given, the problem says there is none");
    for (int i = 0; i < count; ++i) {
        if (i != OUT && overlaps(args->out->data, layout_span(&arrays[OUT]), tensors[i], &arrays[i]))
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where, "out overlaps %s",
                               arrays[i].name);
        if (overlaps(args->workspace, workspace, tensors[i], &arrays[i]))
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, plugin, where, "the workspace overlaps %s",
                               arrays[i].name);
    }
    return ATTUNE_OK;
}
