/*
 * self_test.h: known answers. The problems and their inputs are made by the functions here, for libattune and
 * for tools/make_self_test alike; the answers are kernels/reference's bits, written at build time by that
 * tool, so that libattune knows no kernel.
 */
#ifndef HOST_API_SELF_TEST_H
#define HOST_API_SELF_TEST_H

#include "attune/attention.h"

/* Extents small enough for a swap to wait for, and odd enough to leave rests in every blocking. */
typedef struct attune_self_test_case {
    int64_t batch, heads_q, heads_kv, n_q, n_k, d_qk, d_v;
    int32_t mask, causal;
} attune_self_test_case;

#define ATTUNE_SELF_TESTS       4
#define ATTUNE_SELF_TEST_VALUES 8192 /* the most of any one tensor */

static const attune_self_test_case attune_self_tests[ATTUNE_SELF_TESTS] = {
    {1, 2, 2, 8, 8, 8, 8, ATTUNE_MASK_NONE, 0},
    {1, 2, 1, 5, 131, 16, 16, ATTUNE_MASK_FLOAT, 0},
    {1, 1, 1, 33, 33, 40, 40, ATTUNE_MASK_NONE, 1},
    {2, 1, 1, 7, 13, 20, 12, ATTUNE_MASK_BOOL, 0},
};

/* [any] `count` floats in [-1, 1) after a linear congruential generator (Knuth, TAOCP 2, 3.2.1): integers
 * over a power of two, so that every compiler gives the same. */
static inline void attune_self_test_fill(float *out, int64_t count, uint32_t seed) {
    for (int64_t i = 0; i < count; ++i) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = (float)((int32_t)(seed >> 8) - (1 << 23)) / 8388608.0f;
    }
}

/* [any] A bool mask of the same kind, in which key 0 always takes part. */
static inline void attune_self_test_mask(uint8_t *out, int64_t queries, int64_t keys, uint32_t seed) {
    for (int64_t i = 0; i < queries * keys; ++i) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = i % keys == 0 || seed >> 31;
    }
}

/* The answers, case after case, as the bits of float32 (B, Hq, Nq, Dv); and the id of their arithmetic. */
extern const uint32_t attune_self_test_bits[];
extern const char attune_self_test_arithmetic[];

struct attune_generation;

/*
 * [any] Run the known-answer problems on every float32 CPU attention backend of a generation that is not
 * published yet: the bits where the backend has the answers' arithmetic id and keeps `portable`, else within
 * ATTUNE_SELF_TEST_TOLERANCE. A problem that a backend declines is passed over, and so are backends of other
 * devices: their answers need a copy that a new device plugin cannot be trusted with yet. Errors: INTERNAL
 * (wrong numbers: backend, problem, both values), and the backend's own.
 */
attune_code attune_self_test(struct attune_generation *generation, attune_error *error);

/* Of outputs, which are means of values in [-1, 1): 2^-7 passes products in half precision (11 bits, over 40
 * channels), and no wrong mask, scale, stride or head. */
#define ATTUNE_SELF_TEST_TOLERANCE 0.0078125f

#endif
