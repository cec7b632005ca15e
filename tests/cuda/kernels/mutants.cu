// mutants.cu: small kernels with one bug each and their correct twins: NAME_bad must be caught by the check that
// tests/cuda/check_mutants.c names for it, at the line that says "caught: NAME"; NAME_good must pass in silence.
// All take (in, out, n) and run as one block of 128 threads.
#include <stdint.h>

enum { THREADS = 128 };

#define TWINS(name)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS) name##_bad(const float *in, float *out, int n) {     \
        name<true>(in, out, n);                                                                                \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) name##_good(const float *in, float *out, int n) {    \
        name<false>(in, out, n);                                                                               \
    }
#define KERNEL template <bool BAD> __device__ __forceinline__ void

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void copy16(void *to, const void *from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
#endif
}

__device__ __forceinline__ void commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N> __device__ __forceinline__ void wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

KERNEL missing_barrier(const float *in, float *out, int n) {
    __shared__ float s[THREADS];
    s[threadIdx.x] = 0;
    __syncthreads();
    s[threadIdx.x] = in[threadIdx.x] + 1; // caught: missing_barrier
    if (!BAD)
        __syncthreads();
    out[threadIdx.x] = s[(threadIdx.x + 40) % THREADS];
}
TWINS(missing_barrier)

KERNEL missing_warp_barrier(const float *in, float *out, int n) {
    __shared__ float s[THREADS];
    s[threadIdx.x] = in[threadIdx.x];
    if (!BAD)
        __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 1]; // caught: missing_warp_barrier
}
TWINS(missing_warp_barrier)

KERNEL missing_loop_barrier(const float *in, float *out, int n) {
    __shared__ float s[THREADS];
    float sum = 0;
    for (int i = 0; i < 2; ++i) {
        s[threadIdx.x] = in[threadIdx.x] + i;
        __syncthreads();
        sum += s[(threadIdx.x + 64) % THREADS]; // caught: missing_loop_barrier
        if (!BAD)
            __syncthreads();
    }
    out[threadIdx.x] = sum;
}
TWINS(missing_loop_barrier)

KERNEL overlapping_shared(const float *in, float *out, int n) {
    __shared__ float s[2 * THREADS];
    float *other = s + THREADS - (BAD ? 4 : 0);
    s[threadIdx.x] = in[threadIdx.x]; // caught: overlapping_shared
    other[threadIdx.x] = -in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[(threadIdx.x + 1) % THREADS] + other[(threadIdx.x + 2) % THREADS];
}
TWINS(overlapping_shared)

KERNEL missing_wait(const float *in, float *out, int n) {
    __shared__ __align__(16) float s[4 * THREADS];
    copy16(s + 4 * threadIdx.x, in + 4 * threadIdx.x);
    commit();
    if (!BAD)
        wait<0>();
    out[threadIdx.x] = s[4 * threadIdx.x]; // caught: missing_wait
}
TWINS(missing_wait)

KERNEL wrong_wait(const float *in, float *out, int n) {
    __shared__ __align__(16) float s[2][4 * THREADS];
    for (int stage = 0; stage < 2; ++stage) {
        copy16(s[stage] + 4 * threadIdx.x, in + 4 * threadIdx.x);
        commit();
    }
    if (BAD)
        wait<1>();
    else
        wait<0>();
    out[threadIdx.x] = s[1][4 * threadIdx.x]; // caught: wrong_wait
}
TWINS(wrong_wait)

KERNEL missing_commit(const float *in, float *out, int n) {
    __shared__ __align__(16) float s[4 * THREADS];
    copy16(s + 4 * threadIdx.x, in + 4 * threadIdx.x);
    if (!BAD)
        commit();
    wait<0>();
    out[threadIdx.x] = s[4 * threadIdx.x]; // caught: missing_commit
}
TWINS(missing_commit)

KERNEL wrong_stage(const float *in, float *out, int n) {
    __shared__ __align__(16) float s[2][4 * THREADS];
    copy16(s[0] + 4 * threadIdx.x, in + 4 * threadIdx.x);
    commit();
    wait<0>();
    __syncthreads();
    copy16(s[BAD ? 0 : 1] + 4 * threadIdx.x, in + 4 * threadIdx.x);
    commit();
    out[threadIdx.x] = s[0][(4 * threadIdx.x + 4) % (4 * THREADS)]; // caught: wrong_stage
    wait<0>();
}
TWINS(wrong_stage)

KERNEL wait_without_barrier(const float *in, float *out, int n) {
    __shared__ __align__(16) float s[4 * THREADS];
    for (int i = 0; i < 4; ++i)
        s[i * THREADS + threadIdx.x] = 0;
    __syncthreads();
    copy16(s + 4 * threadIdx.x, in + 4 * threadIdx.x);
    commit();
    wait<0>();
    if (!BAD)
        __syncthreads();
    out[threadIdx.x] = s[(4 * threadIdx.x + 4 * 96) % (4 * THREADS)]; // caught: wait_without_barrier
}
TWINS(wait_without_barrier)

KERNEL shared_overrun(const float *in, float *out, int n) {
    __shared__ float s[THREADS];
    s[threadIdx.x + (BAD ? 1 : 0)] = in[threadIdx.x]; // caught: shared_overrun
    __syncthreads();
    out[threadIdx.x] = s[THREADS - 1 - threadIdx.x];
}
TWINS(shared_overrun)

KERNEL no_tail_mask(const float *in, float *out, int n) {
    for (int i = threadIdx.x; i < n + 1; i += THREADS)
        if (BAD || i < n)
            out[i] = in[i]; // caught: no_tail_mask
}
TWINS(no_tail_mask)

KERNEL wrong_stride(const float *in, float *out, int n) {
    const int stride = BAD ? n / THREADS + 1 : n / THREADS;
    out[threadIdx.x] = in[(threadIdx.x + 1) * stride - 1]; // caught: wrong_stride
}
TWINS(wrong_stride)

KERNEL uninitialised_shared(const float *in, float *out, int n) {
    __shared__ float s[THREADS];
    if (!BAD || threadIdx.x < 100)
        s[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = s[THREADS - 1 - threadIdx.x]; // caught: uninitialised_shared
}
TWINS(uninitialised_shared)

KERNEL uninitialised_register(const float *in, float *out, int n) {
    float x = 0;
    asm volatile("{\n .reg .pred p;\n .reg .f32 t;\n setp.lt.s32 p, %2, %3;\n @p mov.f32 t, %1;\n add.f32 %0, t, t;\n}"
                 : "=f"(x)
                 : "f"(in[threadIdx.x]), "r"((int)threadIdx.x), "r"(BAD ? n / 5 : n)); // caught: uninitialised_register
    out[threadIdx.x] = x;
}
TWINS(uninitialised_register)

KERNEL misaligned(const float *in, float *out, int n) {
    const float *p = in + 4 * threadIdx.x + (BAD ? 1 : 0);
    float4 v;
    asm volatile("ld.global.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p)); // caught: misaligned
    out[threadIdx.x] = v.x + v.w;
}
TWINS(misaligned)

KERNEL divergent_barrier(const float *in, float *out, int n) {
    __shared__ float s[THREADS];
    s[threadIdx.x] = in[threadIdx.x];
    if (!BAD || threadIdx.x != 77)
        __syncthreads(); // caught: divergent_barrier
    out[threadIdx.x] = s[threadIdx.x];
}
TWINS(divergent_barrier)

KERNEL warp_without_barrier(const float *in, float *out, int n) {
    __shared__ float s[THREADS];
    s[threadIdx.x] = in[threadIdx.x];
    if (BAD && threadIdx.x >= 96)
        return;
    __syncthreads(); // caught: warp_without_barrier
    out[threadIdx.x] = s[THREADS - 1 - threadIdx.x];
}
TWINS(warp_without_barrier)

KERNEL divergent_shuffle(const float *in, float *out, int n) {
    float x = in[threadIdx.x];
    if (!BAD || threadIdx.x % 2)
        asm volatile("shfl.sync.bfly.b32 %0, %0, 1, 31, -1;" : "+f"(x)); // caught: divergent_shuffle
    out[threadIdx.x] = x;
}
TWINS(divergent_shuffle)

KERNEL local_overrun(const float *in, float *out, int n) {
    float a[8];
    for (int i = 0; i < 8; ++i)
        a[i] = in[threadIdx.x + i];
    out[threadIdx.x] = a[(int)in[0] + (BAD ? 8 : 7)]; // caught: local_overrun
}
TWINS(local_overrun)

KERNEL trapped(const float *in, float *out, int n) {
    if (threadIdx.x == 5 && BAD)
        asm volatile("trap;"); // caught: trapped
    out[threadIdx.x] = in[threadIdx.x];
}
TWINS(trapped)

KERNEL endless(const float *in, float *out, int n) {
    volatile float *o = out;
    for (int i = 0; BAD ? i >= 0 : i < 4; i = (i + 1) & 7)
        o[threadIdx.x] = in[threadIdx.x];
}
TWINS(endless)

// Two whose bug only the values show: what a checker of values must not lose.
KERNEL lost_nan(const float *in, float *out, int n) {
    float worst = 0;
    for (int i = 0; i < 4; ++i) {
        const float x = in[threadIdx.x * 4 + i];
        if (BAD ? x > worst : !(x <= worst))
            worst = x;
    }
    out[threadIdx.x] = worst;
}
TWINS(lost_nan)

// Row sums of a 16 x 16 matrix of halves (the first 512 bytes of `in`) by an mma with ones.
KERNEL swapped_fragment(const float *in, float *out, int n) {
    if (threadIdx.x >= 32)
        return;
    const uint32_t *matrix = (const uint32_t *)in;
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t a[4];
    for (int i = 0; i < 4; ++i) {
        const int row = g + (BAD ? i / 2 : i % 2) * 8, column = t + (BAD ? i % 2 : i / 2) * 4;
        a[i] = matrix[row * 8 + column];
    }
    float c[4] = {0, 0, 0, 0};
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%8}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(0x3c003c00));
#endif
    if (t == 0)
        out[g] = c[0], out[g + 8] = c[2];
}
TWINS(swapped_fragment)
