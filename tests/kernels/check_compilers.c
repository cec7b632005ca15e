/* tests/kernels/check_compilers.c: the reference has the same bits whichever compiler built it, at any
 * optimisation. */
#include "kernels/norm.h"
#include "tests/kernels/cases.h"
#include "tests/kernels/norm_cases.h"
#include "tests/kernels/suite.h"
#include "tests/support/run.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void reference_function(const attune_attention_f32 *);

static void *open_build(const char *name) {
    char path[4200];
    (void)snprintf(path, sizeof path, "%s/%s", run_folder(), name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    return library;
}

static void compare_builds(void *const libraries[2], const attention_case *c, int algorithm) {
    static const char *const names[ATTUNE_ATTENTION_ALGORITHMS] = {
        [ATTUNE_ATTENTION_PANELS] = "attune_attention_f32_reference",
        [ATTUNE_ATTENTION_MATRIX] = "attune_attention_f32_full_reference",
        [ATTUNE_ATTENTION_CHUNKS] = "attune_attention_f32_chunked_reference"};
    attention_arrays a = arrays_make(c);
    float *want = malloc(a.out_floats * sizeof *want);
    ck_assert_ptr_nonnull(want);
    reference_of(algorithm)(&a.args);
    memcpy(want, a.out, a.out_floats * sizeof *want);
    for (int i = 0; i < 2; ++i) {
        reference_function *reference;
        *(void **)&reference = dlsym(libraries[i], names[algorithm]);
        ck_assert(reference != NULL);
        arrays_reset_out(&a);
        reference(&a.args);
        ck_assert_msg(memcmp(want, a.out, a.out_floats * sizeof *want) == 0,
                      "build %d, %s, seed %lu: other bits", i, names[algorithm], (unsigned long)c->seed);
    }
    free(want);
    arrays_free(&a);
}

/* The norms and activations of two builds. */
static void compare_norms(void *const libraries[2]) {
    enum { PIXELS = 130, CHANNELS = 24, COUNT = PIXELS * CHANNELS };
    static const char *const functions[] = {"attune_silu_f32_reference", "attune_gelu_f32_reference",
                                            "attune_quick_gelu_f32_reference"};
    uint64_t random = 3;
    float *x = norm_floats(&random, COUNT, 3.0f, 1.0f, 1),
          *scale = norm_floats(&random, CHANNELS, 1.0f, 0, 0),
          *shift = norm_floats(&random, CHANNELS, 1.0f, 0, 0), *out[2];
    for (int i = 0; i < 2; ++i) {
        void (*group)(const attune_group_norm_f32 *), (*layer)(const attune_layer_norm_f32 *);
        float (*function)(float);
        out[i] = calloc(5 * COUNT, sizeof **out);
        ck_assert_ptr_nonnull(out[i]);
        *(void **)&group = dlsym(libraries[i], "attune_group_norm_f32_reference");
        *(void **)&layer = dlsym(libraries[i], "attune_layer_norm_f32_reference");
        ck_assert(group && layer);
        group(&(attune_group_norm_f32){x, 1, PIXELS, CHANNELS, 8, 1e-5f, scale, shift, 1, out[i]});
        layer(&(attune_layer_norm_f32){x, PIXELS, CHANNELS, 1e-5f, scale, shift, out[i] + COUNT});
        for (int f = 0; f < 3; ++f) {
            *(void **)&function = dlsym(libraries[i], functions[f]);
            ck_assert(function != NULL);
            for (int k = 0; k < COUNT; ++k)
                out[i][(2 + f) * COUNT + k] = function(x[k]);
        }
    }
    ck_assert_mem_eq(out[0], out[1], 5 * COUNT * sizeof **out);
    free(x), free(scale), free(shift), free(out[0]), free(out[1]);
}

START_TEST(same_bits) {
    run_result built = run("sh \"$S/tests/kernels/compilers.sh\" \"$S\" .");
    ck_assert_msg(built.status == 0, "%s%s", built.out, built.err);
    (void)fputs(built.err, stderr); /* where another compiler stood in */
    run_free(&built);
    void *const libraries[2] = {open_build("weak.so"), open_build("strong.so")};
    compare_norms(libraries);
    for (uint64_t seed = 0; seed < 40; ++seed) {
        attention_case c = random_case(9000 + seed);
        c.sow = seed < 20 ? 0 : 1u << (seed - 20) % SOW_BITS;
        compare_builds(libraries, &c, ATTUNE_ATTENTION_PANELS);
        compare_builds(libraries, &c, ATTUNE_ATTENTION_MATRIX);
        compare_builds(libraries, &c, ATTUNE_ATTENTION_CHUNKS);
    }
}
END_TEST

TCase *compilers_cases(void) {
    TCase *cases = tcase_create("compilers");
    tcase_add_test(cases, same_bits);
    return cases;
}
