// program.cu: a whole program as CUDA C++ writes it, with <<<>>>, a function that is not inlined, constants, atomics and a grid
// of ragged blocks: what nvcc's own host code asks of the runtime.
#include <cuda_runtime.h>

__device__ const int weights[4] = {1, 1, 1, 1};

__device__ __noinline__ int weighted(int i, int which) { return i * weights[which & 3]; }

__global__ void sum(int n, int *total) {
    __shared__ int part;
    if (threadIdx.x == 0)
        part = 0;
    __syncthreads();
    const int i = blockIdx.x * blockDim.x + threadIdx.x + 1;
    if (i <= n)
        atomicAdd(&part, weighted(i, i));
    __syncthreads();
    if (threadIdx.x == 0)
        atomicAdd(total, part);
}

// 1 + 2 + ... + n, or -1 where CUDA fails.
extern "C" int program_sum(int n) {
    int *total = nullptr, made = -1;
    if (cudaMalloc(&total, sizeof *total) != cudaSuccess)
        return -1;
    cudaMemset(total, 0, sizeof *total);
    sum<<<(n + 95) / 96, 96>>>(n, total);
    if (cudaGetLastError() != cudaSuccess || cudaMemcpy(&made, total, sizeof made, cudaMemcpyDeviceToHost) != cudaSuccess)
        made = -1;
    cudaFree(total);
    return made;
}
