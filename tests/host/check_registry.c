/* check_registry.c: snapshots, leases and generations, also with threads. */
#include "cases.h"
#include "host_api/registry.h"
#include <pthread.h>
#include <stdatomic.h>

START_TEST(test_registry_snapshot_is_immutable) {
    attune *host = open_with("plain", NULL);
    attune_error error;
    attune_snapshot *before = attune_snapshot_acquire(host);
    assert_ok(attune_load(host, fixture_plugins("racy", NULL), &error), error);
    ck_assert_uint_eq(attune_snapshot_count(before), 1);
    ck_assert_uint_eq(plugin_count(host), 2);
    ck_assert_uint_eq(plugin_status(host, 1).generation, 2);
    attune_snapshot_release(before);
    attune_close(host);
}
END_TEST

/* A snapshot leases what it shows: it works after attune_close, and says that the plugin is retired. */
START_TEST(test_registry_snapshot_outlives_close) {
    attune *host = open_with("plain", NULL);
    attune_error error;
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    attune_close(host);
    attune_plugin_status status = {.struct_size = sizeof status};
    assert_ok(attune_snapshot_plugin(snapshot, 0, &status, &error), error);
    ck_assert_str_eq(status.state, "retired");
    attune_device_info device = {.struct_size = sizeof device};
    assert_ok(attune_snapshot_device(snapshot, 0, 0, &device, &error), error);
    attune_snapshot_release(snapshot);
}
END_TEST

/* A binding leases its generation: it runs after attune_close, and the instance is destroyed with its
 * release. */
START_TEST(test_registry_binding_outlives_close) {
    attune *host = open_with("plain", NULL);
    attune_error error;
    float data[4][64];
    attune_tensor q = filled(data[0], 1, 1, 8, 8, 1), k = filled(data[1], 1, 1, 8, 8, 2),
                  v = filled(data[2], 1, 1, 8, 8, 3), out = filled(data[3], 1, 1, 8, 8, 4);
    attune_attention_problem problem;
    attune_binding *binding;
    attune_stream stream;
    attune_device_id cpu = {.type = ATTUNE_DEVICE_CPU};
    attune_attention_args args = {sizeof args, 0, &q, &k, &v, NULL, &out, NULL, 0};
    assert_ok(attune_attention_problem_init(&problem, &q, &k, &v, NULL, &out, &error), error);
    assert_ok(attune_stream_create(host, &cpu, 1, &stream, &error), error);
    assert_ok(attune_choose(host, NULL, &problem, NULL, &binding, &error), error);
    attune_close(host);
    assert_ok(attune_attend(binding, &args, &stream, NULL, &error), error);
    attune_binding_release(binding);
    attune_stream_destroy(&stream);
}
END_TEST

/* A stream keeps the library that made it: the device's own stream is destroyed by its maker, after close
 * too. */
START_TEST(test_registry_stream_outlives_close) {
    attune *host = open_with("gpu", NULL);
    attune_error error;
    attune_stream stream;
    attune_device_info device = {.struct_size = sizeof device};
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    attune_generation *maker = snapshot->generation[0];
    assert_ok(attune_snapshot_device(snapshot, 0, 0, &device, &error), error);
    attune_snapshot_release(snapshot);
    assert_ok(attune_stream_create(host, &device.id, 1, &stream, &error), error);
    ck_assert_uint_eq(atomic_load(&maker->leases), 2); /* the registry's and the stream's */
    attune_close(host);
    ck_assert_uint_eq(atomic_load(&maker->leases), 1);
    ck_assert_ptr_nonnull(maker->instance);
    attune_stream_destroy(&stream);
    ck_assert_ptr_null(strstr(test_log(), "not freed")); /* nothing of it stays allocated */
}
END_TEST

/* A call that succeeds does not touch the caller's error. */
START_TEST(test_registry_success_leaves_errors_alone) {
    attune *host = open_with("plain", NULL);
    attune_error error, before;
    float data[4][64];
    attune_tensor q = filled(data[0], 1, 1, 8, 8, 1), out = filled(data[3], 1, 1, 8, 8, 4);
    attune_attention_problem problem;
    attune_binding *binding;
    attune_stream stream;
    attune_device_id cpu = {.type = ATTUNE_DEVICE_CPU};
    attune_attention_args args = {sizeof args, 0, &q, &q, &q, NULL, &out, NULL, 0};
    (void)attune_fail(&error, ATTUNE_NOT_FOUND, "test", "earlier", "the first error");
    before = error;
    ck_assert_int_eq(attune_attention_problem_init(&problem, &q, &q, &q, NULL, &out, &error), ATTUNE_OK);
    ck_assert_int_eq(attune_stream_create(host, &cpu, 1, &stream, &error), ATTUNE_OK);
    ck_assert_int_eq(attune_choose(host, NULL, &problem, NULL, &binding, &error), ATTUNE_OK);
    ck_assert_int_eq(attune_attend(binding, &args, &stream, NULL, &error), ATTUNE_OK);
    ck_assert_mem_eq(&error, &before, sizeof error);
    attune_binding_release(binding);
    attune_stream_destroy(&stream);
    attune_close(host);
}
END_TEST

START_TEST(test_registry_replace) {
    attune *host = open_with("plain", NULL);
    attune_error error;
    attune_snapshot *held = attune_snapshot_acquire(host);
    attune_generation *old = held->generation[0], *new = attune_generation_new(host);
    ck_assert_ptr_nonnull(new);
    ck_assert_uint_eq(new->number, 2);
    assert_ok(attune_registry_publish(host, new, old, &error), error);
    ck_assert_uint_eq(plugin_count(host), 1);
    ck_assert_uint_eq(plugin_status(host, 0).generation, 2);
    ck_assert_int_eq(atomic_load(&old->state), ATTUNE_STATE_RETIRED);
    ck_assert_ptr_nonnull(old->instance); /* `held` still leases it */
    ck_assert_uint_eq(atomic_load(&old->leases), 1);
    (void)attune_generation_lease(old);
    attune_snapshot_release(held);
    ck_assert_ptr_nonnull(old->instance);
    attune_generation_release(old); /* and now it is gone: the sanitizers watch */
    attune_close(host);
}
END_TEST

static atomic_int stop;

/* Look at all that is there, choose and run, again and again, while others load and retire. */
static void *use(void *argument) {
    attune *host = argument;
    float data[4][16];
    attune_tensor q = filled(data[0], 1, 1, 4, 4, 1), k = filled(data[1], 1, 1, 4, 4, 2),
                  v = filled(data[2], 1, 1, 4, 4, 3), out = filled(data[3], 1, 1, 4, 4, 4);
    attune_attention_args args = {sizeof args, 0, &q, &k, &v, NULL, &out, NULL, 0};
    attune_attention_problem problem;
    attune_device_id cpu = {.type = ATTUNE_DEVICE_CPU};
    attune_stream stream;
    if (attune_attention_problem_init(&problem, &q, &k, &v, NULL, &out, NULL) ||
        attune_stream_create(host, &cpu, 1, &stream, NULL))
        return (void *)1;
    while (!atomic_load(&stop)) {
        attune_binding *binding;
        attune_plugin_status status = {.struct_size = sizeof status};
        attune_snapshot *snapshot = attune_snapshot_acquire(host);
        for (uint32_t i = 0; i < attune_snapshot_count(snapshot); ++i)
            if (attune_snapshot_plugin(snapshot, i, &status, NULL))
                return (void *)2;
        attune_snapshot_release(snapshot);
        attune_code code = attune_choose(host, NULL, &problem, NULL, &binding, NULL);
        if (code == ATTUNE_UNAVAILABLE)
            continue; /* between two generations of the only plugin */
        if (code || attune_attend(binding, &args, &stream, NULL, NULL))
            return (void *)3;
        attune_binding_release(binding);
    }
    attune_stream_destroy(&stream);
    return NULL;
}

START_TEST(test_registry_threads) {
    attune *host = open_host();
    attune_error error;
    pthread_t threads[3];
    const char *path = fixture_plugins("plain", NULL);
    for (int i = 0; i < 3; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use, host), 0);
    for (int i = 0; i < 25; ++i) {
        assert_ok(attune_load(host, path, &error), error);
        attune_snapshot *snapshot = attune_snapshot_acquire(host);
        ck_assert_uint_eq(attune_snapshot_count(snapshot), 1);
        assert_ok(attune_registry_publish(host, NULL, snapshot->generation[0], &error), error);
        attune_snapshot_release(snapshot);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 3; ++i) {
        void *bad;
        (void)pthread_join(threads[i], &bad);
        ck_assert_ptr_null(bad);
    }
    attune_close(host);
}
END_TEST

START_TEST(test_registry_open_and_close) {
    attune_error error;
    attune *host = NULL;
    attune_close(NULL);
    assert_ok(attune_open(NULL, &host, &error), error);
    ck_assert_uint_eq(plugin_count(host), 0);
    attune_close(host);
    attune_options options = {.struct_size = sizeof options, .threads = 1000000};
    assert_fails(attune_open(&options, &host, &error), error, ATTUNE_INVALID_ARGUMENT, "1000000 threads");
    options.struct_size = 0;
    assert_fails(attune_open(&options, &host, &error), error, ATTUNE_INVALID_ARGUMENT, "attune_options");
}
END_TEST

TCase *registry_cases(void) {
    TCase *cases = tcase_create("registry");
    tcase_add_test(cases, test_registry_snapshot_is_immutable);
    tcase_add_test(cases, test_registry_snapshot_outlives_close);
    tcase_add_test(cases, test_registry_binding_outlives_close);
    tcase_add_test(cases, test_registry_stream_outlives_close);
    tcase_add_test(cases, test_registry_success_leaves_errors_alone);
    tcase_add_test(cases, test_registry_replace);
    tcase_add_test(cases, test_registry_threads);
    tcase_add_test(cases, test_registry_open_and_close);
    tcase_set_timeout(cases, 0);
    return cases;
}
