/* check_manifest.c: manifests that are right, and manifests that are not: each error names the place. */
#include "cases.h"
#include "host_api/manifest.h"
#include <stdlib.h>

/* A true manifest with sizes and hashes that have the right form. */
static json_t *true_manifest(void) {
    json_t *manifest = fixture_manifest("plain", "painter", NULL);
    for (int i = 0; i < 2; ++i) {
        char path[64];
        (void)snprintf(path, sizeof path, "libraries.%d.size", i);
        fixture_set(manifest, path, json_integer(1000));
        (void)snprintf(path, sizeof path, "libraries.%d.sha256", i);
        fixture_set(manifest, path,
                    json_string("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"));
    }
    return manifest;
}

/* Parse and free both. */
static attune_code parse(json_t *manifest, attune_manifest *out, attune_error *error) {
    char *text = json_dumps(manifest, 0);
    ck_assert_ptr_nonnull(text);
    attune_code code = attune_manifest_parse(text, strlen(text), "m.json", out, error);
    free(text);
    json_decref(manifest);
    return code;
}

START_TEST(test_manifest_fields) {
    attune_manifest manifest;
    attune_error error;
    json_t *json = true_manifest();
    fixture_set(json, "libraries.0.unload", json_string("safe"));
    fixture_set(json, "libraries.0.requires", json_pack("[ss]", "attune.device/1", "libstdc++.so.6"));
    fixture_set(json, "libraries.0.attention.1.requires", json_pack("[s]", "libm.so.6"));
    fixture_set(json, "libraries.0.attention.1.head_dim.min", json_integer(8));
    fixture_set(json, "libraries.0.attention.1.memory.min", json_integer(123));
    fixture_set(json, "x-mine", json_pack("{s:[i,n,b]}", "anything", 1, 1));
    fixture_set(json, "libraries.0.attention.1.x-note", json_string("kept out"));
    assert_ok(parse(json, &manifest, &error), error);
    ck_assert_str_eq(manifest.id, "fixtures");
    ck_assert_str_eq(manifest.licence, "Apache-2.0");
    ck_assert_uint_eq(manifest.abi_max, 1);
    ck_assert_uint_eq(manifest.library_count, 2);
    const attune_manifest_library *library = &manifest.library[0];
    ck_assert_str_eq(library->id, "fixture-plain");
    ck_assert_str_eq(library->version, "1.2.3");
    ck_assert_str_eq(library->path, "plain.so");
    ck_assert_uint_eq(library->size, 1000);
    ck_assert_uint_eq(library->sha256[0], 0x00);
    ck_assert_uint_eq(library->sha256[31], 0xff);
    ck_assert_int_eq(library->unload_safe, 1);
    ck_assert_str_eq(library->required.name[0], "attune.device/1");
    ck_assert_str_eq(library->required.name[1], "libstdc++.so.6");
    ck_assert_uint_eq(library->attention[0].required.count, 0);
    ck_assert_str_eq(library->attention[1].required.name[0], "libm.so.6");
    ck_assert_uint_eq(library->interfaces.count, 2);
    ck_assert_uint_eq(library->attention_count, 2);
    const attune_manifest_backend *sdp = &library->attention[1];
    ck_assert_str_eq(sdp->id, "sdp");
    ck_assert_str_eq(sdp->aliases.name[0], "scaled-dot-product");
    ck_assert_int_eq(sdp->priority, 70);
    ck_assert_uint_eq(sdp->dtypes, ATTUNE_DTYPE_BIT_F32);
    ck_assert_uint_eq(sdp->masks, 15);
    ck_assert_uint_eq(sdp->head_dim_min, 8);
    ck_assert_uint_eq(sdp->head_dim_max, 0);
    ck_assert_uint_eq(sdp->memory_min, 123);
    ck_assert_int_eq(sdp->determinism, ATTUNE_DETERMINISM_REPEATABLE);
    ck_assert_str_eq(sdp->arithmetic, "fixture-f64-2");
    ck_assert_str_eq(manifest.library[1].samplers[0].id, "painter");
    attune_manifest_free(&manifest);
}
END_TEST

/* Every field, wrong: where, what stands there (JSON text, NULL = missing), what the error must say. */
static const struct {
    const char *path, *value, *text;
} wrong[] = {
    {"format", "\"1\"", "$.format: expected an integer"},
    {"format", "0", "$.format"},
    {"id", NULL, "$.id: expected a name"},
    {"id", "\"a b\"", "$.id"},
    {"id", "\"\"", "$.id"},
    {"version", "\"1.2\"", "$.version: expected a version such as \"1.2.3\""},
    {"version", "\"1.2.3 \"", "$.version"},
    {"version", "7", "found 7"},
    {"vendor", "\"line\\nbreak\"", "$.vendor: expected one line"},
    {"vendor", "\"\\u001b[31m\"", "$.vendor"},
    {"licence", "null", "found null"},
    {"abi", "[]", "$.abi: expected an object"},
    {"abi.min", "0", "$.abi.min: expected an integer from 1"},
    {"abi.max", "true", "$.abi.max"},
    {"abi.extra", "1", "$.abi: unknown key \"extra\""},
    {"extra", "1", "$: unknown key \"extra\""},
    {"libraries", "{}", "$.libraries: expected a list of 1 to 64"},
    {"libraries", "[]", "found a list of 0"},
    {"libraries.0", "1", "$.libraries[0]: expected an object"},
    {"libraries.0.id", "\"-x\"", "$.libraries[0].id"},
    {"libraries.0.version", "\"v1.0.0\"", "$.libraries[0].version"},
    {"libraries.0.path", "\"../evil.so\"", "$.libraries[0].path: expected a relative path"},
    {"libraries.0.path", "\"/usr/lib/evil.so\"", "$.libraries[0].path"},
    {"libraries.0.path", "\"a/../b.so\"", "$.libraries[0].path"},
    {"libraries.0.path", "\"a//b.so\"", "$.libraries[0].path"},
    {"libraries.0.path", "\"./b.so\"", "$.libraries[0].path"},
    {"libraries.0.path", "\"a\\\\b.so\"", "$.libraries[0].path"},
    {"libraries.0.path", "\"b.so/\"", "$.libraries[0].path"},
    {"libraries.0.path", "\"\"", "$.libraries[0].path"},
    {"libraries.0.os", "1", "$.libraries[0].os"},
    {"libraries.0.arch", NULL, "$.libraries[0].arch"},
    {"libraries.0.isa_min", "[]", "$.libraries[0].isa_min"},
    {"libraries.0.size", "0", "$.libraries[0].size"},
    {"libraries.0.size", "-5", "$.libraries[0].size"},
    {"libraries.0.size", "1000.0", "found a number with a fraction"},
    {"libraries.0.size", "\"1000\"", "$.libraries[0].size"},
    {"libraries.0.sha256", "\"\"", "fill_manifest"},
    {"libraries.0.sha256", "\"00112233445566778899AABBccddeeff00112233445566778899aabbccddeeff\"",
     "$.libraries[0].sha256"},
    {"libraries.0.unload", "\"now\"", "$.libraries[0].unload: expected \"park\" or \"safe\", found \"now\""},
    {"libraries.0.requires", "[\"attune.device\"]", "$.libraries[0].requires[0]: expected an interface"},
    {"libraries.0.requires", "[\"../libm.so.6\"]", "found \"../libm.so.6\""},
    {"libraries.0.requires", "[\"libm.soname\"]", "$.libraries[0].requires[0]"},
    {"libraries.0.requires", "[\"-lm.so\"]", "$.libraries[0].requires[0]"},
    {"libraries.0.attention.1.requires", "[\"attune.device/1\"]",
     "$.libraries[0].attention[1].requires[0]: expected a shared library's name"},
    {"libraries.0.attention.1.requires", "\"libm.so.6\"", "expected a list of 0 to 64"},
    {"libraries.0.interfaces", "[]", "$.libraries[0].interfaces: expected a list of 1"},
    {"libraries.0.interfaces", "[\"attune.device/0\"]", "$.libraries[0].interfaces[0]"},
    {"libraries.0.interfaces", "[\"attune.device/1\", \"attune.device/1\"]",
     "$.libraries[0].interfaces[1]: expected each entry only once"},
    {"libraries.0.attention", NULL, "$.libraries[0].attention"},
    {"libraries.0.samplers", "1", "$.libraries[0].samplers"},
    {"libraries.0.libraries", "[]", "$.libraries[0]: unknown key"},
    {"libraries.0.attention.0.id", "\"sdp\"", "$.libraries[0].attention[1].id: \"sdp\" is listed twice"},
    {"libraries.0.attention.1.id", "7", "$.libraries[0].attention[1].id"},
    {"libraries.0.attention.1.aliases", "[\"a\",\"b\",\"c\",\"d\",\"e\"]",
     "$.libraries[0].attention[1].aliases: expected a list of 0 to 4"},
    {"libraries.0.attention.1.aliases", "[1]", "$.libraries[0].attention[1].aliases[0]"},
    {"libraries.0.attention.1.priority", "1.5", "$.libraries[0].attention[1].priority"},
    {"libraries.0.attention.1.priority", "9999999", "$.libraries[0].attention[1].priority"},
    {"libraries.0.attention.1.devices", "[\"tpu\"]",
     "$.libraries[0].attention[1].devices[0]: expected one of, each once: \"cpu\", \"cuda\" or \"opencl\""},
    {"libraries.0.attention.1.devices", "[]", "$.libraries[0].attention[1].devices"},
    {"libraries.0.attention.1.vendors", "[\"\"]", "$.libraries[0].attention[1].vendors[0]"},
    {"libraries.0.attention.1.dtypes", "[\"float64\"]", "$.libraries[0].attention[1].dtypes[0]"},
    {"libraries.0.attention.1.dtypes", "[\"float32\", \"float32\"]", "$.libraries[0].attention[1].dtypes[1]"},
    {"libraries.0.attention.1.masks", "\"none\"", "$.libraries[0].attention[1].masks"},
    {"libraries.0.attention.1.head_dim", "256", "$.libraries[0].attention[1].head_dim"},
    {"libraries.0.attention.1.head_dim.min", "0", "$.libraries[0].attention[1].head_dim.min"},
    {"libraries.0.attention.1.head_dim", "{\"min\": 64, \"max\": 32}",
     "$.libraries[0].attention[1].head_dim.max"},
    {"libraries.0.attention.1.memory.min", "-1", "$.libraries[0].attention[1].memory.min"},
    {"libraries.0.attention.1.determinism", "\"sometimes\"",
     "\"repeatable\", \"invariant\" or \"portable\", found \"sometimes\""},
    {"libraries.0.attention.1.arithmetic", "\"\"", "$.libraries[0].attention[1].arithmetic"},
    {"libraries.0.attention.1.speed", "1", "$.libraries[0].attention[1]: unknown key \"speed\""},
    {"libraries.1.samplers.0.masks", "[]", "$.libraries[1].samplers[0]: unknown key \"masks\""},
    {"libraries.1.id", "\"fixture-plain\"", "$.libraries[1].id: \"fixture-plain\" is listed twice for"},
};

START_TEST(test_manifest_wrong_field) {
    attune_manifest manifest;
    attune_error error;
    json_error_t problem;
    json_t *json = true_manifest();
    json_t *value = wrong[_i].value ? json_loads(wrong[_i].value, JSON_DECODE_ANY, &problem) : NULL;
    ck_assert(value || !wrong[_i].value);
    fixture_set(json, wrong[_i].path, value);
    assert_fails(parse(json, &manifest, &error), error, ATTUNE_INVALID_ARGUMENT, wrong[_i].text);
    ck_assert_str_eq(error.where, "m.json");
    for (const char *c = error.message; *c; ++c)
        ck_assert_msg((unsigned char)*c >= 0x20, "a control character in: %s", error.message);
}
END_TEST

START_TEST(test_manifest_duplicate_keys) {
    attune_manifest manifest;
    attune_error error;
    const char *text = "{\"format\": 1, \"id\": \"a\", \"format\": 1}";
    assert_fails(attune_manifest_parse(text, strlen(text), "m.json", &manifest, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "duplicate object key");
}
END_TEST

START_TEST(test_manifest_not_json) {
    attune_manifest manifest;
    attune_error error;
    static const char *const texts[] = {
        "", "{", "[1]", "{\"format\": 1,}", "{} {}", "{\"id\": \"a\\u0000b\"}", "\xff\xfe"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i)
        assert_fails(attune_manifest_parse(texts[i], strlen(texts[i]), "m.json", &manifest, &error), error,
                     ATTUNE_INVALID_ARGUMENT, "");
}
END_TEST

START_TEST(test_manifest_format_of_the_future) {
    attune_manifest manifest;
    attune_error error;
    const char *text = "{\"format\": 2, \"anything\": 1}";
    assert_fails(attune_manifest_parse(text, strlen(text), "m.json", &manifest, &error), error,
                 ATTUNE_UNIMPLEMENTED, "reads format 1");
}
END_TEST

/* 16 levels are read (and then refused for what they are), 17 are not; brackets inside strings do not count.
 */
START_TEST(test_manifest_depth) {
    attune_manifest manifest;
    attune_error error;
    char text[256];
    for (int depth = 16; depth <= 17; ++depth) {
        (void)snprintf(text, sizeof text, "%.*s\"]]]\\\"[[[[[[[[[[[[[[[[[[[[\"%.*s", depth,
                       "[[[[[[[[[[[[[[[[[", depth, "]]]]]]]]]]]]]]]]]");
        if (depth == 16)
            assert_fails(attune_manifest_parse(text, strlen(text), "m.json", &manifest, &error), error,
                         ATTUNE_INVALID_ARGUMENT, "expected an object");
        else
            assert_fails(attune_manifest_parse(text, strlen(text), "m.json", &manifest, &error), error,
                         ATTUNE_OUT_OF_RANGE, "deeper than 16");
    }
}
END_TEST

START_TEST(test_manifest_one_mebibyte) {
    attune_manifest manifest;
    attune_error error;
    size_t limit = 1 << 20;
    char *text = malloc(limit + 1);
    ck_assert_ptr_nonnull(text);
    json_t *json = true_manifest();
    char *small = json_dumps(json, 0);
    memset(text, ' ', limit + 1);
    memcpy(text, small, strlen(small));
    assert_ok(attune_manifest_parse(text, limit, "m.json", &manifest, &error), error);
    attune_manifest_free(&manifest);
    assert_fails(attune_manifest_parse(text, limit + 1, "m.json", &manifest, &error), error,
                 ATTUNE_OUT_OF_RANGE, "1 MiB");
    free(text);
    free(small);
    json_decref(json);
}
END_TEST

/* The repository's own template, once it is filled in, reads. */
START_TEST(test_manifest_template) {
    attune_manifest manifest;
    attune_error error;
    char path[4200];
    size_t size;
    (void)snprintf(path, sizeof path, "%s/manifest.json", run_source());
    char *text = run_read(path, &size);
    assert_fails(attune_manifest_parse(text, size, "m.json", &manifest, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "$.libraries[0].size");
    json_t *json = json_loads(text, 0, NULL);
    free(text);
    for (size_t i = 0; i < json_array_size(json_object_get(json, "libraries")); ++i) {
        json_t *library = json_array_get(json_object_get(json, "libraries"), i);
        (void)json_object_set_new(library, "size", json_integer(1));
        (void)json_object_set_new(
            library, "sha256",
            json_string("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"));
    }
    assert_ok(parse(json, &manifest, &error), error);
    attune_manifest_free(&manifest);
}
END_TEST

TCase *manifest_cases(void) {
    TCase *cases = tcase_create("manifest");
    tcase_add_test(cases, test_manifest_fields);
    tcase_add_loop_test(cases, test_manifest_wrong_field, 0, sizeof wrong / sizeof *wrong);
    tcase_add_test(cases, test_manifest_duplicate_keys);
    tcase_add_test(cases, test_manifest_not_json);
    tcase_add_test(cases, test_manifest_format_of_the_future);
    tcase_add_test(cases, test_manifest_depth);
    tcase_add_test(cases, test_manifest_one_mebibyte);
    tcase_add_test(cases, test_manifest_template);
    return cases;
}
