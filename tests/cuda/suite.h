/* suite.h: what the tests of the CUDA emulator share. Each test runs in a process of its own, so that it may
 * set the emulator's environment before its first call. */
#ifndef TESTS_CUDA_SUITE_H
#define TESTS_CUDA_SUITE_H

#include <check.h>
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OK(call)                                                                                             \
    do {                                                                                                     \
        const cudaError_t ok_error = (call);                                                                 \
        ck_assert_msg(ok_error == cudaSuccess, "%s: %s", #call, cudaGetErrorName(ok_error));                 \
    } while (0)
#define FAILS(call, code)                                                                                    \
    do {                                                                                                     \
        const cudaError_t fails_error = (call);                                                              \
        ck_assert_msg(fails_error == (code), "%s: %s, not %s", #call, cudaGetErrorName(fails_error), #code); \
    } while (0)

/* A whole file as bytes with a zero after it; the caller frees. */
char *suite_read(const char *path, size_t *size);

/* The library tests/cuda/kernels/NAME.cu as nvcc made it. */
cudaLibrary_t suite_library(const char *name);
cudaKernel_t suite_kernel(cudaLibrary_t library, const char *name);

/* A library of hand-written PTX: a kernel "test" with parameters (a, b, c, out), each a 64-bit address, whose
 * body is given. */
cudaLibrary_t suite_ptx(const char *body);
/* The same for a target of its own; suite_ptx's is sm_80. */
cudaLibrary_t suite_ptx_for(const char *target, const char *body);

/* Device memory with a copy of `bytes` (NULL: as it comes). */
void *suite_device(const void *bytes, size_t size);

/* Launch with arguments of one block and wait. */
cudaError_t suite_run(cudaKernel_t kernel, unsigned threads, void **arguments);

/* FOLDER/NAME.npy, for a command line: random values of shape (1, 2, tokens, 40). */
void suite_put_array(const char *name, int64_t tokens, uint64_t seed);

TCase *attention_cases(void);
TCase *command_cases(void);
TCase *cublas_cases(void);
TCase *fragment_cases(void);
TCase *kernel_mutant_cases(void);
TCase *mutant_cases(void);
TCase *opcode_cases(void);
TCase *shipped_opcode_cases(void);
TCase *backend_cases(void);
TCase *device_cases(void);
TCase *negotiation_cases(void);
TCase *portable_cases(void);
TCase *runtime_cases(void);
TCase *swap_cases(void);
TCase *tensor_core_cases(void);

#endif
