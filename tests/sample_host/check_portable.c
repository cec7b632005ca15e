/* check_portable.c: a picture of class portable is the same whatever made it: threads, instruction set, place
 * in a batch; and the one that every machine draws, by its hash. */
#include "kernels/cpu/dispatch.h"
#include "picture.h"
#include "suite.h"
#include "tests/support/run.h"

#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define APPLE "txt2img 'red apple' -q --steps 3 --seed 5 --determinism portable "

/* SHA-256 of the 128 × 128 RGB pixels of APPLE, three steps of Euler a. It changes with the model and the
 * arithmetic id, and with nothing else; scripts/pin_picture.sh writes it anew. */
static const char apple_pixels[] = "63d46bbf859126f08233f52a46be2b366c6dfde689e7122774b49299d6e074cc";

static void draw(const char *before, const char *arguments) {
    run_result r = run("%s \"$HOST\" " APPLE "%s", before, arguments);
    ck_assert_msg(r.status == 0, "%s %s: %d %s", before, arguments, r.status, r.err);
    run_free(&r);
}

/* Both files byte by byte. */
static void expect_same(const char *a, const char *b) {
    run_result r = run("cmp %s %s", a, b);
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    run_free(&r);
}

START_TEST(the_pixels_are_those_of_any_machine) {
    struct sha256_ctx hash;
    uint8_t digest[SHA256_DIGEST_SIZE];
    char text[2 * SHA256_DIGEST_SIZE + 1];
    draw("", "-o apple.png");
    picture p = read_picture("apple.png");
    ck_assert_uint_eq(p.width, 128);
    ck_assert_uint_eq(p.height, 128);
    sha256_init(&hash);
    sha256_update(&hash, (size_t)p.width * p.height * 3, p.pixels);
    sha256_digest(&hash, sizeof digest, digest);
    for (int i = 0; i < SHA256_DIGEST_SIZE; ++i)
        (void)snprintf(text + 2 * i, 3, "%02x", digest[i]);
    free_picture(&p);
    ck_assert_str_eq(text, apple_pixels);
}
END_TEST

START_TEST(threads_do_not_show) {
    draw("", "--threads 1 -o one.png");
    draw("", "--threads 2 -o two.png");
    draw("", "--threads 3 -o three.png");
    expect_same("one.png", "two.png");
    expect_same("one.png", "three.png");
}
END_TEST

START_TEST(instruction_sets_do_not_show) {
    draw("", "-o best.png");
    for (int isa = 0; isa < (int)attune_cpu_detect(); ++isa) {
        attune_cpu_kernels kernels;
        char mask[64];
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        (void)snprintf(mask, sizeof mask, "ATTUNE_CPU_MASK=%s", kernels.matmul_f32->isa);
        draw(mask, "-o capped.png");
        expect_same("best.png", "capped.png");
    }
}
END_TEST

/* The picture alone, and at each place of a batch of four. */
START_TEST(a_batch_does_not_show) {
    draw("", "--batch-size 4 -o batch.png");
    for (int i = 0; i < 4; ++i) {
        char arguments[64], name[32];
        (void)snprintf(arguments, sizeof arguments, "--seed %d -o alone.png", 5 + i);
        draw("", arguments);
        (void)snprintf(name, sizeof name, "batch-%04d.png", i + 1);
        expect_same("alone.png", name);
    }
}
END_TEST

/* Under a limit another backend may serve, which the picture names; of one and the same no bit changes. */
#define ONE_BACKEND "--batch-size 2 --attention-required sdp-no-mem "

/* The least limit that does, by the error of one that does not: the UNet then takes one latent at a time, and
 * every layer is packed for each call. */
START_TEST(memory_does_not_show) {
    char limit[128];
    draw("", ONE_BACKEND "-o keep.png");
    draw("", ONE_BACKEND "--medvram -o parts.png");
    draw("", ONE_BACKEND "--lowvram -o low.png");
    run_result r = run("\"$HOST\" " APPLE ONE_BACKEND "--memory-limit 1M -o never.png");
    ck_assert_int_eq(r.status, 3);
    const char *needs = strstr(r.err, "this request needs ");
    ck_assert_msg(needs != NULL, "%s", r.err);
    const unsigned long long least = strtoull(needs + strlen("this request needs "), NULL, 10);
    run_free(&r);
    (void)snprintf(limit, sizeof limit, ONE_BACKEND "--memory-limit %llu -o least.png", least);
    draw("", limit);
    for (int i = 1; i <= 2; ++i) {
        static const char *const others[] = {"parts", "low", "least"};
        char a[32], b[32];
        (void)snprintf(a, sizeof a, "keep-%04d.png", i);
        for (int k = 0; k < 3; ++k) {
            (void)snprintf(b, sizeof b, "%s-%04d.png", others[k], i);
            expect_same(a, b);
        }
    }
    r = run("\"$HOST\" " APPLE ONE_BACKEND "--memory-limit %llu -o never.png", least - 1);
    ck_assert_int_eq(r.status, 3);
    run_free(&r);
}
END_TEST

/* What the sampler takes from the C library's mathematics is exact or correctly rounded everywhere. */
START_TEST(no_function_of_libm_is_inexact) {
    run_result r = run(
        "nm -D --undefined-only \"$B/attune-sampler-cpu.so\" | sed 's/.* //; s/@.*//' | sort >used.txt && "
        "printf '%%s\\n' acos asin atan atan2 cbrt cos cosh erf erfc exp exp2 expm1 exp10 hypot lgamma log "
        "log10 log1p log2 pow sin sincos sinh tan tanh tgamma | sed 'p; s/$/f/' | sort >inexact.txt && "
        "grep -qx fma used.txt && comm -12 used.txt inexact.txt");
    ck_assert_msg(r.status == 0 && r.out[0] == 0, "used: %s%s", r.out, r.err);
    run_free(&r);
}
END_TEST

TCase *portable_cases(void) {
    TCase *cases = tcase_create("portable");
    tcase_add_test(cases, the_pixels_are_those_of_any_machine);
    tcase_add_test(cases, threads_do_not_show);
    tcase_add_test(cases, instruction_sets_do_not_show);
    tcase_add_test(cases, a_batch_does_not_show);
    tcase_add_test(cases, memory_does_not_show);
    tcase_add_test(cases, no_function_of_libm_is_inexact);
    return cases;
}
