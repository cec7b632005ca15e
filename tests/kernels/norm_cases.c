/* tests/kernels/norm_cases.c: see norm_cases.h. */
#include "tests/kernels/norm_cases.h"

#include "kernels/arithmetic.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/reference/stored.h"
#include "kernels/storage.h"
#include "tests/kernels/cases.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = NORM_GUARD };

/* n floats in +-amplitude around an offset; every 7th value of a sown array is a special one. */
float *norm_floats(uint64_t *random, int64_t n, float amplitude, float offset, int sown) {
    static const float special[] = {NAN, INFINITY, -INFINITY, -0.0f, 0x1p-149f, -0x1p-130f, 3e38f};
    float *x = malloc(((size_t)n + GUARD) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (int64_t i = 0; i < n + GUARD; ++i)
        x[i] = random_float(random) * amplitude + offset;
    for (int64_t i = 0; sown && i < n; ++i)
        if (random_int(random, 0, 6) == 0)
            x[i] = special[random_int(random, sown > 1 ? 0 : 3, 5 + (sown > 1))];
    return x;
}

static void same(const char *isa, uint64_t seed, const float *want, const float *got, int64_t n) {
    for (int64_t i = 0; i < n + GUARD; ++i)
        if (memcmp(want + i, got + i, sizeof *want) != 0)
            ck_abort_msg("%s, seed %lu: %ld is %a, the reference %a", isa, (unsigned long)seed, (long)i,
                         (double)got[i], (double)want[i]);
}

/* Flush-to-zero, denormals-are-zero and rounding up: what a kernel must neither see nor change. */
static uint64_t disturb(void) {
    const uint64_t before = attune_fp_enter();
#if defined(__x86_64__)
    attune_fp_leave(0x1F80 | 0x8040 | 0x4000);
#else
    attune_fp_leave(1u << 24 | 1u << 22);
#endif
    return before;
}

static void undisturb(uint64_t before) {
    const uint64_t now = attune_fp_enter();
#if defined(__x86_64__)
    const int kept = (now & ~0x3full) == (0x1F80 | 0x8040 | 0x4000);
#else
    const int kept = now == (1u << 24 | 1u << 22);
#endif
    attune_fp_leave(before);
    ck_assert_msg(kept, "a kernel changed its caller's floating-point environment");
}

/* Each phase's tasks, the last first. */
static void run_group(const attune_norm_f32_kernel *k, const attune_group_norm_f32 *a) {
    const uint64_t floats = attune_group_norm_f32_workspace(a);
    float *workspace = malloc((floats + GUARD) * sizeof *workspace);
    ck_assert_ptr_nonnull(workspace);
    memset(workspace, 0xff, (floats + GUARD) * sizeof *workspace);
    const uint64_t before = disturb();
    for (int phase = 0; phase < ATTUNE_NORM_PHASES; ++phase)
        for (uint64_t task = (uint64_t)a->batch * k->group_tasks(a, phase); task-- > 0;)
            k->group_run(a, phase, task, workspace);
    undisturb(before);
    for (uint64_t i = floats; i < floats + GUARD; ++i)
        ck_assert(attune_bits_of(workspace[i]) == 0xffffffffu);
    free(workspace);
}

static attune_group_norm_f32 random_group(uint64_t *random, uint64_t seed) {
    const int64_t per_group = random_int(random, 1, 11), groups = random_int(random, 1, 24);
    attune_group_norm_f32 a = {.batch = random_int(random, 1, 3),
                               .pixels = random_int(random, 1, seed % 4 ? 300 : 9000),
                               .channels = per_group * groups,
                               .groups = groups,
                               .eps = seed % 2 ? 1e-5f : 1e-6f,
                               .silu = (int32_t)(seed / 2 % 2)};
    return a;
}

void compare_group_norm(uint64_t seed) {
    uint64_t random = seed + 1;
    attune_group_norm_f32 a = random_group(&random, seed);
    const int64_t image = a.pixels * a.channels, n = a.batch * image;
    const float offset = seed % 3 ? 0.0f : 50.0f;
    float *x = norm_floats(&random, n, seed % 5 ? 1.0f : 1e-38f, offset, seed % 6 == 5 ? 2 : seed % 6 == 4);
    float *scale = norm_floats(&random, a.channels, 1.0f, 0.0f, seed % 2 != 0),
          *shift = norm_floats(&random, a.channels, 1.0f, 0.0f, seed % 2 != 0);
    float *want = norm_floats(&random, n, 1.0f, 0.0f, 0), *got = norm_floats(&random, n, 1.0f, 0.0f, 0);
    memcpy(got + n, want + n, GUARD * sizeof *got);
    a.x = x, a.scale = scale, a.shift = shift, a.out = want;
    attune_group_norm_f32_reference(&a);
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && kernel_at(isa); ++isa) {
        attune_cpu_kernels k;
        attune_cpu_dispatch((attune_cpu_isa)isa, &k);
        a.out = got;
        run_group(k.norm_f32, &a);
        same(k.norm_f32->isa, seed, want, got, n);
        attune_group_norm_f32 last = a; /* the last image alone, in place */
        memcpy(got, x, (size_t)n * sizeof *x);
        last.batch = 1;
        last.x = last.out = got + (a.batch - 1) * image;
        run_group(k.norm_f32, &last);
        same(k.norm_f32->isa, seed, want + (a.batch - 1) * image, last.out, image);
    }
    free(x), free(scale), free(shift), free(want), free(got);
}

void compare_layer_norm(uint64_t seed) {
    uint64_t random = seed + 1;
    attune_layer_norm_f32 a = {.rows = random_int(&random, 1, 50),
                               .channels = random_int(&random, 1, seed % 3 ? 70 : 1400),
                               .eps = 1e-5f};
    const int64_t n = a.rows * a.channels;
    float *x = norm_floats(&random, n, seed % 5 ? 1.0f : 1e-38f, seed % 4 ? 0.0f : 50.0f,
                           seed % 6 == 5 ? 2 : seed % 6 == 4);
    float *scale = norm_floats(&random, a.channels, 1.0f, 0.0f, seed % 2 != 0),
          *shift = norm_floats(&random, a.channels, 1.0f, 0.0f, seed % 2 != 0);
    float *want = norm_floats(&random, n, 1.0f, 0.0f, 0), *got = norm_floats(&random, n, 1.0f, 0.0f, 0);
    memcpy(got + n, want + n, GUARD * sizeof *got);
    a.x = x, a.scale = scale, a.shift = shift, a.out = want;
    attune_layer_norm_f32_reference(&a);
    a.out = got;
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && kernel_at(isa); ++isa) {
        attune_cpu_kernels k;
        attune_cpu_dispatch((attune_cpu_isa)isa, &k);
        memset(got, 0xff, (size_t)n * sizeof *got);
        const uint64_t before = disturb();
        for (uint64_t task = k.norm_f32->layer_tasks(&a); task-- > 0;)
            k.norm_f32->layer_run(&a, task);
        undisturb(before);
        same(k.norm_f32->isa, seed, want, got, n);
    }
    free(x), free(scale), free(shift), free(want), free(got);
}

float *activation_arguments(uint64_t step, int64_t *n) {
    *n = 0;
    float *x = malloc(((size_t)UINT32_MAX / step + 2 + GUARD) * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += step)
        x[(*n)++] = attune_float_of((uint32_t)bits);
    return x;
}

/* ---- the references as loops ---- */

static void each(float (*f)(float), const float *x, int64_t n, float *out) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = stored(f(x[i]));
}

static void reference_silu(const float *x, int64_t n, float *out) {
    each(attune_silu_f32_reference, x, n, out);
}
static void reference_gelu(const float *x, int64_t n, float *out) {
    each(attune_gelu_f32_reference, x, n, out);
}
static void reference_quick_gelu(const float *x, int64_t n, float *out) {
    each(attune_quick_gelu_f32_reference, x, n, out);
}
static void reference_geglu(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t rows,
                            int64_t channels, float *out, int64_t out_stride) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < channels; ++c)
            out[r * out_stride + c] =
                stored(a[r * a_stride + c] * attune_gelu_f32_reference(b[r * b_stride + c]));
}
static void reference_add(const float *a, const float *b, int64_t n, float *out) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = stored(a[i] + b[i]);
}

static const attune_activation_f32_kernel reference = {.isa = "reference",
                                                       .silu = reference_silu,
                                                       .gelu = reference_gelu,
                                                       .quick_gelu = reference_quick_gelu,
                                                       .geglu = reference_geglu,
                                                       .add = reference_add};

/* One of the five functions, into `out` with its guard. */
static void run_activation(const attune_activation_f32_kernel *k, int function, const float *x, int64_t n,
                           float *out) {
    void (*const simple[])(const float *, int64_t, float *) = {k->silu, k->gelu, k->quick_gelu};
    memset(out, 0xff, (size_t)(n + GUARD) * sizeof *out);
    if (function < 3)
        simple[function](x, n, out);
    else if (function == 3) /* rows of 1001, the gate from behind */
        k->geglu(x, 1001, x + n / 2, 1001, n / 2 / 1001, 1001, out, 1001);
    else
        k->add(x, x + n / 2, n / 2, out);
}

static void compare_each_activation(const float *x, int64_t n) {
    float *want = malloc((size_t)(n + GUARD) * sizeof *want),
          *got = malloc((size_t)(n + GUARD) * sizeof *got);
    ck_assert(want && got);
    for (int function = 0; function < 5; ++function) {
        run_activation(&reference, function, x, n, want);
        for (int isa = 0; isa < ATTUNE_CPU_ISAS && kernel_at(isa); ++isa) {
            attune_cpu_kernels k;
            attune_cpu_dispatch((attune_cpu_isa)isa, &k);
            const uint64_t before = disturb();
            run_activation(k.activation_f32, function, x, n, got);
            undisturb(before);
            same(k.activation_f32->isa, (uint64_t)function, want, got, n);
        }
    }
    free(want), free(got);
}

/* Over all floats, then rows of every length up to some vectors. */
void compare_activations(uint64_t step) {
    enum { MOST = 150 };
    int64_t n;
    float *x = activation_arguments(step, &n);
    compare_each_activation(x, n);
    for (int64_t few = 1; few <= MOST; ++few)
        compare_each_activation(x + n / 2 + few, few);
    free(x);
}
