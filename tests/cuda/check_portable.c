/* check_portable.c: `sdp-no-mem` on a device: the reference's bits for every problem of the suite that the
 * CPU's kernels pass, by the PTX of each generation. */
#include "tests/cuda/device_call.h"
#include "tests/cuda/suite.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const capabilities[] = {"7.5", "8.0", "9.0"};
enum { CAPABILITIES = sizeof capabilities / sizeof *capabilities, PROBLEMS = 2400, PARTS = 4 };

static void compare(device_way *way, const attention_case *c, const char *name) {
    attention_arrays a = arrays_make(c);
    arrays_expect(&a, attune_attention_f32_reference);
    arrays_compare(&a, c, device_run, way, name);
    arrays_free(&a);
}

START_TEST(the_suite_has_the_references_bits) {
    const char *capability = capabilities[_i % CAPABILITIES];
    plugin_host host;
    device_way way;
    char name[96];
    setenv("ATTUNE_EMULATOR_CC", capability, 1);
    device_way_open(&way, &host, "sdp-no-mem", ATTUNE_DETERMINISM_PORTABLE);
    for (uint64_t i = (uint64_t)(_i / CAPABILITIES); i < check_count(PROBLEMS); i += PARTS) {
        const attention_case c = problem_at(check_first() + i);
        (void)snprintf(name, sizeof name, "problem %lu: sdp-no-mem on %s,",
                       (unsigned long)(check_first() + i), capability);
        compare(&way, &c, name);
    }
    device_way_close(&way);
}
END_TEST

/* Every tile of values, head sizes beyond the widest, several blocks of keys and queries; AnimateDiff's many
 * small heads. */
static const attention_case shapes[] = {
    {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 70, .n_k = 300, .d_qk = 512, .d_v = 512},
    {.batch = 1, .heads_q = 2, .heads_kv = 1, .n_q = 65, .n_k = 130, .d_qk = 80, .d_v = 80, .causal = 1},
    {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 9, .n_k = 20, .d_qk = 600, .d_v = 1100},
    {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 130, .n_k = 129, .d_qk = 40, .d_v = 250},
    {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 3, .n_k = 1000, .d_qk = 1, .d_v = 160},
    {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 200, .n_k = 90, .d_qk = 96, .d_v = 96, .causal = 1},
    {.batch = 500, .heads_q = 8, .heads_kv = 8, .n_q = 16, .n_k = 16, .d_qk = 8, .d_v = 8}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

START_TEST(head_sizes_have_the_references_bits) {
    attention_case c = shapes[_i % SHAPES];
    plugin_host host;
    device_way way;
    char name[96];
    setenv("ATTUNE_EMULATOR_CC", capabilities[_i / SHAPES], 1);
    device_way_open(&way, &host, "sdp-no-mem", ATTUNE_DETERMINISM_PORTABLE);
    c.amplitude = 4.0f;
    c.seed = 7;
    (void)snprintf(name, sizeof name, "shape %d on %s,", _i % SHAPES, capabilities[_i / SHAPES]);
    compare(&way, &c, name);
    device_way_close(&way);
}
END_TEST

TCase *portable_cases(void) {
    TCase *c = tcase_create("portable");
    tcase_add_loop_test(c, the_suite_has_the_references_bits, 0, CAPABILITIES * PARTS);
    tcase_add_loop_test(c, head_sizes_have_the_references_bits, 0, CAPABILITIES * SHAPES);
    return c;
}
