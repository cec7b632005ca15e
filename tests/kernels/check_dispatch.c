/* tests/kernels/check_dispatch.c: the kernel table and ATTUNE_CPU_MASK's names. */
#include "kernels/cpu/dispatch.h"
#include "tests/kernels/suite.h"

START_TEST(caps) {
    attune_cpu_isa isa = ATTUNE_CPU_AVX512;
    ck_assert_int_eq(attune_cpu_cap(NULL, &isa), 1);
    ck_assert_int_eq(attune_cpu_cap("", &isa), 1);
    ck_assert_int_eq(isa, ATTUNE_CPU_AVX512);
    ck_assert_int_eq(attune_cpu_cap("avx2", &isa), 1);
    ck_assert_int_eq(isa, ATTUNE_CPU_AVX2);
    ck_assert_int_eq(attune_cpu_cap("avx512", &isa), 1); /* a cap never raises */
    ck_assert_int_eq(isa, ATTUNE_CPU_AVX2);
    ck_assert_int_eq(attune_cpu_cap("AVX2", &isa), 0);
    ck_assert_int_eq(attune_cpu_cap("sse", &isa), 0);
    ck_assert_int_eq(isa, ATTUNE_CPU_AVX2);
    ck_assert_int_eq(attune_cpu_cap("generic", &isa), 1);
    ck_assert_int_eq(isa, ATTUNE_CPU_GENERIC);
}
END_TEST

START_TEST(table) {
    static const char *const names[] = {"generic", "avx2", "avx512"};
    attune_cpu_kernels kernels;
    for (int isa = 0; isa < ATTUNE_CPU_ISAS; ++isa) {
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        ck_assert_int_eq(kernels.isa, isa);
        for (int i = 0; i < ATTUNE_ATTENTION_ALGORITHMS; ++i)
            ck_assert_str_eq(kernels.attention_f32[i].isa, names[isa]);
    }
}
END_TEST

START_TEST(workspace_overflow) {
    attune_attention_f32 a = {.batch = 1,
                              .heads_q = 1,
                              .heads_kv = 1,
                              .n_q = 1,
                              .n_k = 1,
                              .d_qk = INT64_MAX,
                              .d_v = 1,
                              .chunk_q = 1,
                              .chunk_k = 1};
    for (int isa = 0; isa < ATTUNE_CPU_ISAS; ++isa) {
        attune_attention_f32 long_ = a;
        attune_cpu_kernels kernels;
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        for (int i = 0; i < ATTUNE_ATTENTION_ALGORITHMS; ++i)
            ck_assert_uint_eq(kernels.attention_f32[i].workspace(&a), UINT64_MAX);
        long_.d_qk = 40, long_.n_k = INT64_MAX, long_.chunk_k = INT64_MAX;
        ck_assert_uint_eq(kernels.attention_f32[ATTUNE_ATTENTION_SLICES].workspace(&long_), UINT64_MAX);
        ck_assert_uint_eq(kernels.attention_f32[ATTUNE_ATTENTION_CHUNKS].workspace(&long_), UINT64_MAX);
        ck_assert_uint_eq(kernels.attention_f32[ATTUNE_ATTENTION_MATRIX].shared(&long_), UINT64_MAX);
    }
}
END_TEST

TCase *dispatch_cases(void) {
    TCase *cases = tcase_create("dispatch");
    tcase_add_test(cases, caps);
    tcase_add_test(cases, table);
    tcase_add_test(cases, workspace_overflow);
    return cases;
}
