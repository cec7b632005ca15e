/* tests/kernels/check_storage.c: float16 and bfloat16: the conversions by their definition, and kernels that
 * read and write them against the reference on the same values as floats. */
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include "kernels/storage.h"

#include <math.h>

typedef struct format {
    int storage, mantissa, least_exponent; /* of normal values */
    uint16_t infinity, nan;
    float (*widen)(uint16_t);
    uint16_t (*narrow)(float);
} format;

static const format formats[] = {
    {ATTUNE_KERNEL_F16, 10, -14, 0x7c00, 0x7e00, attune_widen_f16, attune_narrow_f16},
    {ATTUNE_KERNEL_BF16, 7, -126, 0x7f80, 0x7fc0, attune_widen_bf16, attune_narrow_bf16}};

/* The value of a finite positive number, from the definition of the format. */
static double value_of(const format *f, uint16_t bits) {
    const int exponent = bits >> f->mantissa, mantissa = bits & ((1 << f->mantissa) - 1);
    const int hidden = exponent ? 1 << f->mantissa : 0;
    return ldexp(hidden + mantissa, f->least_exponent - f->mantissa + (exponent ? exponent - 1 : 0));
}

START_TEST(widened_exactly) {
    const format *f = &formats[_i];
    for (uint32_t bits = 0; bits < f->infinity; ++bits) {
        ck_assert(f->widen((uint16_t)bits) == (float)value_of(f, (uint16_t)bits));
        ck_assert(f->widen((uint16_t)(bits | 0x8000u)) == -(float)value_of(f, (uint16_t)bits));
    }
    ck_assert(signbit(f->widen(0x8000)) && !signbit(f->widen(0)));
    ck_assert(f->widen(f->infinity) == INFINITY && f->widen(f->infinity | 0x8000u) == -INFINITY);
    for (uint32_t bits = f->infinity + 1u; bits < 0x8000u; ++bits)
        ck_assert(isnan(f->widen((uint16_t)bits)) && isnan(f->widen((uint16_t)(bits | 0x8000u))));
}
END_TEST

/* Every value, every midpoint of two neighbours and the floats on both sides of it; infinity's neighbour is
 * the largest value, and the midpoint is where the next binade would have been. */
START_TEST(narrowed_to_the_nearest_even) {
    const format *f = &formats[_i];
    for (uint32_t bits = 0; bits < f->infinity; ++bits) {
        const double here = value_of(f, (uint16_t)bits), next = value_of(f, (uint16_t)(bits + 1));
        const float middle = (float)((here + next) / 2);
        const uint16_t even = (uint16_t)(bits + (bits & 1)), minus = 0x8000u;
        ck_assert_uint_eq(f->narrow((float)here), bits);
        ck_assert_uint_eq(f->narrow(middle), even);
        ck_assert_uint_eq(f->narrow(nextafterf(middle, 0.0f)), bits);
        ck_assert_uint_eq(f->narrow(nextafterf(middle, INFINITY)), bits + 1);
        ck_assert_uint_eq(f->narrow(-middle), even ? even | minus : 0); /* no -0 */
    }
    ck_assert_uint_eq(f->narrow(INFINITY), f->infinity);
    ck_assert_uint_eq(f->narrow(-INFINITY), f->infinity | 0x8000u);
    ck_assert_uint_eq(f->narrow(NAN), f->nan);
    ck_assert_uint_eq(f->narrow(attune_float_of(0xff800001u)), f->nan);
    ck_assert_uint_eq(f->narrow(-0.0f), 0);
    ck_assert_uint_eq(f->narrow(-0x1p-149f), 0);
}
END_TEST

START_TEST(kernels_store_what_the_reference_stores) {
    for (uint64_t i = 0; i < 120; ++i) {
        attention_case c = random_case(5000 + i);
        c.sow = i % 3 ? 0 : 1u << (i / 3 % SOW_BITS);
        c.storage = formats[_i].storage;
        compare_case(&c);
    }
    attention_case wide = {
        .batch = 2, .heads_q = 8, .heads_kv = 8, .n_q = 60, .n_k = 150, .d_qk = 300, .d_v = 270};
    wide.amplitude = 1.0f; /* more channels than a block has keys, and panels of several tiles */
    wide.storage = formats[_i].storage;
    compare_case(&wide);
}
END_TEST

TCase *storage_cases(void) {
    TCase *cases = tcase_create("storage");
    tcase_add_loop_test(cases, widened_exactly, 0, 2);
    tcase_add_loop_test(cases, narrowed_to_the_nearest_even, 0, 2);
    tcase_add_loop_test(cases, kernels_store_what_the_reference_stores, 0, 2);
    return cases;
}
