/* tests/kernels/check_neon.c: the NEON kernel, built by a cross compiler and run under an emulator. */
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

START_TEST(same_bits_as_the_reference) {
    char folder[] = "/tmp/attune-arm64-XXXXXX", command[2200], program[64];
    const char *source = getenv("ATTUNE_SOURCE");
    source = source ? source : ".";
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(command, sizeof command, "sh '%s/tests/kernels/arm64.sh' '%s' '%s' %lu", source, source,
                   folder, (unsigned long)check_count(64));
    const int status = system(command);
    (void)snprintf(program, sizeof program, "%s/arm64", folder);
    (void)unlink(program);
    (void)rmdir(folder);
    ck_assert_msg(status == 0, "%s failed", command);
}
END_TEST

TCase *neon_cases(void) {
    TCase *cases = tcase_create("neon");
    tcase_add_test(cases, same_bits_as_the_reference);
    return cases;
}
