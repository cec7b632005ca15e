/* check_runtime.c: the stand-in runtime refuses what the manual says, and work on streams waits until
 * somebody waits for it. */
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const one = "st.global.u32 [%out], 7;";

START_TEST(no_driver_and_no_device_say_so) {
    int count = 77;
    setenv(_i ? "ATTUNE_EMULATOR_DEVICES" : "ATTUNE_EMULATOR_NO_DRIVER", _i ? "0" : "1", 1);
    FAILS(cudaGetDeviceCount(&count), _i ? cudaErrorNoDevice : cudaErrorInsufficientDriver);
    ck_assert_int_eq(count, 77);
    void *p = NULL;
    FAILS(cudaMalloc(&p, 16), _i ? cudaErrorNoDevice : cudaErrorInsufficientDriver);
    ck_assert_ptr_null(p);
    FAILS(cudaGetLastError(), _i ? cudaErrorNoDevice : cudaErrorInsufficientDriver);
    OK(cudaGetLastError());
    ck_assert_str_eq(cudaGetErrorName((cudaError_t)35), "cudaErrorInsufficientDriver");
    ck_assert_str_eq(cudaGetErrorString((cudaError_t)35), "insufficient driver");
}
END_TEST

START_TEST(devices_are_what_the_environment_says) {
    setenv("ATTUNE_EMULATOR_DEVICES", "2", 1);
    setenv("ATTUNE_EMULATOR_MEMORY", "2G", 1);
    setenv("ATTUNE_EMULATOR_CC", "12.0", 1);
    int count, value;
    OK(cudaGetDeviceCount(&count));
    ck_assert_int_eq(count, 2);
    struct cudaDeviceProp p[2];
    for (int d = 0; d < 2; ++d)
        OK(cudaGetDeviceProperties(&p[d], d));
    ck_assert_int_ne(memcmp(&p[0].uuid, &p[1].uuid, sizeof p[0].uuid), 0);
    ck_assert_int_eq(p[0].major * 10 + p[0].minor, 120);
    ck_assert_uint_eq(p[1].totalGlobalMem, 2ull << 30);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    ck_assert_int_eq(value, 99 << 10);
    FAILS(cudaSetDevice(2), cudaErrorInvalidDevice);
    FAILS(cudaGetDeviceProperties(&p[0], -1), cudaErrorInvalidDevice);
    FAILS(cudaGetDeviceCount(NULL), cudaErrorInvalidValue);
}
END_TEST

START_TEST(memory_is_counted_and_checked) {
    setenv("ATTUNE_EMULATOR_MEMORY", "1M", 1);
    size_t before, after, total;
    void *a, *b = NULL;
    OK(cudaMemGetInfo(&before, &total));
    ck_assert_uint_eq(total, 1 << 20);
    OK(cudaMalloc(&a, 700 << 10));
    OK(cudaMemGetInfo(&after, &total));
    ck_assert_uint_eq(before - after, 700 << 10);
    FAILS(cudaMalloc(&b, 400 << 10), cudaErrorMemoryAllocation);
    char host[64] = {0};
    FAILS(cudaMemcpy((char *)a + (700 << 10) - 32, host, 64, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(host, host, 64, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(host, a, 64, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    FAILS(cudaMemset(host, 0, 64), cudaErrorInvalidValue);
    FAILS(cudaFree((char *)a + 256), cudaErrorInvalidValue);
    OK(cudaFree(a));
    FAILS(cudaFree(a), cudaErrorInvalidValue);
    OK(cudaFree(NULL));
    OK(cudaMemGetInfo(&after, &total));
    ck_assert_uint_eq(after, before);
}
END_TEST

START_TEST(the_host_cannot_touch_device_memory) {
    char *p = suite_device(NULL, 64);
    *(volatile char *)p = 1; /* SIGSEGV: the test expects the signal */
}
END_TEST

START_TEST(launches_are_refused_as_the_manual_says) {
    const cudaLibrary_t library = suite_ptx(one);
    const void *k = (const void *)suite_kernel(library, "test");
    void *out = suite_device(NULL, 4), *arguments[] = {&out, &out, &out, &out};
    const dim3 unit = {1, 1, 1};
    FAILS(cudaLaunchKernel(k, (dim3){0, 1, 1}, unit, arguments, 0, NULL), cudaErrorInvalidConfiguration);
    FAILS(cudaLaunchKernel(k, (dim3){1, 65536, 1}, unit, arguments, 0, NULL), cudaErrorInvalidConfiguration);
    FAILS(cudaLaunchKernel(k, unit, (dim3){1025, 1, 1}, arguments, 0, NULL), cudaErrorInvalidConfiguration);
    FAILS(cudaLaunchKernel(k, unit, (dim3){32, 33, 1}, arguments, 0, NULL), cudaErrorInvalidConfiguration);
    FAILS(cudaLaunchKernel(k, unit, (dim3){1, 1, 65}, arguments, 0, NULL), cudaErrorInvalidConfiguration);
    FAILS(cudaLaunchKernel(k, unit, unit, arguments, 60 << 10, NULL), cudaErrorInvalidValue);
    FAILS(cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 << 10),
          cudaErrorInvalidValue);
    OK(cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, 60 << 10));
    OK(cudaLaunchKernel(k, unit, unit, arguments, 60 << 10, NULL));
    FAILS(cudaLaunchKernel(&library, unit, unit, arguments, 0, NULL), cudaErrorInvalidDeviceFunction);
    FAILS(cudaLaunchKernel(k, unit, unit, arguments, 0, (cudaStream_t)(void *)&out),
          cudaErrorInvalidResourceHandle);
    cudaKernel_t none;
    FAILS(cudaLibraryGetKernel(&none, library, "absent"), cudaErrorSymbolNotFound);
    OK(cudaDeviceSynchronize());
    OK(cudaLibraryUnload(library));
    FAILS(cudaLibraryUnload(library), cudaErrorInvalidResourceHandle);
    FAILS(cudaLaunchKernel(k, unit, unit, arguments, 0, NULL), cudaErrorInvalidDeviceFunction);
}
END_TEST

START_TEST(bad_libraries_are_refused) {
    cudaLibrary_t library;
    size_t size;
    char path[256], *bytes;
    snprintf(path, sizeof path, "%s/tests/cuda/kernels/mutants.fatbin", getenv("ATTUNE_BUILD"));
    setenv("ATTUNE_EMULATOR_CC", "7.0", 1);
    bytes = suite_read(path, &size);
    FAILS(cudaLibraryLoadData(&library, bytes, NULL, NULL, 0, NULL, NULL, 0),
          cudaErrorNoKernelImageForDevice);
    bytes[0] ^= 1;
    FAILS(cudaLibraryLoadData(&library, bytes, NULL, NULL, 0, NULL, NULL, 0), cudaErrorInvalidKernelImage);
    FAILS(cudaLibraryLoadData(
              &library,
              ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\nfly.b32 %r1;\n}", NULL,
              NULL, 0, NULL, NULL, 0),
          cudaErrorInvalidPtx);
    FAILS(cudaLibraryLoadData(NULL, bytes, NULL, NULL, 0, NULL, NULL, 0), cudaErrorInvalidValue);
    free(bytes);
}
END_TEST

START_TEST(work_waits_until_it_is_waited_for) {
    const cudaKernel_t k = suite_kernel(suite_ptx(one), "test");
    uint32_t *host;
    void *out = suite_device(NULL, 4), *arguments[] = {&out, &out, &out, &out};
    const dim3 unit = {1, 1, 1};
    cudaStream_t a, b;
    cudaEvent_t event, timed;
    float milliseconds;
    OK(cudaMallocHost((void **)&host, 4));
    OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    OK(cudaEventCreate(&timed));
    *host = 1;
    OK(cudaMemsetAsync(out, 0, 4, a));
    OK(cudaLaunchKernel((const void *)k, unit, unit, arguments, 0, a));
    OK(cudaEventRecord(event, a));
    OK(cudaMemcpyAsync(host, out, 4, cudaMemcpyDeviceToHost, a));
    ck_assert_uint_eq(*host, 1); /* nobody waited */
    FAILS(cudaEventQuery(event), cudaErrorNotReady);
    OK(cudaEventSynchronize(event));
    OK(cudaEventQuery(event));
    ck_assert_uint_eq(*host, 1); /* the copy comes after the event */
    OK(cudaStreamSynchronize(a));
    ck_assert_uint_eq(*host, 7);
    FAILS(cudaEventElapsedTime(&milliseconds, event, timed), cudaErrorInvalidResourceHandle);

    OK(cudaMemsetAsync(out, 9, 4, a)); /* b waits for a's event, and only that far */
    OK(cudaEventRecord(event, a));
    OK(cudaMemsetAsync(out, 5, 4, a));
    OK(cudaStreamWaitEvent(b, event, 0));
    OK(cudaMemcpyAsync(host, out, 4, cudaMemcpyDeviceToHost, b));
    OK(cudaStreamSynchronize(b));
    ck_assert_uint_eq(*host, 0x09090909);
    int tries = 0;
    while (cudaStreamQuery(a) == cudaErrorNotReady)
        ck_assert_int_lt(++tries, 100); /* polling ends */
    OK(cudaStreamDestroy(a));
    FAILS(cudaStreamSynchronize(a), cudaErrorInvalidResourceHandle);
    OK(cudaEventDestroy(event));
    FAILS(cudaEventDestroy(event), cudaErrorInvalidResourceHandle);
    OK(cudaStreamDestroy(b));
    OK(cudaEventDestroy(timed));
    OK(cudaFreeHost(host));
}
END_TEST

START_TEST(pinned_memory_is_read_late_and_pageable_at_once) {
    uint32_t pageable = 1, *pinned, got;
    void *a = suite_device(NULL, 4), *b = suite_device(NULL, 4);
    cudaStream_t s;
    OK(cudaStreamCreate(&s));
    OK(cudaMallocHost((void **)&pinned, 4));
    *pinned = 1;
    OK(cudaMemcpyAsync(a, &pageable, 4, cudaMemcpyHostToDevice, s));
    OK(cudaMemcpyAsync(b, pinned, 4, cudaMemcpyHostToDevice, s));
    pageable = *pinned = 2;
    OK(cudaMemcpy(&got, a, 4, cudaMemcpyDeviceToHost)); /* the default stream waits for s */
    ck_assert_uint_eq(got, 1);
    OK(cudaMemcpy(&got, b, 4, cudaMemcpyDeviceToHost));
    ck_assert_uint_eq(got, 2);
    OK(cudaStreamDestroy(s));
    OK(cudaFreeHost(pinned));
}
END_TEST

/* A small program in which every call's failure is seen, and after which the device still works. */
static cudaError_t program(void) {
    void *a = NULL;
    uint32_t value = 3;
    cudaStream_t s = NULL;
    cudaError_t error = cudaMalloc(&a, 64), also;
    if (error == cudaSuccess)
        error = cudaStreamCreate(&s);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(a, &value, 4, cudaMemcpyHostToDevice, s);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(s);
    if (s && (also = cudaStreamDestroy(s)) != cudaSuccess && error == cudaSuccess)
        error = also;
    if (a && (also = cudaFree(a)) != cudaSuccess && error == cudaSuccess)
        error = also;
    return error;
}

START_TEST(the_nth_call_fails) {
    char at[32];
    snprintf(at, sizeof at, "%d:%d", _i, (int)cudaErrorUnknown);
    setenv("ATTUNE_EMULATOR_FAIL", at, 1);
    if (_i <= 6)
        FAILS(program(), cudaErrorUnknown);
    else
        OK(program());
    if (_i <= 6)
        OK(program()); /* once only */
    else
        FAILS(program(), cudaErrorUnknown);
}
END_TEST

START_TEST(the_nth_call_of_a_name_fails) {
    setenv("ATTUNE_EMULATOR_FAIL", "cudaMalloc:2", 1);
    OK(program());
    FAILS(program(), cudaErrorMemoryAllocation);
    OK(program());
}
END_TEST

START_TEST(counters_see_bank_conflicts) {
    setenv("ATTUNE_EMULATOR_COUNTERS", "1", 1);
    /* lane l stores at 4 * l * (1 << i): one, then two and four words of a bank */
    char body[512];
    snprintf(body, sizeof body,
             ".reg .b32 %%s, %%t;\nmov.u32 %%s, tile;\nshl.b32 %%t, %%lane, %d;\nadd.u32 %%s, %%s, "
             "%%t;\nst.shared.u32 [%%s], %%lane;\n"
             "mul.wide.u32 %%a, %%lane, %d;\nadd.s64 %%out, %%out, %%a;\nst.global.u32 [%%out], %%lane;",
             2 + _i, 4 << _i);
    void *out = suite_device(NULL, 1 << 12), *arguments[] = {&out, &out, &out, &out};
    OK(suite_run(suite_kernel(suite_ptx(body), "test"), 32, arguments));
    cuda_emulator_counters c;
    ck_assert_int_eq(cuda_emulator_counters_of("test", &c), 1);
    ck_assert_uint_eq(c.launches, 1);
    ck_assert_uint_eq(c.shared_requests, 1);
    ck_assert_uint_eq(c.shared_ideal_waves, 1);
    ck_assert_uint_eq(c.shared_waves, 1u << _i);
    ck_assert_uint_eq(c.global_ideal_sectors, 4);
    ck_assert_uint_eq(c.global_sectors, 4u << _i);
}
END_TEST

START_TEST(blocks_cover_the_grid) {
    /* out[block] = x + 10 y + 100 z of a 5 x 3 x 2 grid */
    const cudaKernel_t k =
        suite_kernel(suite_ptx(".reg .b32 %x, %y, %z, %nx, %ny, %i, %v;\nmov.u32 %x, %ctaid.x;\nmov.u32 %y, "
                               "%ctaid.y;\nmov.u32 %z, %ctaid.z;\n"
                               "mov.u32 %nx, %nctaid.x;\nmov.u32 %ny, %nctaid.y;\nmad.lo.s32 %i, %z, %ny, "
                               "%y;\nmad.lo.s32 %i, %i, %nx, %x;\n"
                               "mad.lo.s32 %v, %y, 10, %x;\nmad.lo.s32 %v, %z, 100, %v;\nmul.wide.u32 %a, "
                               "%i, 4;\nadd.s64 %out, %out, %a;\n"
                               "st.global.u32 [%out], %v;"),
                     "test");
    uint32_t got[30];
    void *out = suite_device(NULL, sizeof got), *arguments[] = {&out, &out, &out, &out};
    OK(cudaLaunchKernel((const void *)k, (dim3){5, 3, 2}, (dim3){1, 1, 1}, arguments, 0, NULL));
    OK(cudaMemcpy(got, out, sizeof got, cudaMemcpyDeviceToHost));
    for (unsigned i = 0; i < 30; ++i)
        ck_assert_uint_eq(got[i], i % 5 + i / 5 % 3 * 10 + i / 15 * 100);
}
END_TEST

START_TEST(what_nvcc_builds_runs_and_leaves_nothing) {
    char path[256];
    snprintf(path, sizeof path, "%s/tests/cuda/program.so", getenv("ATTUNE_BUILD"));
    ck_assert_uint_eq(cuda_emulator_registered(), 0);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    int (*program_sum)(int) = (int (*)(int))(intptr_t)dlsym(library, "program_sum");
    ck_assert_ptr_nonnull(program_sum);
    ck_assert_int_eq(program_sum(1000), 1000 * 1001 / 2);
    ck_assert_uint_eq(cuda_emulator_registered(), 1);
    ck_assert_int_eq(dlclose(library), 0);
    ck_assert_uint_eq(cuda_emulator_registered(),
                      0); /* a fat binary still registered after its code is gone is a bug */
}
END_TEST

TCase *runtime_cases(void) {
    TCase *c = tcase_create("runtime");
    tcase_add_loop_test(c, no_driver_and_no_device_say_so, 0, 2);
    tcase_add_test(c, devices_are_what_the_environment_says);
    tcase_add_test(c, memory_is_counted_and_checked);
    tcase_add_test_raise_signal(c, the_host_cannot_touch_device_memory, SIGSEGV);
    tcase_add_test(c, launches_are_refused_as_the_manual_says);
    tcase_add_test(c, bad_libraries_are_refused);
    tcase_add_test(c, work_waits_until_it_is_waited_for);
    tcase_add_test(c, pinned_memory_is_read_late_and_pageable_at_once);
    tcase_add_loop_test(c, the_nth_call_fails, 1, 8);
    tcase_add_test(c, the_nth_call_of_a_name_fails);
    tcase_add_loop_test(c, counters_see_bank_conflicts, 0, 3);
    tcase_add_test(c, blocks_cover_the_grid);
    tcase_add_test(c, what_nvcc_builds_runs_and_leaves_nothing);
    return c;
}
