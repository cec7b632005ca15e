/*
 * runtime.h: the stand-in CUDA runtime's own state. Every public function begins with RUNTIME_ENTER, which
 * takes the one lock, counts the call and fails it where the environment asks for that, and ends through
 * runtime_leave.
 *
 * Work on streams is deferred: it runs when somebody waits for it, and no earlier, so that a missing
 * synchronisation shows in every run. A query runs one piece of work and says "not ready", so that polling
 * ends. README.md has the environment.
 */
#ifndef CUDA_EMULATOR_RUNTIME_H
#define CUDA_EMULATOR_RUNTIME_H

#pragma GCC visibility push(default)
#include <cuda_runtime_api.h>
#pragma GCC visibility pop

#include "tests/cuda_emulator/exec.h"

enum { MAX_DEVICES = 16 };

typedef struct runtime_config {
    int devices, capability; /* 86 for 8.6 */
    uint64_t memory;
    bool no_driver, checks, count;
    char fail_name[64]; /* "" : any call */
    uint64_t fail_at;   /* 0: none */
    cudaError_t fail_code;
    uint64_t instruction_limit;
} runtime_config;

/* Read from the environment at the first call. */
const runtime_config *runtime_get_config(void);

/* Lock, count, inject. False: *error says what to return (the lock is held either way). */
bool runtime_enter(const char *name, cudaError_t *error);
cudaError_t runtime_leave(cudaError_t error);

#define RUNTIME_ENTER(name)                                                                                  \
    cudaError_t entered;                                                                                     \
    if (!runtime_enter(name, &entered))                                                                      \
    return runtime_leave(entered)

/* One line on standard error, "cuda emulator: ..." */
void runtime_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

int runtime_current_device(void);

/* A device's lasting error after a kernel failed: every call reports it until cudaDeviceReset. */
cudaError_t runtime_device_error(int device);
void runtime_set_device_error(int device, cudaError_t error);

/* ---- kernels ---- */

struct runtime_library;
typedef struct runtime_kernel {
    ptx_kernel *code;
    struct runtime_library *library;
    int dynamic_limit[MAX_DEVICES]; /* bytes of dynamic shared memory allowed */
} runtime_kernel;

/* NULL where it is no live kernel; host stubs are looked up. */
runtime_kernel *runtime_find_kernel(const void *function);
int runtime_shared_optin(void); /* the most shared memory of a block */
void runtime_count(const char *kernel, const cuda_emulator_counters *counters);

/* ---- streams ---- */

typedef struct runtime_work runtime_work;
struct runtime_work {
    enum { WORK_LAUNCH, WORK_COPY, WORK_SET, WORK_RECORD, WORK_WAIT, WORK_HOST, WORK_FREE } kind;
    runtime_work *next;
    uint64_t order; /* of the call, over all streams */
    exec_launch launch;
    runtime_kernel *kernel;
    void *to;
    const void *from;
    void *staged; /* pageable memory's copy, freed after */
    size_t to_pitch, from_pitch, width, height;
    int value;
    struct CUevent_st *event;
    struct CUstream_st *awaited;
    uint64_t awaited_order;
    cudaHostFn_t function;
};

/* The stream's device and itself; NULL where the handle is none. */
struct CUstream_st *runtime_find_stream(cudaStream_t handle);
int runtime_stream_device(const struct CUstream_st *stream);

/* Add work (taken over); NULL from runtime_new_work where memory is out. */
runtime_work *runtime_new_work(int kind);
cudaError_t runtime_add_work(struct CUstream_st *stream, runtime_work *work);

/* Run what a stream, or a device, has to do. */
cudaError_t runtime_finish_stream(struct CUstream_st *stream);
cudaError_t runtime_finish_device(int device);
bool runtime_library_busy(const struct runtime_library *library);
void runtime_drop_streams(int device);

/* The bytes behind a device address, checked: NULL outside one allocation of any device. */
unsigned char *runtime_device_bytes(const void *address, size_t size);
bool runtime_is_pinned(const void *address, size_t size);

#endif
