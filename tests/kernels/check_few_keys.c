/* tests/kernels/check_few_keys.c: heads of few queries and keys, which have a kernel of their own in AVX-512,
 * and whose large outputs are written past the caches: bits, and where they may be stored. */
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include <string.h>

/* Every number of queries and keys that it takes, and their neighbours; weights from all alike to all but one
 * 0, and scores below the maximum's start. */
START_TEST(every_size) {
    static const int64_t sizes[] = {16, 26, 40, 64, 80};
    static const float amplitudes[] = {0.01f, 0.4f, 4.0f, 40.0f, 1000.0f, 0x1p104f, 0x1p110f};
    int64_t i = 0;
    for (int64_t n_q = 1; n_q <= 17; ++n_q)
        for (int64_t n_k = 7; n_k <= 17; ++n_k, ++i) {
            attention_case c = {.batch = 3, .heads_q = 2, .n_q = n_q, .n_k = n_k, .seed = (uint64_t)i};
            c.heads_kv = 1 + i % 2, c.layout = (int)(i / 2 % LAYOUTS), c.shift = (int)(i % 3);
            c.d_qk = sizes[i % 5], c.d_v = sizes[i / 5 % 5], c.amplitude = amplitudes[i % 7];
            c.sow = i % 4 == 3 ? 1u << (i / 4 % SOW_BITS) : i % 4 == 1 ? SOW_MINUS_ZERO : 0;
            c.causal = i % 11 == 10, c.mask_kind = i % 11 == 9 ? ATTUNE_KERNEL_MASK_BOOL : 0,
            c.mask_axes = 15;
            compare_algorithm(&c, i % 3 ? ATTUNE_ATTENTION_PANELS : ATTUNE_ATTENTION_ROW_BLOCKS);
        }
}
END_TEST

/* Outputs of more than 16 MiB, which are stored past the caches where some heads' rows together are whole
 * lines: as they lie in memory, and so that only one thing is in the way of each condition. */
START_TEST(large_outputs) {
    static const struct {
        int64_t heads, n_q, d_v, stride[3];
        int shift;
    } outputs[] = {
        {2, 16, 40, {1280, 640, 40}, 0},         /* a head at a time: its rows lie together */
        {2, 16, 40, {1280, 640, 40}, 1},         /* not on a line */
        {2, 16, 40, {2 * 648, 648, 40}, 0},      /* every second head begins amid a line */
        {2, 15, 40, {2 * 608, 608, 40}, 0},      /* heads end amid one */
        {4, 9, 32, {9 * 128, 32, 128}, 0},       /* a head at a time, whose rows are whole lines */
        {2, 16, 32, {2 * 640, 640, 40}, 0},      /* rows begin amid a line */
        {2, 16, 32, {16 * 80, 40, 80}, 0},       /* the second head does */
        {4, 16, 32, {16 * 128 + 8, 32, 128}, 0}, /* batch entries do */
        {4, 16, 40, {16 * 160, 40, 160}, 0},     /* two heads at a time */
        {4, 16, 40, {16 * 160 + 8, 40, 160}, 0}, /* batch entries begin amid a line */
        {3, 16, 40, {16 * 128, 40, 128}, 0},     /* the last head has no other */
        {2, 16, 40, {16 * 96, 48, 96}, 0},       /* the two lie apart */
        {2, 16, 28, {16 * 64, 28, 64}, 0},       /* they end amid a line */
    };
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; ++i) {
        attention_case c = {
            .n_q = outputs[i].n_q, .n_k = 8 + (int64_t)i % 9, .d_qk = 1, .d_v = outputs[i].d_v};
        c.heads_q = c.heads_kv = outputs[i].heads, c.shift = outputs[i].shift, c.amplitude = 4.0f;
        c.batch = 4300000 / (c.heads_q * c.n_q * c.d_v);
        memcpy(c.stride_out, outputs[i].stride, sizeof c.stride_out);
        compare_case(&c);
    }
}
END_TEST

TCase *few_keys_cases(void) {
    TCase *cases = tcase_create("few keys");
    tcase_add_test(cases, every_size);
    tcase_add_test(cases, large_outputs);
    return cases;
}
