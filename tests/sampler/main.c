/* main.c: runs every family of the sampler's tests. */
#include "tests/sampler/suite.h"

#include <stdlib.h>

int main(void) {
    Suite *suite = suite_create("sampler");
#define SAMPLER_ADD(family) suite_add_tcase(suite, family##_cases());
    SAMPLER_FAMILIES(SAMPLER_ADD)
#undef SAMPLER_ADD
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
