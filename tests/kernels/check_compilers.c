/* tests/kernels/check_compilers.c: the reference has the same bits whichever compiler built it, at any
 * optimisation. */
#include "tests/kernels/cases.h"
#include "tests/kernels/suite.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void reference_function(const attune_attention_f32 *);

static void *open_build(const char *folder, const char *name) {
    char path[1100];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    (void)unlink(path); /* stays mapped */
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

START_TEST(same_bits) {
    char folder[] = "/tmp/attune-compilers-XXXXXX", command[2200];
    const char *source = getenv("ATTUNE_SOURCE");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(command, sizeof command, "sh '%s/tests/kernels/compilers.sh' '%s' '%s'",
                   source ? source : ".", source ? source : ".", folder);
    ck_assert_msg(system(command) == 0, "%s failed", command);
    void *const libraries[2] = {open_build(folder, "weak.so"), open_build(folder, "strong.so")};
    (void)rmdir(folder);
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
