/* tests/support/suite.h: how every suite ends. */
#ifndef ATTUNE_TEST_SUPPORT_SUITE_H
#define ATTUNE_TEST_SUPPORT_SUITE_H

#include <check.h>

/* Runs the cases that CK_RUN_CASE does not leave out, and frees them. The exit status of main: a failure
 * where a test failed, or none ran. */
int run_suite(Suite *suite);

#endif
