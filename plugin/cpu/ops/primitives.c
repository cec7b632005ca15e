/*
 * primitives.c: oneDNN primitives run by one thread each. oneDNN 2.6 of Debian threads by libgomp; its thread
 * count is a per-thread setting, which is 1 while a primitive is made or runs and put back after it, so that
 * a host that uses OpenMP itself sees no change.
 */
#include "plugin/cpu/ops/cpu.h"

#include <sys/mman.h>

/* Of libgomp, which libdnnl loads; omp.h is not there for every compiler. */
extern int omp_get_max_threads(void);
extern void omp_set_num_threads(int count);

attune_code primitive_fail(attune_error *error, const char *where, const char *what, dnnl_status_t status) {
    attune_code code = status == dnnl_out_of_memory ? ATTUNE_RESOURCE_EXHAUSTED : ATTUNE_INTERNAL;
    attune_code result =
        attune_fail(error, code, SAMPLER_DOMAIN, where, "oneDNN could not %s for '%s' (%s)", what, where,
                    status == dnnl_out_of_memory       ? "out of memory"
                    : status == dnnl_unimplemented     ? "not implemented"
                    : status == dnnl_invalid_arguments ? "invalid arguments"
                                                       : "runtime error");
    if (status == dnnl_out_of_memory)
        attune_hint(error, "free some memory, or ask for a smaller size or batch");
    if (error)
        error->native_code = (int32_t)status;
    return result;
}

static dnnl_status_t make_attributes(int32_t accumulate, dnnl_primitive_attr_t *out) {
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (status != dnnl_success)
        return status;
    status = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && accumulate) {
        status = dnnl_post_ops_create(&ops);
        if (status == dnnl_success)
            status = dnnl_post_ops_append_sum(ops, 1.0f);
        if (status == dnnl_success)
            status = dnnl_primitive_attr_set_post_ops(*out, ops);
        dnnl_post_ops_destroy(ops);
    }
    if (status != dnnl_success)
        dnnl_primitive_attr_destroy(*out);
    return status;
}

static dnnl_status_t make_desc(device *dev, const primitive_shape *shape, dnnl_primitive_desc_t *out) {
    dnnl_primitive_attr_t attributes;
    dnnl_status_t status = make_attributes(shape->accumulate, &attributes);
    if (status != dnnl_success)
        return status;
    if (shape->convolution) {
        dnnl_convolution_desc_t desc;
        status = dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, dnnl_convolution_direct,
                                                    &shape->src, &shape->weights, &shape->bias, &shape->dst,
                                                    shape->stride, shape->pad_low, shape->pad_high);
        if (status == dnnl_success)
            status = dnnl_primitive_desc_create(out, &desc, attributes, dev->engine, NULL);
    } else {
        dnnl_matmul_desc_t desc;
        status = dnnl_matmul_desc_init(&desc, &shape->src, &shape->weights, &shape->bias, &shape->dst);
        if (status == dnnl_success)
            status = dnnl_primitive_desc_create(out, &desc, attributes, dev->engine, NULL);
    }
    dnnl_primitive_attr_destroy(attributes);
    return status;
}

/* Whether address space is left for the machine code of one primitive. oneDNN 2.6.3 writes through a NULL
 * pointer in dnnl_primitive_create where a code buffer cannot be had (seen under a limited address space), so
 * it is asked before; the buffers of one primitive are some of 256 KiB. */
static int has_room_for_code(void) {
    enum { ROOM = 64 << 20 };
    void *room = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return room != MAP_FAILED && munmap(room, ROOM) == 0;
}

attune_code primitive_open(device *dev, const primitive_shape *shape, const char *where, primitive *out,
                           attune_error *error) {
    memset(out, 0, sizeof *out);
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_status_t status = has_room_for_code() ? make_desc(dev, shape, &out->desc) : dnnl_out_of_memory;
    if (status == dnnl_success) {
        out->src = shape->src;
        out->dst = shape->dst;
        out->bias = shape->bias;
        out->weights = *dnnl_primitive_desc_query_md(out->desc, dnnl_query_weights_md, 0);
        out->scratch = dnnl_primitive_desc_query_md(out->desc, dnnl_query_scratchpad_md, 0);
        out->scratch_bytes = scratch_round(dnnl_memory_desc_get_size(out->scratch));
        status = dnnl_primitive_create(&out->handle, out->desc);
    }
    omp_set_num_threads(threads);
    if (status == dnnl_success)
        return ATTUNE_OK;
    primitive_close(out);
    return primitive_fail(error, where, shape->convolution ? "prepare a convolution" : "prepare a product",
                          status);
}

void primitive_close(primitive *p) {
    if (p->handle)
        dnnl_primitive_destroy(p->handle);
    if (p->desc)
        dnnl_primitive_desc_destroy(p->desc);
    memset(p, 0, sizeof *p);
}

int primitive_is_slow(const primitive *p) {
    const char *name = "";
    (void)dnnl_primitive_desc_query(p->desc, dnnl_query_impl_info_str, 0, (void *)&name);
    return strncmp(name, "ref", 3) == 0 || strncmp(name, "gemm", 4) == 0;
}

enum { MAX_ARGUMENTS = 5 };

/* The arguments of one execution: oneDNN's memory objects, made and thrown away here. */
typedef struct arguments {
    int count;
    dnnl_exec_arg_t arg[MAX_ARGUMENTS];
} arguments;

static dnnl_status_t add_argument(device *dev, arguments *args, int index, const dnnl_memory_desc_t *desc,
                                  const void *data) {
    dnnl_memory_t memory;
    /* oneDNN's handles are not const, whatever it does with them. */
    void *handle = (void *)(uintptr_t)data;
    dnnl_status_t status = dnnl_memory_create(&memory, desc, dev->engine, handle);
    if (status == dnnl_success)
        args->arg[args->count++] = (dnnl_exec_arg_t){index, memory};
    return status;
}

static dnnl_status_t execute(device *dev, dnnl_primitive_t handle, arguments *args, dnnl_status_t status) {
    dnnl_stream_t stream = NULL;
    if (status == dnnl_success)
        status = dnnl_stream_create(&stream, dev->engine, dnnl_stream_default_flags);
    if (status == dnnl_success) {
        int threads = omp_get_max_threads();
        omp_set_num_threads(1);
        status = dnnl_primitive_execute(handle, stream, args->count, args->arg);
        if (status == dnnl_success)
            status = dnnl_stream_wait(stream);
        omp_set_num_threads(threads);
        dnnl_stream_destroy(stream);
    }
    for (int i = 0; i < args->count; ++i)
        dnnl_memory_destroy(args->arg[i].memory);
    return status;
}

attune_code primitive_run(device *dev, const primitive *p, const primitive_memory *memory, const char *where,
                          attune_error *error) {
    arguments args = {0};
    dnnl_status_t status = add_argument(dev, &args, DNNL_ARG_SRC, &p->src, memory->src);
    if (status == dnnl_success)
        status = add_argument(dev, &args, DNNL_ARG_WEIGHTS, &p->weights, memory->weights);
    if (status == dnnl_success)
        status = add_argument(dev, &args, DNNL_ARG_BIAS, &p->bias, memory->bias);
    if (status == dnnl_success)
        status = add_argument(dev, &args, DNNL_ARG_DST, &p->dst, memory->dst);
    if (status == dnnl_success)
        status = add_argument(dev, &args, DNNL_ARG_SCRATCHPAD, p->scratch, memory->scratch);
    status = execute(dev, p->handle, &args, status);
    return status == dnnl_success ? ATTUNE_OK : primitive_fail(error, where, "compute", status);
}

attune_code primitive_reorder(device *dev, const dnnl_memory_desc_t *from, const void *from_data,
                              const dnnl_memory_desc_t *to, void *to_data, const char *where,
                              attune_error *error) {
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t handle = NULL;
    arguments args = {0};
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_status_t status = has_room_for_code() ? dnnl_reorder_primitive_desc_create(&desc, from, dev->engine,
                                                                                    to, dev->engine, NULL)
                                               : dnnl_out_of_memory;
    if (status == dnnl_success)
        status = dnnl_primitive_create(&handle, desc);
    omp_set_num_threads(threads);
    if (status == dnnl_success)
        status = add_argument(dev, &args, DNNL_ARG_FROM, from, from_data);
    if (status == dnnl_success)
        status = add_argument(dev, &args, DNNL_ARG_TO, to, to_data);
    status = execute(dev, handle, &args, status);
    if (handle)
        dnnl_primitive_destroy(handle);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    return status == dnnl_success ? ATTUNE_OK : primitive_fail(error, where, "pack weights", status);
}
