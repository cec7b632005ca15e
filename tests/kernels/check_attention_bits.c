/* tests/kernels/check_attention_bits.c: every vector kernel gives the reference's bits, and writes nothing
 * else. */
#include "kernels/cpu/dispatch.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

static const attention_case usual = {.batch = 1,
                                     .heads_q = 2,
                                     .heads_kv = 2,
                                     .n_q = 70,
                                     .n_k = 77,
                                     .d_qk = 40,
                                     .d_v = 40,
                                     .amplitude = 4.0f,
                                     .mask_axes = 15,
                                     .seed = 7};

START_TEST(amplitudes) {
    static const float values[] = {0.01f, 0.04f, 0.1f, 0.4f, 1.0f, 4.0f, 10.0f, 40.0f, 100.0f};
    static const int64_t sizes[] = {40, 80};
    for (size_t i = 0; i < sizeof values / sizeof *values; ++i)
        for (int j = 0; j < 2; ++j) {
            attention_case c = usual;
            c.amplitude = values[i], c.d_qk = c.d_v = sizes[j], c.n_k = 200;
            compare_case(&c);
        }
}
END_TEST

START_TEST(head_sizes) {
    static const int64_t sizes[] = {1,  2,  3,  5,  7,   8,   12,  16,  17,  24,  28, 40,
                                    64, 80, 96, 97, 128, 160, 161, 193, 320, 512, 577};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        attention_case c = usual;
        c.heads_q = c.heads_kv = 1, c.n_q = 67;
        c.d_qk = c.d_v = sizes[i];
        compare_case(&c);
        c.d_v = sizes[(i + 5) % (sizeof sizes / sizeof *sizes)];
        compare_case(&c);
    }
}
END_TEST

START_TEST(ragged_sizes) {
    for (int64_t n_q = 1; n_q <= 70; ++n_q) {
        attention_case c = usual;
        c.heads_q = c.heads_kv = 1, c.d_qk = c.d_v = 12;
        c.n_q = n_q, c.n_k = 1 + (n_q * 37) % 270, c.layout = (int)(n_q % LAYOUTS);
        compare_case(&c);
    }
    for (int64_t n_k = 1; n_k <= 70; ++n_k) {
        attention_case c = usual;
        c.heads_q = c.heads_kv = 1, c.d_qk = c.d_v = 12;
        c.n_k = n_k, c.n_q = 1 + (n_k * 29) % 140;
        compare_case(&c);
    }
}
END_TEST

/* Many small heads share a task, and the cut differs from kernel to kernel. */
START_TEST(many_small_heads) {
    attention_case c = usual;
    c.batch = 40, c.heads_q = c.heads_kv = 8, c.n_q = c.n_k = 16;
    compare_case(&c);
    c.batch = 301, c.heads_q = 2, c.heads_kv = 1, c.n_q = 3, c.n_k = 5, c.d_qk = 4, c.d_v = 6;
    compare_case(&c);
}
END_TEST

/* Several tiles that take each block together: enough rows for panels, tiles that causality ends at different
 * blocks, and tiles that see nothing. */
START_TEST(panels) {
    static const int64_t queries[] = {49, 100, 201, 530};
    for (int i = 0; i < 4; ++i)
        for (int mask = 0; mask < 3; ++mask)
            for (int causal = 0; causal < 2; ++causal) {
                attention_case c = {.batch = 2, .heads_q = 8, .heads_kv = 4, .n_q = queries[i], .n_k = 300};
                c.d_qk = 9, c.d_v = 6, c.layout = i, c.mask_kind = mask, c.mask_axes = 12, c.causal = causal;
                c.amplitude = 4.0f, c.seed = (uint64_t)(10 + i);
                compare_case(&c);
            }
}
END_TEST

START_TEST(random_cases) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
        attention_case c = random_case((uint64_t)_i * 60 + seed);
        compare_case(&c);
    }
}
END_TEST

/* Every kind of special value alone, then any mixture, with every mask kind. */
START_TEST(special_values) {
    for (uint64_t i = 0; i < 3 * (SOW_BITS + 12); ++i) {
        attention_case c = random_case(1000 + i);
        uint64_t state = 77 + i;
        c.n_q = random_int(&state, 1, 70), c.n_k = random_int(&state, 1, 280);
        c.d_qk = random_int(&state, 1, 20), c.d_v = random_int(&state, 1, 20);
        c.mask_kind = (int)(i % 3);
        c.sow = i / 3 < SOW_BITS ? 1u << (i / 3) : (unsigned)random_int(&state, 1, (1 << SOW_BITS) - 1);
        compare_case(&c);
    }
}
END_TEST

/* All that a key may not do where it is masked for some queries and not for others. */
START_TEST(masked_keys_do_not_reach) {
    for (int special = 0; special < 3; ++special)
        for (int kind = 0; kind < 3; ++kind) {
            attention_case c = usual;
            c.heads_q = c.heads_kv = 1, c.d_v = 24, c.n_q = c.n_k = 140;
            c.mask_kind = kind, c.causal = kind == 0;
            c.sow = special == 0 ? SOW_NAN_V : special == 1 ? SOW_INF_V : (SOW_NAN_V | SOW_NAN_K);
            compare_case(&c);
        }
}
END_TEST

/* The rules themselves, on the reference: what the kernels are compared with is not only itself. */
START_TEST(rules_of_nan_and_masks) {
    float q[2] = {1, 1}, k[3] = {1, 2, 3}, v[6] = {1, 2, 3, 4, 5, 6}, out[4];
    uint8_t mask[6] = {1, 1, 0, 0, 0, 0};
    attune_attention_f32 a = {.batch = 1,
                              .heads_q = 1,
                              .heads_kv = 1,
                              .n_q = 2,
                              .n_k = 3,
                              .d_qk = 1,
                              .d_v = 2,
                              .q = q,
                              .k = k,
                              .v = v,
                              .mask = mask,
                              .out = out,
                              .mask_kind = ATTUNE_KERNEL_MASK_BOOL,
                              .stride_q = {2, 2, 1, 1},
                              .stride_k = {3, 3, 1, 1},
                              .stride_v = {6, 6, 2, 1},
                              .stride_mask = {6, 6, 3, 1},
                              .stride_out = {4, 4, 2, 1}};
    const uint32_t zeros[2] = {0, 0}, nans[2] = {0x7fc00000u, 0x7fc00000u};
    k[2] = NAN, v[5] = INFINITY; /* the masked key's */
    attune_attention_f32_reference(&a);
    ck_assert(isfinite(out[0]) && isfinite(out[1]));
    ck_assert_int_eq(memcmp(out + 2, zeros, 8), 0); /* a row that sees nothing: +0 */
    mask[5] = 1;
    attune_attention_f32_reference(&a);
    ck_assert(isfinite(out[0]));
    ck_assert_int_eq(memcmp(out + 2, nans, 8), 0);
    k[2] = 3, v[5] = -NAN;
    attune_attention_f32_reference(&a);
    ck_assert_int_eq(memcmp(out + 3, nans, 4), 0); /* its channel only, and one NaN only */
    ck_assert(out[2] == 5.0f);
    v[5] = 6, v[4] = -0x1p-149f;
    attune_attention_f32_reference(&a);
    ck_assert(out[2] == -0x1p-149f); /* subnormals leave */
    mask[3] = mask[4] = 1, k[0] = k[1] = k[2] = 0, v[0] = v[2] = 0;
    attune_attention_f32_reference(&a);
    ck_assert_int_eq(memcmp(out + 2, zeros, 4), 0); /* a third of -2^-149 would round to -0 */
}
END_TEST

#ifdef __x86_64__
START_TEST(caller_environment) {
    static const unsigned states[] = {0x1F80 | 0x8040, 0x1F80 | 0x4000, 0x1F80 | 0x2000, 0x1F80 | 0x6000,
                                      0x1F80 | 0xC040};
    attention_case c = usual;
    c.amplitude = 100.0f, c.sow = SOW_SUBNORMAL, c.scale = 1e38f;
    attention_arrays a = arrays_make(&c);
    float *want = malloc(a.out_floats * sizeof *want);
    ck_assert_ptr_nonnull(want);
    attune_attention_f32_reference(&a.args);
    memcpy(want, a.out, a.out_floats * sizeof *want);
    const attune_attention_f32_kernel *kernel;
    for (int isa = -1; isa < ATTUNE_CPU_ISAS && (isa < 0 || kernel_at(isa)); ++isa)
        for (size_t i = 0; i < sizeof states / sizeof *states; ++i) {
            kernel = isa < 0 ? NULL : kernel_at(isa);
            arrays_reset_out(&a);
            const unsigned before = _mm_getcsr();
            _mm_setcsr(states[i]);
            if (kernel)
                run_kernel(kernel, &a.args);
            else
                attune_attention_f32_reference(&a.args);
            const unsigned after = _mm_getcsr();
            _mm_setcsr(before);
            ck_assert_uint_eq(after & ~0x3fu, states[i]); /* but for sticky exception flags */
            ck_assert_msg(memcmp(want, a.out, a.out_floats * sizeof *want) == 0,
                          "%s under MXCSR %x: other bits", kernel ? kernel->isa : "reference", states[i]);
        }
    free(want);
    arrays_free(&a);
}
END_TEST
#endif

/* A kernel asks for no more memory than it uses: the last of it is a row of the last tile. */
START_TEST(workspace_is_used_to_its_end) {
    attention_case c = usual;
    c.n_q = 1536, c.n_k = 300, c.d_qk = 12, c.d_v = 8; /* whole tiles and whole panels of every kernel */
    for (int masked = 0; masked < 2; ++masked) {
        c.causal = masked;
        attention_arrays a = arrays_make(&c);
        const attune_attention_f32_kernel *table;
        for (int isa = 0; isa < ATTUNE_CPU_ISAS && (table = kernel_at(isa)) != NULL; ++isa)
            for (int i = ATTUNE_ATTENTION_PANELS; i <= ATTUNE_ATTENTION_ROW_BLOCKS; ++i) {
                const uint64_t bytes = table[i].workspace(&a.args), tasks = table[i].tasks(&a.args);
                unsigned char *memory = aligned_alloc(64, bytes);
                ck_assert_ptr_nonnull(memory);
                memset(memory, 0xff, bytes);
                for (uint64_t task = 0; task < tasks; ++task)
                    table[i].run(&a.args, task, memory);
                int used = 0; /* of the last line, whose end may be rounded up */
                for (uint64_t byte = bytes - 64; byte < bytes; ++byte)
                    used |= memory[byte] != 0xff;
                ck_assert_msg(used, "%s, algorithm %d: nothing at the end", table[i].isa, i);
                free(memory);
            }
        arrays_free(&a);
    }
}
END_TEST

/* A row's bits depend on nothing but its own inputs: not on the batch, its place, or how many queries there
 * are. */
START_TEST(rows_are_independent) {
    attention_case c = usual;
    c.batch = 2, c.n_q = 130;
    attention_arrays a = arrays_make(&c);
    const attune_attention_f32_kernel *kernel = kernel_at((int)attune_cpu_detect());
    run_kernel(kernel, &a.args);
    for (int64_t row = 0; row < c.n_q; row += 13) {
        attune_attention_f32 one = a.args;
        float alone[40];
        one.batch = one.heads_q = one.heads_kv = one.n_q = 1;
        one.q = a.q + a.args.stride_q[0] + a.args.stride_q[1] + row * a.args.stride_q[2];
        one.k = a.k + a.args.stride_k[0] + a.args.stride_k[1];
        one.v = a.v + a.args.stride_v[0] + a.args.stride_v[1];
        one.out = alone;
        run_kernel(kernel, &one);
        const float *whole = a.out + a.args.stride_out[0] + a.args.stride_out[1] + row * a.args.stride_out[2];
        ck_assert_int_eq(memcmp(alone, whole, sizeof alone), 0);
    }
    arrays_free(&a);
}
END_TEST

TCase *attention_bits_cases(void) {
    TCase *cases = tcase_create("attention bits");
    tcase_add_test(cases, amplitudes);
    tcase_add_test(cases, head_sizes);
    tcase_add_test(cases, ragged_sizes);
    tcase_add_test(cases, many_small_heads);
    tcase_add_test(cases, panels);
    tcase_add_loop_test(cases, random_cases, 0, 5);
    tcase_add_test(cases, special_values);
    tcase_add_test(cases, masked_keys_do_not_reach);
    tcase_add_test(cases, rules_of_nan_and_masks);
#ifdef __x86_64__
    tcase_add_test(cases, caller_environment);
#endif
    tcase_add_test(cases, workspace_is_used_to_its_end);
    tcase_add_test(cases, rows_are_independent);
    return cases;
}
