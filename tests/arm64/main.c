/* tests/arm64/main.c: AArch64's kernels against the reference, and latents against those of every machine,
 * bit for bit, as a program that an emulator runs. Usage: check COUNT, of the problems of cases.h. */
#include "kernels/cpu/dispatch.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/norm_cases.h"
#include "tests/kernels/products.h"
#include "tests/sampler/trajectory.h"

#include <check.h>
#include <string.h>

typedef struct way {
    const attune_attention_f32_kernel *kernel;
    int environment;
} way;

static void run_in_environment(const attune_attention_f32 *args, void *context) {
    const way *w = context;
    set_environment(w->environment);
    run_kernel(w->kernel, args);
    set_environment(NEAREST);
}

/* Tiles, panels and pieces of channels that random problems are too small for. */
static void compare_large(void) {
    attention_case c = {
        .batch = 2, .heads_q = 8, .heads_kv = 8, .n_q = 100, .n_k = 150, .d_qk = 12, .d_v = 9};
    c.amplitude = 4.0f;
    compare_case(&c);
    c.batch = c.heads_q = c.heads_kv = 1, c.n_q = 70, c.d_qk = 333, c.d_v = 170;
    compare_case(&c);
}

/* One problem by every kernel of one algorithm, whole and with its batch split, in one of the environments.
 */
static void compare_problem(uint64_t index) {
    const attention_case c = problem_at(index);
    const int algorithm = (int)(index % ATTUNE_ATTENTION_ALGORITHMS);
    attention_arrays a = arrays_make(&c);
    arrays_expect(&a, reference_of(algorithm));
    for (int isa = 0; isa < ATTUNE_CPU_ISAS; ++isa) {
        way w = {.kernel = kernel_at(isa) + algorithm, .environment = (int)(index / 5 % ENVIRONMENTS)};
        char name[64];
        (void)snprintf(name, sizeof name, "arm64, problem %lu: %s, algorithm %d,", (unsigned long)index,
                       w.kernel->isa, algorithm);
        arrays_compare(&a, &c, run_in_environment, &w, name);
        arrays_compare(&a, &c, run_split, (void *)(uintptr_t)w.kernel, name);
    }
    arrays_free(&a);
}

int main(int argc, char **argv) {
    const uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 100, first = check_first();
    ck_assert(kernel_at(ATTUNE_CPU_NEON) && strcmp(kernel_at(ATTUNE_CPU_NEON)->isa, "neon") == 0);
    for (uint64_t i = first; i < first + count; ++i)
        compare_problem(i);
    compare_large();
    for (uint64_t seed = 0; seed < 12; ++seed)
        compare_group_norm(seed), compare_layer_norm(seed);
    compare_activations(97700);
    for (uint64_t i = 0; i < 60; ++i) {
        const product_case c = random_product(i);
        compare_product(&c);
    }
    for (int isa = 0; isa < ATTUNE_CPU_ISAS; ++isa)
        check_trajectory(kernel_at(isa)->isa, 2);
    (void)printf("arm64: %lu problems by %d kernels, norms, activations and products: the reference's bits; "
                 "latents after each step: every machine's\n",
                 (unsigned long)count, (int)ATTUNE_CPU_ISAS);
    return EXIT_SUCCESS;
}
