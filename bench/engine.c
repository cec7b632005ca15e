/*
 * bench/engine.c: the ordered matmul and convolution kernels beside oneDNN's on Stable Diffusion 1.5's
 * shapes, in turns in one process, threads pinned, with the share of the FMA peak that was measured between
 * them.
 *
 * Usage: OMP_PROC_BIND=true OMP_NUM_THREADS=N engine [N [ROUNDS [FILTER]]] prints a Markdown table of
 * medians. N: threads (2); FILTER: part of a shape's name.
 */
#include "kernels/cpu/dispatch.h"

#include "timing.h"

#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { MOST_THREADS = 64, MOST_ROUNDS = 99 };

/* height 0: a product of `rows` rows; else a convolution of `rows` images. */
typedef struct shape {
    const char *name;
    int64_t rows, in, out, height, width;
    int stride;
} shape;

static const shape shapes[] = {
    {"UNet 512 conv 64x64 320-320", 2, 320, 320, 64, 64, 1},
    {"UNet 512 conv 64x64 640-320", 2, 640, 320, 64, 64, 1},
    {"UNet 512 conv 64x64 960-320", 2, 960, 320, 64, 64, 1},
    {"UNet 512 conv 64x64/2 320-320", 2, 320, 320, 64, 64, 2},
    {"UNet 512 conv 32x32 320-640", 2, 320, 640, 32, 32, 1},
    {"UNet 512 conv 32x32 640-640", 2, 640, 640, 32, 32, 1},
    {"UNet 512 conv 32x32 1280-640", 2, 1280, 640, 32, 32, 1},
    {"UNet 512 conv 32x32 1920-640", 2, 1920, 640, 32, 32, 1},
    {"UNet 512 conv 64x64 640-640 up", 2, 640, 640, 64, 64, 1},
    {"UNet 512 conv 16x16 1280-1280", 2, 1280, 1280, 16, 16, 1},
    {"UNet 512 conv 16x16 2560-1280", 2, 2560, 1280, 16, 16, 1},
    {"UNet 512 conv 8x8 1280-1280", 2, 1280, 1280, 8, 8, 1},
    {"UNet 512 conv 8x8 2560-1280", 2, 2560, 1280, 8, 8, 1},
    {"UNet 768 conv 64x96 320-320", 2, 320, 320, 64, 96, 1},
    {"UNet 768 conv 32x48 640-640", 2, 640, 640, 32, 48, 1},
    {"UNet 768 conv 16x24 1280-1280", 2, 1280, 1280, 16, 24, 1},
    {"UNet 768 conv 8x12 1280-1280", 2, 1280, 1280, 8, 12, 1},
    {"UNet 512 linear 64x64 320-320", 8192, 320, 320, 0, 0, 0},
    {"UNet 512 linear 64x64 320-960", 8192, 320, 960, 0, 0, 0},
    {"UNet 512 linear 64x64 320-2560", 8192, 320, 2560, 0, 0, 0},
    {"UNet 512 linear 64x64 1280-320", 8192, 1280, 320, 0, 0, 0},
    {"UNet 512 linear 32x32 640-640", 2048, 640, 640, 0, 0, 0},
    {"UNet 512 linear 32x32 640-5120", 2048, 640, 5120, 0, 0, 0},
    {"UNet 512 linear 32x32 2560-640", 2048, 2560, 640, 0, 0, 0},
    {"UNet 512 linear 16x16 1280-1280", 512, 1280, 1280, 0, 0, 0},
    {"UNet 512 linear 16x16 1280-10240", 512, 1280, 10240, 0, 0, 0},
    {"UNet 512 linear 16x16 5120-1280", 512, 5120, 1280, 0, 0, 0},
    {"UNet 512 linear 8x8 1280-10240", 128, 1280, 10240, 0, 0, 0},
    {"UNet 768 linear 64x96 320-2560", 12288, 320, 2560, 0, 0, 0},
    {"text linear 768-3072", 154, 768, 3072, 0, 0, 0},
    {"text linear 3072-768", 154, 3072, 768, 0, 0, 0},
    {"VAE 512 conv 64x64 512-512", 1, 512, 512, 64, 64, 1},
    {"VAE 512 conv 128x128 512-512", 1, 512, 512, 128, 128, 1},
    {"VAE 512 conv 256x256 512-256", 1, 512, 256, 256, 256, 1},
    {"VAE 512 conv 256x256 256-256", 1, 256, 256, 256, 256, 1},
    {"VAE 512 conv 512x512 256-128", 1, 256, 128, 512, 512, 1},
    {"VAE 512 conv 512x512 128-128", 1, 128, 128, 512, 512, 1},
};

static void fail(const char *what) {
    (void)fprintf(stderr, "engine: %s failed\n", what);
    exit(EXIT_FAILURE);
}

/* ---- the ordered kernels: tasks by number, handed to pinned threads ---- */

typedef struct job {
    void (*run)(struct job *, uint64_t task, int worker);
    const attune_cpu_kernels *kernels;
    attune_matmul_f32 matmul;
    attune_convolution_f32 convolution;
    char *workspace;
    uint64_t workspace_bytes, tasks;
    pthread_barrier_t *begin; /* of all threads, once they run where they are pinned */
    _Atomic uint64_t next;
} job;

typedef struct worker {
    job *work;
    int number;
    double start;
} worker;

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        fail("pinning a thread");
}

static void *run_worker(void *argument) {
    worker *const w = argument;
    pin(w->number);
    (void)pthread_barrier_wait(w->work->begin);
    w->start = now();
    for (uint64_t task; (task = atomic_fetch_add(&w->work->next, 1)) < w->work->tasks;)
        w->work->run(w->work, task, w->number);
    return NULL;
}

static double run_job(job *work, int threads) {
    pthread_t thread[MOST_THREADS];
    worker workers[MOST_THREADS];
    pthread_barrier_t begin;
    atomic_store(&work->next, 0);
    work->begin = &begin;
    if (pthread_barrier_init(&begin, NULL, (unsigned)threads) != 0)
        fail("making a barrier");
    for (int i = 0; i < threads; ++i) {
        workers[i] = (worker){work, i, 0};
        if (i > 0 && pthread_create(&thread[i], NULL, run_worker, &workers[i]) != 0)
            fail("starting a thread");
    }
    (void)run_worker(&workers[0]);
    for (int i = 1; i < threads; ++i)
        pthread_join(thread[i], NULL);
    (void)pthread_barrier_destroy(&begin);
    return now() - workers[0].start;
}

static void run_matmul(job *j, uint64_t task, int number) {
    j->kernels->matmul_f32->run(&j->matmul, task, j->workspace + (uint64_t)number * j->workspace_bytes);
}

static void run_convolution(job *j, uint64_t task, int number) {
    j->kernels->convolution_f32->run(&j->convolution, task,
                                     j->workspace + (uint64_t)number * j->workspace_bytes);
}

/* As many multiply-adds as a core can begin: sums in registers alone. */
enum { PEAK_SUMS = 12, PEAK_TURNS = 1 << 20 };
typedef float peak_vector __attribute__((vector_size(64)));

#define PEAK_LOOP                                                                                            \
    peak_vector sum[PEAK_SUMS], x = {0.5f};                                                                  \
    for (int i = 0; i < PEAK_SUMS; ++i)                                                                      \
        sum[i] = x;                                                                                          \
    for (int n = 0; n < PEAK_TURNS; ++n)                                                                     \
        __asm__ volatile("vfmadd231ps %12, %12, %0; vfmadd231ps %12, %12, %1; vfmadd231ps %12, %12, %2;"     \
                         "vfmadd231ps %12, %12, %3; vfmadd231ps %12, %12, %4; vfmadd231ps %12, %12, %5;"     \
                         "vfmadd231ps %12, %12, %6; vfmadd231ps %12, %12, %7; vfmadd231ps %12, %12, %8;"     \
                         "vfmadd231ps %12, %12, %9; vfmadd231ps %12, %12, %10; vfmadd231ps %12, %12, %11"    \
                         : "+v"(sum[0]), "+v"(sum[1]), "+v"(sum[2]), "+v"(sum[3]), "+v"(sum[4]),             \
                           "+v"(sum[5]), "+v"(sum[6]), "+v"(sum[7]), "+v"(sum[8]), "+v"(sum[9]),             \
                           "+v"(sum[10]), "+v"(sum[11])                                                      \
                         : "v"(x));

__attribute__((target("avx512f"))) static void run_peak(job *j, uint64_t task, int number) {
    (void)j, (void)task, (void)number;
    PEAK_LOOP
}

static double peak_gflops(int threads) {
    job peak = {.run = run_peak, .tasks = (uint64_t)threads * 4};
    return 2.0 * 16 * PEAK_SUMS * PEAK_TURNS * (double)peak.tasks / run_job(&peak, threads);
}

/* ---- one shape ---- */

static float *floats(int64_t count) {
    float *made = aligned_alloc(64, ((uint64_t)count * sizeof *made + 63) / 64 * 64);
    if (!made)
        fail("allocating memory");
    uint32_t state = 12345;
    for (int64_t i = 0; i < count; ++i, state = state * 1664525u + 1013904223u)
        made[i] = (float)(int32_t)state * 0x1p-31f;
    return made;
}

typedef struct sizes {
    int64_t oh, ow, taps, x, w, result;
    double flops;
} sizes;

static sizes sizes_of(const shape *s) {
    sizes z = {.oh = 1, .ow = 1, .taps = 1};
    int64_t pixels = 1;
    if (s->height)
        z.oh = (s->height + s->stride - 1) / s->stride, z.ow = (s->width + s->stride - 1) / s->stride,
        z.taps = 9, pixels = s->height * s->width;
    z.x = s->rows * pixels * s->in, z.w = s->in * s->out * z.taps, z.result = s->rows * z.oh * z.ow * s->out;
    z.flops = 2.0 * (double)z.result * (double)(s->in * z.taps);
    return z;
}

static void make_job(job *j, const shape *s, const float *x, const void *packed, const float *bias,
                     float *result, int32_t storage, int threads) {
    j->matmul = (attune_matmul_f32){.rows = s->rows, .in = s->in, .out = s->out, .x = x, .stride_x = s->in};
    j->matmul.weights = packed, j->matmul.storage = storage, j->matmul.start = bias;
    j->matmul.result = result, j->matmul.stride_result = s->out;
    j->convolution = (attune_convolution_f32){.batch = s->rows, .height = s->height, .width = s->width};
    j->convolution.in = s->in, j->convolution.out = s->out, j->convolution.stride = s->stride;
    j->convolution.x = x, j->convolution.weights = packed, j->convolution.storage = storage;
    j->convolution.start = bias, j->convolution.result = result;
    j->run = s->height ? run_convolution : run_matmul;
    j->tasks = s->height ? j->kernels->convolution_f32->tasks(&j->convolution)
                         : j->kernels->matmul_f32->tasks(&j->matmul);
    j->workspace_bytes = s->height ? j->kernels->convolution_f32->workspace(&j->convolution)
                                   : j->kernels->matmul_f32->workspace(&j->matmul);
    j->workspace = aligned_alloc(64, j->workspace_bytes * (uint64_t)threads);
    if (!j->workspace)
        fail("allocating memory");
}

/* oneDNN's primitive for a shape with all that it takes. */
typedef struct vendor {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t run;
    dnnl_stream_t stream;
    dnnl_memory_t memory[4];
    dnnl_exec_arg_t arg[4];
} vendor;

#define TRY(call)                                                                                            \
    if ((call) != dnnl_success)                                                                              \
    fail(#call)

static void vendor_make(vendor *v, dnnl_engine_t engine, const shape *s, const sizes *z, float *x, float *w,
                        float *bias, float *result) {
    dnnl_memory_desc_t src, weights, start, dst;
    if (s->height) {
        dnnl_dims_t a = {s->rows, s->in, s->height, s->width}, b = {s->out, s->in, 3, 3}, c = {s->out};
        dnnl_dims_t d = {s->rows, s->out, z->oh, z->ow}, strides = {s->stride, s->stride}, low = {1, 1};
        dnnl_dims_t high = {(z->oh - 1) * s->stride + 2 - s->height, (z->ow - 1) * s->stride + 2 - s->width};
        TRY(dnnl_memory_desc_init_by_tag(&src, 4, a, dnnl_f32, dnnl_nhwc));
        TRY(dnnl_memory_desc_init_by_tag(&weights, 4, b, dnnl_f32, dnnl_format_tag_any));
        TRY(dnnl_memory_desc_init_by_tag(&start, 1, c, dnnl_f32, dnnl_a));
        TRY(dnnl_memory_desc_init_by_tag(&dst, 4, d, dnnl_f32, dnnl_nhwc));
        dnnl_convolution_desc_t desc;
        TRY(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, dnnl_convolution_direct, &src,
                                               &weights, &start, &dst, strides, low, high));
        TRY(dnnl_primitive_desc_create(&v->desc, &desc, NULL, engine, NULL));
    } else {
        dnnl_dims_t a = {s->rows, s->in}, b = {s->in, s->out}, c = {1, s->out}, d = {s->rows, s->out};
        TRY(dnnl_memory_desc_init_by_tag(&src, 2, a, dnnl_f32, dnnl_ab));
        TRY(dnnl_memory_desc_init_by_tag(&weights, 2, b, dnnl_f32, dnnl_format_tag_any));
        TRY(dnnl_memory_desc_init_by_tag(&start, 2, c, dnnl_f32, dnnl_ab));
        TRY(dnnl_memory_desc_init_by_tag(&dst, 2, d, dnnl_f32, dnnl_ab));
        dnnl_matmul_desc_t desc;
        TRY(dnnl_matmul_desc_init(&desc, &src, &weights, &start, &dst));
        TRY(dnnl_primitive_desc_create(&v->desc, &desc, NULL, engine, NULL));
    }
    /* The weights' values are the same numbers in another order: this measures, it compares nothing. */
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(v->desc, dnnl_query_weights_md, 0);
    if (dnnl_memory_desc_get_size(packed) > (size_t)(z->w + 64 * z->taps * s->in) * sizeof(float))
        fail("packing oneDNN's weights in the room for them");
    TRY(dnnl_primitive_create(&v->run, v->desc));
    TRY(dnnl_stream_create(&v->stream, engine, dnnl_stream_default_flags));
    TRY(dnnl_memory_create(&v->memory[0], &src, engine, x));
    TRY(dnnl_memory_create(&v->memory[1], packed, engine, w));
    TRY(dnnl_memory_create(&v->memory[2], &start, engine, bias));
    TRY(dnnl_memory_create(&v->memory[3], &dst, engine, result));
    const int index[4] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST};
    for (int i = 0; i < 4; ++i)
        v->arg[i] = (dnnl_exec_arg_t){index[i], v->memory[i]};
}

static double vendor_run(vendor *v) {
    const double start = now();
    TRY(dnnl_primitive_execute(v->run, v->stream, 4, v->arg));
    TRY(dnnl_stream_wait(v->stream));
    return now() - start;
}

static void vendor_free(vendor *v) {
    for (int i = 0; i < 4; ++i)
        dnnl_memory_destroy(v->memory[i]);
    dnnl_stream_destroy(v->stream);
    dnnl_primitive_destroy(v->run);
    dnnl_primitive_desc_destroy(v->desc);
}

/* OpenMP's threads look out for work for a while after a call. */
static void settle(void) {
    const struct timespec pause = {.tv_nsec = 30000000};
    (void)nanosleep(&pause, NULL);
}

static void measure(const attune_cpu_kernels *kernels, dnnl_engine_t engine, const shape *s, int threads,
                    int rounds) {
    const sizes z = sizes_of(s);
    const attune_weights_f32 full = {s->in, s->out, (int32_t)z.taps, ATTUNE_KERNEL_F32, 0};
    float *const x = floats(z.x), *const result = floats(z.result), *const bias = floats(s->out);
    float *const w = floats(z.w + 64 * z.taps * s->in), *const packed = floats(z.w + 64 * z.taps * s->in);
    uint16_t *const packed_half = (uint16_t *)(void *)floats((z.w + 64 * z.taps * s->in) / 2 + 1);
    kernels->matmul_f32->pack(&full, 0, s->out, w, packed);
    for (int64_t i = 0; i < (z.w + 64 * z.taps * s->in); ++i)
        packed_half[i] = attune_narrow_f16(w[i]);
    job ours = {.kernels = kernels}, ours_half = {.kernels = kernels};
    make_job(&ours, s, x, packed, bias, result, ATTUNE_KERNEL_F32, threads);
    make_job(&ours_half, s, x, packed_half, bias, result, ATTUNE_KERNEL_F16, threads);
    vendor theirs;
    vendor_make(&theirs, engine, s, &z, x, w, bias, result);
    double times[4][MOST_ROUNDS];
    for (int round = -1; round < rounds; ++round) { /* the first warms up */
        const int at = round < 0 ? 0 : round;
        settle();
        times[0][at] = run_job(&ours, threads);
        times[1][at] = vendor_run(&theirs);
        settle();
        times[2][at] = run_job(&ours_half, threads);
        times[3][at] = 1 / peak_gflops(threads);
    }
    const size_t count = (size_t)rounds;
    const double peak = 1 / median(times[3], count);
    const double a = z.flops / median(times[0], count), b = z.flops / median(times[1], count),
                 c = z.flops / median(times[2], count);
    printf("| %s | %.1f | %.0f (%.0f %%) | %.0f (%.0f %%) | %.0f (%.0f %%) | %.2f |\n", s->name,
           z.flops / 1e9, a, 100 * a / peak, c, 100 * c / peak, b, 100 * b / peak, a / b);
    (void)fflush(stdout);
    vendor_free(&theirs);
    free(ours.workspace), free(ours_half.workspace);
    free(x), free(result), free(bias), free(w), free(packed), free(packed_half);
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? atoi(argv[1]) : 2, rounds = argc > 2 ? atoi(argv[2]) : 5;
    const char *const filter = argc > 3 ? argv[3] : "";
    attune_cpu_kernels kernels;
    attune_cpu_dispatch(attune_cpu_detect(), &kernels);
    if (kernels.isa != ATTUNE_CPU_AVX512 || threads < 1 || threads > MOST_THREADS || rounds < 1 ||
        rounds > MOST_ROUNDS) {
        (void)fprintf(stderr, "engine: needs AVX-512, 1 to %d threads and 1 to %d rounds\n", MOST_THREADS,
                      MOST_ROUNDS);
        return 2;
    }
    dnnl_engine_t engine;
    TRY(dnnl_engine_create(&engine, dnnl_cpu, 0));
    printf(
        "| shape | GFLOP | ordered, f32 weights: GFLOP/s (of the FMA peak) | ordered, f16 weights | oneDNN | "
        "ordered / oneDNN |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i)
        if (strstr(shapes[i].name, filter))
            measure(&kernels, engine, &shapes[i], threads, rounds);
    dnnl_engine_destroy(engine);
    return EXIT_SUCCESS;
}
