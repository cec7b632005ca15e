/* check_watch.c: folders under watch: what is complete is swapped in, what is not is waited for. */
#include "rig.h"
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
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

static void sh(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void sh(const char *format, ...) {
    char command[2 * PATH_MAX];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(command, sizeof command, format, list);
    va_end(list);
    run_result done = run("%s", command);
    ck_assert_msg(done.status == 0, "%s: %s", command, done.err);
    run_free(&done);
}

START_TEST(test_watch_swaps) {
    ck_assert_int_eq(wait_some(100), ATTUNE_DEADLINE_EXCEEDED);
    (void)put_plain(folder, "plain_b", PUT_RENAMED);
    assert_ok(wait_long(), error);
    ck_assert_uint_eq(report.swapped, 1);
    ck_assert_uint_eq(attend_once(host), 2);
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
    ck_assert_uint_eq(attend_once(host), 1);
    (void)put_plain(folder, "plain_b", PUT_RENAMED);
    assert_ok(wait_long(), error);
}
END_TEST

START_TEST(test_watch_folder_vanishes_and_comes_back) {
    char away[PATH_MAX];
    (void)snprintf(away, sizeof away, "%s-away", folder);
    ck_assert_int_eq(rename(folder, away), 0);
    ck_assert_int_eq(wait_long(), ATTUNE_NOT_FOUND);
    ck_assert_uint_eq(attend_once(host), 1);
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
    ck_assert_uint_eq(attend_once(host), 2);
    /* they go, and nobody missed them */
    sh("rm -rf '%s'", path);
    ck_assert_int_eq(wait_some(2000), ATTUNE_DEADLINE_EXCEEDED);
}
END_TEST

/* ---- folders that are not there yet ---- */

/* Watch again, with a data folder of its own in which nothing is yet. */
static const char *watch_data(void) {
    const char *data = fixture_folder();
    attune_watch_close(watch);
    watch = NULL;
    (void)setenv("XDG_DATA_HOME", data, 1);
    assert_ok(attune_watch_open(host, &watch, &error), error);
    return data;
}

/* Where no manifest is: in a folder of a plugins.d, in no plugins.d, in no folder that ATTUNE_PLUGIN_PATH
 * names. The first one that comes is seen. */
START_TEST(test_watch_first_manifest) {
    static const char *const places[] = {"data/attune/plugins.d/mine", "data/attune/plugins.d",
                                         "own/plugins"};
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", folder, places[_i]);
    if (_i == 0)
        sh("mkdir -p '%s'", path);
    attune_watch_close(watch);
    (void)snprintf(path, sizeof path, "%s/data", folder);
    (void)setenv("XDG_DATA_HOME", path, 1);
    (void)snprintf(path, sizeof path, "%s/%s", folder, places[_i]);
    if (_i == 2)
        (void)setenv("ATTUNE_PLUGIN_PATH", path, 1);
    assert_ok(attune_watch_open(host, &watch, &error), error);
    ck_assert_int_eq(wait_some(300), ATTUNE_DEADLINE_EXCEEDED);
    sh("mkdir -p '%s'", path);
    ck_assert_int_eq(wait_some(300), ATTUNE_DEADLINE_EXCEEDED);
    (void)fixture_install(path, fixture_manifest("picky", NULL));
    assert_ok(wait_long(), error);
    ck_assert_uint_eq(report.added, 1);
    ck_assert_str_eq(report.plugin, "fixture-picky");
}
END_TEST

/* The manifest is there long before its library: that is told, and the library is seen when it comes. */
START_TEST(test_watch_library_comes_late) {
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/attune/plugins.d", watch_data());
    sh("mkdir -p '%s'", path);
    (void)fixture_install(path, fixture_manifest("picky", NULL));
    sh("mv '%s/picky.so' '%s/kept'", path, path);
    ck_assert_int_eq(wait_long(), ATTUNE_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(error.where, "picky.so"));
    sh("mv '%s/kept' '%s/picky.so'", path, path);
    assert_ok(wait_long(), error);
    ck_assert_uint_eq(report.added, 1);
}
END_TEST

/* A folder high above the plugin's is renamed, and comes back with another build. */
START_TEST(test_watch_plugins_d_vanishes_and_returns) {
    char path[PATH_MAX];
    const char *data = watch_data();
    (void)snprintf(path, sizeof path, "%s/attune/plugins.d/mine", data);
    sh("mkdir -p '%s'", path);
    (void)put_plain(path, "plain_b", PUT_RENAMED);
    assert_ok(wait_long(), error);
    uint64_t before = serving(host);
    sh("mv '%s/attune' '%s/away'", data, data);
    ck_assert_int_eq(wait_long(), ATTUNE_NOT_FOUND);
    ck_assert_int_eq(wait_some(1500), ATTUNE_DEADLINE_EXCEEDED); /* said once */
    ck_assert_uint_eq(attend_once(host), before);
    (void)snprintf(path, sizeof path, "%s/away/plugins.d/mine", data);
    (void)put_plain(path, "plain", PUT_RENAMED);
    sh("mv '%s/away' '%s/attune'", data, data);
    assert_ok(wait_long(), error);
    ck_assert_uint_eq(report.replaced, before);
    ck_assert_uint_eq(attend_once(host), report.generation);
}
END_TEST

/* Rights are nothing to root: from here on this process, whose files these are then, is somebody else. */
static void become_somebody(void) {
    if (geteuid() != 0)
        return;
    sh("chown -R 65534:65534 '%s'", run_folder());
    ck_assert_int_eq(setegid(65534), 0);
    ck_assert_int_eq(seteuid(65534), 0);
    ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 1), 0); /* else /proc/self, where copies have names, is root's */
}

/* Else the leak checker, which looks at this process from another, may not. */
static void become_root_again(void) {
    if (getuid() != 0)
        return;
    ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(setegid(0), 0);
}

START_TEST(test_watch_unreadable_folder) {
    become_somebody();
    ck_assert_int_eq(chmod(folder, 0), 0);
    ck_assert_int_eq(wait_long(), ATTUNE_PERMISSION_DENIED);
    ck_assert_msg(strstr(error.where, folder) && !strchr(error.message, '\n'), "%s: %s", error.where,
                  error.message);
    ck_assert_uint_eq(attend_once(host), 1);
    /* a new build in it is not seen, nothing is said again, and then it is */
    ck_assert_int_eq(chmod(folder, 0755), 0);
    (void)put_plain(folder, "plain_b", PUT_RENAMED);
    ck_assert_int_eq(chmod(folder, 0), 0);
    ck_assert_int_eq(wait_some(2500), ATTUNE_DEADLINE_EXCEEDED);
    ck_assert_uint_eq(attend_once(host), 1);
    ck_assert_int_eq(chmod(folder, 0755), 0);
    assert_ok(wait_long(), error);
    ck_assert_uint_eq(attend_once(host), 2);
    become_root_again();
}
END_TEST

/* A new build in a folder that others can write is refused, and taken once they cannot. */
START_TEST(test_watch_folder_made_safe) {
    ck_assert_int_eq(chmod(folder, 0775), 0);
    (void)put_plain(folder, "plain_b", PUT_RENAMED);
    ck_assert_int_eq(wait_long(), ATTUNE_PERMISSION_DENIED);
    ck_assert_uint_eq(attend_once(host), 1);
    ck_assert_int_eq(chmod(folder, 0755), 0);
    assert_ok(wait_long(), error);
    ck_assert_uint_eq(attend_once(host), 2);
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
    tcase_add_loop_test(cases, test_watch_first_manifest, 0, 3);
    tcase_add_test(cases, test_watch_library_comes_late);
    tcase_add_test(cases, test_watch_plugins_d_vanishes_and_returns);
    tcase_add_test(cases, test_watch_unreadable_folder);
    tcase_add_test(cases, test_watch_folder_made_safe);
    tcase_set_timeout(cases, 0);
    return cases;
}
