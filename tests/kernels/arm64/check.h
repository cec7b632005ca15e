/* tests/kernels/arm64/check.h: what tests/kernels/cases.c needs of Check, for the test program that runs
 * where no Check is: a failure is printed and ends the program. */
#ifndef ATTUNE_TEST_KERNELS_ARM64_CHECK_H
#define ATTUNE_TEST_KERNELS_ARM64_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define ck_abort_msg(...)                                                                                    \
    do {                                                                                                     \
        (void)fprintf(stderr, __VA_ARGS__);                                                                  \
        (void)fputc('\n', stderr);                                                                           \
        exit(EXIT_FAILURE);                                                                                  \
    } while (0)
#define ck_assert(condition)                                                                                 \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg("%s:%d: not %s", __FILE__, __LINE__, #condition);                                   \
    } while (0)
#define ck_assert_msg(condition, ...)                                                                        \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg(__VA_ARGS__);                                                                       \
    } while (0)
#define ck_assert_ptr_nonnull(pointer) ck_assert((pointer) != NULL)
#define ck_assert_uint_eq(a, b)        ck_assert((a) == (b))
#define ck_assert_uint_ge(a, b)        ck_assert((a) >= (b))

#endif
