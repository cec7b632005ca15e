/* check_each_allocation.c: memory that runs out, and signals, at any allocation of a command: one line, the
 * right status, nothing left, nothing leaked (tests/preload/each_allocation.c says how). */
#include "suite.h"
#include "tests/support/run.h"

#include <stdlib.h>
#include <string.h>

#define EXPECT "\"$HOST\" \"$@\" >expected.out && mv out/file expected.file && "

/* Run a command, after `before`, with a misfortune at each of its allocations, of which more than `least` are
 * visited. */
static void survives(const char *arguments, const char *before, const char *misfortune, unsigned long least) {
    run_result r = run("rm -rf w; mkdir -p w/out; cd w; set -- %s --threads 1 -q; %s"
                       "TMPDIR=$PWD/out ATTUNE_TEST_EACH=%s "
                       "ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 "
                       "LD_PRELOAD=\"$B/tests/preload/each_allocation.so\" \"$HOST\" \"$@\"",
                       arguments, before, misfortune);
    const char *last = strstr(r.err, " visited, ");
    ck_assert_msg(r.status == 0, "%.200s: status %d\n%.2000s", arguments, r.status, r.err);
    ck_assert_msg(run_lines(r.err) == 1 && last && strcmp(last, " visited, 0 wrong\n") == 0,
                  "%.200s, %s:\n%.2000s", arguments, misfortune, r.err);
    ck_assert_uint_gt(strtoul(r.err, NULL, 10), least);
    run_free(&r);
}

/* A prompt of spaces makes the infotext grow while it is written. */
START_TEST(txt2img_survives) {
    const char *arguments =
        "txt2img apple --negative-prompt \"$(printf '%9000s' pear)\" --model \"$S/tests/golden/data/tiny\" "
        "--steps 1 --width 8 --height 8 --seed 1 --json -o out/file";
    survives(arguments, EXPECT, "once", 700);
    survives(arguments, EXPECT, "lasting", 700);
#ifndef __SANITIZE_ADDRESS__ /* with which a fork takes 25 ms */
    survives(arguments, EXPECT, "signal", 700);
    survives(arguments, EXPECT, "twice", 700);
#endif
}
END_TEST

START_TEST(attention_survives) {
    const char *arguments = "attention --q \"$S/tests/golden/data/attention_many_small_q.npy\" --k "
                            "\"$S/tests/golden/data/attention_many_small_k.npy\" --v "
                            "\"$S/tests/golden/data/attention_many_small_v.npy\" --json -o out/file";
    survives(arguments, EXPECT, "once", 150);
    survives(arguments, EXPECT, "lasting", 150);
}
END_TEST

/* What they print is not the same twice: memory that is free, times. */
START_TEST(other_commands_survive) {
    static const char *const commands[] = {"plugins", "plugins --json",
                                           "bench attention --shape 1,1,4,4,8 --json"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; ++i) {
        survives(commands[i], "", "once", 150);
        survives(commands[i], "", "lasting", 150);
    }
}
END_TEST

TCase *each_allocation_cases(void) {
    TCase *cases = tcase_create("each_allocation");
    tcase_add_test(cases, txt2img_survives);
    tcase_add_test(cases, attention_survives);
    tcase_add_test(cases, other_commands_survive);
    return cases;
}
