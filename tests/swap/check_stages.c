/* check_stages.c: each stage of a swap, what it refuses, and what happens to the old generation afterwards.
 */
#include "rig.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static attune *host;
static const char *folder;
static attune_error error;
static attune_swap_report report;

static void set_up(void) {
    host = rig_open();
    folder = fixture_folder();
    report = (attune_swap_report){.struct_size = sizeof report};
    assert_ok(attune_load(host, put_plain(folder, "plain", PUT_RENAMED), &error), error);
    ck_assert_uint_eq(serving(host), 1);
}

/* A swap that must fail at `stage` with `text`; generation 1 serves on, and one line of the log says so. */
static void refused(const char *manifest, const char *stage, attune_code code, const char *text) {
    memset(&error, 0, sizeof error);
    attune_code got = attune_swap(host, manifest, &report, &error);
    ck_assert_msg(got == code, "%s: %s (%s)", stage, attune_code_name(got), error.message);
    ck_assert_msg(strstr(error.message, text) || strstr(error.where, text), "\"%s\" lacks \"%s\"",
                  error.message, text);
    ck_assert_str_eq(report.stage, stage);
    ck_assert_uint_eq(report.refused, 1);
    ck_assert_uint_eq(report.swapped, 0);
    ck_assert_uint_eq(serving(host), 1);
    ck_assert_uint_eq(attend_once(host), 1);
    char line[160];
    (void)snprintf(line, sizeof line, "swap refused at the stage %s", stage);
    const char *said = strstr(rig_log(), line);
    ck_assert_msg(said && strstr(said, "generation 1, serves on"), "%s", rig_log());
    ck_assert_uint_eq(in_state(host, "staged"), 0);
}

START_TEST(test_swap_replaces) {
    holdings before = held_now();
    assert_ok(attune_swap(host, put_plain(folder, "plain_b", PUT_RENAMED), &report, &error), error);
    ck_assert_uint_eq(report.swapped, 1);
    ck_assert_uint_eq(report.generation, 2);
    ck_assert_uint_eq(report.replaced, 1);
    ck_assert_uint_gt(report.nanoseconds, 0);
    ck_assert_str_eq(report.plugin, "fixture-plain");
    ck_assert_str_eq(report.stage, "");
    ck_assert_uint_eq(attend_once(host), 2);
    attune_attention_info info = {.struct_size = sizeof info};
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    assert_ok(attune_snapshot_attention(snapshot, 0, 0, &info, &error), error);
    attune_snapshot_release(snapshot);
    ck_assert_str_eq(info.label, "plain loops, built again"); /* the new code, not only a new number */
    /* the same again changes nothing */
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/manifest.json", folder);
    assert_ok(attune_swap(host, path, &report, &error), error);
    ck_assert_uint_eq(report.unchanged, 1);
    ck_assert_uint_eq(report.swapped, 0);
    ck_assert_uint_eq(serving(host), 2);
    holdings after = held_now();
    ck_assert_uint_eq(after.threads, before.threads);
    if (!SANITIZED) {
        ck_assert_uint_eq(after.descriptors, before.descriptors);
        ck_assert_uint_eq(after.copies, before.copies);
        ck_assert_uint_eq(in_state(host, "parked"), 0);
    }
    attune_close(host);
}
END_TEST

/* What dlopen does with a file whose bytes were changed in place: it returns the code that it has. Without
 * the private copy a swap would get that; with it, the new code. */
START_TEST(test_swap_dlopen_would_return_the_old_mapping) {
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/plug.so", folder);
    union {
        void *object;
        attune_plugin_entry_function function;
    } before, after;
    void *first = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_ptr_nonnull(first);
    before.object = dlsym(first, ATTUNE_PLUGIN_ENTRY);
    /* another inode under the same name: the file that is mapped must not be overwritten beneath dlopen */
    const char *manifest = put_plain(folder, "plain_b", PUT_RENAMED);
    void *second = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_ptr_nonnull(second);
    after.object = dlsym(second, ATTUNE_PLUGIN_ENTRY);
    ck_assert_ptr_eq(second, first);
    ck_assert_ptr_eq(after.object, before.object);
    assert_ok(attune_swap(host, manifest, &report, &error), error);
    attune_attention_info info = {.struct_size = sizeof info};
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    assert_ok(attune_snapshot_attention(snapshot, 0, 0, &info, &error), error);
    ck_assert_ptr_ne((void *)snapshot->generation[0]->plugin, NULL);
    attune_snapshot_release(snapshot);
    ck_assert_str_eq(info.label, "plain loops, built again");
    (void)dlclose(second);
    (void)dlclose(first);
    attune_close(host);
}
END_TEST

START_TEST(test_swap_overwritten_in_place) {
    (void)put_plain(folder, "plain_b", PUT_IN_PLACE);
    ck_assert_uint_eq(attend_once(host), 1); /* old code, from its own copy */
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/manifest.json", folder);
    assert_ok(attune_swap(host, path, &report, &error), error);
    ck_assert_uint_eq(attend_once(host), 2);
    attune_close(host);
}
END_TEST

START_TEST(test_swap_refuses_what_lies) {
    json_t *manifest = put_library(folder, "plain_b", PUT_RENAMED);
    fixture_set(manifest, "libraries.0.sha256",
                json_string("00000000000000000000000000000000000000000000000000000000000000ff"));
    refused(put_manifest(folder, manifest), "check", ATTUNE_UNAUTHENTICATED, "SHA-256");
    manifest = put_library(folder, "plain_b", PUT_RENAMED);
    fixture_set(manifest, "libraries.0.attention.1.priority", json_integer(99));
    refused(put_manifest(folder, manifest), "tables", ATTUNE_FAILED_PRECONDITION, "priority");
    manifest = put_library(folder, "plain_b", PUT_RENAMED);
    fixture_set(manifest, "libraries.0.version", json_string("9.9.9"));
    refused(put_manifest(folder, manifest), "negotiate", ATTUNE_FAILED_PRECONDITION, "version");
    refused(put_plain(folder, "nosymbol", PUT_RENAMED), "negotiate", ATTUNE_NOT_FOUND, "attune_plugin_entry");
    refused(put_plain(folder, "newer", PUT_RENAMED), "negotiate", ATTUNE_UNIMPLEMENTED, "ABI");
    refused(put_plain(folder, "older_device", PUT_RENAMED), "negotiate", ATTUNE_FAILED_PRECONDITION, "id");
    attune_close(host);
}
END_TEST

/* Tables of another length: a table that lacks an entry nobody calls serves, one that lacks a needed one is
 * refused with its name. */
START_TEST(test_swap_short_tables) {
    assert_ok(attune_swap(host, fixture_plugins("older_device", NULL), &report, &error), error);
    ck_assert_uint_eq(report.added, 1);
    ck_assert_int_eq(attune_swap(host, fixture_plugins("older", NULL), &report, &error),
                     ATTUNE_UNIMPLEMENTED);
    ck_assert_str_eq(report.stage, "tables");
    ck_assert_ptr_nonnull(strstr(error.message, "lacks run"));
    refused(put_plain(folder, "plain_short", PUT_RENAMED), "negotiate", ATTUNE_FAILED_PRECONDITION,
            "its plugin table has 64 bytes");
    refused(put_plain(folder, "plain_hollow", PUT_RENAMED), "negotiate", ATTUNE_UNIMPLEMENTED,
            "lacks create, get_interface, quiesce or destroy");
    attune_close(host);
}
END_TEST

START_TEST(test_swap_wrong_numbers) {
    refused(put_plain(folder, "plain_wrong", PUT_RENAMED), "self-test", ATTUNE_INTERNAL, "wrong numbers");
    attune_close(host);
}
END_TEST

/* The probe's child dies, this process does not; the verdict is kept by hash. */
START_TEST(test_swap_crash_in_constructor) {
    const char *manifest = put_plain(folder, "plain_crash", PUT_RENAMED);
    refused(manifest, "probe", ATTUNE_FAILED_PRECONDITION, "ends the process");
    ck_assert_uint_eq(host->probes.next, 1);
    refused(manifest, "probe", ATTUNE_FAILED_PRECONDITION, "Aborted");
    ck_assert_uint_eq(host->probes.next, 1);
    assert_ok(attune_swap(host, put_plain(folder, "plain_b", PUT_RENAMED), &report, &error), error);
    attune_close(host);
}
END_TEST

START_TEST(test_swap_unsafe_files) {
    char path[PATH_MAX], other[PATH_MAX];
    const char *manifest = put_plain(folder, "plain", PUT_RENAMED);
    (void)snprintf(path, sizeof path, "%s/plug.so", folder);
    (void)snprintf(other, sizeof other, "%s/real.so", folder);
    ck_assert_int_eq(chmod(path, 0775), 0);
    refused(manifest, "check", ATTUNE_PERMISSION_DENIED, "plug.so");
    ck_assert_int_eq(chmod(path, 0755), 0);
    ck_assert_int_eq(rename(path, other), 0);
    ck_assert_int_eq(symlink("real.so", path), 0);
    refused(manifest, "check", ATTUNE_PERMISSION_DENIED, "plug.so");
    ck_assert_int_eq(unlink(path), 0);
    refused(manifest, "check", ATTUNE_NOT_FOUND, "plug.so");
    attune_close(host);
}
END_TEST

/* A quiesce that hangs takes nobody with it: the generation is seen as stuck, and ends when it comes back. */
START_TEST(test_swap_hanging_quiesce) {
    char gate[PATH_MAX];
    (void)snprintf(gate, sizeof gate, "%s/gate", folder);
    (void)setenv("FIXTURE_GATE", gate, 1);
    host->quiesce_wait = 20;
    assert_ok(attune_swap(host, put_plain(folder, "plain_hang", PUT_RENAMED), &report, &error), error);
    assert_ok(attune_swap(host, put_plain(folder, "plain_b", PUT_RENAMED), &report, &error), error);
    ck_assert_uint_eq(in_state(host, "stuck"), 1);
    ck_assert_uint_eq(serving(host), 3);
    ck_assert_uint_eq(attend_once(host), 3);
    ck_assert_ptr_nonnull(strstr(rig_log(), "quiesce of generation 2 has not come back"));
    ck_assert_int_eq(close(open(gate, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
    while (in_state(host, "stuck"))
        (void)usleep(1000);
    attune_close(host);
}
END_TEST

START_TEST(test_swap_leak_is_reported) {
    assert_ok(attune_swap(host, put_plain(folder, "plain_leak", PUT_RENAMED), &report, &error), error);
    assert_ok(attune_swap(host, put_plain(folder, "plain_b", PUT_RENAMED), &report, &error), error);
    ck_assert_ptr_nonnull(strstr(rig_log(), "\"forgotten\" were not freed by destroy"));
    attune_close(host);
}
END_TEST

static const struct {
    const char *name, *risk;
} parked[] = {{"plain_thread", "pthread_create"},
              {"plain_tls", "thread-local"},
              {"plain_unique", "unique symbol fixture_unique"}};

/* "unload": "safe" is a claim; the scan finds what speaks against it, and the code stays mapped. */
START_TEST(test_swap_parked) {
    assert_ok(attune_swap(host, put_plain(folder, parked[_i].name, PUT_RENAMED), &report, &error), error);
    assert_ok(attune_swap(host, put_plain(folder, "plain_b", PUT_RENAMED), &report, &error), error);
    ck_assert_uint_eq(in_state(host, "parked"), SANITIZED ? 2 : 1);
    attune_generation_info info = {.struct_size = sizeof info};
    bool found = false;
    for (uint32_t i = 0; attune_generation_at(host, i, &info, NULL) == ATTUNE_OK; ++i)
        found |= info.plugin.generation == 2 && strcmp(info.plugin.state, "parked") == 0 &&
                 strstr(info.unload_risk, parked[_i].risk) != NULL;
    ck_assert(found);
    (void)usleep(20000); /* the thread that was left runs on, in code that is still there */
    attune_close(host);
}
END_TEST

/* "unload": "safe", nothing found, and still mapped after dlclose, here because somebody else has it open:
 * then its descriptor stays too, else the next copy of that name would be taken for this one. */
START_TEST(test_swap_library_that_stays) {
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    void *held = dlopen(snapshot->generation[0]->copy.path, RTLD_NOW | RTLD_LOCAL);
    attune_snapshot_release(snapshot);
    ck_assert_ptr_nonnull(held);
    for (int i = 0; i < 2; ++i)
        assert_ok(attune_swap(host, put_plain(folder, i ? "plain" : "plain_b", PUT_RENAMED), &report, &error),
                  error);
    ck_assert_uint_eq(in_state(host, "parked"), SANITIZED ? 2 : 1);
    ck_assert_uint_eq(attend_once(host), 3);
    (void)dlclose(held);
    attune_close(host);
}
END_TEST

START_TEST(test_swap_parked_are_capped) {
    host->parked_most = 2;
    attune_code code = ATTUNE_OK;
    int done = 0;
    for (; done < 8 && !code; done += !code)
        code = attune_swap(host, put_plain(folder, done % 2 ? "plain_tls" : "plain_thread", PUT_RENAMED),
                           &report, &error);
    ck_assert_int_eq(code, ATTUNE_RESOURCE_EXHAUSTED);
    ck_assert_ptr_nonnull(strstr(error.message, "2 ended generations are still mapped"));
    ck_assert_int_eq(done, SANITIZED ? 2 : 3);
    ck_assert_uint_ne(attend_once(host), 0);
    attune_close(host);
}
END_TEST

static attune_code inside_code;
static attune_error inside_error;

static int32_t swap_inside(void *context) {
    inside_code = attune_swap(host, context, NULL, &inside_error);
    return 0;
}

START_TEST(test_swap_from_inside_a_callback) {
    const attune_device_id cpu = {.type = ATTUNE_DEVICE_CPU};
    const int64_t shape[4] = {1, 1, 4, 4};
    float data[16] = {0}, out[16];
    attune_tensor q = attune_tensor_view(data, ATTUNE_F32, cpu, 4, shape),
                  o = attune_tensor_view(out, ATTUNE_F32, cpu, 4, shape);
    attune_attention_args args = {sizeof args, 0, &q, &q, &q, NULL, &o, NULL, 0};
    attune_attention_problem problem;
    attune_binding *binding;
    attune_stream stream;
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/manifest.json", folder);
    attune_control control = {.struct_size = sizeof control, .context = path, .cancelled = swap_inside};
    assert_ok(attune_attention_problem_init(&problem, &q, &q, &q, NULL, &o, &error), error);
    assert_ok(attune_stream_create(host, &cpu, 1, &stream, &error), error);
    assert_ok(attune_choose(host, NULL, &problem, NULL, &binding, &error), error);
    assert_ok(attune_attend(binding, &args, &stream, &control, &error), error);
    ck_assert_int_eq(inside_code, ATTUNE_FAILED_PRECONDITION);
    ck_assert_ptr_nonnull(strstr(inside_error.message, "inside a callback"));
    attune_binding_release(binding);
    attune_stream_destroy(&stream);
    attune_close(host);
}
END_TEST

static void *swap_once(void *manifest) {
    return (void *)(intptr_t)attune_swap(host, manifest, NULL, NULL);
}

START_TEST(test_swap_two_at_once) {
    pthread_t threads[2];
    const char *manifests[2] = {put_plain(fixture_folder(), "plain_b", PUT_RENAMED),
                                put_plain(fixture_folder(), "plain_leak", PUT_RENAMED)};
    for (int i = 0; i < 2; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, swap_once, (void *)manifests[i]), 0);
    for (int i = 0; i < 2; ++i) {
        void *code;
        (void)pthread_join(threads[i], &code);
        ck_assert_ptr_null(code);
    }
    ck_assert_uint_eq(serving(host), 3);
    ck_assert_uint_eq(in_state(host, "active"), 1);
    attune_close(host);
}
END_TEST

/* A swap that is under way when the host is closed ends in its own time, with one result or the other. */
START_TEST(test_swap_while_shutting_down) {
    pthread_t thread;
    attune_host_hold(host); /* what the swap itself does first */
    const char *manifest = put_plain(fixture_folder(), "plain_b", PUT_RENAMED);
    ck_assert_int_eq(pthread_create(&thread, NULL, swap_once, (void *)manifest), 0);
    attune_close(host);
    void *result;
    (void)pthread_join(thread, &result);
    attune_code code = (attune_code)(intptr_t)result;
    ck_assert_msg(code == ATTUNE_OK || code == ATTUNE_CANCELLED, "%s", attune_code_name(code));
    ck_assert_int_eq(attune_swap(host, manifest, NULL, &error), ATTUNE_CANCELLED);
    ck_assert_uint_eq(in_state(host, "active"), 0);
    attune_host_drop(host);
}
END_TEST

START_TEST(test_swap_bad_calls) {
    ck_assert_int_eq(attune_swap(NULL, "x", NULL, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(attune_swap(host, NULL, NULL, &error), ATTUNE_INVALID_ARGUMENT);
    attune_swap_report small = {.struct_size = 4};
    ck_assert_int_eq(attune_swap(host, "x", &small, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(attune_swap(host, "/nonexistent/manifest.json", &report, &error), ATTUNE_NOT_FOUND);
    ck_assert_str_eq(report.stage, "read");
    attune_generation_info info = {.struct_size = sizeof info};
    ck_assert_int_eq(attune_generation_at(host, 99, &info, &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_int_eq(attune_generation_at(NULL, 0, &info, &error), ATTUNE_INVALID_ARGUMENT);
    attune_close(host);
}
END_TEST

TCase *stage_cases(void) {
    TCase *cases = tcase_create("stages");
    tcase_add_checked_fixture(cases, set_up, NULL);
    tcase_add_test(cases, test_swap_replaces);
    tcase_add_test(cases, test_swap_dlopen_would_return_the_old_mapping);
    tcase_add_test(cases, test_swap_overwritten_in_place);
    tcase_add_test(cases, test_swap_refuses_what_lies);
    tcase_add_test(cases, test_swap_short_tables);
    tcase_add_test(cases, test_swap_wrong_numbers);
    tcase_add_test(cases, test_swap_crash_in_constructor);
    tcase_add_test(cases, test_swap_unsafe_files);
    tcase_add_test(cases, test_swap_hanging_quiesce);
    tcase_add_test(cases, test_swap_leak_is_reported);
    tcase_add_loop_test(cases, test_swap_parked, 0, 3);
    tcase_add_test(cases, test_swap_library_that_stays);
    tcase_add_test(cases, test_swap_parked_are_capped);
    tcase_add_test(cases, test_swap_from_inside_a_callback);
    tcase_add_test(cases, test_swap_two_at_once);
    tcase_add_test(cases, test_swap_while_shutting_down);
    tcase_add_test(cases, test_swap_bad_calls);
    tcase_set_timeout(cases, 0);
    return cases;
}
