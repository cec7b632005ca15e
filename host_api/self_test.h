/*
 * self_test.h: known answers. The problems and their inputs are made by the functions here, for libattune and
 * for tools/make_self_test alike; the answers are kernels/reference's bits, written at build time by that
 * tool, so that libattune knows no kernel.
 */
#ifndef HOST_API_SELF_TEST_H
#define HOST_API_SELF_TEST_H

#include "attune/attention.h"

/* How q, k, v and the output are stored. */
enum { ATTUNE_SELF_TEST_F32 = 0, ATTUNE_SELF_TEST_F16 = 1, ATTUNE_SELF_TEST_BF16 = 2 };

/* Extents small enough for a swap to wait for, and odd enough to leave rests in every blocking. */
typedef struct attune_self_test_case {
    int64_t batch, heads_q, heads_kv, n_q, n_k, d_qk, d_v;
    int32_t mask, causal, storage;
} attune_self_test_case;

#define ATTUNE_SELF_TESTS       11
#define ATTUNE_SELF_TEST_VALUES 4096 /* the most of any one tensor */

static const attune_self_test_case attune_self_tests[ATTUNE_SELF_TESTS] = {
    {1, 2, 2, 8, 8, 8, 8, ATTUNE_MASK_NONE, 0, ATTUNE_SELF_TEST_F32},
    {1, 1, 1, 24, 40, 64, 64, ATTUNE_MASK_NONE, 0, ATTUNE_SELF_TEST_F32},
    {1, 2, 1, 5, 131, 16, 16, ATTUNE_MASK_FLOAT, 0, ATTUNE_SELF_TEST_F32},
    {1, 1, 1, 33, 33, 40, 40, ATTUNE_MASK_NONE, 1, ATTUNE_SELF_TEST_F32},
    {2, 1, 1, 7, 13, 20, 12, ATTUNE_MASK_BOOL, 0, ATTUNE_SELF_TEST_F32},
    {1, 1, 1, 24, 40, 64, 64, ATTUNE_MASK_NONE, 0, ATTUNE_SELF_TEST_F16},
    {1, 2, 1, 5, 131, 16, 16, ATTUNE_MASK_FLOAT, 0, ATTUNE_SELF_TEST_F16},
    {1, 1, 1, 33, 33, 40, 40, ATTUNE_MASK_NONE, 1, ATTUNE_SELF_TEST_F16},
    {1, 1, 1, 24, 40, 64, 64, ATTUNE_MASK_NONE, 0, ATTUNE_SELF_TEST_BF16},
    {2, 1, 1, 7, 13, 24, 16, ATTUNE_MASK_BOOL, 0, ATTUNE_SELF_TEST_BF16},
    {1, 1, 1, 33, 33, 40, 40, ATTUNE_MASK_NONE, 1, ATTUNE_SELF_TEST_BF16},
};

/* [any] `count` floats in [-1, 1) after a linear congruential generator (Knuth, TAOCP 2, 3.2.1): integers of
 * `bits` bits over a power of two, so that every compiler gives the same. 24 bits are a float32's; 8 are
 * exact in float16 and bfloat16 too. */
static inline void attune_self_test_fill(float *out, int64_t count, uint32_t seed, int bits) {
    for (int64_t i = 0; i < count; ++i) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = (float)((int32_t)(seed >> (32 - bits)) - (1 << (bits - 1))) / (float)(1 << (bits - 1));
    }
}

static inline int attune_self_test_bits_of(const attune_self_test_case *one) {
    return one->storage == ATTUNE_SELF_TEST_F32 ? 24 : 8;
}

/* [any] A bool mask of the same kind, in which key 0 always takes part. */
static inline void attune_self_test_mask(uint8_t *out, int64_t queries, int64_t keys, uint32_t seed) {
    for (int64_t i = 0; i < queries * keys; ++i) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = i % keys == 0 || seed >> 31;
    }
}

/* The answers, case after case, as the bits of their storage (B, Hq, Nq, Dv); and the id of their arithmetic.
 */
extern const uint32_t attune_self_test_bits[];
extern const char attune_self_test_arithmetic[];

struct attune_generation;

/*
 * [any] Run the known-answer problems on every attention backend of a generation that is not published yet:
 * the bits where the backend has the answers' arithmetic id and keeps `portable`, else within
 * attune_self_test_tolerance. What its table does not list or its query declines is passed over. On other
 * devices than the CPU the problems go there and back by attune.device/1, of this generation or, where it
 * drives no device, of the one that does; where nobody does a line of the log says that nothing was tested.
 * Errors: INTERNAL (wrong numbers: backend, problem, both values; memory that is not aligned), and the
 * backend's and the device's own.
 */
attune_code attune_self_test(struct attune_generation *generation, attune_error *error);

/* Of outputs, which are means of values in [-1, 1): products in half precision (11 bits, over 40 channels)
 * pass with 2^-7, and weights and outputs in bfloat16 (8 bits) with 2^-6; no wrong mask, scale, stride or
 * head does. */
static inline float attune_self_test_tolerance(int32_t storage) {
    return storage == ATTUNE_SELF_TEST_BF16 ? 0x1p-6f : 0x1p-7f;
}

#endif
