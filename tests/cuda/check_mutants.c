/* check_mutants.c: each bug of kernels/mutants.cu is caught by the check named for it, at its line; its twin
 * passes. */
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 512, THREADS = 128 };

static const struct mutant {
    const char *name;
    enum cuda_emulator_check check;
    cudaError_t error;
} mutants[] = {{"missing_barrier", CUDA_EMULATOR_RACE, cudaErrorLaunchFailure},
               {"missing_warp_barrier", CUDA_EMULATOR_RACE, cudaErrorLaunchFailure},
               {"missing_loop_barrier", CUDA_EMULATOR_RACE, cudaErrorLaunchFailure},
               {"overlapping_shared", CUDA_EMULATOR_RACE, cudaErrorLaunchFailure},
               {"missing_wait", CUDA_EMULATOR_ASYNC_COPY, cudaErrorLaunchFailure},
               {"wrong_wait", CUDA_EMULATOR_ASYNC_COPY, cudaErrorLaunchFailure},
               {"missing_commit", CUDA_EMULATOR_ASYNC_COPY, cudaErrorLaunchFailure},
               {"wrong_stage", CUDA_EMULATOR_ASYNC_COPY, cudaErrorLaunchFailure},
               {"wait_without_barrier", CUDA_EMULATOR_RACE, cudaErrorLaunchFailure},
               {"shared_overrun", CUDA_EMULATOR_SHARED_BOUNDS, cudaErrorIllegalAddress},
               {"no_tail_mask", CUDA_EMULATOR_GLOBAL_BOUNDS, cudaErrorIllegalAddress},
               {"wrong_stride", CUDA_EMULATOR_GLOBAL_BOUNDS, cudaErrorIllegalAddress},
               {"uninitialised_shared", CUDA_EMULATOR_SHARED_UNINITIALISED, cudaErrorLaunchFailure},
               {"uninitialised_register", CUDA_EMULATOR_REGISTER_UNINITIALISED, cudaErrorLaunchFailure},
               {"misaligned", CUDA_EMULATOR_MISALIGNED, cudaErrorMisalignedAddress},
               {"divergent_barrier", CUDA_EMULATOR_BARRIER, cudaErrorLaunchFailure},
               {"warp_without_barrier", CUDA_EMULATOR_BARRIER, cudaErrorLaunchFailure},
               {"divergent_shuffle", CUDA_EMULATOR_CONVERGENCE, cudaErrorLaunchFailure},
               {"local_overrun", CUDA_EMULATOR_LOCAL_BOUNDS, cudaErrorIllegalAddress},
               {"trapped", CUDA_EMULATOR_TRAP, cudaErrorLaunchFailure},
               {"endless", CUDA_EMULATOR_RUNAWAY, cudaErrorLaunchTimeout}};

static cudaError_t run_twin(const char *name, const char *twin, const float *in, float *out) {
    char whole[96];
    snprintf(whole, sizeof whole, "%s_%s", name, twin);
    const cudaLibrary_t library = suite_library("mutants");
    void *device_in = suite_device(in, N * sizeof *in), *device_out = suite_device(NULL, N * sizeof *out);
    int n = N;
    void *arguments[] = {&device_in, &device_out, &n};
    const cudaError_t error = suite_run(suite_kernel(library, whole), THREADS, arguments);
    if (error == cudaSuccess)
        OK(cudaMemcpy(out, device_out, N * sizeof *out, cudaMemcpyDeviceToHost));
    return error;
}

/* The line of the source that says "caught: NAME"; 0 where it says so nowhere. */
static int line_of(const char *name) {
    size_t size;
    char *text = suite_read("tests/cuda/kernels/mutants.cu", &size);
    char wanted[96];
    snprintf(wanted, sizeof wanted, "// caught: %s", name);
    const size_t length = strlen(wanted);
    int line = 1, found = 0;
    for (const char *c = text; *c; ++c) {
        line += *c == '\n';
        if (strncmp(c, wanted, length) == 0 && c[length] <= ' ')
            found = line;
    }
    free(text);
    return found;
}

static void make_input(float *in) {
    for (int i = 0; i < N; ++i)
        in[i] = i ? (float)(i % 17) - 3.0f : 0.0f; /* in[0] = 0: local_overrun's index */
}

START_TEST(a_bug_is_caught_by_its_check) {
    const struct mutant *m = &mutants[_i];
    setenv("ATTUNE_EMULATOR_LIMIT", "100000", 1);
    float in[N], out[N];
    make_input(in);
    FAILS(run_twin(m->name, "bad", in, out), m->error);
    cuda_emulator_report r;
    ck_assert_msg(cuda_emulator_reports(&r, 1) == 1, "%s: not one report", m->name);
    ck_assert_msg(r.check == (int)m->check, "%s: caught by %s (%s), not %s", m->name,
                  cuda_emulator_check_name(r.check), r.message, cuda_emulator_check_name((int)m->check));
    ck_assert_str_eq(r.file, "mutants.cu");
    char kernel[96];
    snprintf(kernel, sizeof kernel, "%s_bad", m->name);
    ck_assert_str_eq(r.kernel, kernel);
    const int line = line_of(m->name);
    ck_assert_msg(!line || r.line == line, "%s: line %d, not %d (%s)", m->name, r.line, line, r.message);
    FAILS(cudaDeviceSynchronize(), m->error); /* lasting, until the device is reset */
    OK(cudaDeviceReset());
    OK(cudaDeviceSynchronize());
}
END_TEST

START_TEST(its_twin_passes) {
    float in[N], out[N];
    make_input(in);
    OK(run_twin(mutants[_i].name, "good", in, out));
    cuda_emulator_report r = {0};
    ck_assert_msg(cuda_emulator_reports(&r, 1) == 0, "%s: %s", mutants[_i].name, r.message);
}
END_TEST

START_TEST(values_show_a_lost_nan) {
    float in[N], out[N];
    make_input(in);
    in[4 * 9 + 3] = NAN;
    OK(run_twin("lost_nan", "good", in, out));
    ck_assert(isnan(out[9]));
    OK(run_twin("lost_nan", "bad", in, out));
    ck_assert(!isnan(out[9]));
}
END_TEST

START_TEST(values_show_a_swapped_fragment) {
    uint16_t halves[2 * N] = {0};
    double sums[16] = {0};
    static const uint16_t small[] = {0x0000, 0x3c00, 0x4000, 0x4200,
                                     0x4400, 0x4500, 0x4600, 0x4700}; /* 0 to 7 */
    for (int row = 0; row < 16; ++row)
        for (int column = 0; column < 16; ++column) {
            const int value = (row * 5 + column * column) % 7;
            halves[row * 16 + column] = small[value];
            sums[row] += value;
        }
    float in[N], out[N];
    memcpy(in, halves, sizeof in);
    OK(run_twin("swapped_fragment", "good", in, out));
    for (int row = 0; row < 16; ++row)
        ck_assert_double_eq(out[row], sums[row]); /* small integers: exact */
    OK(run_twin("swapped_fragment", "bad", in, out));
    int wrong = 0;
    for (int row = 0; row < 16; ++row)
        wrong += !(out[row] == sums[row]);
    ck_assert_int_gt(wrong, 0);
}
END_TEST

TCase *mutant_cases(void) {
    TCase *c = tcase_create("mutants");
    tcase_add_loop_test(c, a_bug_is_caught_by_its_check, 0, (int)(sizeof mutants / sizeof *mutants));
    tcase_add_loop_test(c, its_twin_passes, 0, (int)(sizeof mutants / sizeof *mutants));
    tcase_add_test(c, values_show_a_lost_nan);
    tcase_add_test(c, values_show_a_swapped_fragment);
    return c;
}
