/* check_cublas.c: the stand-in cuBLAS multiplies as the manual says and refuses what it must. */
#include "tests/cuda/suite.h"

#include <cublas_v2.h>
#include <stdlib.h>

enum { M = 5, N = 4, K = 3, BATCHES = 2 };

START_TEST(a_strided_product_is_the_sum) {
    const bool ta = _i & 1, tb = _i & 2;
    float a[BATCHES][M * K], b[BATCHES][K * N], c[BATCHES][6 * N], got[BATCHES][6 * N];
    for (int batch = 0; batch < BATCHES; ++batch) {
        for (int i = 0; i < M * K; ++i)
            a[batch][i] = (float)(i % 7 - 3 + batch);
        for (int i = 0; i < K * N; ++i)
            b[batch][i] = (float)(i % 5 - 2);
        for (int i = 0; i < 6 * N; ++i)
            c[batch][i] = (float)i;
    }
    void *da = suite_device(a, sizeof a), *db = suite_device(b, sizeof b), *dc = suite_device(c, sizeof c);
    const float alpha = 2, beta = 0.5f;
    cublasHandle_t h;
    ck_assert_int_eq(cublasCreate(&h), CUBLAS_STATUS_SUCCESS);
    ck_assert_int_eq(cublasGemmStridedBatchedEx(
                         h, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N, M, N, K, &alpha,
                         da, CUDA_R_32F, ta ? K : M, M * K, db, CUDA_R_32F, tb ? N : K, K * N, &beta, dc,
                         CUDA_R_32F, 6, 6 * N, BATCHES, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_SUCCESS);
    OK(cudaMemcpy(got, dc, sizeof got, cudaMemcpyDeviceToHost));
    for (int batch = 0; batch < BATCHES; ++batch)
        for (int n = 0; n < N; ++n)
            for (int m = 0; m < 6; ++m) {
                float wanted = c[batch][n * 6 + m];
                if (m < M) {
                    float sum = 0;
                    for (int k = 0; k < K; ++k)
                        sum += (ta ? a[batch][m * K + k] : a[batch][k * M + m]) *
                               (tb ? b[batch][k * N + n] : b[batch][n * K + k]);
                    wanted = alpha * sum + beta * wanted;
                }
                ck_assert_float_eq(got[batch][n * 6 + m],
                                   wanted); /* small integers: exact; row 5 is not C's */
            }
    ck_assert_int_eq(cublasDestroy(h), CUBLAS_STATUS_SUCCESS);
}
END_TEST

static cublasStatus_t gemm(cublasHandle_t h, int m, int lda, cudaDataType a, cudaDataType c,
                           const float *alpha, void *p) {
    const float zero = 0;
    return cublasGemmEx(h, CUBLAS_OP_N, CUBLAS_OP_N, m, 2, 2, alpha, p, a, lda, p, a, 2, &zero,
                        (char *)p + 256, c, 2, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}

START_TEST(bad_arguments_are_refused) {
    const float one = 1;
    static const uint16_t halves[] = {0x3c00, 0x4000, 0x4200, 0x4400}; /* 1 2 3 4, column by column */
    void *p = suite_device(NULL, 1024);
    cublasHandle_t h;
    ck_assert_int_eq(gemm(NULL, 2, 2, CUDA_R_16F, CUDA_R_16F, &one, p), CUBLAS_STATUS_NOT_INITIALIZED);
    ck_assert_int_eq(cublasCreate(NULL), CUBLAS_STATUS_INVALID_VALUE);
    ck_assert_int_eq(cublasCreate(&h), CUBLAS_STATUS_SUCCESS);
    ck_assert_int_eq(gemm(h, -1, 2, CUDA_R_16F, CUDA_R_16F, &one, p), CUBLAS_STATUS_INVALID_VALUE);
    ck_assert_int_eq(gemm(h, 2, 1, CUDA_R_16F, CUDA_R_16F, &one, p), CUBLAS_STATUS_INVALID_VALUE);
    ck_assert_int_eq(gemm(h, 2, 2, CUDA_R_16F, CUDA_R_16F, NULL, p), CUBLAS_STATUS_INVALID_VALUE);
    ck_assert_int_eq(gemm(h, 2, 2, CUDA_R_16F, CUDA_R_16BF, &one, p), CUBLAS_STATUS_NOT_SUPPORTED);
    ck_assert_int_eq(cublasSetWorkspace(h, (char *)p + 8, 64), CUBLAS_STATUS_INVALID_VALUE);
    ck_assert_int_eq(cublasSetWorkspace(h, p, 512), CUBLAS_STATUS_SUCCESS);
    OK(cudaMemcpy(p, halves, sizeof halves, cudaMemcpyHostToDevice));
    ck_assert_int_eq(gemm(h, 2, 2, CUDA_R_16F, CUDA_R_16F, &one, p), CUBLAS_STATUS_SUCCESS);
    uint16_t got[4];
    OK(cudaMemcpy(got, (char *)p + 256, sizeof got, cudaMemcpyDeviceToHost));
    static const uint16_t wanted[] = {0x4700, 0x4900, 0x4b80, 0x4d80}; /* 7 10 15 22 */
    for (int i = 0; i < 4; ++i)
        ck_assert_uint_eq(got[i], wanted[i]);
    ck_assert_int_eq(gemm(h, 2, 2, CUDA_R_16F, CUDA_R_16F, &one, (char *)p + 1020),
                     CUBLAS_STATUS_SUCCESS); /* found when it runs */
    FAILS(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
}
END_TEST

START_TEST(no_driver_is_not_initialised) {
    setenv("ATTUNE_EMULATOR_NO_DRIVER", "1", 1);
    cublasHandle_t h;
    ck_assert_int_eq(cublasCreate(&h), CUBLAS_STATUS_NOT_INITIALIZED);
}
END_TEST

TCase *cublas_cases(void) {
    TCase *c = tcase_create("cublas");
    tcase_add_loop_test(c, a_strided_product_is_the_sum, 0, 4);
    tcase_add_test(c, bad_arguments_are_refused);
    tcase_add_test(c, no_driver_is_not_initialised);
    return c;
}
