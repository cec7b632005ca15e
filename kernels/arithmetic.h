/*
 * kernels/arithmetic.h: the constants of arithmetic id `attune-f32-1` and its two relatives
 * (docs/arithmetic.md) and their floating-point environment. Every kernel, on every device, takes its numbers
 * from here; a change of one is a new arithmetic id.
 */
#ifndef ATTUNE_KERNELS_ARITHMETIC_H
#define ATTUNE_KERNELS_ARITHMETIC_H

#include <assert.h>
#include <float.h>
#include <stdint.h>

#define ATTUNE_ARITHMETIC_F32         "attune-f32-1"
#define ATTUNE_ARITHMETIC_F32_FULL    "attune-f32-full-1"
#define ATTUNE_ARITHMETIC_F32_CHUNKED "attune-f32-chunked-1"

static_assert(FLT_EVAL_METHOD == 0, "float expressions must be evaluated in float");

/* The weights of attention: 2^f on [-1/2, 1/2] as 1 + f (c1 + f (c2 + ...)): minimax for the relative error
 * with the constant term held at 1, coefficients rounded one after another, the rest refitted each
 * time. 1.94795 ulp at worst over every f. */
#define ATTUNE_EXP2_C1  0x1.62e42ap-1f
#define ATTUNE_EXP2_C2  0x1.ebf9c2p-3f
#define ATTUNE_EXP2_C3  0x1.c6b6d8p-5f
#define ATTUNE_EXP2_C4  0x1.3ce8aap-7f
#define ATTUNE_EXP2_C5  0x1.5bda36p-10f
#define ATTUNE_EXP2_MIN (-126.0f) /* below it the result is +0, so that no result is subnormal */

/* The exp of activations: the same with one coefficient more. 0.79961 ulp at worst over every f. */
#define ATTUNE_EXP_C1 0x1.62e43p-1f
#define ATTUNE_EXP_C2 0x1.ebfbdcp-3f
#define ATTUNE_EXP_C3 0x1.c6af7cp-5f
#define ATTUNE_EXP_C4 0x1.3b2dep-7f
#define ATTUNE_EXP_C5 0x1.5f083p-10f
#define ATTUNE_EXP_C6 0x1.416b5cp-13f

#define ATTUNE_LOG2E_F64 0x1.71547652b82fep+0
#define ATTUNE_LOG2E_F32 0x1.715476p+0f

#define ATTUNE_LOG2E_LOW 0x1.4ae0cp-26f /* of log2 e, what ATTUNE_LOG2E_F32 leaves */
#define ATTUNE_EXP_MIN   (-125.0f)      /* exp is +0 where z log2 e lies below */

/* Q(a) = (1 - erf(a / sqrt 2)) / 2 for a >= 0 as e^(-a^2 / 2) u (q0 + u (q1 + ...)), u = 1 / (1 + 3a/8):
 * minimax for the relative error, 1.2e-8 over a in [0, 13.3]; coefficients rounded one after another, the
 * rest refitted each time. */
#define ATTUNE_TAIL_SLOPE 0.375f
#define ATTUNE_TAIL_Q0    0x1.325ceep-3f
#define ATTUNE_TAIL_Q1    0x1.330a1ep-3f
#define ATTUNE_TAIL_Q2    0x1.ffc346p-4f
#define ATTUNE_TAIL_Q3    0x1.c1d9f4p-4f
#define ATTUNE_TAIL_Q4    (-0x1.f78a62p-5f)
#define ATTUNE_TAIL_Q5    0x1.ceef7ap-3f
#define ATTUNE_TAIL_Q6    (-0x1.bfc0ap-2f)
#define ATTUNE_TAIL_Q7    0x1.6bbd96p-2f
#define ATTUNE_TAIL_Q8    (-0x1.1bd388p-3f)
#define ATTUNE_TAIL_Q9    0x1.64b886p-6f

#define ATTUNE_QUICK_GELU 1.702f

#define ATTUNE_NORM_BLOCK 64 /* pixels per block of group norm's sums, and blocks per block of blocks */
#define ATTUNE_NORM_LANES 16 /* partial sums of a row in layer norm */

#define ATTUNE_ATTENTION_KEY_BLOCK 128
#define ATTUNE_ATTENTION_MAX_START (-0x1p100f) /* the running maximum before any key */
#define ATTUNE_NAN_BITS            0x7fc00000u /* the one NaN that is stored */

/*
 * [any] Default floating-point environment for this thread: round to nearest even, subnormals kept,
 * exceptions masked. Returns what must be given to attune_fp_leave. Callers put the arithmetic between the
 * two into a function that is not inlined: compilers move floating-point operations across these.
 */
static inline uint64_t attune_fp_enter(void) {
#if defined(__x86_64__)
    uint32_t old, fresh = 0x1F80;
    __asm__ volatile("stmxcsr %0" : "=m"(old));
    __asm__ volatile("ldmxcsr %0" : : "m"(fresh) : "memory");
    return old;
#elif defined(__aarch64__)
    uint64_t old, fresh = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(fresh) : "memory");
    return old;
#else
#error "attune_fp_enter: say how this architecture sets its floating-point environment"
#endif
}

static inline void attune_fp_leave(uint64_t old) {
#if defined(__x86_64__)
    uint32_t before = (uint32_t)old;
    __asm__ volatile("ldmxcsr %0" : : "m"(before) : "memory");
#else
    __asm__ volatile("msr fpcr, %0" : : "r"(old) : "memory");
#endif
}

#endif
