/* plugin/cuda/products.c: see products.h. */
#include "plugin/cuda/products.h"
#include "plugin/cuda/plugin.h"

#include <cublas_v2.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define CUBLAS_LIBRARY "libcublas.so.13"

static const char where[] = "attention.run";

typedef struct cuda_cublas {
    void *library;
    cublasHandle_t handle;
    __typeof__(&cublasCreate_v2) create;
    __typeof__(&cublasDestroy_v2) destroy;
    __typeof__(&cublasSetStream_v2) set_stream;
    __typeof__(&cublasSetWorkspace_v2) set_workspace;
    __typeof__(&cublasGemmStridedBatchedEx) multiply;
    __typeof__(&cublasGetStatusName) status_name;
} cuda_cublas;

uint64_t cuda_products_workspace(int cc) {
    return (uint64_t)(cc == 90 ? 32 : cc >= 120 ? 12 : 4) << 20;
}

/* ---- the library ---- */

static int find_functions(cuda_cublas *c) {
    const struct {
        void *to;
        const char *name;
    } wanted[] = {{&c->create, "cublasCreate_v2"},
                  {&c->destroy, "cublasDestroy_v2"},
                  {&c->set_stream, "cublasSetStream_v2"},
                  {&c->set_workspace, "cublasSetWorkspace_v2"},
                  {&c->multiply, "cublasGemmStridedBatchedEx"},
                  {&c->status_name, "cublasGetStatusName"}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; ++i) {
        void *const found = dlsym(c->library, wanted[i].name);
        if (!found)
            return 0;
        memcpy(wanted[i].to, &found, sizeof found);
    }
    return 1;
}

static attune_code open_library(cuda_cublas *c, attune_error *error) {
    c->library = dlopen(CUBLAS_LIBRARY, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    if (c->library && find_functions(c))
        return ATTUNE_OK;
    const char *reason = dlerror();
    (void)attune_fail(error, ATTUNE_UNAVAILABLE, CUDA_PLUGIN_ID, where, "math needs " CUBLAS_LIBRARY ": %s",
                      reason ? reason : "it could not be opened");
    attune_hint(error, "install cuBLAS of CUDA 13, or choose another backend");
    return ATTUNE_UNAVAILABLE;
}

static attune_code check(const cuda_cublas *c, cublasStatus_t status, const char *what, attune_error *error) {
    if (status == CUBLAS_STATUS_SUCCESS)
        return ATTUNE_OK;
    (void)cudaGetLastError(); /* it calls the runtime, too */
    const attune_code code =
        status == CUBLAS_STATUS_ALLOC_FAILED ? ATTUNE_RESOURCE_EXHAUSTED
        : status == CUBLAS_STATUS_NOT_INITIALIZED || status == CUBLAS_STATUS_ARCH_MISMATCH
            ? ATTUNE_UNAVAILABLE
            : ATTUNE_INTERNAL;
    (void)attune_fail(error, code, CUDA_PLUGIN_ID, where, "cuBLAS, %s: %s (status %d)", what,
                      c->status_name(status), (int)status);
    if (error)
        error->native_code = (int32_t)status;
    return code;
}

static void free_cublas(cuda_cublas *c) {
    if (c->library)
        (void)dlclose(c->library);
    free(c);
}

static attune_code open_cublas(cuda_products *products, attune_error *error) {
    if (products->cublas)
        return ATTUNE_OK;
    cuda_cublas *made = calloc(1, sizeof *made);
    if (!made)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, CUDA_PLUGIN_ID, where, "no memory for cuBLAS");
    attune_code code = open_library(made, error);
    if (code == ATTUNE_OK)
        code = check(made, made->create(&made->handle), "a handle", error);
    if (code == ATTUNE_OK)
        products->cublas = made;
    else
        free_cublas(made);
    return code;
}

void cuda_products_close(cuda_products *products) {
    cuda_cublas *c = products->cublas;
    if (!c)
        return;
    (void)c->set_stream(c->handle, NULL); /* destroy waits for it, and the last one may be gone */
    (void)check(c, c->destroy(c->handle), "its end", NULL);
    (void)cudaGetLastError(); /* of the wait in it */
    free_cublas(c);
    products->cublas = NULL;
}

/* ---- the products ---- */

/* How batch entries and heads become cuBLAS's batches of one stride: `outer` calls of `inner` products. Where
 * heads share keys, the calls go by key head, and k and v have stride 0. */
typedef struct batches {
    int64_t groups; /* query heads of one key head */
    int64_t outer, inner;
    int whole; /* all batch entries and heads are one run of strides */
} batches;

static int one_run(const int64_t stride[4], int64_t batch, int64_t heads) {
    return batch == 1 || stride[0] == heads * stride[1];
}

static batches batches_of(const attune_attention_f32 *a) {
    batches b = {.groups = a->heads_q / a->heads_kv};
    if (b.groups > 1) {
        b.outer = a->batch * a->heads_kv, b.inner = b.groups;
        return b;
    }
    b.whole = one_run(a->stride_q, a->batch, a->heads_q) && one_run(a->stride_k, a->batch, a->heads_q) &&
              one_run(a->stride_v, a->batch, a->heads_q) && one_run(a->stride_out, a->batch, a->heads_q);
    b.outer = b.whole ? 1 : a->batch;
    b.inner = b.whole ? a->batch * a->heads_q : a->heads_q;
    return b;
}

static int refuse(char reason[160], const char *what, int64_t value, const char *rule) {
    (void)snprintf(reason, 160, "%s %lld: cuBLAS takes %s", what, (long long)value, rule);
    return 0;
}

int cuda_products_fit(const attune_attention_f32 *a, char reason[160]) {
    const struct {
        const char *name;
        int64_t stride, channels, tokens;
    } arrays[] = {{"q's token stride is", a->stride_q[2], a->d_qk, a->n_q},
                  {"k's token stride is", a->stride_k[2], a->d_qk, a->n_k},
                  {"v's token stride is", a->stride_v[2], a->d_v, a->n_k},
                  {"out's token stride is", a->stride_out[2], a->d_v, a->n_q}};
    const int64_t extents[] = {a->n_q, a->n_k, a->d_qk, a->d_v, a->heads_q};
    for (size_t i = 0; i < sizeof extents / sizeof *extents; ++i)
        if (extents[i] > INT_MAX / 2)
            return refuse(reason, "an extent is", extents[i], "less than 2^30");
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; ++i)
        if (arrays[i].tokens > 1 && (arrays[i].stride < arrays[i].channels || arrays[i].stride > INT_MAX))
            return refuse(reason, arrays[i].name, arrays[i].stride, "rows that follow one another");
    return 1;
}

/* An array's leading dimension; that of one row is of no use but has to be legal. */
static int leading(int64_t tokens, int64_t stride, int64_t channels) {
    return (int)(tokens > 1 ? stride : channels);
}

/* One product for each head: row by row C (rows, columns) = A (rows, depth) B, where B is (depth, columns)
 * or, where `transposed`, (columns, depth). cuBLAS counts columns first: its A is our B. */
typedef struct product {
    int rows, columns, depth, transposed;
    cudaDataType in, out;
    const char *a, *b;
    char *c;
    int lda, ldb, ldc;
    int64_t stride_a[2], stride_b[2], stride_c[2]; /* of batch entry and head */
} product;

/* cuBLAS documents no limit of batches, but kernels of it put them on a grid's z, and calls with more have
 * failed (TensorFlow, pull request 44175: "Workaround for blasLt batch size limitation"). */
enum { BATCHES_OF_A_CALL = 65535 };

/* `count` products of one stride. */
static attune_code multiply_run(cuda_cublas *c, const product *p, const char *a, const char *b,
                                int64_t stride_b, char *to, int64_t count, attune_error *error) {
    static const float one = 1.0f, zero = 0.0f;
    const int64_t in = p->in == CUDA_R_32F ? 4 : 2, out = p->out == CUDA_R_32F ? 4 : 2;
    attune_code code = ATTUNE_OK;
    for (int64_t first = 0; first < count && code == ATTUNE_OK; first += BATCHES_OF_A_CALL) {
        const int64_t left = count - first;
        code = check(c,
                     c->multiply(c->handle, p->transposed ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N,
                                 p->columns, p->rows, p->depth, &one, b + in * first * stride_b, p->in,
                                 p->ldb, stride_b, a + in * first * p->stride_a[1], p->in, p->lda,
                                 p->stride_a[1], &zero, to + out * first * p->stride_c[1], p->out, p->ldc,
                                 p->stride_c[1], (int)(left < BATCHES_OF_A_CALL ? left : BATCHES_OF_A_CALL),
                                 CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                     "a product", error);
    }
    return code;
}

static attune_code multiply(cuda_cublas *c, const attune_attention_f32 *a, const product *p,
                            attune_error *error) {
    const batches b = batches_of(a);
    const int64_t in = p->in == CUDA_R_32F ? 4 : 2, out = p->out == CUDA_R_32F ? 4 : 2;
    attune_code code = ATTUNE_OK;
    for (int64_t i = 0; i < b.outer && code == ATTUNE_OK; ++i) {
        const int64_t batch = b.groups > 1 ? i / a->heads_kv : i, kv = b.groups > 1 ? i % a->heads_kv : 0;
        const int64_t head = kv * b.groups;
        const char *from_a = p->a + in * (batch * p->stride_a[0] + head * p->stride_a[1]);
        const char *from_b = p->b + in * (batch * p->stride_b[0] + kv * p->stride_b[1]);
        char *to = p->c + out * (batch * p->stride_c[0] + head * p->stride_c[1]);
        code = multiply_run(c, p, from_a, from_b, b.groups > 1 ? 0 : p->stride_b[1], to, b.inner, error);
    }
    return code;
}

static attune_code run(cuda_products *products, const attune_attention_f32 *a, const product *p,
                       void *workspace, uint64_t bytes, cudaStream_t stream, attune_error *error) {
    (void)pthread_mutex_lock(&products->lock);
    attune_code code = open_cublas(products, error);
    cuda_cublas *c = products->cublas;
    if (code == ATTUNE_OK)
        code = check(c, c->set_stream(c->handle, stream), "its stream", error);
    if (code == ATTUNE_OK) /* after the stream, which resets it */
        code = check(c, c->set_workspace(c->handle, workspace, bytes), "its workspace", error);
    if (code == ATTUNE_OK)
        code = multiply(c, a, p, error);
    (void)pthread_mutex_unlock(&products->lock);
    return code;
}

static cudaDataType type_of(int32_t storage) {
    return storage == ATTUNE_KERNEL_F32   ? CUDA_R_32F
           : storage == ATTUNE_KERNEL_F16 ? CUDA_R_16F
                                          : CUDA_R_16BF;
}

attune_code cuda_products_scores(cuda_products *products, const attune_attention_f32 *a, void *workspace,
                                 uint64_t bytes, cudaStream_t stream, attune_error *error) {
    const product p = {.rows = (int)a->n_q,
                       .columns = (int)a->n_k,
                       .depth = (int)a->d_qk,
                       .transposed = 1,
                       .in = type_of(a->storage),
                       .out = CUDA_R_32F,
                       .a = a->q,
                       .b = a->k,
                       .c = a->matrix,
                       .lda = leading(a->n_q, a->stride_q[2], a->d_qk),
                       .ldb = leading(a->n_k, a->stride_k[2], a->d_qk),
                       .ldc = (int)a->n_k,
                       .stride_a = {a->stride_q[0], a->stride_q[1]},
                       .stride_b = {a->stride_k[0], a->stride_k[1]},
                       .stride_c = {a->heads_q * a->n_q * a->n_k, a->n_q * a->n_k}};
    return run(products, a, &p, workspace, bytes, stream, error);
}

attune_code cuda_products_values(cuda_products *products, const attune_attention_f32 *a, void *workspace,
                                 uint64_t bytes, cudaStream_t stream, attune_error *error) {
    const int64_t row = a->storage == ATTUNE_KERNEL_F32 ? a->n_k : 2 * a->n_k; /* in elements */
    const product p = {.rows = (int)a->n_q,
                       .columns = (int)a->d_v,
                       .depth = (int)a->n_k,
                       .in = type_of(a->storage),
                       .out = type_of(a->storage),
                       .a = a->matrix,
                       .b = a->v,
                       .c = a->out,
                       .lda = (int)row,
                       .ldb = leading(a->n_k, a->stride_v[2], a->d_v),
                       .ldc = leading(a->n_q, a->stride_out[2], a->d_v),
                       .stride_a = {a->heads_q * a->n_q * row, a->n_q * row},
                       .stride_b = {a->stride_v[0], a->stride_v[1]},
                       .stride_c = {a->stride_out[0], a->stride_out[1]}};
    return run(products, a, &p, workspace, bytes, stream, error);
}
