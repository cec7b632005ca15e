/* tests/cuda/hardware/main.c: `make check-gpu`: the tests of attune-cuda's results with NVIDIA's own runtime,
 * on this machine's first GPU. What they set for the emulator is not read; what they ask of it is answered
 * here. */
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"

#include <stdio.h>
#include <stdlib.h>

size_t cuda_emulator_reports(cuda_emulator_report *reports, size_t capacity) {
    (void)reports, (void)capacity;
    return 0;
}

int main(void) {
    int count = 0;
    const cudaError_t found = cudaGetDeviceCount(&count);
    if (found != cudaSuccess) {
        fprintf(stderr, "check-gpu: no GPU to test on: %s (error %d)\n", cudaGetErrorString(found),
                (int)found);
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create("gpu");
    TCase *const cases[] = {portable_cases(), backend_cases(), command_cases()};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        tcase_set_timeout(cases[i], 0);
        suite_add_tcase(suite, cases[i]);
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
