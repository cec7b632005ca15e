/* main.c: runs the host library's tests. */
#include "cases.h"
#include "tests/support/suite.h"

int main(void) {
    Suite *suite = suite_create("host");
    suite_add_tcase(suite, abi_cases());
    suite_add_tcase(suite, manifest_cases());
    suite_add_tcase(suite, elf_cases());
    suite_add_tcase(suite, loader_cases());
    suite_add_tcase(suite, library_cases());
    suite_add_tcase(suite, search_cases());
    suite_add_tcase(suite, services_cases());
    suite_add_tcase(suite, pool_cases());
    suite_add_tcase(suite, registry_cases());
    suite_add_tcase(suite, problem_cases());
    suite_add_tcase(suite, choose_cases());
    suite_add_tcase(suite, attend_cases());
    suite_add_tcase(suite, session_cases());
    return run_suite(suite);
}
