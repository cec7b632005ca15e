/* tests/kernels/check_products.c: matmul and convolution kernels give the reference's bits: random problems,
 * every cut of the work, chains in pieces, ragged sizes, rows alone and among others. */
#include "kernels/cpu/dispatch.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/products.h"
#include "tests/kernels/suite.h"

#include <stdlib.h>
#include <string.h>

START_TEST(random_products) {
    for (uint64_t i = 0; i < check_count(1200); ++i) {
        const product_case c = random_product(check_first() + i);
        compare_product(&c);
    }
}
END_TEST

/* Longer than MOST_STEPS, so that chains are stored and go on; rows 4 KiB apart, which are copied first;
 * several blocks of rows and of panels. */
START_TEST(chains_in_pieces) {
    for (int storage = ATTUNE_KERNEL_F32; storage <= ATTUNE_KERNEL_BF16; ++storage) {
        product_case c = {.rows = 31, .in = 3073, .out = 33, .storage = storage, .start = 1, .seed = 9};
        c.residual = RESIDUAL_IN_PLACE;
        compare_product(&c);
        c.in = 7168, c.rows = 100;
        compare_product(&c);
        c.in = 37, c.rows = 1000, c.out = 300;
        compare_product(&c);
        c.in = 3100, c.rows = 90, c.out = 74, c.residual = RESIDUAL_NONE, c.activation = ATTUNE_PRODUCT_GEGLU;
        compare_product(&c);
    }
}
END_TEST

/* All taps at once, the taps of one ky, and one tap; tiles at both edges of a row and at one. */
START_TEST(taps_in_pieces) {
    static const int64_t channels[] = {20, 350, 1100};
    for (int i = 0; i < 3; ++i)
        for (int64_t width = 1; width <= 16; width += i == 2 ? 5 : 1)
            for (int stride = 1; stride <= 2; ++stride) {
                product_case c = {.rows = 2, .in = channels[i], .out = 5, .height = 3, .width = width};
                c.stride = stride, c.start = 2, c.residual = i, c.storage = (int)(width % 3), c.seed = 17;
                compare_product(&c);
            }
    product_case many = {.rows = 2, .in = 12, .out = 70, .height = 40, .width = 61, .stride = 1};
    compare_product(&many);
}
END_TEST

/* A row of a batch, and the same row alone: by each kernel, which cuts them in different ways. */
START_TEST(rows_are_independent) {
    enum { ROWS = 300, IN = 90, OUT = 70 };
    static float x[ROWS * IN], w[OUT * IN], all[ROWS * OUT];
    uint64_t s = 5;
    for (int i = 0; i < ROWS * IN; ++i)
        x[i] = random_float(&s);
    for (int i = 0; i < OUT * IN; ++i)
        w[i] = random_float(&s);
    for (int isa = 0; isa <= (int)attune_cpu_detect(); ++isa) {
        attune_cpu_kernels kernels;
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        const attune_matmul_f32_kernel *const k = kernels.matmul_f32;
        const attune_weights_f32 weights = {IN, OUT, 1, ATTUNE_KERNEL_F32, 0};
        void *const packed = aligned_alloc(64, (k->packed_bytes(&weights) + 63) / 64 * 64);
        k->pack(&weights, 0, OUT, w, packed);
        attune_matmul_f32 a = {.rows = ROWS, .in = IN, .out = OUT, .x = x, .stride_x = IN};
        a.weights = packed, a.result = all, a.stride_result = OUT;
        void *const workspace = aligned_alloc(64, k->workspace(&a));
        for (uint64_t task = 0; task < k->tasks(&a); ++task)
            k->run(&a, task, workspace);
        a.rows = 1;
        for (int64_t row = 0; row < ROWS; ++row) {
            float alone[OUT];
            a.x = x + row * IN, a.result = alone;
            for (uint64_t task = 0; task < k->tasks(&a); ++task)
                k->run(&a, task, workspace);
            ck_assert_mem_eq(alone, all + row * OUT, sizeof alone);
        }
        free(workspace);
        free(packed);
    }
}
END_TEST

/* The rows of a strip, given the input rows that it reads, are those of the whole image. */
START_TEST(strips_are_rows_of_the_whole) {
    enum { HEIGHT = 7, WIDTH = 5, IN = 3, OUT = 4 };
    float x[HEIGHT * WIDTH * IN], w[OUT * IN * 9], whole[HEIGHT * WIDTH * OUT], strip[HEIGHT * WIDTH * OUT];
    uint64_t s = 8;
    for (int i = 0; i < HEIGHT * WIDTH * IN; ++i)
        x[i] = random_float(&s);
    for (int i = 0; i < OUT * IN * 9; ++i)
        w[i] = random_float(&s);
    for (int stride = 1; stride <= 2; ++stride) {
        const int height = (HEIGHT + stride - 1) / stride, row = (WIDTH + stride - 1) / stride * OUT;
        attune_convolution_f32 a = {.batch = 1, .height = HEIGHT, .width = WIDTH, .in = IN, .out = OUT};
        a.stride = stride, a.x = x, a.weights = w, a.result = whole;
        attune_convolution_f32_reference(&a);
        a.result = strip;
        for (int first = 0; first < height; ++first)
            for (int rows = 1; first + rows <= height; ++rows) {
                a.first_row = first, a.rows = rows;
                a.x = x + (first ? first * stride - 1 : 0) * WIDTH * IN;
                attune_convolution_f32_reference(&a);
                ck_assert_mem_eq(strip, whole + first * row, (size_t)(rows * row) * sizeof *strip);
            }
    }
}
END_TEST

/* The rules on numbers small enough for paper: what the kernels are compared with is not only itself. */
START_TEST(rules_on_paper) {
    const float x[] = {1, 2, 3, 4}, w[] = {1, 10, 100, 1000, 1, 1, 1, 1}, start[] = {0.5f, -10};
    float out[2];
    attune_matmul_f32 m = {.rows = 1, .in = 4, .out = 2, .x = x, .stride_x = 4, .weights = w};
    m.start = start, m.result = out, m.stride_result = 2;
    attune_matmul_f32_reference(&m);
    ck_assert(out[0] == 4321.5f && memcmp(&out[1], &(float){0.0f}, sizeof(float)) == 0);
    /* one channel, 2 x 2 pixels, weights 1 ... 9 by (ky, kx): each pixel sees all four */
    const float nine[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    float four[4];
    attune_convolution_f32 c = {.batch = 1, .height = 2, .width = 2, .in = 1, .out = 1, .stride = 1};
    c.x = x, c.weights = nine, c.result = four;
    attune_convolution_f32_reference(&c);
    ck_assert(four[0] == 5 + 12 + 24 + 36 && four[1] == 4 + 10 + 21 + 32);
    ck_assert(four[2] == 2 + 6 + 15 + 24 && four[3] == 1 + 4 + 12 + 20);
    /* fma, which keeps 2^-46 of the square of 1 + 2^-23; and the order of the chain */
    const float a[] = {-1, 0x1.000002p0f}, b[] = {1, 0x1.000002p0f};
    m.in = 2, m.out = 1, m.x = a, m.weights = b, m.start = NULL;
    attune_matmul_f32_reference(&m);
    ck_assert(out[0] == 0x1.000001p-22f);
    const float large[] = {0x1p30f, 1, -0x1p30f}, ones[] = {1, 1, 1};
    m.in = 3, m.x = large, m.weights = ones;
    attune_matmul_f32_reference(&m);
    ck_assert(out[0] == 0.0f);
}
END_TEST

TCase *products_cases(void) {
    TCase *cases = tcase_create("products");
    tcase_add_test(cases, random_products);
    tcase_add_test(cases, chains_in_pieces);
    tcase_add_test(cases, taps_in_pieces);
    tcase_add_test(cases, rows_are_independent);
    tcase_add_test(cases, strips_are_rows_of_the_whole);
    tcase_add_test(cases, rules_on_paper);
    return cases;
}
