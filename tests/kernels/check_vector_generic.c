/* tests/kernels/check_vector_generic.c: the generic vectors' fma, which is computed without the instruction,
 * against the C library's. */
#include "kernels/cpu/vector_generic.h"
#include "kernels/storage.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>

static float any_float(uint64_t *state) {
    return attune_float_of((uint32_t)(random_next(state) >> 32));
}

/* A float near the exponent `e`, with many or few bits. */
static float near(uint64_t *state, int e) {
    const uint32_t bits = (uint32_t)(random_next(state) >> 41), kept = random_int(state, 0, 1) ? 23 : 11;
    const float x = 1.0f + (float)(bits >> (23 - kept)) * ldexpf(1.0f, -(int)kept);
    return ldexpf(random_int(state, 0, 1) ? x : -x, e);
}

/* c near what the product is, so that much or all cancels, or half of its last place away. */
static float hard_sum(uint64_t *state, float a, float b) {
    const float product = a * b;
    int exponent = 0;
    if (isfinite(product))
        (void)frexpf(product, &exponent);
    switch (random_int(state, 0, 4)) {
    case 0:
        return -nextafterf(product, random_int(state, 0, 1) ? INFINITY : -INFINITY);
    case 1:
        return -product;
    case 2:
        return near(state, exponent + (int)random_int(state, 20, 28));
    case 3:
        return near(state, exponent - (int)random_int(state, 20, 28));
    default:
        return near(state, exponent + (int)random_int(state, -3, 3));
    }
}

enum { ANY, ORDINARY, SUBNORMAL, OVERFLOWING, MIDWAY, KINDS };

/* One triple of the kind. */
static void hard_values(uint64_t *state, int kind, float *a, float *b, float *c) {
    static const int sums[KINDS] = {0, 0, -146, 127, 0};
    if (kind == ANY) {
        *a = any_float(state), *b = any_float(state), *c = any_float(state);
        return;
    }
    const int e = (int)random_int(state, -60, 60);
    *a = near(state, e);
    *b = near(state, sums[kind] - e + (int)random_int(state, -6, 6));
    *c = hard_sum(state, *a, *b);
    if (kind == MIDWAY) { /* 1.x times 1 + 2^-n reaches below the sum's last place by one bit, or nearly */
        *a = (float)(2 * random_int(state, 0, 1 << 11) + 1);
        *b = ldexpf((float)(2 * random_int(state, 0, 1 << 11) + 1), -(int)random_int(state, 0, 140));
        int exponent;
        (void)frexpf(*a * *b, &exponent);
        *c = near(state, exponent + (int)random_int(state, -2, 12));
        if (random_int(state, 0, 3) == 0)
            *c = ldexpf(1.0f, exponent + (int)random_int(state, -2, 26)); /* a binade's end */
    }
}

START_TEST(fma_is_exact) {
    uint64_t state = (check_first() + 1) * 0x9e3779b97f4a7c15ull + (uint64_t)_i;
    const uint64_t count = check_count(2000000);
    for (uint64_t i = 0; i < count; i += WIDTH) {
        float a[WIDTH], b[WIDTH], c[WIDTH], fast[WIDTH], slow[WIDTH];
        for (int j = 0; j < WIDTH; ++j)
            hard_values(&state, _i, a + j, b + j, c + j);
        v_store(fast, v_fma(v_load(a), v_load(b), v_load(c)));
        v_store(slow, v_fma_slowly(v_load(a), v_load(b), v_load(c)));
        for (int j = 0; j < WIDTH; ++j) {
            const float want = fmaf(a[j], b[j], c[j]);
            const int both = isnan(want) ? isnan(fast[j]) && isnan(slow[j])
                                         : attune_bits_of(fast[j]) == attune_bits_of(want) &&
                                               attune_bits_of(slow[j]) == attune_bits_of(want);
            if (!both)
                ck_abort_msg("fma(%a, %a, %a) is %a, here %a, slowly %a", (double)a[j], (double)b[j],
                             (double)c[j], (double)want, (double)fast[j], (double)slow[j]);
        }
    }
}
END_TEST

TCase *vector_generic_cases(void) {
    TCase *cases = tcase_create("generic vectors");
    tcase_add_loop_test(cases, fma_is_exact, 0, KINDS);
    return cases;
}
