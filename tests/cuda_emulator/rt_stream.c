/*
 * rt_stream.c: streams and events with deferred work (CUDA Runtime API 13.0, sections 6.4 and 6.5). The
 * legacy default stream waits for all blocking streams and they for it, by the order of the calls (CUDA C++
 * Programming Guide, "default stream").
 */
#include "tests/cuda_emulator/runtime.h"

#include <stdlib.h>
#include <time.h>

struct CUstream_st {
    int device;
    unsigned flags;
    bool legacy;
    runtime_work *first, **last;
    uint64_t done; /* order of the last work that ran */
    struct CUstream_st *next;
};

struct CUevent_st {
    int device;
    unsigned flags;
    struct CUstream_st *stream; /* of the last record; NULL: never recorded */
    uint64_t order;             /* of that record */
    bool happened;
    struct timespec at;
    struct CUevent_st *next;
};

static struct CUstream_st *streams;
static struct CUevent_st *events;
static uint64_t orders;

int runtime_stream_device(const struct CUstream_st *s) {
    return s->device;
}

static struct CUstream_st *new_stream(int device, unsigned flags, bool legacy) {
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    *s = (struct CUstream_st){.device = device, .flags = flags, .legacy = legacy, .next = streams};
    s->last = &s->first;
    streams = s;
    return s;
}

struct CUstream_st *runtime_find_stream(cudaStream_t handle) {
    const int device = runtime_current_device();
    const bool legacy = handle == NULL || handle == cudaStreamLegacy || handle == cudaStreamPerThread;
    for (struct CUstream_st *s = streams; s; s = s->next)
        if (legacy ? s->legacy && s->device == device : s == handle)
            return s;
    return legacy ? new_stream(device, 0, true) : NULL;
}

size_t cuda_emulator_streams(void) {
    size_t n = 0;
    for (const struct CUstream_st *s = streams; s; s = s->next)
        n += !s->legacy;
    return n;
}

size_t cuda_emulator_events(void) {
    size_t n = 0;
    for (const struct CUevent_st *e = events; e; e = e->next)
        ++n;
    return n;
}

static struct CUevent_st *find_event(cudaEvent_t handle) {
    for (struct CUevent_st *e = events; e; e = e->next)
        if (e == handle)
            return e;
    return NULL;
}

runtime_work *runtime_new_work(int kind) {
    runtime_work *w = calloc(1, sizeof *w);
    if (w)
        w->kind = kind;
    return w;
}

cudaError_t runtime_add_work(struct CUstream_st *s, runtime_work *w) {
    w->order = ++orders;
    *s->last = w;
    s->last = &w->next;
    return cudaSuccess;
}

bool runtime_library_busy(const struct runtime_library *library) {
    for (const struct CUstream_st *s = streams; s; s = s->next)
        for (const runtime_work *w = s->first; w; w = w->next)
            if (w->kernel && w->kernel->library == library)
                return true;
    return false;
}

/* ---- running ---- */

static void run_until(struct CUstream_st *s, uint64_t order);

static cudaError_t error_of(int check) {
    switch (check) {
    case CUDA_EMULATOR_GLOBAL_BOUNDS:
    case CUDA_EMULATOR_SHARED_BOUNDS:
    case CUDA_EMULATOR_LOCAL_BOUNDS:
        return cudaErrorIllegalAddress;
    case CUDA_EMULATOR_MISALIGNED:
        return cudaErrorMisalignedAddress;
    case CUDA_EMULATOR_RUNAWAY:
        return cudaErrorLaunchTimeout;
    default:
        return cudaErrorLaunchFailure;
    }
}

static void run_launch(struct CUstream_st *s, runtime_work *w) {
    if (!exec_grid(&w->launch)) {
        const int failed = atomic_load(&w->launch.failed);
        runtime_set_device_error(s->device, failed ? error_of(failed - 1) : cudaErrorMemoryAllocation);
    }
    runtime_count(w->launch.kernel->name, &w->launch.counters);
    free(w->launch.parameters);
}

/* Device addresses become bytes only now: an allocation freed meanwhile is an error then. */
static void *bytes_of(const void *address, size_t size) {
    if (!memory_find((uint64_t)(uintptr_t)address))
        return (void *)(uintptr_t)address;
    return runtime_device_bytes(address, size);
}

static void run_copy(struct CUstream_st *s, runtime_work *w) {
    for (size_t row = 0; row < w->height; ++row) {
        unsigned char *to = bytes_of((char *)w->to + row * w->to_pitch, w->width);
        const unsigned char *from = bytes_of((const char *)w->from + row * w->from_pitch, w->width);
        if (!to || !from) {
            runtime_set_device_error(s->device, cudaErrorIllegalAddress);
            break;
        }
        memmove(to, from, w->width);
    }
    free(w->staged);
}

static void run_work(struct CUstream_st *s, runtime_work *w) {
    int device;
    uint64_t size;
    switch (w->kind) {
    case WORK_LAUNCH:
        run_launch(s, w);
        break;
    case WORK_COPY:
        run_copy(s, w);
        break;
    case WORK_SET: {
        unsigned char *to = runtime_device_bytes(w->to, w->width);
        if (to)
            memset(to, w->value, w->width);
        else
            runtime_set_device_error(s->device, cudaErrorIllegalAddress);
        break;
    }
    case WORK_RECORD:
        if (find_event(w->event) && w->event->order == w->order) {
            w->event->happened = true;
            clock_gettime(CLOCK_MONOTONIC, &w->event->at);
        }
        break;
    case WORK_WAIT:
        run_until(w->awaited, w->awaited_order);
        break;
    case WORK_HOST:
        w->function((void *)(uintptr_t)w->from);
        break;
    case WORK_FREE:
        memory_free((uint64_t)(uintptr_t)w->to, &device, &size);
    }
}

/* Streams that the default stream's rule orders against each other. */
static bool tied(const struct CUstream_st *a, const struct CUstream_st *b) {
    return a != b && a->device == b->device && a->legacy != b->legacy &&
           !((a->flags | b->flags) & cudaStreamNonBlocking);
}

static void run_one(struct CUstream_st *s) {
    runtime_work *w = s->first;
    for (struct CUstream_st *other = streams; other; other = other->next)
        if (tied(s, other))
            run_until(other, w->order - 1);
    if (s->first != w)
        return; /* what was waited for had waited for this */
    s->first = w->next;
    if (!s->first)
        s->last = &s->first;
    if (runtime_device_error(s->device) == cudaSuccess)
        run_work(s, w);
    else if (w->kind == WORK_LAUNCH)
        free(w->launch.parameters);
    else if (w->kind == WORK_COPY)
        free(w->staged);
    s->done = w->order;
    free(w);
}

static void run_until(struct CUstream_st *s, uint64_t order) {
    struct CUstream_st *live = streams;
    while (live && live != s)
        live = live->next;
    if (!live)
        return; /* destroyed: its work was finished then */
    while (s->first && s->first->order <= order)
        run_one(s);
}

cudaError_t runtime_finish_stream(struct CUstream_st *s) {
    const int device = s->device;
    run_until(s, UINT64_MAX);
    if (s->legacy) /* waiting for the default stream waits for what it would wait for */
        for (struct CUstream_st *other = streams; other; other = other->next)
            if (tied(s, other))
                run_until(other, UINT64_MAX);
    return runtime_device_error(device);
}

cudaError_t runtime_finish_device(int device) {
    for (struct CUstream_st *s = streams; s; s = s->next)
        if (s->device == device)
            run_until(s, UINT64_MAX);
    return runtime_device_error(device);
}

static void discard(struct CUstream_st *s) {
    while (s->first) {
        runtime_work *w = s->first;
        s->first = w->next;
        if (w->kind == WORK_LAUNCH)
            free(w->launch.parameters);
        free(w->staged);
        free(w);
    }
    s->last = &s->first;
}

static void remove_stream(struct CUstream_st *s) {
    struct CUstream_st **link = &streams;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    discard(s);
    free(s);
}

void runtime_drop_streams(int device) {
    for (struct CUstream_st *s = streams, *next; s; s = next) {
        next = s->next;
        if (s->device == device)
            remove_stream(s);
    }
}

/* ---- streams ---- */

static cudaError_t create(cudaStream_t *stream, unsigned flags) {
    if (!stream || flags & ~(unsigned)cudaStreamNonBlocking)
        return cudaErrorInvalidValue;
    *stream = new_stream(runtime_current_device(), flags, false);
    return *stream ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    RUNTIME_ENTER("cudaStreamCreate");
    return runtime_leave(create(stream, 0));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
    RUNTIME_ENTER("cudaStreamCreateWithFlags");
    return runtime_leave(create(stream, flags));
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    RUNTIME_ENTER("cudaStreamDestroy");
    struct CUstream_st *s = runtime_find_stream(handle);
    if (!s || s->legacy)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    run_until(s, UINT64_MAX);
    remove_stream(s);
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    RUNTIME_ENTER("cudaStreamSynchronize");
    struct CUstream_st *s = runtime_find_stream(handle);
    return runtime_leave(s ? runtime_finish_stream(s) : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    RUNTIME_ENTER("cudaStreamQuery");
    struct CUstream_st *s = runtime_find_stream(handle);
    if (!s)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    if (!s->first)
        return runtime_leave(runtime_device_error(s->device));
    run_one(s);
    return runtime_leave(runtime_device_error(s->device) ? runtime_device_error(s->device)
                                                         : cudaErrorNotReady);
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned int *flags) {
    RUNTIME_ENTER("cudaStreamGetFlags");
    const struct CUstream_st *s = runtime_find_stream(handle);
    if (!s || !flags)
        return runtime_leave(s ? cudaErrorInvalidValue : cudaErrorInvalidResourceHandle);
    *flags = s->flags;
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaStreamGetDevice(cudaStream_t handle, int *device) {
    RUNTIME_ENTER("cudaStreamGetDevice");
    const struct CUstream_st *s = runtime_find_stream(handle);
    if (!s || !device)
        return runtime_leave(s ? cudaErrorInvalidValue : cudaErrorInvalidResourceHandle);
    *device = s->device;
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void *data) {
    RUNTIME_ENTER("cudaLaunchHostFunc");
    struct CUstream_st *s = runtime_find_stream(handle);
    if (!s || !function)
        return runtime_leave(s ? cudaErrorInvalidValue : cudaErrorInvalidResourceHandle);
    runtime_work *w = runtime_new_work(WORK_HOST);
    if (!w)
        return runtime_leave(cudaErrorMemoryAllocation);
    w->function = function;
    w->from = data;
    return runtime_leave(runtime_add_work(s, w));
}

/* ---- events ---- */

static cudaError_t create_event(cudaEvent_t *event, unsigned flags) {
    if (!event || flags & ~7u || (flags & cudaEventInterprocess))
        return cudaErrorInvalidValue;
    struct CUevent_st *e = calloc(1, sizeof *e);
    if (!e)
        return cudaErrorMemoryAllocation;
    *e = (struct CUevent_st){.device = runtime_current_device(), .flags = flags, .next = events};
    *event = events = e;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    RUNTIME_ENTER("cudaEventCreate");
    return runtime_leave(create_event(event, 0));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
    RUNTIME_ENTER("cudaEventCreateWithFlags");
    return runtime_leave(create_event(event, flags));
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
    RUNTIME_ENTER("cudaEventDestroy");
    struct CUevent_st **link = &events;
    while (*link && *link != handle)
        link = &(*link)->next;
    if (!*link)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    *link = handle->next;
    free(handle);
    return runtime_leave(cudaSuccess);
}

static cudaError_t record(cudaEvent_t handle, cudaStream_t stream, unsigned flags) {
    struct CUevent_st *e = find_event(handle);
    struct CUstream_st *s = runtime_find_stream(stream);
    if (!e || !s || e->device != s->device)
        return cudaErrorInvalidResourceHandle;
    if (flags)
        return cudaErrorInvalidValue;
    runtime_work *w = runtime_new_work(WORK_RECORD);
    if (!w)
        return cudaErrorMemoryAllocation;
    w->event = e;
    runtime_add_work(s, w);
    e->stream = s;
    e->order = w->order;
    e->happened = false;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    RUNTIME_ENTER("cudaEventRecord");
    return runtime_leave(record(event, stream, 0));
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned int flags) {
    RUNTIME_ENTER("cudaEventRecordWithFlags");
    return runtime_leave(record(event, stream, flags));
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
    RUNTIME_ENTER("cudaEventQuery");
    const struct CUevent_st *e = find_event(handle);
    if (!e)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    if (!e->stream || e->happened)
        return runtime_leave(runtime_device_error(e->device));
    if (e->stream->first)
        run_one(e->stream);
    return runtime_leave(runtime_device_error(e->device) ? runtime_device_error(e->device)
                                                         : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    RUNTIME_ENTER("cudaEventSynchronize");
    const struct CUevent_st *e = find_event(handle);
    if (!e)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    if (e->stream && !e->happened)
        run_until(e->stream, e->order);
    return runtime_leave(runtime_device_error(e->device));
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    RUNTIME_ENTER("cudaEventElapsedTime");
    const struct CUevent_st *a = find_event(start), *b = find_event(end);
    if (!milliseconds)
        return runtime_leave(cudaErrorInvalidValue);
    if (!a || !b || !a->stream || !b->stream || (a->flags | b->flags) & cudaEventDisableTiming)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    if (!a->happened || !b->happened)
        return runtime_leave(cudaErrorNotReady);
    *milliseconds =
        (float)((double)(b->at.tv_sec - a->at.tv_sec) * 1e3 + (double)(b->at.tv_nsec - a->at.tv_nsec) * 1e-6);
    return runtime_leave(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned int flags) {
    RUNTIME_ENTER("cudaStreamWaitEvent");
    struct CUstream_st *s = runtime_find_stream(handle);
    const struct CUevent_st *e = find_event(event);
    if (!s || !e)
        return runtime_leave(cudaErrorInvalidResourceHandle);
    if (flags)
        return runtime_leave(cudaErrorInvalidValue);
    if (!e->stream)
        return runtime_leave(cudaSuccess); /* never recorded: nothing to wait for */
    runtime_work *w = runtime_new_work(WORK_WAIT);
    if (!w)
        return runtime_leave(cudaErrorMemoryAllocation);
    w->awaited = e->stream;
    w->awaited_order = e->order;
    return runtime_leave(runtime_add_work(s, w));
}
