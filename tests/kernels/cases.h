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
    SOW_LARGEST = 2048, /* +-65504, float16's largest */
    SOW_TIES = 4096,    /* few different values: equal maxima, exact midpoints */
    SOW_BITS = 13
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
    int storage;              /* ATTUNE_KERNEL_F32, ... */
    int shift;                /* every array starts this many elements after an aligned address */
    int64_t stride_out[3];    /* of batch entries, heads and rows of the output; 0: the layout's */
    int64_t chunk_q, chunk_k; /* for the algorithms that take them; 0 is set to something legal there */
    uint64_t seed;
} attention_case;

/* Arrays of a case. `out` is filled with a pattern that no kernel writes, gaps and margins included. */
typedef struct attention_arrays {
    attune_attention_f32 args;   /* in float: what a reference takes */
    attune_attention_f32 stored; /* as the case stores it: what a kernel takes; args where that is float */
    float *q, *k, *v, *out;
    void *mask;
    size_t out_floats;
    float *out_base;     /* whole allocation */
    uint16_t *halves[4]; /* q, k, v and the whole of out in 16 bits, or NULL */
    void *want;          /* see arrays_expect */
    void *owned[4];      /* what the arrays lie in, `shift` elements later */
    int shift;
} attention_arrays;

uint64_t random_next(uint64_t *state);
float random_float(uint64_t *state); /* in [-1, 1) */
int64_t random_int(uint64_t *state, int64_t low, int64_t high);
attention_case random_case(uint64_t seed);

/* Problem i of the suite of random problems: any shape, layout, mask, storage, alignment and special values,
 * of a size that the reference computes in about a millisecond. */
attention_case problem_at(uint64_t i);
/* How many of `count` random problems or values to test, and the first: all from 0. ATTUNE_CHECK_TIMES=N
 * makes N times as many (`make check-long`), ATTUNE_CHECK_FIRST=I starts at I, to repeat a failure; an eighth
 * under a sanitizer. */
uint64_t check_count(uint64_t count);
uint64_t check_first(void);

attention_arrays arrays_make(const attention_case *c);
void arrays_reset_out(attention_arrays *a);
void arrays_free(attention_arrays *a);

/* What a caller may have set when it calls a kernel. */
enum { NEAREST, FLUSH, SUBNORMALS_ARE_ZERO, ROUND_UP, ENVIRONMENTS };
void set_environment(int environment);

/* Whatever computes a problem: a kernel, a plugin's backend. */
typedef void attention_runner(const attune_attention_f32 *args, void *context);
/* The reference of an algorithm's arithmetic (ATTUNE_ATTENTION_...). */
typedef void attention_reference(const attune_attention_f32 *args);
attention_reference *reference_of(int algorithm);
/* Let `reference` compute the case in float; keeps its output as the case stores it, gaps and margins
 * included. */
void arrays_expect(attention_arrays *a, attention_reference *reference);
/* Fail the test, by `name`, unless every bit of the output as it is now, gaps and margins included, is the
 * expected one. */
void arrays_check(const attention_arrays *a, const attention_case *c, const char *name);
/* Let `run` compute the case as it is stored, then arrays_check. */
void arrays_compare(attention_arrays *a, const attention_case *c, attention_runner *run, void *context,
                    const char *name);
/* The same as a runner, context being an attune_attention_f32_kernel, and with each batch entry as a problem
 * of its own. */
void run_whole(const attune_attention_f32 *args, void *kernel);
void run_split(const attune_attention_f32 *args, void *kernel);

/* Run every pass, its tasks the last first, in a workspace and a matrix full of NaN between guard bytes;
 * fails the test where a guard is hurt. */
void run_kernel(const attune_attention_f32_kernel *kernel, const attune_attention_f32 *args);

/* Kernels of this processor by attune_cpu_isa, NULL beyond what it has: an array by algorithm. */
const attune_attention_f32_kernel *kernel_at(int isa);

/* The whole output, gaps and margins included, of every kernel that this processor has for an algorithm
 * against its reference's. */
void compare_algorithm(const attention_case *c, int algorithm);
/* The same for ATTUNE_ATTENTION_PANELS. */
void compare_case(const attention_case *c);

#endif
