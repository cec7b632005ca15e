/* suite.h: the families of tests of the command line host. */
#ifndef ATTUNE_TEST_SAMPLE_HOST_SUITE_H
#define ATTUNE_TEST_SAMPLE_HOST_SUITE_H

#include <check.h>

TCase *usage_cases(void);
TCase *webui_cases(void);
TCase *bad_input_cases(void);
TCase *places_cases(void);
TCase *each_allocation_cases(void);
TCase *attention_cases(void);
TCase *txt2img_cases(void);
TCase *units_cases(void);
TCase *portable_cases(void);
TCase *study_cases(void);
TCase *bench_image_cases(void);

#endif
