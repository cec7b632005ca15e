/* tests/cuda/main.c: runs the tests of the CUDA emulator, and their helpers. */
#include "tests/cuda/suite.h"
#include "tests/support/suite.h"

#include <stdio.h>
#include <stdlib.h>

char *suite_read(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "cannot open %s", path);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = calloc(1, *size + 1);
    ck_assert(bytes && fread(bytes, 1, *size, file) == *size);
    fclose(file);
    return bytes;
}

cudaLibrary_t suite_library(const char *name) {
    char path[256];
    size_t size;
    snprintf(path, sizeof path, "%s/tests/cuda/kernels/%s.fatbin", getenv("ATTUNE_BUILD"), name);
    char *bytes = suite_read(path, &size);
    cudaLibrary_t library;
    OK(cudaLibraryLoadData(&library, bytes, NULL, NULL, 0, NULL, NULL, 0));
    free(bytes);
    return library;
}

cudaKernel_t suite_kernel(cudaLibrary_t library, const char *name) {
    cudaKernel_t kernel;
    const cudaError_t error = cudaLibraryGetKernel(&kernel, library, name);
    ck_assert_msg(error == cudaSuccess, "%s: %s", name, cudaGetErrorName(error));
    return kernel;
}

cudaLibrary_t suite_ptx_for(const char *target, const char *body) {
    char text[8192];
    const int n = snprintf(text, sizeof text,
                           ".version 9.0\n.target %s\n.address_size 64\n.visible .entry test(.param .u64 "
                           "pa, .param .u64 pb, .param .u64 pc, "
                           ".param .u64 pout)\n{\n.reg .b64 %%a, %%b, %%c, %%out;\n.reg .b32 "
                           "%%lane;\n.shared .align 16 .b8 tile[4096];\n"
                           "ld.param.u64 %%a, [pa];\nld.param.u64 %%b, [pb];\nld.param.u64 %%c, "
                           "[pc];\nld.param.u64 %%out, [pout];\n"
                           "mov.u32 %%lane, %%tid.x;\n%s\nret;\n}\n",
                           target, body);
    ck_assert(n > 0 && (size_t)n < sizeof text);
    cudaLibrary_t library;
    const cudaError_t error = cudaLibraryLoadData(&library, text, NULL, NULL, 0, NULL, NULL, 0);
    ck_assert_msg(error == cudaSuccess, "%s for:\n%s", cudaGetErrorName(error), text);
    return library;
}

cudaLibrary_t suite_ptx(const char *body) {
    return suite_ptx_for("sm_80", body);
}

void *suite_device(const void *bytes, size_t size) {
    void *made = NULL;
    OK(cudaMalloc(&made, size));
    if (bytes)
        OK(cudaMemcpy(made, bytes, size, cudaMemcpyHostToDevice));
    return made;
}

cudaError_t suite_run(cudaKernel_t kernel, unsigned threads, void **arguments) {
    const cudaError_t error =
        cudaLaunchKernel((const void *)kernel, (dim3){1, 1, 1}, (dim3){threads, 1, 1}, arguments, 0, NULL);
    return error != cudaSuccess ? error : cudaDeviceSynchronize();
}

int main(void) {
    TCase *(*const cases[])(void) = {
        runtime_cases,       opcode_cases,      shipped_opcode_cases, fragment_cases, mutant_cases,
        kernel_mutant_cases, tensor_core_cases, attention_cases,      cublas_cases,   portable_cases,
        backend_cases,       device_cases,      negotiation_cases,    swap_cases,     command_cases};
    Suite *suite = suite_create("cuda");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        TCase *made = cases[i]();
        tcase_set_timeout(made, 0); /* a slow machine is not a failure */
        suite_add_tcase(suite, made);
    }
    return run_suite(suite);
}
