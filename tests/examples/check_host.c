/* check_host.c: the examples do what a reader is told that they do. */
#include "tests/support/run.h"
#include "tests/support/suite.h"

#include <check.h>
#include <string.h>

START_TEST(the_example_application_works) {
    run_result r = run("\"$B/examples/host\" \"$B/manifest.json\" \"$S/models/emoji\" 'red apple'");
    ck_assert_msg(r.status == 0, "%s", r.err);
    ck_assert_ptr_nonnull(strstr(r.out, "asked flash, got sdp-no-mem"));
    ck_assert_ptr_nonnull(strstr(r.out, "attention: out[0] = 1\n"));
    const char *centre = strstr(r.out, "picture: 128x128, portable, centre pixel ");
    ck_assert_msg(centre != NULL, "%s", r.out);
    int red = 0, green = 0, blue = 0;
    ck_assert_int_eq(sscanf(centre, "picture: 128x128, portable, centre pixel %d %d %d", &red, &green, &blue),
                     3);
    ck_assert_msg(red > 150 && green < 110 && blue < 110, "the apple's middle is not red: %s", centre);
    run_free(&r);
}
END_TEST

START_TEST(its_errors_are_one_line) {
    run_result r = run("\"$B/examples/host\" nowhere.json x y");
    ck_assert_int_eq(r.status, 1);
    ck_assert_uint_eq(run_lines(r.err), 1);
    ck_assert_ptr_nonnull(strstr(r.err, "nowhere.json"));
    run_free(&r);
}
END_TEST

START_TEST(the_swap_is_seen) {
    run_result r = run("\"$S/examples/swap.sh\" \"$B\"");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    ck_assert_ptr_nonnull(strstr(r.out, "first image: finished, served by generation 1\n"));
    ck_assert_ptr_nonnull(strstr(r.out, "next image: served by generation "));
    ck_assert_ptr_nonnull(strstr(r.out, "both are the same file, byte for byte\n"));
    run_free(&r);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("examples");
    TCase *cases = tcase_create("host");
    tcase_add_test(cases, the_example_application_works);
    tcase_add_test(cases, its_errors_are_one_line);
    tcase_add_test(cases, the_swap_is_seen);
    tcase_set_timeout(cases, 0);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
