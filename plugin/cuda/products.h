/*
 * plugin/cuda/products.h: the two matrix products of backend `math`, by cuBLAS, which is opened when `math`
 * first runs: half a gigabyte of libraries is no price for a plugin that is only asked.
 */
#ifndef ATTUNE_PLUGIN_CUDA_PRODUCTS_H
#define ATTUNE_PLUGIN_CUDA_PRODUCTS_H

#include "attune/abi.h"
#include "kernels/attention.h"

#include <cuda_runtime_api.h>
#include <pthread.h>

struct cuda_cublas;

/* One handle for each device. A call sets the handle's stream and its workspace, then enqueues, under the
 * lock: so the results are those of one stream with a fixed workspace (cuBLAS 13.0, 2.1.4 Results
 * Reproducibility). */
typedef struct cuda_products {
    pthread_mutex_t lock;
    struct cuda_cublas *cublas; /* NULL until it is opened */
} cuda_products;

/* [any] Bytes of workspace for cuBLAS on compute capability `cc`: what cublasSetWorkspace's page recommends
 * (2.4.8): 32 MiB for 9.0, 12 MiB for 12.x, 4 MiB else. */
uint64_t cuda_products_workspace(int cc);

/* [any] Whether the products can be expressed as cuBLAS takes them; fills `reason` where not. */
int cuda_products_fit(const attune_attention_f32 *args, char reason[160]);

/* [any] Enqueue scores = q kT, float32 (B, Hq, Nq, Nk), and out = p v, where row by row p, of args' storage,
 * begins where the scores did. The device is current; `bytes` of workspace at `workspace`, aligned to 256.
 * Errors: UNAVAILABLE (cuBLAS is not there), INTERNAL with cuBLAS's status. */
attune_code cuda_products_scores(cuda_products *products, const attune_attention_f32 *args, void *workspace,
                                 uint64_t bytes, cudaStream_t stream, attune_error *error);
attune_code cuda_products_values(cuda_products *products, const attune_attention_f32 *args, void *workspace,
                                 uint64_t bytes, cudaStream_t stream, attune_error *error);

/* [main] Nothing is on any stream. */
void cuda_products_close(cuda_products *products);

#endif
