/* tests/kernels/main.c: runs the tests of kernels/ and of the plugin attune-cpu. */
#include "tests/kernels/suite.h"
#include "tests/support/suite.h"

int main(void) {
    TCase *(*const cases[])(void) = {exp2_cases,
                                     vector_generic_cases,
                                     attention_suite_cases,
                                     attention_bits_cases,
                                     few_keys_cases,
                                     attention_accuracy_cases,
                                     attention_algorithms_cases,
                                     algorithm_accuracy_cases,
                                     storage_cases,
                                     compilers_cases,
                                     dispatch_cases,
                                     plugin_attention_cases,
                                     plugin_backends_cases,
                                     plugin_device_cases,
                                     memory_cases,
                                     math_f64_cases,
                                     norms_cases,
                                     products_cases};
    Suite *suite = suite_create("kernels");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        TCase *made = cases[i]();
        tcase_set_timeout(made, 0); /* a slow machine is not a failure */
        suite_add_tcase(suite, made);
    }
    return run_suite(suite);
}
