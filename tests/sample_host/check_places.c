/* check_places.c: places that cannot be written, from the start or from some moment on: one line, the right
 * status, what was there stays, nothing half is left. */
#include "suite.h"
#include "tests/support/run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRAW   "\"$HOST\" txt2img 'red apple' -q --steps 1 --seed 1 "
#define DATA   "\"$S/tests/golden/data/attention_many_small_"
#define ATTEND "\"$HOST\" attention -q --q " DATA "q.npy\" --k " DATA "k.npy\" --v " DATA "v.npy\" "

/* Root writes everywhere, unless without this capability. */
#define AS_ANYBODY                                                                                           \
    "if test \"$(id -u)\" = 0; then anybody() { setpriv --bounding-set -dac_override,-dac_read_search "      \
    "\"$@\"; }; "                                                                                            \
    "else anybody() { \"$@\"; }; fi; "

/* Run, expect a status, one line and a text in it; then `ls -A out` lists `left`. */
static void fails(const char *commands, int status, const char *text, const char *left) {
    run_result r = run("rm -rf out; mkdir out; %s", commands);
    ck_assert_msg(r.status == status, "%s: status %d, expected %d\n%s%s", commands, r.status, status, r.out,
                  r.err);
    ck_assert_msg(strstr(r.err, text) != NULL, "%s: no \"%s\" in\n%s", commands, text, r.err);
    ck_assert_msg(run_lines(r.err) == 1, "%s: not one line\n%s", commands, r.err);
    run_free(&r);
    r = run("chmod u+w out; ls -A out");
    ck_assert_msg(strcmp(r.out, left) == 0, "%s left %s", commands, r.out);
    run_free(&r);
}

static const char *const writers[] = {DRAW "-o ", ATTEND "-o "};

START_TEST(names_that_cannot_be_written) {
    static const char *const wrong[][4] = {
        /* before, the name, the line's text, what is in out/ then */
        {"", "nowhere/a.png", "folder nowhere/ does not exist", ""},
        {"mkdir out/a.png", "out/a.png", "is a folder", "a.png\n"},
        {": > out/f", "out/f/a.png", "Not a directory", "f\n"},
        {"", "out/$(printf '%0256d' 0)", "File name too long", ""},
        {"ln -s b out/a; ln -s a out/b", "out/a", "symbolic links", "a\nb\n"},
        {"ln -s nowhere/a out/a", "out/a", "folder out/nowhere/ does not exist", "a\n"},
        {"", "/dev/full", "No space left on device", ""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i)
        for (size_t k = 0; k < 2; ++k) {
            char command[1024];
            (void)snprintf(command, sizeof command, "%s\n%s %s", wrong[i][0], writers[k], wrong[i][1]);
            fails(command, 1, wrong[i][2], wrong[i][3]);
        }
}
END_TEST

/* A picture takes minutes: what is wrong with its place is said before. */
START_TEST(names_are_checked_before_the_work) {
    fails("mkdir out/a-0001.png; \"$HOST\" txt2img apple --model nowhere -q --batch-size 2 -o out/a.png", 1,
          "is a folder", "a-0001.png\n");
    fails("\"$HOST\" attention --q nowhere --k nowhere --v nowhere -o out/out/a.npy", 1, "does not exist",
          "");
}
END_TEST

START_TEST(permissions_are_kept) {
    run_result can = run(AS_ANYBODY "anybody true");
    int skipped = can.status != 0;
    if (skipped)
        printf("skipped: root cannot give up its capabilities here: %s", can.err);
    run_free(&can);
    if (skipped)
        return;
    fails(AS_ANYBODY "chmod a-w out; anybody \"$HOST\" txt2img apple --model nowhere -o out/a", 1,
          "Permission denied", "");
    for (size_t k = 0; k < 2; ++k) {
        char command[1024];
        (void)snprintf(command, sizeof command, AS_ANYBODY "chmod a-w out; anybody %s out/a", writers[k]);
        fails(command, 1, "Permission denied", "");
        (void)snprintf(command, sizeof command,
                       AS_ANYBODY "echo old >out/a; chmod a-w out/a; anybody %s out/a", writers[k]);
        fails(command, 1, "Permission denied", "a\n");
        run_result r = run("cat out/a");
        ck_assert_str_eq(r.out, "old\n");
        run_free(&r);
    }
}
END_TEST

/* A link is followed and stays a link, also one to a file that is not there yet. */
START_TEST(links_stay_links) {
    run_result r =
        run("mkdir d; : >real; ln -s real full-of-nothing; ln -s d/../later dangling; ln -s \"$PWD/d\" e; "
            "ln -s e/new far; for link in full-of-nothing dangling far; do for twice in 1 2; do " DRAW
            "-o $link && test -L $link && test -s $link || exit 9; done; done; "
            "test -s real && test -s later && test -s d/new; S=$?; ls -A . d | grep '^.attune'; exit $S");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    run_free(&r);
}
END_TEST

START_TEST(a_later_picture_fails_and_the_earlier_ones_stay) {
    fails("mkdir out/a-0003.png; " DRAW
          "--batch-count 2 --batch-size 2 -o out/a.png >list; S=$?; test \"$(cat list)\" = "
          "\"$(printf 'out/a-0001.png\\nout/a-0002.png')\" && exit $S",
          1, "out/a-0003.png is a folder, not a file (2 of 4 pictures were written)",
          "a-0001.png\na-0002.png\na-0003.png\n");
}
END_TEST

START_TEST(a_folder_that_vanishes) {
    fails(DRAW "--batch-count 500 -o out/a.png >list & P=$!; until test -s out/a-0001.png || ! kill -0 $P; "
               "do :; done; "
               "mv out gone; wait $P; S=$?; mkdir out; ls -A gone | grep '^.attune' >&2; exit $S",
          1, " of 500 pictures were written)", "");
}
END_TEST

/* With out/ a small file system of one's own, mounted with `options`, which holds the file a, "old", and the
 * file fill. */
static void fails_on_tmpfs(const char *options, const char *prepare, const char *writer, const char *text) {
    run_result r = run("rm -rf out; mkdir out; echo 'mount -t tmpfs -o %s none out && echo old >out/a || "
                       "exit 77; %s' >script; "
                       "cat >>script <<'END'\n%s out/a\nS=$?; ls -A out; cat out/a; exit $S\nEND\n"
                       "export HOST S; unshare %s -m sh ./script",
                       options, prepare, writer, geteuid() ? "-r" : "");
    if (r.status == 77 || strstr(r.err, "unshare")) {
        printf("skipped: no file system can be mounted here: %s", r.err);
        run_free(&r);
        return;
    }
    ck_assert_msg(r.status == 1, "%s, %s: status %d\n%s%s", options, writer, r.status, r.out, r.err);
    ck_assert_msg(run_lines(r.err) == 1 && strstr(r.err, text), "%s, %s: no \"%s\" in\n%s", options, writer,
                  text, r.err);
    ck_assert_msg(strcmp(r.out, "a\nfill\nold\n") == 0, "%s, %s left\n%s", options, writer, r.out);
    run_free(&r);
}

START_TEST(full_file_systems_keep_the_old_file) {
    for (size_t k = 0; k < 2; ++k) {
        fails_on_tmpfs("size=32k", "head -c 24576 /dev/zero >out/fill", writers[k],
                       "No space left on device");
        fails_on_tmpfs("size=1m,nr_inodes=3", ": >out/fill", writers[k], "No space left on device");
        fails_on_tmpfs("size=1m", ": >out/fill; mount -o remount,ro out", writers[k],
                       "Read-only file system");
    }
}
END_TEST

/* 8 MiB of result, more than the private copy of any plugin, which the limit is for too. */
START_TEST(a_limit_of_file_size_is_an_error) {
    run_result r =
        run("for n in 131072 1; do { printf '\\223NUMPY\\001\\000\\166\\000%%-117s\\n' \"{'descr': '<f4', "
            "'fortran_order': False, 'shape': (1, 1, $n, 16), }\"; head -c $((n * 64)) /dev/zero; } >$n.npy; "
            "done");
    ck_assert_int_eq(r.status, 0);
    run_free(&r);
    fails("ulimit -f 12000; \"$HOST\" attention -q --q 131072.npy --k 1.npy --v 1.npy -o out/a.npy", 1,
          "File too large", "");
    fails("ulimit -f 64; \"$HOST\" attention -q --q 131072.npy --k 1.npy --v 1.npy -o out/a.npy", 1,
          "File too large", "");
}
END_TEST

/* Every command whose standard output cannot be written; `left` by it in out/. */
static void loses_output(const char *command, const char *left) {
    static const char *const outputs[][2] = {{">/dev/full", "No space left on device"},
                                             {">&-", "Bad file descriptor"}};
    char text[1024];
    for (size_t i = 0; i < 2; ++i) {
        (void)snprintf(text, sizeof text, "%s %s", command, outputs[i][0]);
        fails(text, 1, outputs[i][1], left);
    }
    (void)snprintf(text, sizeof text,
                   "mkfifo -m 600 out/f; { exec 3<>out/f; exec 4>out/f 3<&-; rm out/f; %s >&4; }", command);
    fails(text, 1, "Broken pipe", left);
}

START_TEST(lost_output_is_an_error) {
    static const char *const commands[] = {"--help",
                                           "--version",
                                           "plugins",
                                           "plugins --json",
                                           "plugins --help",
                                           "txt2img --help",
                                           "attention --help",
                                           "bench attention --help",
                                           "bench attention --shape 1,1,4,4,8",
                                           "bench attention --shape 1,1,4,4,8 --json"};
    char text[1024];
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; ++i) {
        (void)snprintf(text, sizeof text, "\"$HOST\" %s", commands[i]);
        loses_output(text, "");
    }
    for (size_t k = 0; k < 2; ++k)
        for (int json = 0; json < 2; ++json) {
            (void)snprintf(text, sizeof text, "%s out/a %s", writers[k], json ? "--json" : "");
            loses_output(text, "a\n"); /* what was written by then stays */
        }
    fails(DRAW "--model nowhere --json >/dev/full", 1, "nowhere", "");
}
END_TEST

/* No file is opened as one of them: /dev/null holds their places. */
START_TEST(closed_descriptors_stay_unusable) {
    run_result r = run(
        "rm -rf out; mkdir out; " DRAW "-o good.png; " DRAW "-o out/a.png <&- >&- 2>&-; echo $?; "
        "cmp good.png out/a.png; "
        "\"$HOST\" txt2img apple --steps 1000 --width 512 --height 512 -o out/b.png <&- >&- 2>&- & P=$!; "
        "until { readlink /proc/$P/exe | grep -q sample_host && test -L /proc/$P/fd/2; } || ! kill -0 $P; "
        "do :; done; for fd in 0 1 2; do readlink /proc/$P/fd/$fd; done; kill $P; wait $P; echo $?; ls -A "
        "out");
    ck_assert_str_eq(r.out, "good.png\n1\n/dev/null\n/dev/null\n/dev/null\n130\na.png\n");
    run_free(&r);
}
END_TEST

START_TEST(lost_errors_do_not_change_the_status) {
    run_result r =
        run("draw() { \"$HOST\" txt2img apple --steps 1 --seed 1 -o a.png \"$@\" >list; echo $?; }; "
            "draw 2>/dev/full; draw 2>&-; draw --model nowhere 2>/dev/full; draw --model nowhere 2>&-");
    ck_assert_str_eq(r.out, "0\n0\n1\n1\n");
    run_free(&r);
}
END_TEST

TCase *places_cases(void) {
    TCase *cases = tcase_create("places");
    tcase_add_test(cases, names_that_cannot_be_written);
    tcase_add_test(cases, names_are_checked_before_the_work);
    tcase_add_test(cases, permissions_are_kept);
    tcase_add_test(cases, links_stay_links);
    tcase_add_test(cases, a_later_picture_fails_and_the_earlier_ones_stay);
    tcase_add_test(cases, a_folder_that_vanishes);
    tcase_add_test(cases, full_file_systems_keep_the_old_file);
    tcase_add_test(cases, a_limit_of_file_size_is_an_error);
    tcase_add_test(cases, lost_output_is_an_error);
    tcase_add_test(cases, closed_descriptors_stay_unusable);
    tcase_add_test(cases, lost_errors_do_not_change_the_status);
    return cases;
}
