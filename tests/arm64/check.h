/* tests/arm64/check.h: what the tests' shared files need of Check, for the program that runs where no Check
 * is: a failure is printed and ends it. */
#ifndef ATTUNE_TEST_ARM64_CHECK_H
#define ATTUNE_TEST_ARM64_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ck_abort_msg(...)                                                                                    \
    do {                                                                                                     \
        (void)fprintf(stderr, __VA_ARGS__);                                                                  \
        (void)fputc('\n', stderr);                                                                           \
        exit(EXIT_FAILURE);                                                                                  \
    } while (0)
#define ck_assert_msg(condition, ...)                                                                        \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ck_abort_msg(__VA_ARGS__);                                                                       \
    } while (0)
#define ck_assert(condition)           ck_assert_msg(condition, "%s:%d: not %s", __FILE__, __LINE__, #condition)
#define ck_assert_ptr_nonnull(pointer) ck_assert((pointer) != NULL)
#define ck_assert_int_eq(a, b)         ck_assert((a) == (b))
#define ck_assert_int_lt(a, b)         ck_assert((a) < (b))
#define ck_assert_uint_eq(a, b)        ck_assert((a) == (b))
#define ck_assert_uint_lt(a, b)        ck_assert((a) < (b))
#define ck_assert_uint_le(a, b)        ck_assert((a) <= (b))
#define ck_assert_uint_ge(a, b)        ck_assert((a) >= (b))
#define ck_assert_str_eq(a, b)         ck_assert(strcmp(a, b) == 0)
#define ck_assert_mem_eq(a, b, size)   ck_assert(memcmp(a, b, size) == 0)

#endif
