/* check_portable.c: latents have the bits of every other machine, by any kernels and threads. */
#include "kernels/cpu/dispatch.h"
#include "tests/sampler/suite.h"
#include "tests/sampler/trajectory.h"

START_TEST(latents_are_those_of_any_machine) {
    for (int isa = 0; isa <= (int)attune_cpu_detect(); ++isa) {
        attune_cpu_kernels kernels;
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        for (uint32_t workers = 1; workers <= 3; ++workers)
            check_trajectory(kernels.matmul_f32->isa, workers);
    }
}
END_TEST

TCase *portable_cases(void) {
    TCase *cases = tcase_create("portable");
    tcase_add_test(cases, latents_are_those_of_any_machine);
    return cases;
}
