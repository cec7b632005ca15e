/*
 * cublas.c: a stand-in libcublas.so.13: matrix products in plain loops, in the order of k, as work on the
 * handle's stream. Every argument is checked as the cuBLAS manual (13.0, section 2.8.12 cublasGemmEx
 * and 2.8.14) documents it.
 */
#pragma GCC visibility push(default)
#include <cublas_v2.h>
#pragma GCC visibility pop

#include "tests/cuda_emulator/emulator.h"
#include "tests/cuda_emulator/numeric.h"

#include <stdbool.h>
#include <stdlib.h>

#define HANDLE_MAGIC 0x63626c73u

struct cublasContext {
    u32 magic;
    cudaStream_t stream;
    void *workspace;
    size_t workspace_bytes;
    cublasMath_t mode;
};

static bool is_handle(cublasHandle_t h) {
    return h && h->magic == HANDLE_MAGIC;
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) {
    int device;
    if (!handle)
        return CUBLAS_STATUS_INVALID_VALUE;
    *handle = NULL;
    if (cudaGetDevice(&device) != cudaSuccess)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    struct cublasContext *made = calloc(1, sizeof *made);
    if (!made)
        return CUBLAS_STATUS_ALLOC_FAILED;
    made->magic = HANDLE_MAGIC;
    *handle = made;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t h) {
    if (!is_handle(h))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    cudaStreamSynchronize(h->stream); /* "the application is responsible ..., and it synchronises" */
    h->magic = 0;
    free(h);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t h, int *version) {
    (void)h; /* the manual allows NULL */
    if (!version)
        return CUBLAS_STATUS_INVALID_VALUE;
    *version = CUBLAS_VERSION;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t stream) {
    if (!is_handle(h))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    h->stream = stream;
    h->workspace = NULL; /* "unconditionally resets the workspace" */
    h->workspace_bytes = 0;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t h, cudaStream_t *stream) {
    if (!is_handle(h))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!stream)
        return CUBLAS_STATUS_INVALID_VALUE;
    *stream = h->stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void *workspace, size_t bytes) {
    struct cudaPointerAttributes attributes;
    if (!is_handle(h))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if ((uintptr_t)workspace % 256 || (bytes && !workspace))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes && (cudaPointerGetAttributes(&attributes, workspace) != cudaSuccess ||
                  attributes.type != cudaMemoryTypeDevice))
        return CUBLAS_STATUS_INVALID_VALUE;
    h->workspace = workspace;
    h->workspace_bytes = bytes;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t mode) {
    const unsigned base = (unsigned)mode & 15u;
    if (!is_handle(h))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (base > 3u || (unsigned)mode & ~31u)
        return CUBLAS_STATUS_INVALID_VALUE;
    h->mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusName(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "an unknown status";
    }
}

const char *cublasGetStatusString(cublasStatus_t status) {
    return cublasGetStatusName(status);
}

/* ---- products: C = alpha op(A) op(B) + beta C, column by column ---- */

typedef struct matrix {
    const void *address;
    cudaDataType type;
    int ld, rows, columns; /* as stored */
    bool transposed;
    long long stride;
} matrix;

typedef struct product {
    int m, n, k, batches;
    f32 alpha, beta;
    matrix a, b, c;
} product;

static size_t element_size(cudaDataType type) {
    return type == CUDA_R_32F ? 4 : 2;
}

static f32 load(const unsigned char *bytes, cudaDataType type, size_t at) {
    u32 word = 0;
    memcpy(&word, bytes + at * element_size(type), element_size(type));
    return type == CUDA_R_32F   ? float_of(word)
           : type == CUDA_R_16F ? half_to_float(word)
                                : bf16_to_float(word);
}

static void store(unsigned char *bytes, cudaDataType type, size_t at, f32 value) {
    const u32 word = type == CUDA_R_32F   ? bits_of(value)
                     : type == CUDA_R_16F ? float_to_half(value)
                                          : float_to_bf16(value);
    memcpy(bytes + at * element_size(type), &word, element_size(type));
}

static unsigned char *bytes_of(const matrix *x, int batch) {
    if (!x->rows || !x->columns)
        return NULL;
    const size_t count = (size_t)x->ld * (size_t)(x->columns - 1) + (size_t)x->rows;
    return cuda_emulator_bytes((const char *)x->address +
                                   (long long)batch * x->stride * (long long)element_size(x->type),
                               count * element_size(x->type));
}

/* op(X) as floats, row by row. */
static void unpack(const matrix *x, const unsigned char *bytes, f32 *to) {
    for (int column = 0; column < x->columns; ++column)
        for (int row = 0; row < x->rows; ++row) {
            const f32 value = load(bytes, x->type, (size_t)column * (size_t)x->ld + (size_t)row);
            if (x->transposed)
                to[(size_t)column * (size_t)x->rows + (size_t)row] = value;
            else
                to[(size_t)row * (size_t)x->columns + (size_t)column] = value;
        }
}

static bool multiply(const product *p, int batch, f32 *a, f32 *b, f32 *row) {
    unsigned char *c = bytes_of(&p->c, batch);
    const unsigned char *from_a = bytes_of(&p->a, batch), *from_b = bytes_of(&p->b, batch);
    if (!c || (p->k && p->alpha != 0 && (!from_a || !from_b)))
        return false;
    const bool sums = p->k && p->alpha != 0;
    if (sums) {
        unpack(&p->a, from_a, a);
        unpack(&p->b, from_b, b);
    }
    for (int i = 0; i < p->m; ++i) {
        memset(row, 0, (size_t)p->n * sizeof *row);
        for (int k = 0; sums && k < p->k; ++k)
            for (int j = 0; j < p->n; ++j)
                row[j] += a[(size_t)i * (size_t)p->k + (size_t)k] * b[(size_t)k * (size_t)p->n + (size_t)j];
        for (int j = 0; j < p->n; ++j) {
            const size_t at = (size_t)j * (size_t)p->c.ld + (size_t)i;
            const f32 old = p->beta != 0 ? p->beta * load(c, p->c.type, at) : 0; /* beta 0: C is not read */
            store(c, p->c.type, at, p->alpha * row[j] + old);
        }
    }
    return true;
}

static void run_product(void *context) {
    product *p = context;
    f32 *a = malloc(((size_t)p->m * (size_t)p->k + 1) * sizeof *a),
        *b = malloc(((size_t)p->k * (size_t)p->n + 1) * sizeof *b);
    f32 *row = malloc((size_t)p->n * sizeof *row);
    bool ok = a && b && row;
    for (int batch = 0; ok && batch < p->batches; ++batch)
        ok = multiply(p, batch, a, b, row);
    if (!ok)
        cuda_emulator_fail_device(a && b && row ? cudaErrorIllegalAddress : cudaErrorMemoryAllocation);
    free(a);
    free(b);
    free(row);
    free(p);
}

/* The table of types for compute type 32F, as far as matrices of one input type go. */
static bool types_are_supported(cudaDataType a, cudaDataType b, cudaDataType c, cublasComputeType_t compute) {
    if (a != b)
        return false;
    if (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC)
        return (a == CUDA_R_32F && c == CUDA_R_32F) ||
               (a == CUDA_R_16F && (c == CUDA_R_16F || c == CUDA_R_32F)) ||
               (a == CUDA_R_16BF && (c == CUDA_R_16BF || c == CUDA_R_32F));
    return (compute == CUBLAS_COMPUTE_32F_FAST_TF32 || compute == CUBLAS_COMPUTE_32F_FAST_16F) &&
           a == CUDA_R_32F && c == CUDA_R_32F;
}

static bool is_operation(cublasOperation_t op) {
    return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C;
}

static cublasStatus_t add_product(cublasHandle_t h, const product *p, const void *alpha, const void *beta,
                                  cublasOperation_t op_a, cublasOperation_t op_b,
                                  cublasComputeType_t compute) {
    if (!is_handle(h))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (p->m < 0 || p->n < 0 || p->k < 0 || p->batches < 0 || !is_operation(op_a) || !is_operation(op_b) ||
        !alpha || !beta)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p->a.ld < (p->a.rows > 1 ? p->a.rows : 1) || p->b.ld < (p->b.rows > 1 ? p->b.rows : 1) ||
        p->c.ld < (p->m > 1 ? p->m : 1))
        return CUBLAS_STATUS_INVALID_VALUE;
    /* the manual has no limit of batches; versions of the library have failed beyond a grid's */
    if (!types_are_supported(p->a.type, p->b.type, p->c.type, compute) || p->batches > 65535)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!p->m || !p->n || !p->batches)
        return CUBLAS_STATUS_SUCCESS;
    if (!p->c.address || (p->k && (!p->a.address || !p->b.address)))
        return CUBLAS_STATUS_INVALID_VALUE;
    product *work = malloc(sizeof *work);
    if (!work)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *work = *p;
    memcpy(&work->alpha, alpha,
           sizeof work->alpha); /* compute types 32F: the scalars are floats, on the host */
    memcpy(&work->beta, beta, sizeof work->beta);
    if (cudaLaunchHostFunc(h->stream, run_product, work) == cudaSuccess)
        return CUBLAS_STATUS_SUCCESS;
    free(work);
    return CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t op_a, cublasOperation_t op_b,
                                          int m, int n, int k, const void *alpha, const void *a,
                                          cudaDataType a_type, int lda, long long stride_a, const void *b,
                                          cudaDataType b_type, int ldb, long long stride_b, const void *beta,
                                          void *c, cudaDataType c_type, int ldc, long long stride_c,
                                          int batches, cublasComputeType_t compute,
                                          cublasGemmAlgo_t algorithm) {
    (void)algorithm; /* since compute capability 7.0 the manual has them all do the same */
    const bool ta = op_a != CUBLAS_OP_N, tb = op_b != CUBLAS_OP_N;
    const product p = {.m = m,
                       .n = n,
                       .k = k,
                       .batches = batches,
                       .a = {a, a_type, lda, ta ? k : m, ta ? m : k, ta, stride_a},
                       .b = {b, b_type, ldb, tb ? n : k, tb ? k : n, tb, stride_b},
                       .c = {c, c_type, ldc, m, n, false, stride_c}};
    return add_product(h, &p, alpha, beta, op_a, op_b, compute);
}

cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n,
                            int k, const void *alpha, const void *a, cudaDataType a_type, int lda,
                            const void *b, cudaDataType b_type, int ldb, const void *beta, void *c,
                            cudaDataType c_type, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algorithm) {
    return cublasGemmStridedBatchedEx(h, op_a, op_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0,
                                      beta, c, c_type, ldc, 0, 1, compute, algorithm);
}
