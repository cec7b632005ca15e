/*
 * emulator.h: what the stand-in libcudart.so.13 offers beside CUDA's own functions: the errors that its
 * checks found and the counters. A test finds them by dlsym or links the stand-in. Thread rule: any thread,
 * between launches.
 */
#ifndef CUDA_EMULATOR_H
#define CUDA_EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#define CUDA_EMULATOR_API __attribute__((visibility("default")))

/* Every check; its name is what a test asks for. */
#define CUDA_EMULATOR_CHECKS(X)                                                                              \
    X(RACE, "race", "two threads touch the same shared bytes with no barrier between, and one writes")       \
    X(SHARED_BOUNDS, "shared bounds", "an address outside the block's shared memory")                        \
    X(GLOBAL_BOUNDS, "global bounds", "an address outside every allocation of the device")                   \
    X(LOCAL_BOUNDS, "local bounds", "an address outside the thread's local memory or the parameters")        \
    X(MISALIGNED, "misaligned", "an address that is no multiple of the access's size")                       \
    X(SHARED_UNINITIALISED, "uninitialised shared", "a read of shared memory that nothing wrote")            \
    X(LOCAL_UNINITIALISED, "uninitialised local", "a read of local memory that the thread did not write")    \
    X(REGISTER_UNINITIALISED, "uninitialised register", "a read of a register that no path wrote")           \
    X(ASYNC_COPY, "async copy", "shared memory is used between a cp.async and its wait")                     \
    X(BARRIER, "barrier", "a barrier that not all threads of the block reach together")                      \
    X(CONVERGENCE, "convergence", "a warp-wide instruction without the lanes it names")                      \
    X(TRAP, "trap", "the kernel trapped, or an assertion failed")                                            \
    X(RUNAWAY, "runaway", "a warp ran more instructions than the limit")

enum cuda_emulator_check {
#define X(name, text, meaning) CUDA_EMULATOR_##name,
    CUDA_EMULATOR_CHECKS(X)
#undef X
        CUDA_EMULATOR_CHECK_COUNT
};

typedef struct cuda_emulator_report {
    int32_t check; /* enum cuda_emulator_check */
    int32_t line;  /* of the .cu file; 0: unknown */
    uint32_t block[3], thread[3];
    char file[64];
    char kernel[128];
    char message[256];
} cuda_emulator_report;

/* Totals of one kernel's launches. "Requests" are warp instructions; an ideal shared request takes as few
 * waves as its bytes need (128 a wave); a sector is 32 bytes of device memory. */
typedef struct cuda_emulator_counters {
    uint64_t launches, instructions, mma;
    uint64_t shared_requests, shared_waves, shared_ideal_waves;
    uint64_t global_requests, global_sectors, global_ideal_sectors;
} cuda_emulator_counters;

/* The reports since the last clear, the oldest first: how many there are; up to `capacity` are copied. */
CUDA_EMULATOR_API size_t cuda_emulator_reports(cuda_emulator_report *reports, size_t capacity);
CUDA_EMULATOR_API void cuda_emulator_clear_reports(void);

/* "race" for CUDA_EMULATOR_RACE; NULL outside the enumeration. */
CUDA_EMULATOR_API const char *cuda_emulator_check_name(int check);

/* The counters of the kernel of this name, all libraries together; 0 where it never ran.
 * ATTUNE_EMULATOR_COUNTERS=1 makes the stand-in count waves and sectors. */
CUDA_EMULATOR_API int cuda_emulator_counters_of(const char *kernel, cuda_emulator_counters *counters);

/* Fat binaries that host code has registered and not unregistered. */
CUDA_EMULATOR_API size_t cuda_emulator_registered(void);

/* What is there: libraries loaded, streams and events made and not destroyed. */
CUDA_EMULATOR_API size_t cuda_emulator_libraries(void);
CUDA_EMULATOR_API size_t cuda_emulator_streams(void);
CUDA_EMULATOR_API size_t cuda_emulator_events(void);

/* Libraries that were unloaded while a kernel of theirs was on a stream. */
CUDA_EMULATOR_API size_t cuda_emulator_busy_unloads(void);

/* The call that ATTUNE_EMULATOR_FAIL has made fail; NULL: none yet. */
CUDA_EMULATOR_API const char *cuda_emulator_failed_call(void);

/* For the stand-in cuBLAS, inside a cudaLaunchHostFunc function only (the runtime's lock is held): the bytes
 * behind device memory, NULL where [address, address + size) is not within one allocation; and a failure as a
 * kernel's would be. */
CUDA_EMULATOR_API void *cuda_emulator_bytes(const void *address, size_t size);
CUDA_EMULATOR_API void cuda_emulator_fail_device(int error);

#endif
