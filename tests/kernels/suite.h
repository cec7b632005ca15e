/* tests/kernels/suite.h: the cases of this room; main.c runs them. */
#ifndef ATTUNE_TEST_KERNELS_SUITE_H
#define ATTUNE_TEST_KERNELS_SUITE_H

#include <check.h>

TCase *exp2_cases(void);
TCase *attention_bits_cases(void);
TCase *few_keys_cases(void);
TCase *attention_suite_cases(void);
TCase *attention_accuracy_cases(void);
TCase *vector_generic_cases(void);
TCase *attention_algorithms_cases(void);
TCase *algorithm_accuracy_cases(void);
TCase *storage_cases(void);
TCase *compilers_cases(void);
TCase *dispatch_cases(void);
TCase *plugin_attention_cases(void);
TCase *plugin_backends_cases(void);
TCase *plugin_device_cases(void);
TCase *memory_cases(void);
TCase *math_f64_cases(void);
TCase *norms_cases(void);
TCase *products_cases(void);

#endif
