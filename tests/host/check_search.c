/* check_search.c: where manifests are looked for, in which order, and what is ignored. */
#include "cases.h"
#include "host_api/plugin_search.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* An environment in which nothing of this machine's own can be found. */
static void bare_environment(void) {
    ck_assert_int_eq(unsetenv("ATTUNE_PLUGIN_PATH"), 0);
    ck_assert_int_eq(setenv("HOME", "/nonexistent", 1), 0);
    ck_assert_int_eq(setenv("XDG_DATA_HOME", "/nonexistent/home", 1), 0);
    ck_assert_int_eq(setenv("XDG_DATA_DIRS", "/nonexistent/dirs", 1), 0);
}

static const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *text(const char *format, ...) {
    static char texts[16][4200];
    static unsigned next;
    char *out = texts[next++ % 16];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(out, sizeof texts[0], format, list);
    va_end(list);
    return out;
}

static void sh(const char *command) {
    run_result result = run("%s", command);
    ck_assert_msg(result.status == 0, "%s: %s", command, result.err);
    run_free(&result);
}

static void expect(const char *plugin_dir, uint32_t count, const char *const *paths) {
    attune_paths found;
    attune_logger silent = {NULL, NULL};
    attune_error error;
    assert_ok(attune_search(plugin_dir, &silent, &found, NULL, &error), error);
    for (uint32_t i = 0; i < count && i < found.count; ++i)
        ck_assert_str_eq(found.path[i], paths[i]);
    ck_assert_uint_eq(found.count, count);
    attune_paths_free(&found);
}

START_TEST(test_search_order) {
    const char *f = run_folder();
    sh(text("mkdir -p %s/own %s/home/attune/plugins.d/b %s/one/attune/plugins.d %s/two/attune/plugins.d "
            "%s/app && "
            "touch %s/own/manifest.json %s/file.json %s/home/attune/plugins.d/b/manifest.json "
            "%s/home/attune/plugins.d/a.json %s/home/attune/plugins.d/notes.txt "
            "%s/home/attune/plugins.d/.hidden.json "
            "%s/one/attune/plugins.d/manifest.json %s/two/attune/plugins.d/x.json %s/app/manifest.json",
            f, f, f, f, f, f, f, f, f, f, f, f, f, f));
    ck_assert_int_eq(setenv("ATTUNE_PLUGIN_PATH", text("%s/file.json:%s/own:%s/file.json", f, f, f), 1), 0);
    ck_assert_int_eq(setenv("XDG_DATA_HOME", text("%s/home", f), 1), 0);
    ck_assert_int_eq(setenv("XDG_DATA_DIRS", text("%s/one:%s/two", f, f), 1), 0);
    const char *const expected[] = {text("%s/file.json", f),
                                    text("%s/own/manifest.json", f),
                                    text("%s/home/attune/plugins.d/a.json", f),
                                    text("%s/home/attune/plugins.d/b/manifest.json", f),
                                    text("%s/one/attune/plugins.d/manifest.json", f),
                                    text("%s/two/attune/plugins.d/x.json", f),
                                    text("%s/app/manifest.json", f)};
    expect(text("%s/app", f), 7, expected);
    /* without XDG_DATA_HOME it is $HOME/.local/share */
    sh(text("mkdir -p %s/.local && ln -s %s/home %s/.local/share", f, f, f));
    ck_assert_int_eq(unsetenv("XDG_DATA_HOME"), 0);
    ck_assert_int_eq(setenv("HOME", f, 1), 0);
    ck_assert_int_eq(setenv("XDG_DATA_DIRS", "/nonexistent", 1), 0);
    ck_assert_int_eq(unsetenv("ATTUNE_PLUGIN_PATH"), 0);
    const char *const of_home[] = {text("%s/.local/share/attune/plugins.d/a.json", f),
                                   text("%s/.local/share/attune/plugins.d/b/manifest.json", f)};
    expect(NULL, 2, of_home);
}
END_TEST

/* Relative entries and the current folder are never looked at; the log says which entry was ignored. */
START_TEST(test_search_ignores_relative) {
    const char *folder = fixture_folder();
    fixture_install(folder, fixture_manifest("plain", NULL));
    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_int_eq(setenv("ATTUNE_PLUGIN_PATH", ".:manifest.json::plugins", 1), 0);
    ck_assert_int_eq(setenv("XDG_DATA_HOME", "share", 1), 0);
    expect(NULL, 0, NULL);
    attune *host = open_host();
    attune_error error;
    assert_fails(attune_load_default(host, &error), error, ATTUNE_NOT_FOUND, "no plugin manifest was found");
    ck_assert_ptr_nonnull(
        strstr(test_log(), "ATTUNE_PLUGIN_PATH: the relative entry \"manifest.json\" is ignored"));
    ck_assert_ptr_nonnull(strstr(test_log(), "XDG_DATA_HOME: the relative entry \"share\" is ignored"));
    attune_close(host);
}
END_TEST

/* The first of an id wins; the later one is skipped, and what was loaded by name before stays. */
START_TEST(test_search_first_wins) {
    const char *first = fixture_plugins("plain", NULL), *second = fixture_plugins("plain", "racy", NULL);
    attune_error error;
    ck_assert_int_eq(setenv("ATTUNE_PLUGIN_PATH", text("%s:%s", first, second), 1), 0);
    attune *host = open_host();
    assert_ok(attune_load_default(host, &error), error);
    ck_assert_uint_eq(plugin_count(host), 2);
    attune_plugin_status plain = plugin_status(host, 0), racy = plugin_status(host, 1);
    ck_assert_int_eq(strncmp(plain.path, first, strlen(first) - strlen("manifest.json")), 0);
    ck_assert_str_eq(racy.id, "fixture-racy");
    /* once more changes nothing */
    assert_ok(attune_load_default(host, &error), error);
    ck_assert_uint_eq(plugin_count(host), 2);
    attune_close(host);
}
END_TEST

/* A bad manifest on the way is said in the log and does not hide the good one behind it. */
START_TEST(test_search_goes_on) {
    const char *bad = fixture_folder(), *good = fixture_plugins("plain", NULL);
    attune_error error;
    sh(text("echo '{' > %s/manifest.json", bad));
    ck_assert_int_eq(setenv("ATTUNE_PLUGIN_PATH", text("/nonexistent:%s:%s", bad, good), 1), 0);
    attune *host = open_host();
    assert_ok(attune_load_default(host, &error), error);
    ck_assert_uint_eq(plugin_count(host), 1);
    ck_assert_ptr_nonnull(strstr(test_log(), "ATTUNE_PLUGIN_PATH: no manifest at /nonexistent"));
    ck_assert_ptr_nonnull(strstr(test_log(), text("%s/manifest.json: line", bad)));
    attune_close(host);
    /* alone it is the error */
    ck_assert_int_eq(setenv("ATTUNE_PLUGIN_PATH", bad, 1), 0);
    host = open_host();
    assert_fails(attune_load_default(host, &error), error, ATTUNE_INVALID_ARGUMENT, "line 2");
    attune_close(host);
}
END_TEST

START_TEST(test_search_application_folder) {
    attune_options options = {.struct_size = sizeof options, .threads = 1};
    char folder[4200];
    attune_error error;
    attune *host;
    const char *path = fixture_plugins("plain", NULL);
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(strlen(path) - strlen("/manifest.json")), path);
    options.plugin_dir = folder;
    assert_ok(attune_open(&options, &host, &error), error);
    assert_ok(attune_load_default(host, &error), error);
    ck_assert_str_eq(plugin_status(host, 0).state, "active");
    attune_close(host);
}
END_TEST

TCase *search_cases(void) {
    TCase *cases = tcase_create("search");
    tcase_add_checked_fixture(cases, bare_environment, NULL);
    tcase_add_test(cases, test_search_order);
    tcase_add_test(cases, test_search_ignores_relative);
    tcase_add_test(cases, test_search_first_wins);
    tcase_add_test(cases, test_search_goes_on);
    tcase_add_test(cases, test_search_application_folder);
    tcase_set_timeout(cases, 0);
    return cases;
}
