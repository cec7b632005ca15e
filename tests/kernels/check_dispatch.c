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
        ck_assert_str_eq(kernels.attention_f32->isa, names[isa]);
    }
}
END_TEST

START_TEST(workspace_overflow) {
    attune_attention_f32 a = {
        .batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 1, .n_k = 1, .d_qk = INT64_MAX, .d_v = 1};
    for (int isa = 0; isa < ATTUNE_CPU_ISAS; ++isa) {
        attune_cpu_kernels kernels;
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        ck_assert_uint_eq(kernels.attention_f32->workspace(&a), UINT64_MAX);
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
