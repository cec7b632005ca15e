/* check_watch.c: folders under watch: what is complete is swapped in, what is not is waited for. */
#include "rig.h"
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static attune *host;
static attune_watch *watch;
static const char *folder;
static attune_error error;
static attune_swap_report report;

static void set_up(void) {
    host = rig_open();
    folder = fixture_folder();
    report = (attune_swap_report){.struct_size = sizeof report};
    assert_ok(attune_load(host, put_plain(folder, "plain", PUT_RENAMED), &error), error);
    assert_ok(attune_watch_open(host, &watch, &error), error);
}

static void tear_down(void) {
    attune_watch_close(watch);
    attune_close(host);
}

static attune_code wait_some(uint32_t milliseconds) {
    return attune_watch_wait(watch, milliseconds, &report, &error);
}

/* Until something comes of it: a loaded machine may take its time. */
static attune_code wait_long(void) {
    attune_code code;
    do
        code = wait_some(1000);
    while (code == ATTUNE_DEADLINE_EXCEEDED);
    return code;
}

START_TEST(test_watch_swaps) {
    ck_assert_int_eq(wait_some(100), ATTUNE_DEADLINE_EXCEEDED);
    (void)put_plain(folder, "plain_b", PUT_RENAMED);
    assert_ok(wait_long(), error);
    ck_assert_uint_eq(report.swapped, 1);
    ck_assert_uint_eq(attend_once(host, NULL), 2);
    ck_assert_int_eq(wait_some(300), ATTUNE_DEADLINE_EXCEEDED);
}
END_TEST

/* The library first, half of it, then the rest, then the manifest: nothing half copied is ever loaded. */
START_TEST(test_watch_waits_for_the_whole) {
    char path[PATH_MAX], whole[PATH_MAX];
    size_t size;
    json_t *manifest = put_library(folder, "plain_b", PUT_RENAMED);
    (void)snprintf(path, sizeof path, "%s/plug.so", folder);
    (void)snprintf(whole, sizeof whole, "%s/tests/fixtures/plain_b.so", run_build());
    char *bytes = run_read(whole, &size);
    ck_assert_int_eq(truncate(path, (off_t)size / 2), 0);
    (void)put_manifest(folder, manifest);
    ck_assert_int_eq(wait_some(400), ATTUNE_DEADLINE_EXCEEDED);
    ck_assert_uint_eq(serving(host), 1);
    ck_assert_ptr_null(strstr(rig_log(), "refused"));
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    ck_assert_int_eq(close(fd), 0);
    free(bytes);
    assert_ok(wait_long(), error);
    ck_assert_uint_ne(serving(host), 1);
}
END_TEST

/* What stays wrong is said, once. */
START_TEST(test_watch_says_why_once) {
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/plug.so", folder);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(wait_long(), ATTUNE_NOT_FOUND);
    ck_assert_uint_eq(serving(host), 1);
    ck_assert_int_eq(wait_some(1500), ATTUNE_DEADLINE_EXCEEDED);
    (void)put_plain(folder, "plain_wrong", PUT_RENAMED);
    ck_assert_int_eq(wait_long(), ATTUNE_INTERNAL);
    ck_assert_str_eq(report.stage, "self-test");
    ck_assert_uint_eq(attend_once(host, NULL), 1);
    (void)put_plain(folder, "plain_b", PUT_RENAMED);
    assert_ok(wait_long(), error);
}
END_TEST

START_TEST(test_watch_folder_vanishes_and_comes_back) {
    char away[PATH_MAX];
    (void)snprintf(away, sizeof away, "%s-away", folder);
    ck_assert_int_eq(rename(folder, away), 0);
    ck_assert_int_eq(wait_long(), ATTUNE_NOT_FOUND);
    ck_assert_uint_eq(attend_once(host, NULL), 1);
    (void)put_plain(away, "plain_b", PUT_RENAMED);
    ck_assert_int_eq(rename(away, folder), 0);
    assert_ok(wait_long(), error);
    ck_assert_uint_ne(serving(host), 1);
}
END_TEST

static atomic_int stop;

static void *touch(void *path) {
    while (!atomic_load(&stop)) {
        (void)utimensat(AT_FDCWD, path, NULL, 0);
        (void)usleep(1000);
    }
    return NULL;
}

/* A manifest that changes every millisecond: the folder is never quiet, and the new build comes in all the
 * same, without a scan for every change. */
START_TEST(test_watch_no_livelock) {
    char path[PATH_MAX];
    pthread_t thread;
    (void)snprintf(path, sizeof path, "%s/manifest.json", folder);
    ck_assert_int_eq(pthread_create(&thread, NULL, touch, path), 0);
    ck_assert_int_eq(wait_some(300), ATTUNE_DEADLINE_EXCEEDED);
    (void)put_plain(folder, "plain_b", PUT_RENAMED);
    attune_code code = wait_long();
    uint64_t numbers = host->registry.numbers;
    atomic_store(&stop, 1);
    (void)pthread_join(thread, NULL);
    ck_assert_int_eq(code, ATTUNE_OK);
    ck_assert_uint_ne(serving(host), 1);
    ck_assert_msg(numbers < 200, "%llu generations were staged", (unsigned long long)numbers);
}
END_TEST

/* Thousands of manifests that are none beside the one that is. */
START_TEST(test_watch_thousands_of_manifests) {
    char path[PATH_MAX];
    const char *crowd = fixture_folder();
    attune_watch_close(watch);
    (void)snprintf(path, sizeof path, "%s/attune/plugins.d", crowd);
    run_result made =
        run("mkdir -p '%s' && cd '%s' && i=0; while [ $i -lt 2000 ]; do echo '{' > $i.json; i=$((i+1)); done",
            path, path);
    ck_assert_int_eq(made.status, 0);
    run_free(&made);
    (void)setenv("XDG_DATA_HOME", crowd, 1);
    assert_ok(attune_watch_open(host, &watch, &error), error);
    (void)put_plain(folder, "plain_b", PUT_RENAMED);
    assert_ok(wait_long(), error);
    ck_assert_uint_eq(attend_once(host, NULL), 2);
}
END_TEST

TCase *watch_cases(void) {
    TCase *cases = tcase_create("watch");
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_test(cases, test_watch_swaps);
    tcase_add_test(cases, test_watch_waits_for_the_whole);
    tcase_add_test(cases, test_watch_says_why_once);
    tcase_add_test(cases, test_watch_folder_vanishes_and_comes_back);
    tcase_add_test(cases, test_watch_no_livelock);
    tcase_add_test(cases, test_watch_thousands_of_manifests);
    tcase_set_timeout(cases, 0);
    return cases;
}
