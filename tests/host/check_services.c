/* check_services.c: counted memory, log, clock, struct sizes, and how many CPUs a process may use. */
#include "cases.h"
#include "host_api/cpus.h"
#include "host_api/services.h"
#include "host_api/structs.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

static char lines[4096];

static void keep(void *context, int32_t level, const char *domain, const char *message) {
    size_t used = strlen(lines);
    (void)context;
    (void)snprintf(lines + used, sizeof lines - used, "%d %s: %s\n", level, domain, message);
}

static attune_logger logger = {keep, NULL};
static attune_account total;
static attune_services one, two;
static attune_pool *pool;

static void make_services(void) {
    attune_error error;
    assert_ok(attune_pool_create(2, &pool, &error), error);
    memset(&total, 0, sizeof total);
    attune_services_init(&one, "plugin-one", 1, pool, &logger, &total);
    attune_services_init(&two, "plugin-two", 1, pool, &logger, &total);
}

static void end_services(void) {
    attune_pool_destroy(pool);
}

START_TEST(test_services_memory_counts) {
    const attune_memory_service *a = one.host.get_service(&one.host, "attune.memory/1");
    const attune_memory_service *b = two.host.get_service(&two.host, "attune.memory/1");
    ck_assert_uint_eq(a->struct_size, sizeof *a);
    void *x = a->alloc(a->context, 1000, "weights"), *y = a->alloc(a->context, 1, "weights"),
         *z = b->alloc(b->context, 500, "x");
    void *nothing = a->alloc(a->context, 0, "empty");
    ck_assert_ptr_nonnull(nothing);
    for (int i = 0; i < 4; ++i)
        ck_assert_uint_eq((uintptr_t)((void *[]){x, y, z, nothing})[i] % 64, 0);
    memset(x, 1, 1000);
    ck_assert_uint_eq(atomic_load(&one.account.current), 1001);
    ck_assert_uint_eq(atomic_load(&two.account.current), 500);
    ck_assert_uint_eq(atomic_load(&total.current), 1501);
    a->free(a->context, x);
    x = a->alloc(a->context, 10, "activations");
    ck_assert_uint_eq(atomic_load(&one.account.current), 11);
    ck_assert_uint_eq(atomic_load(&one.account.peak), 1001);
    ck_assert_uint_eq(atomic_load(&total.peak), 1501);
    attune_services_report_leaks(&one);
    ck_assert_str_eq(lines, "2 plugin-one: 1 bytes tagged \"weights\" were not freed by destroy\n"
                            "2 plugin-one: 10 bytes tagged \"activations\" were not freed by destroy\n");
    a->free(a->context, x);
    a->free(a->context, y);
    b->free(b->context, z);
    a->free(a->context, nothing);
    a->free(a->context, NULL);
    ck_assert_uint_eq(atomic_load(&total.current), 0);
    ck_assert_uint_eq(atomic_load(&total.peak), 1501);
}
END_TEST

START_TEST(test_services_memory_too_much) {
    ck_assert_ptr_null(one.memory.alloc(one.memory.context, UINT64_MAX, "x"));
    ck_assert_ptr_null(one.memory.alloc(one.memory.context, UINT64_MAX - 63, "x"));
    ck_assert_uint_eq(atomic_load(&total.current), 0);
}
END_TEST

/* More tags than rows: the rest is counted together, nothing is lost. */
START_TEST(test_services_memory_many_tags) {
    static char tags[40][16];
    void *blocks[40];
    uint64_t sum = 0;
    for (int i = 0; i < 40; ++i) {
        (void)snprintf(tags[i], sizeof tags[i], "tag-%d", i);
        blocks[i] = one.memory.alloc(one.memory.context, 1, tags[i]);
    }
    for (int i = 0; i < ATTUNE_MAX_TAGS; ++i)
        sum += atomic_load(&one.tags[i].current);
    ck_assert_uint_eq(sum, 40);
    for (int i = 0; i < 40; ++i)
        one.memory.free(one.memory.context, blocks[i]);
}
END_TEST

static void *allocate_and_free(void *argument) {
    for (int i = 0; i < 20000; ++i) {
        void *block = one.memory.alloc(one.memory.context, 64, i % 2 ? "a" : "b");
        ck_assert_ptr_nonnull(block);
        one.memory.free(one.memory.context, block);
    }
    return argument;
}

START_TEST(test_services_memory_threads) {
    pthread_t threads[4];
    for (int i = 0; i < 4; ++i)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, allocate_and_free, NULL), 0);
    for (int i = 0; i < 4; ++i)
        (void)pthread_join(threads[i], NULL);
    ck_assert_uint_eq(atomic_load(&one.account.current), 0);
    ck_assert_uint_le(atomic_load(&one.account.peak), 4 * 64);
}
END_TEST

START_TEST(test_services_log_clock_and_unknown) {
    const attune_log_service *log = one.host.get_service(&one.host, "attune.log/1");
    const attune_clock_service *clock = one.host.get_service(&one.host, "attune.clock/1");
    log->log(log->context, ATTUNE_LOG_INFO, "hello");
    ck_assert_str_eq(lines, "1 plugin-one: hello\n");
    uint64_t start = clock->now(clock->context), end = clock->now(clock->context);
    ck_assert_uint_gt(start, 0);
    ck_assert_uint_ge(end, start);
    ck_assert_ptr_nonnull(one.host.get_service(&one.host, "attune.parallel/1"));
    ck_assert_ptr_null(one.host.get_service(&one.host, "attune.parallel/2"));
    ck_assert_ptr_null(one.host.get_service(&one.host, "attune.memory"));
}
END_TEST

/* What plugins hold is seen by the application: by id, and of all. */
START_TEST(test_services_usage_by_plugin) {
    attune *host = open_with("plain", "racy", NULL);
    attune_error error;
    attune_memory_usage all = {.struct_size = sizeof all}, plain = all, racy = all;
    assert_ok(attune_memory(host, NULL, &all, &error), error);
    assert_ok(attune_memory(host, "fixture-plain", &plain, &error), error);
    assert_ok(attune_memory(host, "fixture-racy", &racy, &error), error);
    ck_assert_uint_gt(plain.current, 0);
    ck_assert_uint_eq(all.current, plain.current + racy.current);
    assert_fails(attune_memory(host, "nobody", &all, &error), error, ATTUNE_NOT_FOUND, "nobody");
    attune_close(host);
}
END_TEST

/* ---- struct_size ---- */

typedef struct sized {
    uint32_t struct_size;
    uint32_t value;
} sized;

typedef struct sized_later {
    sized known;
    uint32_t newer[2];
} sized_later;

START_TEST(test_struct_size_in) {
    sized_later given = {.known = {sizeof given, 5}};
    attune_error error;
    assert_ok(attune_struct_in(&given, sizeof(sized), "sized", &error), error);
    given.newer[1] = 1;
    assert_fails(attune_struct_in(&given, sizeof(sized), "sized", &error), error, ATTUNE_UNIMPLEMENTED,
                 "does not know");
    given.known.struct_size = sizeof(sized);
    assert_ok(attune_struct_in(&given, sizeof(sized), "sized", &error), error);
    given.known.struct_size = 4;
    assert_fails(attune_struct_in(&given, sizeof(sized), "sized", &error), error, ATTUNE_INVALID_ARGUMENT,
                 "sized.struct_size is 4");
    given.known.struct_size = UINT32_MAX;
    assert_fails(attune_struct_in(&given, sizeof(sized), "sized", &error), error, ATTUNE_INVALID_ARGUMENT,
                 "struct_size");
    assert_fails(attune_struct_in(NULL, sizeof(sized), "sized", &error), error, ATTUNE_INVALID_ARGUMENT,
                 "NULL");
}
END_TEST

START_TEST(test_struct_size_out) {
    const sized full = {sizeof full, 7};
    sized_later out;
    attune_error error;
    memset(&out, 0xff, sizeof out);
    out.known.struct_size = sizeof out;
    assert_ok(attune_struct_out(&out, &full, sizeof full, "sized", &error), error);
    ck_assert_uint_eq(out.known.struct_size, sizeof out);
    ck_assert_uint_eq(out.known.value, 7);
    ck_assert_uint_eq(out.newer[0] | out.newer[1], 0);
    out.known.struct_size = 0;
    assert_fails(attune_struct_out(&out, &full, sizeof full, "sized", &error), error, ATTUNE_INVALID_ARGUMENT,
                 "before the call");
}
END_TEST

/* ---- CPUs ---- */

static void put(const char *folder, const char *name, const char *content) {
    run_result result = run("mkdir -p '%s/%s' && printf '%%s' '%s' > '%s/%s/%s'", run_folder(), folder,
                            content, run_folder(), folder, name);
    ck_assert_int_eq(result.status, 0);
    run_free(&result);
}

START_TEST(test_cpus_quota) {
    const char *root = run_folder();
    put("a/b", "cpu.max", "150000 100000");
    put("a", "cpu.max", "max 100000");
    ck_assert_uint_eq(attune_cpus_quota("0::/a/b\n", root), 2);
    ck_assert_uint_eq(attune_cpus_quota("0::/a\n", root), 0);
    put("a", "cpu.max", "50000 100000"); /* a parent's limit binds too, and a fraction is one CPU */
    ck_assert_uint_eq(attune_cpus_quota("0::/a/b\n", root), 1);
    put("cpu/x", "cpu.cfs_quota_us", "300000");
    put("cpu/x", "cpu.cfs_period_us", "100000");
    ck_assert_uint_eq(attune_cpus_quota("5:memory:/a\n4:cpu,cpuacct:/x\n", root), 3);
    put("cpu/x", "cpu.cfs_quota_us", "-1");
    ck_assert_uint_eq(attune_cpus_quota("4:cpu,cpuacct:/x\n0::/a/b\n", root), 1);
    ck_assert_uint_eq(attune_cpus_quota("4:cpuset:/x\n", root), 0);
    ck_assert_uint_eq(attune_cpus_quota("garbage\n::\n\n0:", root), 0);
    ck_assert_uint_eq(attune_cpus_quota("", root), 0);
    ck_assert_uint_ge(attune_cpus_allowed(), 1);
}
END_TEST

TCase *services_cases(void) {
    TCase *cases = tcase_create("services");
    tcase_add_checked_fixture(cases, make_services, end_services);
    tcase_add_test(cases, test_services_memory_counts);
    tcase_add_test(cases, test_services_memory_too_much);
    tcase_add_test(cases, test_services_memory_many_tags);
    tcase_add_test(cases, test_services_memory_threads);
    tcase_add_test(cases, test_services_log_clock_and_unknown);
    tcase_add_test(cases, test_services_usage_by_plugin);
    tcase_add_test(cases, test_struct_size_in);
    tcase_add_test(cases, test_struct_size_out);
    tcase_add_test(cases, test_cpus_quota);
    tcase_set_timeout(cases, 0);
    return cases;
}
