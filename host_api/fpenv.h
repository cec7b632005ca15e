/*
 * fpenv.h: the floating-point environment of arithmetic.md's rules: round to nearest even, denormals kept,
 * nothing trapped. New threads inherit the control word of their maker, and applications set FTZ/DAZ, so
 * tasks set their own.
 */
#ifndef HOST_API_FPENV_H
#define HOST_API_FPENV_H

#include <stdint.h>

/* [any] Set the default environment for this thread and return the old one, for attune_fpenv_restore. */
static inline uint64_t attune_fpenv_default(void);
/* [any] Put back what attune_fpenv_default returned, control bits and flags alike. */
static inline void attune_fpenv_restore(uint64_t saved);

#if defined(__x86_64__)
#include <xmmintrin.h>
static inline uint64_t attune_fpenv_default(void) {
    uint64_t saved = _mm_getcsr();
    _mm_setcsr(0x1F80);
    return saved;
}
static inline void attune_fpenv_restore(uint64_t saved) {
    _mm_setcsr((unsigned)saved);
}
#elif defined(__aarch64__)
static inline uint64_t attune_fpenv_default(void) {
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return saved;
}
static inline void attune_fpenv_restore(uint64_t saved) {
    __asm__ volatile("msr fpcr, %0" : : "r"(saved));
}
#else
#error "the floating-point control word of this processor is not known"
#endif

#endif
