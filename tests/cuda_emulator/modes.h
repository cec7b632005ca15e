/* modes.h: the meanings of an instruction's `mode` and `mode2`, between decode.c and the interpreter. */
#ifndef CUDA_EMULATOR_MODES_H
#define CUDA_EMULATOR_MODES_H

/* setp: mode; "u" ones are also true where an operand is NaN. mode2: 0 or 1 + and, or, xor; SETP_NOT negates
 * c. */
enum {
    COMPARE_EQ,
    COMPARE_NE,
    COMPARE_LT,
    COMPARE_LE,
    COMPARE_GT,
    COMPARE_GE,
    COMPARE_EQU,
    COMPARE_NEU,
    COMPARE_LTU,
    COMPARE_LEU,
    COMPARE_GTU,
    COMPARE_GEU,
    COMPARE_NUM,
    COMPARE_NAN
};
enum { SETP_NOT = 8 };
/* memory: mode2 */
enum { MEMORY_WIDE_BASE = 1, MEMORY_WIDE_DATA = 2 };
/* atom and redux: mode */
enum {
    ATOMIC_ADD,
    ATOMIC_MIN,
    ATOMIC_MAX,
    ATOMIC_AND,
    ATOMIC_OR,
    ATOMIC_XOR,
    ATOMIC_EXCH,
    ATOMIC_CAS,
    ATOMIC_INC,
    ATOMIC_DEC
};
/* shfl, vote, mma: mode */
enum { SHUFFLE_UP, SHUFFLE_DOWN, SHUFFLE_BUTTERFLY, SHUFFLE_INDEX };
enum { VOTE_ALL, VOTE_ANY, VOTE_UNI, VOTE_BALLOT };
enum { MMA_F16, MMA_F16_F16, MMA_BF16, MMA_TF32 };

#endif
