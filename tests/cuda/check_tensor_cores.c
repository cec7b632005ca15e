/* check_tensor_cores.c: every kernel of flash.cu and efficient.cu, the very binaries that ship, on random
 * problems by the PTX of each generation: near attention in double, special values as docs/arithmetic.md has
 * them, the same bits wherever a row stands. */
#include "kernels/cuda/attention_shapes.h"
#include "tests/cuda/tensor_core_cases.h"
#include "tests/cuda_emulator/emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLASH(size, sixteens, keys)                                                                          \
    {"attune_flash_f16_" #size, size, ATTUNE_KERNEL_F16, 1},                                                 \
        {"attune_flash_f16_" #size "_general", size, ATTUNE_KERNEL_F16, 0},                                  \
        {"attune_flash_bf16_" #size, size, ATTUNE_KERNEL_BF16, 1},                                           \
        {"attune_flash_bf16_" #size "_general", size, ATTUNE_KERNEL_BF16, 0},
#define EFFICIENT(size, sixteens, keys)                                                                      \
    {"attune_efficient_f16_" #size, size, ATTUNE_KERNEL_F16, 0},                                             \
        {"attune_efficient_bf16_" #size, size, ATTUNE_KERNEL_BF16, 0},
static const tensor_core_kernel kernels[] = {
    ATTUNE_CUDA_TILES(FLASH) ATTUNE_CUDA_TILES(EFFICIENT){"attune_flash_f16_512", 512, ATTUNE_KERNEL_F16, 0},
    {"attune_flash_bf16_512", 512, ATTUNE_KERNEL_BF16, 0},
    {"attune_flash_f16_any", 0, ATTUNE_KERNEL_F16, 0},
    {"attune_flash_bf16_any", 0, ATTUNE_KERNEL_BF16, 0},
    {"attune_efficient_f16_any", 0, ATTUNE_KERNEL_F16, 0},
    {"attune_efficient_bf16_any", 0, ATTUNE_KERNEL_BF16, 0}};
static const char *const capabilities[] = {"7.5", "8.0", "9.0"};
enum { KERNELS = sizeof kernels / sizeof *kernels, CAPABILITIES = 3, PROBLEMS = 201, SOWN = 60 };

/* Tests are one for each kernel and generation: reading a fat binary takes as long as many problems. */
static const tensor_core_kernel *open_way(kernel_way *way, int test) {
    const tensor_core_kernel *k = &kernels[test / CAPABILITIES];
    const int flash = strstr(k->name, "flash") != NULL;
    kernel_way_open(way, flash ? "kernels/cuda/flash" : "kernels/cuda/efficient",
                    flash ? attune_cuda_plan_flash : attune_cuda_plan_memory_efficient,
                    capabilities[test % CAPABILITIES]);
    return k->storage == ATTUNE_KERNEL_BF16 && way->cc < 80 ? NULL : k;
}

static void check_problem(kernel_way *way, const tensor_core_kernel *kernel, uint64_t i, unsigned sow) {
    const attention_case c = tensor_core_problem(kernel, i, sow);
    attention_arrays a = arrays_make(&c);
    kernel_run(&a.stored, way);
    const char *wrong = tensor_core_verdict(&a, sow != 0);
    ck_assert_msg(!*wrong, "problem %lu of %s, sown %x, on %d: %s", (unsigned long)i, kernel->name, sow,
                  way->cc, wrong);
    ck_assert_str_eq(way->plan.launches[0].kernel, kernel->name);
    arrays_free(&a);
}

static void results_are_near_double(kernel_way *way, const tensor_core_kernel *kernel) {
    for (uint64_t i = 0; i < check_count(PROBLEMS); ++i)
        check_problem(way, kernel, check_first() + i, 0);
}

static void special_values_follow_the_rules(kernel_way *way, const tensor_core_kernel *kernel) {
    static const unsigned kinds[] = {SOW_NAN_Q,
                                     SOW_NAN_K,
                                     SOW_NAN_V,
                                     SOW_INF_Q,
                                     SOW_INF_K,
                                     SOW_INF_V,
                                     SOW_MASK,
                                     SOW_MASKED_ROWS,
                                     SOW_MINUS_ZERO | SOW_NAN_V | SOW_INF_V,
                                     SOW_SUBNORMAL,
                                     SOW_NAN_K | SOW_NAN_V | SOW_MASKED_ROWS,
                                     SOW_TIES};
    for (uint64_t i = 0; i < check_count(SOWN); ++i)
        check_problem(way, kernel, 1000 + check_first() + i, kinds[i % (sizeof kinds / sizeof *kinds)]);
}

/* ---- class invariant ---- */

static void run_part(kernel_way *way, const attention_arrays *a, int64_t b, int64_t first, int64_t rows) {
    attune_attention_f32 p = a->stored;
    p.q = (const uint16_t *)p.q + b * p.stride_q[0] + first * p.stride_q[2];
    p.k = (const uint16_t *)p.k + b * p.stride_k[0];
    p.v = (const uint16_t *)p.v + b * p.stride_v[0];
    p.out = (uint16_t *)p.out + b * p.stride_out[0] + first * p.stride_out[2];
    const int64_t skipped = b * p.stride_mask[0] + first * p.stride_mask[2];
    p.mask =
        p.mask ? (const char *)p.mask + skipped * (p.mask_kind == ATTUNE_KERNEL_MASK_FLOAT ? 4 : 1) : NULL;
    p.batch = 1;
    p.n_q = rows;
    kernel_run(&p, way);
}

static uint16_t *output_of(const attention_arrays *a, size_t *count) {
    const attune_attention_f32 *p = &a->stored;
    *count = (size_t)((p->batch - 1) * p->stride_out[0] + (p->heads_q - 1) * p->stride_out[1] +
                      (p->n_q - 1) * p->stride_out[2] + p->d_v);
    uint16_t *made = malloc(*count * sizeof *made);
    ck_assert_ptr_nonnull(made);
    memcpy(made, p->out, *count * sizeof *made);
    return made;
}

/* A whole problem, and each batch entry and each run of seven rows alone. */
static void rows_do_not_depend_on_their_place(kernel_way *way, const tensor_core_kernel *kernel) {
    for (uint64_t i = 0; i < 2; ++i) {
        attention_case c = tensor_core_problem(kernel, 2000 + i, 0);
        size_t count;
        c.batch = 2;
        c.causal = 0; /* else a part is another problem */
        c.n_q = 40;
        attention_arrays a = arrays_make(&c);
        kernel_run(&a.stored, way);
        uint16_t *whole = output_of(&a, &count);
        arrays_reset_out(&a);
        for (int64_t b = 0; b < 2; ++b)
            for (int64_t first = 0; first < c.n_q; first += 7)
                run_part(way, &a, b, first, c.n_q - first < 7 ? c.n_q - first : 7);
        ck_assert_msg(memcmp(whole, a.stored.out, count * sizeof *whole) == 0,
                      "problem %lu of %s on %d, in parts, differs", (unsigned long)i, kernel->name, way->cc);
        free(whole);
        arrays_free(&a);
    }
}

/* The same values one element behind an aligned address; the caller frees *memory. */
static const uint16_t *displaced(const void *from, const int64_t stride[4], int64_t batch, int64_t heads,
                                 int64_t rows, int64_t size, uint16_t **memory) {
    const size_t count =
        (size_t)((batch - 1) * stride[0] + (heads - 1) * stride[1] + (rows - 1) * stride[2] + size);
    *memory = malloc((count + 1) * sizeof **memory);
    ck_assert_ptr_nonnull(*memory);
    return memcpy(*memory + 1, from, count * sizeof **memory);
}

/* The same problem with a mask that hides nothing, and with rows that are not aligned. */
static void the_general_kernel_has_the_plain_ones_bits(kernel_way *way, const tensor_core_kernel *kernel) {
    static const uint8_t seen = 1;
    for (uint64_t i = 0; i < 2; ++i) {
        attention_case c = tensor_core_problem(kernel, 3000 + i, 0);
        size_t count;
        uint16_t *memory[3];
        attention_arrays a = arrays_make(&c);
        attune_attention_f32 *p = &a.stored;
        kernel_run(p, way);
        ck_assert_str_eq(way->plan.launches[0].kernel, kernel->name);
        uint16_t *plain = output_of(&a, &count);
        p->q = displaced(p->q, p->stride_q, p->batch, p->heads_q, p->n_q, p->d_qk, &memory[0]);
        p->k = displaced(p->k, p->stride_k, p->batch, p->heads_kv, p->n_k, p->d_qk, &memory[1]);
        p->v = displaced(p->v, p->stride_v, p->batch, p->heads_kv, p->n_k, p->d_v, &memory[2]);
        for (int masked = 0; masked < 2; ++masked) {
            p->mask_kind = masked ? ATTUNE_KERNEL_MASK_BOOL : ATTUNE_KERNEL_MASK_NONE;
            p->mask = &seen; /* all its strides are 0 */
            memset(p->stride_mask, 0, sizeof p->stride_mask);
            arrays_reset_out(&a);
            kernel_run(p, way);
            ck_assert_ptr_nonnull(strstr(way->plan.launches[0].kernel, "_general"));
            ck_assert_msg(memcmp(plain, p->out, count * sizeof *plain) == 0,
                          "problem %lu of %s on %d, mask %d, differs from the plain kernel's",
                          (unsigned long)i, kernel->name, way->cc, masked);
        }
        free(plain);
        for (int j = 0; j < 3; ++j)
            free(memory[j]);
        arrays_free(&a);
    }
}

START_TEST(a_kernel_is_right_everywhere) {
    kernel_way way;
    const tensor_core_kernel *kernel = open_way(&way, _i);
    if (!kernel)
        return;
    results_are_near_double(&way, kernel);
    special_values_follow_the_rules(&way, kernel);
    if (strstr(kernel->name, "flash"))
        rows_do_not_depend_on_their_place(&way, kernel);
    if (kernel->plain)
        the_general_kernel_has_the_plain_ones_bits(&way, kernel);
}
END_TEST

/* ---- plans ---- */

/* Stable Diffusion 1.5, 2.1 and XL: self- and cross-attention at 512 x 512 (XL: 1024 x 1024), the VAE, CLIP.
 */
static const struct {
    int64_t heads, n_q, n_k, size;
} shapes[] = {{8, 4096, 4096, 40},  {8, 1024, 1024, 80},  {8, 256, 256, 160}, {8, 64, 64, 160},
              {8, 4096, 77, 40},    {8, 1024, 77, 80},    {8, 256, 77, 160},  {8, 64, 77, 160},
              {5, 4096, 4096, 64},  {10, 1024, 1024, 64}, {20, 256, 256, 64}, {10, 4096, 4096, 64},
              {20, 1024, 1024, 64}, {10, 4096, 77, 64},   {20, 1024, 77, 64}, {1, 4096, 4096, 512},
              {12, 77, 77, 64},     {20, 77, 77, 64}};
static const struct {
    int cc;
    uint32_t shared; /* most of a block (CUDA C++ Programming Guide, Technical Specifications) */
} devices[] = {{75, 65536}, {80, 166912}, {86, 101376}, {89, 101376}, {90, 232448}, {120, 101376}};

static attune_attention_f32 problem_of(int64_t batch, int64_t heads, int64_t n_q, int64_t n_k, int64_t size) {
    attune_attention_f32 a = {.batch = batch,
                              .heads_q = heads,
                              .heads_kv = heads,
                              .n_q = n_q,
                              .n_k = n_k,
                              .d_qk = size,
                              .d_v = size,
                              .storage = ATTUNE_KERNEL_F16};
    int64_t *const strides[] = {a.stride_q, a.stride_k, a.stride_v, a.stride_out};
    for (int i = 0; i < 4; ++i) {
        const int64_t n = i == 1 || i == 2 ? n_k : n_q;
        strides[i][0] = heads * n * size, strides[i][1] = size, strides[i][2] = heads * size,
        strides[i][3] = 1;
    }
    return a;
}

START_TEST(every_shape_has_a_plan_on_every_device) {
    for (size_t d = 0; d < sizeof devices / sizeof *devices; ++d)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; ++s)
            for (int efficient = 0; efficient < 2; ++efficient) {
                const attune_attention_f32 a =
                    problem_of(2, shapes[s].heads, shapes[s].n_q, shapes[s].n_k, shapes[s].size);
                attune_cuda_plan plan;
                ck_assert((efficient ? attune_cuda_plan_memory_efficient
                                     : attune_cuda_plan_flash)(&a, devices[d].cc, &plan));
                for (uint32_t l = 0; l < plan.count; ++l)
                    ck_assert_uint_le(plan.launches[l].shared, devices[d].shared);
                ck_assert_ptr_null(strstr(plan.launches[0].kernel, "_general"));
                ck_assert_ptr_null(efficient ? NULL : strstr(plan.launches[0].kernel, "_any"));
            }
}
END_TEST

START_TEST(what_tensor_cores_do_not_serve_is_refused) {
    attune_cuda_planner *const planners[] = {attune_cuda_plan_flash, attune_cuda_plan_memory_efficient};
    for (int i = 0; i < 2; ++i) {
        attune_cuda_plan plan;
        attune_attention_f32 a = problem_of(1, 8, 64, 64, 40);
        a.storage = ATTUNE_KERNEL_F32;
        ck_assert(!planners[i](&a, 90, &plan));
        ck_assert_str_eq(plan.refusal, "tensor cores take float16 and bfloat16, not float32");
        a.storage = ATTUNE_KERNEL_BF16;
        ck_assert(!planners[i](&a, 75, &plan));
        ck_assert_str_eq(plan.refusal,
                         "tensor cores take bfloat16 from compute capability 8.0 on; this device has 7.5");
        ck_assert(planners[i](&a, 80, &plan));
        a = problem_of(1, 1, 64, 64, 513);
        ck_assert(!planners[i](&a, 90, &plan));
        ck_assert_str_eq(plan.refusal, "head size 513 is above 512");
        a = problem_of(1, 1, INT64_C(1) << 40, 64, 40);
        ck_assert(!planners[i](&a, 90, &plan));
        ck_assert_str_eq(plan.refusal,
                         "batch 1, 1 heads, 1099511627776 queries are more blocks than a grid has");
        a = problem_of(INT64_C(1) << 40, 8, 64, 64, 40);
        ck_assert(!planners[i](&a, 90, &plan));
    }
}
END_TEST

START_TEST(keys_are_split_for_short_queries_only) {
    attune_cuda_plan plan;
    attune_attention_f32 a = problem_of(1, 2, 100, 5000, 64);
    ck_assert(attune_cuda_plan_memory_efficient(&a, 80, &plan));
    ck_assert_uint_eq(plan.count, 2);
    const int64_t chunk = plan.launches[0].chunk_k, chunks = (5000 + chunk - 1) / chunk;
    ck_assert_int_eq(chunk % 64, 0);
    ck_assert_int_gt(chunks, 1);
    ck_assert_uint_eq(plan.launches[0].grid[0], (uint32_t)chunks);
    ck_assert_uint_eq(plan.workspace, (uint64_t)(2 * chunks * 100 * 66 * 4 + 255) / 256 * 256);
    a = problem_of(2, 8, 4096, 4096, 40);
    ck_assert(attune_cuda_plan_memory_efficient(&a, 80, &plan));
    ck_assert_uint_eq(plan.count, 1);
    ck_assert_uint_eq(plan.workspace, 0);
}
END_TEST

/* More heads than a grid's y: one key, so that the output is its value. */
START_TEST(many_heads_are_all_computed) {
    kernel_way way;
    attention_case c = {.batch = 8200,
                        .heads_q = 8,
                        .heads_kv = 8,
                        .n_q = 1,
                        .n_k = 1,
                        .d_qk = 8,
                        .d_v = 8,
                        .amplitude = 1,
                        .storage = ATTUNE_KERNEL_F16,
                        .seed = 5};
    setenv("ATTUNE_EMULATOR_CHECKS", "0", 1);
    kernel_way_open(&way, "kernels/cuda/flash", attune_cuda_plan_flash, "8.0");
    attention_arrays a = arrays_make(&c);
    kernel_run(&a.stored, &way);
    ck_assert_uint_eq(way.plan.launches[0].grid[1], 65535);
    ck_assert_uint_eq(way.plan.launches[0].grid[2], 2);
    for (int64_t i = 0; i < c.batch * c.heads_q * c.d_v; ++i) /* -0 is stored as 0 */
        ck_assert_uint_eq(((const uint16_t *)a.stored.out)[i], ((const uint16_t *)a.stored.v)[i] == 0x8000
                                                                   ? 0
                                                                   : ((const uint16_t *)a.stored.v)[i]);
    arrays_free(&a);
}
END_TEST

/* Copies, ldmatrix and all other uses of shared memory take as few waves as their bytes need (the prototype
 * of this kernel took 1.9 times as many for its copies at head size 40). */
START_TEST(shared_memory_has_no_bank_conflicts) {
    kernel_way way;
    setenv("ATTUNE_EMULATOR_COUNTERS", "1", 1);
    kernel_way_open(&way, "kernels/cuda/flash", attune_cuda_plan_flash, capabilities[_i]);
    for (size_t k = 0; k < KERNELS; ++k) {
        cuda_emulator_counters n;
        if (!kernels[k].plain || kernels[k].storage != ATTUNE_KERNEL_F16)
            continue;
        attention_case c = {.batch = 1,
                            .heads_q = 1,
                            .heads_kv = 1,
                            .n_q = 128,
                            .n_k = 192,
                            .d_qk = kernels[k].size,
                            .d_v = kernels[k].size,
                            .amplitude = 1,
                            .storage = ATTUNE_KERNEL_F16};
        attention_arrays a = arrays_make(&c);
        kernel_run(&a.stored, &way);
        ck_assert(cuda_emulator_counters_of(kernels[k].name, &n));
        ck_assert_uint_gt(n.shared_requests, 0);
        ck_assert_msg(n.shared_waves == n.shared_ideal_waves, "%s: %lu waves, %lu needed", kernels[k].name,
                      (unsigned long)n.shared_waves, (unsigned long)n.shared_ideal_waves);
        arrays_free(&a);
    }
}
END_TEST

TCase *tensor_core_cases(void) {
    TCase *c = tcase_create("tensor cores");
    tcase_set_tags(c, "tensor-cores"); /* half of the suite's time: check-cuda runs it beside the rest */
    tcase_add_loop_test(c, a_kernel_is_right_everywhere, 0, KERNELS * CAPABILITIES);
    tcase_add_test(c, every_shape_has_a_plan_on_every_device);
    tcase_add_test(c, what_tensor_cores_do_not_serve_is_refused);
    tcase_add_test(c, keys_are_split_for_short_queries_only);
    tcase_add_test(c, many_heads_are_all_computed);
    tcase_add_loop_test(c, shared_memory_has_no_bank_conflicts, 0, CAPABILITIES);
    return c;
}
