/* main.c: runs every family of the sampler's tests. */
#include "tests/sampler/suite.h"
#include "tests/support/suite.h"

int main(void) {
    Suite *suite = suite_create("sampler");
#define SAMPLER_ADD(family) suite_add_tcase(suite, family##_cases());
    SAMPLER_FAMILIES(SAMPLER_ADD)
#undef SAMPLER_ADD
    return run_suite(suite);
}
