/* tests/kernels/check_attention_algorithms.c: every algorithm of every ISA gives its reference's bits,
 * whatever is cut how; and each holds in its workspace what its name says. */
#include "kernels/cpu/dispatch.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include <stdlib.h>
#include <string.h>

static const attention_case usual = {.batch = 1,
                                     .heads_q = 2,
                                     .heads_kv = 2,
                                     .n_q = 70,
                                     .n_k = 300,
                                     .d_qk = 40,
                                     .d_v = 40,
                                     .amplitude = 4.0f,
                                     .mask_axes = 15,
                                     .seed = 17};

/* Chunks and slices of any size, smaller and larger than the problem. */
static attention_case chunked_case(uint64_t seed) {
    static const int64_t sizes[] = {1, 5, 16, 17, 24, 64, 100, 128, 129, 1024};
    attention_case c = random_case(seed);
    uint64_t state = seed * 77 + 5;
    c.storage = (int)random_int(&state, 0, 5) % 3;
    c.chunk_q = sizes[random_int(&state, 0, 9)];
    c.chunk_k = sizes[random_int(&state, 0, 9)];
    if (random_int(&state, 0, 3) == 0)
        c.sow = 1u << random_int(&state, 0, SOW_BITS - 1);
    return c;
}

START_TEST(random_problems) {
    for (uint64_t seed = 0; seed < check_count(60); ++seed) {
        const attention_case c = chunked_case(20000 + (uint64_t)_i * check_count(60) + seed);
        for (int i = ATTUNE_ATTENTION_ROW_BLOCKS; i < ATTUNE_ATTENTION_ALGORITHMS; ++i)
            compare_algorithm(&c, i);
    }
}
END_TEST

START_TEST(special_values) {
    for (uint64_t i = 0; i < 3 * (SOW_BITS + 12); ++i) {
        attention_case c = random_case(31000 + i);
        uint64_t state = 177 + i;
        c.n_q = random_int(&state, 1, 70), c.n_k = random_int(&state, 1, 280);
        c.d_qk = random_int(&state, 1, 20), c.d_v = random_int(&state, 1, 20);
        c.chunk_q = random_int(&state, 1, 80), c.chunk_k = random_int(&state, 1, 300);
        c.mask_kind = (int)(i % 3);
        c.sow = i / 3 < SOW_BITS ? 1u << (i / 3) : (unsigned)random_int(&state, 1, (1 << SOW_BITS) - 1);
        for (int k = ATTUNE_ATTENTION_ROW_BLOCKS; k < ATTUNE_ATTENTION_ALGORITHMS; ++k)
            compare_algorithm(&c, k);
    }
}
END_TEST

START_TEST(masked_keys_do_not_reach) {
    for (int special = 0; special < 3; ++special)
        for (int kind = 0; kind < 3; ++kind) {
            attention_case c = usual;
            c.heads_q = c.heads_kv = 1, c.d_v = 24, c.n_q = c.n_k = 140;
            c.mask_kind = kind, c.causal = kind == 0;
            c.sow = special == 0 ? SOW_NAN_V : special == 1 ? SOW_INF_V : (SOW_NAN_V | SOW_NAN_K);
            for (int i = ATTUNE_ATTENTION_ROW_BLOCKS; i < ATTUNE_ATTENTION_ALGORITHMS; ++i)
                compare_algorithm(&c, i);
        }
}
END_TEST

START_TEST(amplitudes) {
    static const float values[] = {0.01f, 0.1f, 0.4f, 1.0f, 4.0f, 10.0f, 40.0f, 100.0f};
    for (size_t i = 0; i < sizeof values / sizeof *values; ++i)
        for (int k = ATTUNE_ATTENTION_ROW_BLOCKS; k < ATTUNE_ATTENTION_ALGORITHMS; ++k) {
            attention_case c = usual;
            c.amplitude = values[i], c.chunk_k = 17 + 40 * (int64_t)i;
            compare_algorithm(&c, k);
        }
}
END_TEST

static void expect_equal(const attention_arrays *a, const float *want, const char *what) {
    ck_assert_msg(memcmp(a->out, want, a->out_floats * sizeof *want) == 0, "%s: other bits", what);
}

/* Slices and chunks of queries are no part of the arithmetic; a single chunk of keys is the full softmax; and
 * the three arithmetics are not one. */
START_TEST(only_chunks_of_keys_show) {
    attention_arrays a = arrays_make(&usual);
    const attune_attention_f32_kernel *kernels = kernel_at((int)attune_cpu_detect());
    const size_t bytes = a.out_floats * sizeof(float);
    float *full = malloc(bytes), *chunked = malloc(bytes);
    ck_assert(full && chunked);
    run_kernel(&kernels[ATTUNE_ATTENTION_MATRIX], &a.args);
    memcpy(full, a.out, bytes);
    a.args.chunk_k = 17;
    run_kernel(&kernels[ATTUNE_ATTENTION_CHUNKS], &a.args);
    memcpy(chunked, a.out, bytes);
    ck_assert(memcmp(full, chunked, bytes) != 0);
    for (a.args.chunk_q = 1; a.args.chunk_q < 200; a.args.chunk_q += 7) {
        run_kernel(&kernels[ATTUNE_ATTENTION_SLICES], &a.args);
        expect_equal(&a, full, "a slice");
        run_kernel(&kernels[ATTUNE_ATTENTION_CHUNKS], &a.args);
        expect_equal(&a, chunked, "a chunk of queries");
    }
    a.args.chunk_k = usual.n_k;
    run_kernel(&kernels[ATTUNE_ATTENTION_CHUNKS], &a.args);
    expect_equal(&a, full, "a single chunk");
    run_kernel(&kernels[ATTUNE_ATTENTION_PANELS], &a.args);
    ck_assert(memcmp(full, a.out, bytes) != 0);
    free(full), free(chunked);
    arrays_free(&a);
}
END_TEST

static uint64_t held(const attune_attention_f32_kernel *kernel, const attune_attention_f32 *args) {
    return kernel->workspace(args) + kernel->shared(args);
}

/* Of what grows with the queries or keys: the online softmax holds nothing, the matrix 4 bytes a score (and
 * per row its m and l), a slice 4 bytes for each of its queries and each key, a chunk 4 for each of its
 * queries and its keys. Sizes are whole vectors and tiles for every ISA: 48 = 4 * 12 = 2 * 24 = 3 * 16. */
START_TEST(workspaces_hold_what_they_should) {
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && kernel_at(isa); ++isa) {
        const attune_attention_f32_kernel *k = kernel_at(isa);
        attune_attention_f32 a = {
            .batch = 2, .heads_q = 8, .heads_kv = 8, .n_q = 4608, .n_k = 4096, .d_qk = 40, .d_v = 40};
        a.chunk_q = 192, a.chunk_k = 64;
        attune_attention_f32 more = a;
        more.n_k = 8192, more.n_q = 9216;
        ck_assert_uint_eq(held(&k[ATTUNE_ATTENTION_PANELS], &a), held(&k[ATTUNE_ATTENTION_PANELS], &more));
        ck_assert_uint_eq(held(&k[ATTUNE_ATTENTION_ROW_BLOCKS], &a),
                          held(&k[ATTUNE_ATTENTION_ROW_BLOCKS], &more));
        ck_assert_uint_lt(held(&k[ATTUNE_ATTENTION_PANELS], &a), 1 << 20);
        ck_assert_uint_lt(held(&k[ATTUNE_ATTENTION_ROW_BLOCKS], &a), 1 << 17);
        ck_assert_uint_eq(k[ATTUNE_ATTENTION_MATRIX].shared(&a), 4ull * 2 * 8 * 4608 * (4096 + 2));
        more = a, more.n_k += 1000;
        ck_assert_uint_eq(held(&k[ATTUNE_ATTENTION_SLICES], &more) - held(&k[ATTUNE_ATTENTION_SLICES], &a),
                          4ull * 192 * 1000);
        ck_assert_uint_eq(held(&k[ATTUNE_ATTENTION_CHUNKS], &more), held(&k[ATTUNE_ATTENTION_CHUNKS], &a));
        more.n_k = a.n_k, more.chunk_k += 1000;
        ck_assert_uint_eq(held(&k[ATTUNE_ATTENTION_CHUNKS], &more) - held(&k[ATTUNE_ATTENTION_CHUNKS], &a),
                          4ull * 192 * 1000);
    }
}
END_TEST

TCase *attention_algorithms_cases(void) {
    TCase *cases = tcase_create("attention algorithms");
    tcase_add_loop_test(cases, random_problems, 0, 5);
    tcase_add_test(cases, special_values);
    tcase_add_test(cases, masked_keys_do_not_reach);
    tcase_add_test(cases, amplitudes);
    tcase_add_test(cases, only_chunks_of_keys_show);
    tcase_add_test(cases, workspaces_hold_what_they_should);
    return cases;
}
