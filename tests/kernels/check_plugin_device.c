/* tests/kernels/check_plugin_device.c: entry, life and attune.device/1 of the plugin attune-cpu. */
#include "tests/kernels/plugin_host.h"
#include "tests/kernels/suite.h"

#include <stdlib.h>

static plugin_host host;

static void start(void) {
    plugin_host_start(&host);
}

static void stop(void) {
    plugin_host_stop(&host);
}

START_TEST(entry_negotiates) {
    const attune_plugin *plugin = NULL;
    uint32_t abi = 0;
    ck_assert_int_eq(host.entry(&abi, &plugin), ATTUNE_UNIMPLEMENTED);
    ck_assert_uint_eq(abi, 1);
    ck_assert_ptr_null(plugin);
    abi = 900; /* a newer host */
    ck_assert_int_eq(host.entry(&abi, &plugin), ATTUNE_OK);
    ck_assert_uint_eq(abi, 1);
    ck_assert_uint_eq(plugin->abi, 1);
    ck_assert_uint_ge(plugin->struct_size, sizeof *plugin);
    ck_assert_str_eq(plugin->id, "attune-cpu");
    ck_assert_str_eq(plugin->version, ATTUNE_VERSION);
    ck_assert_int_eq(host.entry(NULL, &plugin), ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(host.entry(&abi, NULL), ATTUNE_INVALID_ARGUMENT);
}
END_TEST

START_TEST(unknown_interface) {
    ck_assert_ptr_null(host.plugin->get_interface(host.instance, "attune.attention/2"));
    ck_assert_ptr_null(host.plugin->get_interface(host.instance, "attune.sampler/1"));
    ck_assert_ptr_null(host.plugin->get_interface(host.instance, ""));
}
END_TEST

static attune_code create_again(attune_error *error) {
    void *instance = NULL;
    memset(error, 0, sizeof *error);
    const attune_code code = host.plugin->create(&host.host, &instance, error);
    if (code == ATTUNE_OK)
        host.plugin->destroy(instance);
    else
        ck_assert_ptr_null(instance);
    return code;
}

START_TEST(create_refusals) {
    static const char *const services[] = {"attune.memory/1", "attune.parallel/1", "attune.clock/1"};
    attune_error error;
    ck_assert_int_eq(create_again(&error), ATTUNE_OK);
    for (size_t i = 0; i < 3; ++i) {
        host.without = services[i];
        ck_assert_int_eq(create_again(&error), ATTUNE_FAILED_PRECONDITION);
        ck_assert_str_eq(error.where, services[i]);
    }
    host.without = NULL;
    host.parallel.struct_size = 8;
    ck_assert_int_eq(create_again(&error), ATTUNE_INVALID_ARGUMENT);
    host.parallel.struct_size = sizeof host.parallel + 64; /* a newer host's */
    ck_assert_int_eq(create_again(&error), ATTUNE_OK);
    host.host.struct_size = 8;
    ck_assert_int_eq(create_again(&error), ATTUNE_INVALID_ARGUMENT);
    host.host.struct_size = sizeof host.host;
    host.memory_is_out = 1;
    ck_assert_int_eq(create_again(&error), ATTUNE_RESOURCE_EXHAUSTED);
    host.memory_is_out = 0;
    void *instance;
    ck_assert_int_eq(host.plugin->create(NULL, &instance, &error), ATTUNE_INVALID_ARGUMENT);
}
END_TEST

START_TEST(cpu_mask) {
    static const char *const known[] = {"generic", "avx2", "avx512"};
    attune_error error;
    void *instance = NULL;
    attune_device_info info = {.struct_size = sizeof info};
    for (size_t i = 0; i < 3; ++i) {
        ck_assert_int_eq(setenv("ATTUNE_CPU_MASK", known[i], 1), 0);
        ck_assert_int_eq(host.plugin->create(&host.host, &instance, &error), ATTUNE_OK);
        ck_assert_int_eq(host.device->describe(instance, 0, &info, &error), ATTUNE_OK);
        if (i == 0)
            ck_assert_str_eq(info.capability, "generic");
        ck_assert_int_le(strcmp(info.capability, "generic") == 0 ? 0
                         : strcmp(info.capability, "avx2") == 0  ? 1
                                                                 : 2,
                         (int)i);
        host.plugin->destroy(instance);
    }
    ck_assert_int_eq(setenv("ATTUNE_CPU_MASK", "avx1024", 1), 0);
    ck_assert_int_eq(create_again(&error), ATTUNE_INVALID_ARGUMENT);
    ck_assert(strstr(error.message, "avx1024") && strstr(error.message, "generic, avx2, avx512"));
    ck_assert_int_eq(unsetenv("ATTUNE_CPU_MASK"), 0);
}
END_TEST

START_TEST(describes_the_cpu) {
    attune_error error;
    attune_device_info info = {.struct_size = sizeof info}, again = info;
    ck_assert_uint_eq(host.device->count(host.instance), 1);
    ck_assert_int_eq(host.device->describe(host.instance, 0, &info, &error), ATTUNE_OK);
    ck_assert_str_eq(info.name, "cpu");
    ck_assert(info.vendor[0] && info.label[0]);
    ck_assert_uint_eq(info.alignment, 64);
    ck_assert_int_eq(info.id.type, ATTUNE_DEVICE_CPU);
    ck_assert_uint_ge(info.memory_total, info.memory_free);
    ck_assert_uint_gt(info.memory_total, 1 << 20);
    ck_assert_int_eq(host.device->describe(host.instance, 0, &again, &error), ATTUNE_OK);
    ck_assert(attune_device_same(&info.id, &again.id));
    ck_assert_uint_eq(info.id.uuid[6] >> 4, 8);
    ck_assert_int_eq(host.device->describe(host.instance, 1, &info, &error), ATTUNE_OUT_OF_RANGE);
    info.struct_size = sizeof info - 8;
    ck_assert_int_eq(host.device->describe(host.instance, 0, &info, &error), ATTUNE_INVALID_ARGUMENT);
}
END_TEST

/* A newer host's longer struct: what this plugin does not know stays as it was. */
START_TEST(longer_struct) {
    struct {
        attune_device_info info;
        uint64_t newer;
    } longer = {.info = {.struct_size = sizeof longer}, .newer = 77};
    ck_assert_int_eq(host.device->describe(host.instance, 0, &longer.info, NULL), ATTUNE_OK);
    ck_assert_uint_eq(longer.newer, 77);
    ck_assert_uint_eq(longer.info.struct_size, sizeof longer);
}
END_TEST

START_TEST(memory_and_streams) {
    attune_error error;
    void *memory = NULL, *event = NULL;
    char text[8] = "abcdefg";
    ck_assert_int_eq(host.device->alloc(host.instance, 0, 1000, &memory, &error), ATTUNE_OK);
    ck_assert_uint_eq((uintptr_t)memory % 64, 0);
    ck_assert_int_eq(host.allocations, 2); /* the instance and this */
    attune_stream stream = plugin_host_stream(&host, 2);
    memset(&stream.device, 0, sizeof stream.device);
    ck_assert_int_eq(host.device->stream_create(host.instance, 0, &stream, &error), ATTUNE_OK);
    ck_assert(attune_device_same(&stream.device, &host.id));
    ck_assert_int_eq(
        host.device->copy(host.instance, &stream, memory, text, 8, ATTUNE_COPY_TO_DEVICE, &error), ATTUNE_OK);
    ck_assert_str_eq(memory, "abcdefg");
    ck_assert_int_eq(host.device->copy(host.instance, &stream, memory, text, 8, 3, &error),
                     ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(host.device->copy(host.instance, &stream, NULL, text, 8, 0, &error),
                     ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(host.device->event_create(host.instance, 0, &event, &error), ATTUNE_OK);
    ck_assert_int_eq(host.device->event_record(host.instance, event, &stream, &error), ATTUNE_OK);
    ck_assert_int_eq(host.device->event_wait(host.instance, event, &stream, &error), ATTUNE_OK);
    ck_assert_int_eq(host.device->event_wait(host.instance, &stream, &stream, &error),
                     ATTUNE_INVALID_ARGUMENT);
    host.device->event_destroy(host.instance, event);
    ck_assert_int_eq(host.device->stream_synchronize(host.instance, &stream, &error), ATTUNE_OK);
    host.device->stream_destroy(host.instance, &stream);
    stream.native = NULL;
    ck_assert_int_eq(host.device->stream_create(host.instance, 0, &stream, &error), ATTUNE_INVALID_ARGUMENT);
    host.device->free(host.instance, 0, memory);
    host.memory_is_out = 1;
    ck_assert_int_eq(host.device->alloc(host.instance, 0, 1000, &memory, &error), ATTUNE_RESOURCE_EXHAUSTED);
    ck_assert_int_eq(host.device->alloc(host.instance, 1, 1000, &memory, &error), ATTUNE_OUT_OF_RANGE);
}
END_TEST

TCase *plugin_device_cases(void) {
    TCase *cases = tcase_create("plugin device");
    tcase_add_checked_fixture(cases, start, stop);
    tcase_add_test(cases, entry_negotiates);
    tcase_add_test(cases, unknown_interface);
    tcase_add_test(cases, create_refusals);
    tcase_add_test(cases, cpu_mask);
    tcase_add_test(cases, describes_the_cpu);
    tcase_add_test(cases, longer_struct);
    tcase_add_test(cases, memory_and_streams);
    return cases;
}
