/* main.c: runs the tests of the command line host. */
#include "suite.h"
#include "tests/support/suite.h"

int main(void) {
    Suite *suite = suite_create("sample_host");
    suite_add_tcase(suite, units_cases());
    suite_add_tcase(suite, usage_cases());
    suite_add_tcase(suite, webui_cases());
    suite_add_tcase(suite, bad_input_cases());
    suite_add_tcase(suite, places_cases());
    suite_add_tcase(suite, each_allocation_cases());
    suite_add_tcase(suite, attention_cases());
    suite_add_tcase(suite, txt2img_cases());
    suite_add_tcase(suite, portable_cases());
    suite_add_tcase(suite, study_cases());
    suite_add_tcase(suite, bench_image_cases());
    return run_suite(suite);
}
