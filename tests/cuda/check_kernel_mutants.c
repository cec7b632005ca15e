/* check_kernel_mutants.c: each bug of mutations.txt, in the sources of the kernels that ship, is caught by
 * the check named for it; the kernels without a bug pass the same problems. */
#include "tests/cuda/tensor_core_cases.h"
#include "tests/cuda_emulator/emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD = 64 };

typedef struct mutant {
    char name[WORD], kernel[WORD], check[WORD];
} mutant;

/* The i-th line; false behind the last. */
static bool mutant_at(int i, mutant *m) {
    FILE *file = fopen("tests/cuda/mutations.txt", "r");
    char line[512];
    while (file && fgets(line, sizeof line, file))
        if (line[0] != '#' && i-- == 0) {
            fclose(file);
            if (sscanf(line, "%63[^ ] | %63[^ ] | %63[^|]", m->name, m->kernel, m->check) != 3)
                return false;
            m->check[strlen(m->check) - 1] = 0; /* the space before the bar */
            return true;
        }
    if (file)
        fclose(file);
    return false;
}

static const struct {
    const char *kernel, *name;
    int efficient;
    attention_case problem;
} ways[] = {
    /* two tiles, a tail of keys and of queries, a negative scale */
    {"plain",
     "attune_flash_f16_40",
     0,
     {.batch = 1, .heads_q = 2, .heads_kv = 2, .n_q = 70, .n_k = 100, .d_qk = 40, .d_v = 40, .scale = -0.5f}},
    /* one tile, so that nothing older lies in its tail */
    {"short",
     "attune_flash_f16_40",
     0,
     {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 20, .n_k = 30, .d_qk = 40, .d_v = 40}},
    /* NaN in keys and values, seen by some rows and masked for others */
    {"general",
     "attune_flash_f16_40_general",
     0,
     {.batch = 1,
      .heads_q = 4,
      .heads_kv = 2,
      .n_q = 70,
      .n_k = 100,
      .d_qk = 40,
      .d_v = 40,
      .causal = 1,
      .mask_kind = ATTUNE_KERNEL_MASK_BOOL,
      .mask_axes = 15,
      .sow = SOW_NAN_K | SOW_NAN_V}},
    {"wide",
     "attune_flash_f16_any",
     0,
     {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 40, .n_k = 40, .d_qk = 56, .d_v = 48}},
    {"split",
     "attune_efficient_f16_40",
     1,
     {.batch = 1, .heads_q = 1, .heads_kv = 1, .n_q = 20, .n_k = 300, .d_qk = 40, .d_v = 40}}};
enum { WAYS = sizeof ways / sizeof *ways };

/* What catches the mutant: a check's name, "values", or "-"; `text` says more. */
static const char *caught_by(const mutant *m, char *text, size_t size) {
    char path[256];
    kernel_way way;
    cuda_emulator_report r = {.message = ""};
    int i = 0;
    while (i < WAYS && strcmp(ways[i].kernel, m->kernel) != 0)
        ++i;
    ck_assert_int_lt(i, WAYS);
    (void)snprintf(path, sizeof path, "tests/cuda/mutants/%s-%s", m->name, m->kernel);
    kernel_way_open(&way, path,
                    ways[i].efficient ? attune_cuda_plan_memory_efficient : attune_cuda_plan_flash, "8.0");
    attention_case c = ways[i].problem;
    c.storage = ATTUNE_KERNEL_F16;
    c.amplitude = 2;
    c.seed = 11;
    attention_arrays a = arrays_make(&c);
    const cudaError_t error = kernel_try(&way, &a.stored);
    ck_assert_str_eq(way.plan.launches[0].kernel, ways[i].name);
    const char *check = "-";
    if (cuda_emulator_reports(&r, 1)) {
        (void)snprintf(text, size, "%s:%d: %s", r.file, r.line, r.message);
        check = cuda_emulator_check_name(r.check);
    } else {
        OK(error);
        (void)snprintf(text, size, "%s", tensor_core_verdict(&a, c.sow != 0));
        check = *text ? "values" : "-";
    }
    arrays_free(&a);
    return check;
}

START_TEST(a_bug_is_caught_by_its_check) {
    mutant m;
    char text[512];
    ck_assert(mutant_at(_i, &m));
    const char *check = caught_by(&m, text, sizeof text);
    ck_assert_msg(strcmp(check, m.check) == 0, "%s in %s: caught by %s (%s), not %s", m.name, m.kernel, check,
                  text, m.check);
}
END_TEST

static int lines;

START_TEST(every_line_is_understood) {
    size_t size;
    char *text = suite_read("tests/cuda/mutations.txt", &size);
    int all = 0;
    for (const char *c = text; *c; ++c)
        all += *c != '#' && (c == text || c[-1] == '\n');
    free(text);
    ck_assert_int_eq(lines, all);
    ck_assert_int_ge(lines, 15 + WAYS);
}
END_TEST

TCase *kernel_mutant_cases(void) {
    TCase *c = tcase_create("kernel mutants");
    mutant m;
    while (mutant_at(lines, &m))
        ++lines;
    tcase_add_loop_test(c, a_bug_is_caught_by_its_check, 0, lines);
    tcase_add_test(c, every_line_is_understood);
    return c;
}
