/* check_self_test.c: known answers, on the CPU and on a device whose memory the host cannot reach. */
#include "rig.h"

static attune *host;
static attune_error error;
static attune_swap_report report;

static void set_up(void) {
    host = rig_open();
    report = (attune_swap_report){.struct_size = sizeof report};
}

/* The fixture `file`, remote.c built otherwise. */
static json_t *remote(const char *file) {
    json_t *manifest = fixture_manifest("remote", NULL);
    fixture_set(manifest, "libraries.0.path", json_string(file));
    return manifest;
}

static void refused(json_t *manifest, const char *text) {
    memset(&error, 0, sizeof error);
    ck_assert_int_eq(attune_swap(host, fixture_install(fixture_folder(), manifest), &report, &error),
                     ATTUNE_INTERNAL);
    ck_assert_str_eq(report.stage, "self-test");
    ck_assert_msg(strstr(error.message, text) != NULL, "\"%s\" lacks \"%s\"", error.message, text);
    ck_assert_uint_eq(in_state(host, "active"), 0);
}

/* What was made for the test is given back, whatever came of it. */
static void tear_down(void) {
    attune_close(host);
    ck_assert_msg(!strstr(rig_log(), "were not freed"), "%s", rig_log());
}

START_TEST(test_self_test_on_a_device) {
    assert_ok(attune_swap(host, fixture_plugins("remote", NULL), &report, &error), error);
    ck_assert_uint_eq(report.added, 1);
    ck_assert_msg(!strstr(rig_log(), "no known answer"), "%s", rig_log());
}
END_TEST

START_TEST(test_self_test_finds_a_storage_on_a_device) {
    refused(remote("remote_wrong.so"), "known answer 8 in bfloat16, value 1535 is ");
}
END_TEST

/* 16 bits are rounded once, so the promise of bits counts there too. */
START_TEST(test_self_test_finds_the_last_bit) {
    json_t *manifest = remote("remote_bits.so");
    fixture_set(manifest, "libraries.0.attention.0.arithmetic", json_string("attune-f32-1"));
    fixture_set(manifest, "libraries.0.attention.0.dtypes", json_pack("[s]", "float16"));
    refused(manifest, "in float16, value 0 is ");
    ck_assert_ptr_nonnull(strstr(error.message, "to the bit it is"));
}
END_TEST

START_TEST(test_self_test_finds_a_boast) {
    json_t *manifest = put_library(fixture_folder(), "plain_boast", PUT_RENAMED);
    fixture_set(manifest, "libraries.0.path", json_string("plain_boast.so"));
    fixture_set(manifest, "libraries.0.attention.1.determinism", json_string("portable"));
    fixture_set(manifest, "libraries.0.attention.1.arithmetic", json_string("attune-f32-1"));
    refused(manifest, "to the bit it is");
}
END_TEST

START_TEST(test_self_test_late_error) {
    refused(remote("remote_late.so"), "a late error");
}
END_TEST

START_TEST(test_self_test_alignment) {
    refused(remote("remote_skewed.so"), "aligned to 64 bytes");
}
END_TEST

/* Attention alone: by the plugin that drives its device; without one nothing can be asked, and a line says
 * so. */
START_TEST(test_self_test_device_of_another_plugin) {
    const char *wrong = fixture_install(fixture_folder(), remote("remote_wrong.so"));
    json_t *manifest = remote("remote_attention.so");
    fixture_set(manifest, "libraries.0.id", json_string("fixture-remote-attention"));
    fixture_set(manifest, "libraries.0.interfaces", json_pack("[s]", "attune.attention/1"));
    const char *alone = fixture_install(fixture_folder(), json_deep_copy(manifest));
    assert_ok(attune_swap(host, alone, &report, &error), error);
    ck_assert_ptr_nonnull(strstr(rig_log(), "no known answer was asked of sdp: no loaded plugin drives its"));
    attune_close(host);
    host = rig_open();
    assert_ok(attune_load(host, wrong, &error), error);
    ck_assert_int_eq(attune_swap(host, alone, &report, &error), ATTUNE_INTERNAL);
    ck_assert_ptr_nonnull(strstr(error.message, "in bfloat16"));
    ck_assert_ptr_nonnull(strstr(error.where, "remote_attention.so"));
    json_decref(manifest);
}
END_TEST

TCase *self_test_cases(void) {
    TCase *cases = tcase_create("self_test");
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_test(cases, test_self_test_on_a_device);
    tcase_add_test(cases, test_self_test_finds_a_storage_on_a_device);
    tcase_add_test(cases, test_self_test_finds_the_last_bit);
    tcase_add_test(cases, test_self_test_finds_a_boast);
    tcase_add_test(cases, test_self_test_late_error);
    tcase_add_test(cases, test_self_test_alignment);
    tcase_add_test(cases, test_self_test_device_of_another_plugin);
    tcase_set_timeout(cases, 0);
    return cases;
}
