/* main.c: runs the swap suite. */
#include "rig.h"
#include "tests/support/suite.h"

int main(void) {
    Suite *suite = suite_create("swap");
    suite_add_tcase(suite, stage_cases());
    suite_add_tcase(suite, self_test_cases());
    suite_add_tcase(suite, session_swap_cases());
    suite_add_tcase(suite, watch_cases());
    suite_add_tcase(suite, line_cases());
    suite_add_tcase(suite, real_cases());
    suite_add_tcase(suite, storm_cases());
    return run_suite(suite);
}
