/* tests/kernels/products.c: see products.h. */
#include "tests/kernels/products.h"

#include "kernels/cpu/dispatch.h"
#include "tests/kernels/cases.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MARGIN = 32, GUARD = 256 };
static const uint32_t pattern = 0x4a5b6c7du; /* a finite float that no test computes */

product_case random_product(uint64_t index) {
    static const int64_t channels[] = {1, 3, 4, 7, 15, 16, 17, 31, 32, 33, 40, 64, 65, 96, 100};
    static const int64_t rows[] = {1, 2, 5, 6, 7, 13, 14, 15, 28, 29, 50, 77};
    static const int64_t sides[] = {1, 2, 3, 5, 7, 8, 13, 14, 15, 16, 29};
    uint64_t s = index * 0x9e3779b97f4a7c15ull + 3;
    product_case c = {.seed = index + 1};
    c.in = channels[random_int(&s, 0, 14)], c.out = channels[random_int(&s, 0, 14)];
    if (index % 2) {
        c.rows = random_int(&s, 1, 3), c.stride = (int)random_int(&s, 1, 2);
        c.height = sides[random_int(&s, 0, 6)], c.width = sides[random_int(&s, 0, 10)];
    } else {
        c.rows = rows[random_int(&s, 0, 11)];
    }
    c.storage = (int)random_int(&s, ATTUNE_KERNEL_F32, ATTUNE_KERNEL_BF16);
    c.start = (int)random_int(&s, 0, 2), c.residual = (int)random_int(&s, 0, 2);
    c.values = (int)random_int(&s, 0, 2 * VALUES - 1) % VALUES;
    if (c.height == 0 && index % 4 == 2) {
        c.activation = (int)random_int(&s, ATTUNE_PRODUCT_SILU, ATTUNE_PRODUCT_GEGLU),
        c.residual = RESIDUAL_NONE;
        c.out *= c.activation == ATTUNE_PRODUCT_GEGLU ? 2 : 1;
    }
    if (c.height && index % 4 == 3) {
        const int64_t all = (c.height + c.stride - 1) / c.stride;
        c.rows = 1, c.first_row = random_int(&s, 0, all - 1), c.strip = random_int(&s, 1, all - c.first_row);
    }
    c.gap = (int)random_int(&s, 0, 3), c.shift = (int)random_int(&s, 0, 3);
    return c;
}

/* `count` floats between margins of the pattern, `shift` after an aligned address. */
typedef struct array {
    float *owned, *data;
    int64_t count;
} array;

static array make_array(int64_t count, int shift) {
    array a = {.count = count};
    const size_t all = (size_t)(count + 2 * MARGIN + 16) / 16 * 16;
    a.owned = aligned_alloc(64, all * sizeof *a.owned);
    ck_assert_ptr_nonnull(a.owned);
    for (size_t i = 0; i < all; ++i)
        memcpy(a.owned + i, &pattern, sizeof pattern);
    a.data = a.owned + MARGIN / 2 + shift;
    return a;
}

static array fill_array(int64_t count, int shift, int values, int finite, uint64_t *state) {
    static const float special[] = {NAN, INFINITY, -INFINITY, -0.0f, 0.0f, 0x1p-149f, 1e30f};
    array a = make_array(count, shift);
    for (int64_t i = 0; i < count; ++i) {
        float x = random_float(state);
        if (values == VALUES_SPECIAL && random_int(state, 0, finite ? 7 : 200) == 0)
            x = special[random_int(state, finite ? 3 : 0, 6)];
        if (values == VALUES_TINY)
            x *= random_int(state, 0, 3) ? 0x1p-74f : -0.0f;
        if (values == VALUES_HUGE)
            x *= 0x1p63f;
        a.data[i] = x;
    }
    return a;
}

/* Weights as stored: floats, or 16 bits in the same place, which hold finite values. */
static void store_weights(array *w, int storage) {
    uint16_t *const halves = (uint16_t *)(void *)w->data;
    for (int64_t i = 0; i < w->count && storage != ATTUNE_KERNEL_F32; ++i) {
        const float x = w->data[i];
        const uint16_t half = storage == ATTUNE_KERNEL_F16 ? attune_narrow_f16(x) : attune_narrow_bf16(x);
        const uint16_t exponent = storage == ATTUNE_KERNEL_F16 ? 0x7c00 : 0x7f80;
        halves[i] = (half & exponent) == exponent ? (uint16_t)(half - 0x80) : half;
    }
}

/* A case's arrays and its args: of one of the two kinds. */
typedef struct problem {
    const product_case *c;
    attune_weights_f32 weights;
    attune_matmul_f32 matmul;
    attune_convolution_f32 convolution;
    array x, w, start, residual, before, result; /* before: what result holds at first */
} problem;

static problem make_problem(const product_case *c) {
    uint64_t s = c->seed * 0x9e3779b97f4a7c15ull + 5;
    const int is_convolution = c->height > 0;
    const int64_t oh = is_convolution ? (c->height + c->stride - 1) / c->stride : 1;
    const int64_t ow = is_convolution ? (c->width + c->stride - 1) / c->stride : 1;
    const int64_t pixels = is_convolution ? c->height * c->width : 1, gap = is_convolution ? 0 : c->gap;
    problem p = {.c = c, .weights = {c->in, c->out, is_convolution ? 9 : 1, c->storage, 0}};
    p.weights.pairs = c->activation == ATTUNE_PRODUCT_GEGLU;
    p.x = fill_array(c->rows * pixels * (c->in + gap), c->shift, c->values, 0, &s);
    p.w = fill_array(c->in * c->out * p.weights.taps, c->shift, c->values, 1, &s);
    store_weights(&p.w, c->storage);
    p.start = fill_array(c->out * c->rows, c->shift, c->values, 0, &s);
    p.before = fill_array(c->rows * oh * ow * (c->out + gap), c->shift, c->values, 0, &s);
    p.residual = fill_array(p.before.count, c->shift, c->values, 0, &s);
    p.result = make_array(p.before.count, c->shift);
    const float *const residual = c->residual == RESIDUAL_NONE    ? NULL
                                  : c->residual == RESIDUAL_APART ? p.residual.data
                                                                  : p.result.data;
    p.matmul = (attune_matmul_f32){.rows = c->rows,
                                   .in = c->in,
                                   .out = c->out,
                                   .x = p.x.data,
                                   .stride_x = c->in + gap,
                                   .weights = p.w.data,
                                   .storage = c->storage,
                                   .start = c->start ? p.start.data : NULL,
                                   .residual = residual,
                                   .stride_residual = c->out + gap,
                                   .result = p.result.data,
                                   .stride_result = c->out + gap,
                                   .activation = c->activation};
    p.convolution = (attune_convolution_f32){.batch = c->rows,
                                             .height = c->height,
                                             .width = c->width,
                                             .in = c->in,
                                             .out = c->out,
                                             .stride = c->stride,
                                             .storage = c->storage,
                                             .x = p.x.data,
                                             .weights = p.w.data,
                                             .start = c->start ? p.start.data : NULL,
                                             .stride_start = c->start == 2 ? c->out : 0,
                                             .residual = residual,
                                             .result = p.result.data,
                                             .first_row = c->first_row,
                                             .rows = c->strip};
    return p;
}

static void reset_result(problem *p) {
    memcpy(p->result.data, p->before.data, (size_t)p->before.count * sizeof(float));
}

static void free_problem(problem *p) {
    free(p->x.owned), free(p->w.owned), free(p->start.owned);
    free(p->residual.owned), free(p->before.owned), free(p->result.owned);
}

/* Packed in two parts, each from an odd address where 16 bits allow it, within guards. */
static unsigned char *pack_weights(const problem *p, const attune_matmul_f32_kernel *matmul,
                                   const attune_convolution_f32_kernel *convolution) {
    const attune_weights_f32 *w = &p->weights;
    const uint64_t bytes = convolution ? convolution->packed_bytes(w) : matmul->packed_bytes(w);
    const int64_t first = w->out / 3, channel = w->in * w->taps * (w->storage == ATTUNE_KERNEL_F32 ? 4 : 2);
    unsigned char *const packed = aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64);
    ck_assert_ptr_nonnull(packed);
    memset(packed, 0xff, bytes + 2 * GUARD);
    for (int part = 0; part < 2; ++part) {
        const int64_t from = part ? first : 0, count = part ? w->out - first : first;
        const char *const stored = (const char *)p->w.data + from * channel;
        if (count && convolution)
            convolution->pack(w, from, count, stored, packed + GUARD);
        else if (count)
            matmul->pack(w, from, count, stored, packed + GUARD);
    }
    for (int i = 0; i < GUARD; ++i)
        ck_assert_msg(packed[i] == 0xff && packed[GUARD + bytes + (uint64_t)i] == 0xff,
                      "packing writes outside of its memory");
    return packed;
}

static void run_problem(const problem *p, const attune_matmul_f32_kernel *matmul,
                        const attune_convolution_f32_kernel *convolution, const void *packed,
                        int environment) {
    attune_matmul_f32 m = p->matmul;
    attune_convolution_f32 c = p->convolution;
    m.weights = c.weights = packed;
    const uint64_t bytes = convolution ? convolution->workspace(&c) : matmul->workspace(&m);
    const uint64_t tasks = convolution ? convolution->tasks(&c) : matmul->tasks(&m);
    ck_assert_uint_eq(bytes % 64, 0);
    unsigned char *const memory = aligned_alloc(64, bytes + 2 * GUARD);
    ck_assert_ptr_nonnull(memory);
    memset(memory, 0xff, bytes + 2 * GUARD); /* NaN: what a kernel does not write it must not read */
    set_environment(environment);
    for (uint64_t task = tasks; task-- > 0;) {
        if (convolution)
            convolution->run(&c, task, memory + GUARD);
        else
            matmul->run(&m, task, memory + GUARD);
    }
    set_environment(NEAREST);
    for (int i = 0; i < GUARD; ++i)
        ck_assert_msg(memory[i] == 0xff && memory[GUARD + bytes + (uint64_t)i] == 0xff,
                      "a kernel writes outside of its workspace");
    free(memory);
}

static void compare(const problem *p, const char *isa, const float *want, size_t floats) {
    const product_case *c = p->c;
    for (size_t i = 0; i < floats; ++i)
        ck_assert_msg(memcmp(want + i, p->result.owned + i, sizeof *want) == 0,
                      "%s differs at float %ld: %a, the reference has %a (rows %ld in %ld out %ld height %ld "
                      "width %ld stride %d storage %d start %d residual %d values %d gap %d activation %d "
                      "strip %ld+%ld seed %lu)",
                      isa, (long)i - MARGIN / 2 - c->shift, (double)p->result.owned[i], (double)want[i],
                      (long)c->rows, (long)c->in, (long)c->out, (long)c->height, (long)c->width, c->stride,
                      c->storage, c->start, c->residual, c->values, c->gap, c->activation, (long)c->first_row,
                      (long)c->strip, (unsigned long)c->seed);
}

void compare_product(const product_case *c) {
    problem p = make_problem(c);
    const size_t floats = (size_t)(p.result.count + 2 * MARGIN + 16) / 16 * 16;
    float *const want = malloc(floats * sizeof *want);
    ck_assert_ptr_nonnull(want);
    reset_result(&p);
    if (c->height)
        attune_convolution_f32_reference(&p.convolution);
    else
        attune_matmul_f32_reference(&p.matmul);
    memcpy(want, p.result.owned, floats * sizeof *want);
    for (int isa = 0; isa <= (int)attune_cpu_detect(); ++isa) {
        attune_cpu_kernels kernels;
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        const attune_convolution_f32_kernel *const convolution =
            c->height ? kernels.convolution_f32 : (const attune_convolution_f32_kernel *)NULL;
        unsigned char *const packed = pack_weights(&p, kernels.matmul_f32, convolution);
        reset_result(&p);
        run_problem(&p, kernels.matmul_f32, convolution, packed + GUARD,
                    (int)((c->seed + (uint64_t)isa) % ENVIRONMENTS));
        compare(&p, kernels.matmul_f32->isa, want, floats);
        free(packed);
    }
    free(want);
    free_problem(&p);
}
