/*
 * tests/kernels/cases.h: attention problems with arrays made for them, and the one place where a kernel's
 * bits are compared with the reference's.
 */
#ifndef ATTUNE_TEST_KERNELS_CASES_H
#define ATTUNE_TEST_KERNELS_CASES_H

#include "kernels/attention.h"

#include <stddef.h>
#include <stdint.h>

enum { LAYOUT_BHND, LAYOUT_BNHD, LAYOUT_PADDED, LAYOUT_PACKED, LAYOUTS };

/* What is sown into the inputs. */
enum {
    SOW_NAN_Q = 1,
    SOW_NAN_K = 2,
    SOW_NAN_V = 4,
    SOW_INF_Q = 8,
    SOW_INF_K = 16,
    SOW_INF_V = 32,
    SOW_MINUS_ZERO = 64,
    SOW_SUBNORMAL = 128,
    SOW_HUGE = 256,
    SOW_MASK = 512, /* -inf, -FLT_MAX, +inf, NaN in a float mask */
    SOW_MASKED_ROWS = 1024,
    SOW_BITS = 11
};

typedef struct attention_case {
    int64_t batch, heads_q, heads_kv, n_q, n_k, d_qk, d_v;
    int layout;
    int mask_kind;
    unsigned mask_axes; /* bit i: the mask varies along axis i; else its stride is 0 */
    int causal;
    float scale;
    float amplitude; /* queries lie in +-amplitude, keys and values in +-1 */
    unsigned sow;
    int storage;              /* ATTUNE_KERNEL_… */
    int64_t chunk_q, chunk_k; /* for the algorithms that take them; 0 is set to something legal there */
    uint64_t seed;
} attention_case;

/* Arrays of a case. `out` is filled with a pattern that no kernel writes, gaps and margins included. */
typedef struct attention_arrays {
    attune_attention_f32 args; /* in the case's storage */
    attune_attention_f32 wide; /* the same values in float32, for the references */
    float *q, *k, *v, *out;    /* of `wide` */
    void *mask;
    size_t out_floats;
    float *out_base;                       /* whole allocation */
    uint16_t *stored[3], *stored_out_base; /* of 16-bit q, k, v and out; else NULL */
} attention_arrays;

uint64_t random_next(uint64_t *state);
float random_float(uint64_t *state); /* in [-1, 1) */
int64_t random_int(uint64_t *state, int64_t low, int64_t high);
attention_case random_case(uint64_t seed);

attention_arrays arrays_make(const attention_case *c);
void arrays_reset_out(attention_arrays *a);
/* What an algorithm's reference gives for the whole output in the case's storage, gaps and margins included;
 * the caller frees it. The output is reset. */
void *arrays_want(attention_arrays *a, int algorithm);
/* Fail the test where the whole output is not `want`. */
void arrays_expect(const attention_arrays *a, const void *want, const attention_case *c, const char *who);
void arrays_free(attention_arrays *a);

/* Run every task, the last first, in a workspace full of NaN between guard bytes; fails the test where a
 * guard is hurt. */
void run_kernel(const attune_attention_f32_kernel *kernel, const attune_attention_f32 *args);

/* Kernels of this processor, by attune_cpu_isa; NULL beyond what it has. */
const attune_attention_f32_kernel *kernel_at(int isa);

/* The reference of an algorithm's arithmetic. */
void run_reference(int algorithm, const attune_attention_f32 *args);

/* The whole output, gaps and margins included, of every kernel that this processor has for an algorithm
 * (ATTUNE_ATTENTION_…) against its reference's. */
void compare_algorithm(const attention_case *c, int algorithm);
/* The same for ATTUNE_ATTENTION_PANELS. */
void compare_case(const attention_case *c);

#endif
