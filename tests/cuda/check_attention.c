/* check_attention.c: a FlashAttention-2 kernel with all that the plugin's kernels use, against attention in
 * double. */
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double half_value(uint16_t h) {
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double value = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h >> 15 ? -value : value;
}

static double bf16_value(uint16_t b) {
    const uint32_t bits = (uint32_t)b << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Values in (-2, 2): a random sign and fraction, exponents of 2^-4 to 2^0. */
static uint16_t random_value(uint64_t *state, bool bf16) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    const unsigned bits = (unsigned)(*state >> 33), exponent = bits >> 11 & 3;
    return (uint16_t)((bits & 1) << 15 | (bf16 ? (124 + exponent) << 7 | (bits >> 1 & 127)
                                               : (12 + exponent) << 10 | (bits >> 1 & 1023)));
}

static const struct problem {
    const char *kernel, *capability;
    int heads, rows, keys, size;
    bool bf16;
} problems[] = {
    {"attention_f16_40", "8.6", 2, 100, 77, 40, false}, {"attention_f16_64", "8.0", 1, 64, 64, 64, false},
    {"attention_f16_80", "9.0", 1, 65, 130, 80, false}, {"attention_f16_128", "8.6", 1, 33, 200, 128, false},
    {"attention_bf16_64", "8.6", 2, 70, 129, 64, true}, {"attention_f16_40", "7.5", 1, 100, 77, 40, false},
    {"attention_f16_80", "7.5", 1, 64, 65, 80, false},  {"attention_f16_64", "12.0", 3, 1, 1, 64, false}};

/* One row in double. */
static void attend(const struct problem *p, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                   double *out) {
    double (*const value)(uint16_t) = p->bf16 ? bf16_value : half_value;
    double sum = 0;
    memset(out, 0, (size_t)p->size * sizeof *out);
    for (int j = 0; j < p->keys; ++j) {
        double dot = 0;
        for (int d = 0; d < p->size; ++d)
            dot += value(q[d]) * value(k[j * p->size + d]);
        const double weight = exp(dot / sqrt(p->size));
        sum += weight;
        for (int d = 0; d < p->size; ++d)
            out[d] += weight * value(v[j * p->size + d]);
    }
    for (int d = 0; d < p->size; ++d)
        out[d] /= sum;
}

static uint16_t *random_tensor(size_t n, uint64_t seed, bool bf16) {
    uint16_t *made = malloc(n * sizeof *made);
    ck_assert(made != NULL);
    for (size_t i = 0; i < n; ++i)
        made[i] = random_value(&seed, bf16);
    return made;
}

START_TEST(flash_attention_is_near_double) {
    const struct problem *p = &problems[_i];
    setenv("ATTUNE_EMULATOR_CC", p->capability, 1);
    const size_t nq = (size_t)p->heads * (size_t)p->rows * (size_t)p->size,
                 nk = (size_t)p->heads * (size_t)p->keys * (size_t)p->size;
    uint16_t *q = random_tensor(nq, 1, p->bf16), *k = random_tensor(nk, 2, p->bf16),
             *v = random_tensor(nk, 3, p->bf16);
    uint16_t *out = malloc(nq * sizeof *out);
    void *dq = suite_device(q, nq * 2), *dk = suite_device(k, nk * 2), *dv = suite_device(v, nk * 2),
         *dout = suite_device(NULL, nq * 2);
    float scale = (float)(1.4426950408889634 / sqrt(p->size));
    int rows = p->rows, keys = p->keys;
    void *arguments[] = {&dq, &dk, &dv, &dout, &rows, &keys, &scale};
    const int shared = 5 * 64 * ((p->size + 15) / 16 * 16 + 8) * 2;
    const cudaKernel_t kernel = suite_kernel(suite_library("attention"), p->kernel);
    OK(cudaKernelSetAttributeForDevice(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared, 0));
    const dim3 grid = {(unsigned)(p->rows + 63) / 64, (unsigned)p->heads, 1}, block = {128, 1, 1};
    OK(cudaLaunchKernel((const void *)kernel, grid, block, arguments, (size_t)shared, NULL));
    OK(cudaMemcpy(out, dout, nq * 2, cudaMemcpyDeviceToHost));
    /* the output is rounded once and the weights are, each by 2^-11 (bf16: 2^-8) of values below 2 */
    const double tolerance = p->bf16 ? 2 * 2 * ldexp(1, -8) : 2 * 2 * ldexp(1, -11);
    double worst = 0, row[128];
    for (int h = 0; h < p->heads; ++h)
        for (int r = 0; r < p->rows; ++r) {
            const size_t at = ((size_t)h * (size_t)p->rows + (size_t)r) * (size_t)p->size;
            const size_t head = (size_t)h * (size_t)p->keys * (size_t)p->size;
            attend(p, q + at, k + head, v + head, row);
            for (int d = 0; d < p->size; ++d) {
                const double error = fabs(
                    row[d] - (p->bf16 ? bf16_value(out[at + (size_t)d]) : half_value(out[at + (size_t)d])));
                if (!(error <= worst))
                    worst = error;
            }
        }
    ck_assert_msg(worst <= tolerance, "%s: error %g above %g", p->kernel, worst, tolerance);
    ck_assert_uint_eq(cuda_emulator_reports(NULL, 0), 0);
    free(q);
    free(k);
    free(v);
    free(out);
}
END_TEST

TCase *attention_cases(void) {
    TCase *c = tcase_create("attention");
    tcase_add_loop_test(c, flash_attention_is_near_double, 0, (int)(sizeof problems / sizeof *problems));
    return c;
}
