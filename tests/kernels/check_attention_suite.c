/* tests/kernels/check_attention_suite.c: random problems, each by every kernel, thread count, split of the
 * batch and budget, in every floating-point environment that a caller may have: one answer, the reference's
 * bits. */
#include "kernels/cpu/dispatch.h"
#include "tests/kernels/plugin_call.h"
#include "tests/kernels/suite.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROBLEMS = 2400, PARTS = 8 }; /* parts: tests, so that a failure leaves the others to run */

typedef struct way {
    const attune_attention_f32_kernel *kernel;
    plugin_host *host;
    uint32_t backend, workers;
    int algorithm, environment;
} way;

static void run_direct(const attune_attention_f32 *args, void *context) {
    const way *w = context;
    set_environment(w->environment);
    run_whole(args, (void *)(uintptr_t)w->kernel);
    set_environment(NEAREST);
}

/* Through the plugin, in a budget of exactly what it needs; with a byte less it refuses (split takes a
 * smaller slice, or refuses), and more changes nothing. */
static void run_plugin(const attune_attention_f32 *args, void *context) {
    const way *w = context;
    const attune_attention_interface *attention = w->host->attention;
    call c;
    attune_error error;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    call_of(&c, w->host, w->backend, args, w->workers);
    c.problem.chunks = (attune_chunks){.q = (uint32_t)args->chunk_q, .kv = (uint32_t)args->chunk_k};
    call_ask(&c);
    c.problem.budget = c.answer.workspace - 1;
    ck_assert_int_eq(attention->query(w->host->instance, w->backend, &c.problem, &answer, NULL), ATTUNE_OK);
    ck_assert(answer.code == ATTUNE_RESOURCE_EXHAUSTED ||
              (w->algorithm == ATTUNE_ATTENTION_SLICES && answer.workspace < c.answer.workspace));
    c.problem.budget = c.answer.workspace;
    ck_assert_int_eq(attention->query(w->host->instance, w->backend, &c.problem, &answer, NULL), ATTUNE_OK);
    ck_assert_int_eq(answer.code, ATTUNE_OK);
    if (w->algorithm != ATTUNE_ATTENTION_SLICES)
        ck_assert_mem_eq(answer.plan, c.answer.plan, sizeof answer.plan);
    call_ask(&c);
    set_environment(w->environment); /* the pool's threads inherit it */
    const attune_code code = call_run(&c, NULL, &error);
    set_environment(NEAREST);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    call_free(&c);
}

/* The plugin's backends, in its order, and what they run. */
static const int backends[] = {ATTUNE_ATTENTION_PANELS, ATTUNE_ATTENTION_PANELS, ATTUNE_ATTENTION_ROW_BLOCKS,
                               ATTUNE_ATTENTION_SLICES, ATTUNE_ATTENTION_CHUNKS, ATTUNE_ATTENTION_MATRIX};
enum { BACKENDS = sizeof backends / sizeof *backends };

static void compare_with(uint64_t index, const attention_case *c, attention_arrays *a, uint32_t backend,
                         plugin_host hosts[ATTUNE_CPU_ISAS]) {
    static const uint32_t threads[] = {1, 2, 3, 7};
    const int algorithm = backends[backend];
    char name[128];
    arrays_expect(a, reference_of(algorithm));
    const attune_attention_f32_kernel *kernel;
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && (kernel = kernel_at(isa)) != NULL; ++isa) {
        way w = {
            .kernel = kernel + algorithm, .host = &hosts[isa], .backend = backend, .algorithm = algorithm};
        w.environment = (int)((index + (uint64_t)isa) % ENVIRONMENTS);
        (void)snprintf(name, sizeof name, "problem %lu: %s, algorithm %d, environment %d,",
                       (unsigned long)index, kernel->isa, algorithm, w.environment);
        arrays_compare(a, c, run_direct, &w, name);
        (void)snprintf(name, sizeof name, "problem %lu: %s, algorithm %d, batch split,", (unsigned long)index,
                       kernel->isa, algorithm);
        arrays_compare(a, c, run_split, (void *)(uintptr_t)w.kernel, name);
        for (int i = 0; i < 4; ++i) {
            w.workers = threads[i];
            w.environment = (int)((index + (uint64_t)(isa + i)) % ENVIRONMENTS);
            (void)snprintf(name, sizeof name, "problem %lu: %s by backend %u, %u threads, environment %d,",
                           (unsigned long)index, kernel->isa, backend, w.workers, w.environment);
            arrays_compare(a, c, run_plugin, &w, name);
        }
    }
}

/* sdp or sdp-no-mem, and one of the others in turn. */
static void compare_every_way(uint64_t index, plugin_host hosts[ATTUNE_CPU_ISAS]) {
    const attention_case c = problem_at(index);
    attention_arrays a = arrays_make(&c);
    compare_with(index, &c, &a, (uint32_t)(index % 2), hosts);
    compare_with(index, &c, &a, (uint32_t)(2 + index % (BACKENDS - 2)), hosts);
    arrays_free(&a);
}

START_TEST(every_way) {
    static plugin_host hosts[ATTUNE_CPU_ISAS];
    const attune_attention_f32_kernel *kernel;
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && (kernel = kernel_at(isa)) != NULL; ++isa) {
        attune_attention_info info = {.struct_size = sizeof info};
        ck_assert_int_eq(setenv("ATTUNE_CPU_MASK", kernel->isa, 1), 0);
        plugin_host_start(&hosts[isa]);
        ck_assert_int_eq(hosts[isa].attention->describe(hosts[isa].instance, 0, &info, NULL), ATTUNE_OK);
        ck_assert_str_eq(info.isa, kernel->isa);
    }
    const uint64_t count = check_count(PROBLEMS);
    for (uint64_t i = (uint64_t)_i; i < count; i += PARTS)
        compare_every_way(check_first() + i, hosts);
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && kernel_at(isa) != NULL; ++isa)
        plugin_host_stop(&hosts[isa]);
    ck_assert_int_eq(unsetenv("ATTUNE_CPU_MASK"), 0);
}
END_TEST

TCase *attention_suite_cases(void) {
    TCase *cases = tcase_create("attention suite");
    tcase_add_loop_test(cases, every_way, 0, PARTS);
    return cases;
}
