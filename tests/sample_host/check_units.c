/* check_units.c: the host's own small parts: nearest words, infotext, .npy files, sizes. */
#include "sample_host/app.h"
#include "sample_host/infotext.h"
#include "sample_host/nearest.h"
#include "sample_host/npy.h"
#include "sample_host/words.h"
#include "suite.h"
#include "tests/support/run.h"

#include <stdlib.h>

START_TEST(edit_distance_counts_swaps_once) {
    ck_assert_uint_eq(nearest_distance("sdp", "spd"), 1);
    ck_assert_uint_eq(nearest_distance("kitten", "sitting"), 3);
    ck_assert_uint_eq(nearest_distance("", "abc"), 3);
    ck_assert_uint_eq(nearest_distance("Apple", "apple"), 0);
    const char *words[] = {"apple", "sailboat"};
    ck_assert_str_eq(nearest_word("aple", words, 2), "apple");
    ck_assert_ptr_null(nearest_word("xyz", words, 2));
}
END_TEST

START_TEST(infotext_is_the_webuis) {
    infotext info = {.prompt = "a, b",
                     .negative_prompt = "c",
                     .sampler = "Euler a",
                     .scheduler = "Karras",
                     .model = "x:y",
                     .model_hash = "0123456789",
                     .attention = "sdp (attune-cpu 1.0.0, portable)",
                     .arithmetic = "attune-f32-1",
                     .determinism = "repeatable",
                     .sampler_plugin = "s 1",
                     .randn_source = "NV",
                     .seed = 5,
                     .subseed = 6,
                     .subseed_strength = 0.1f,
                     .clip_skip = 2,
                     .steps = 20,
                     .width = 512,
                     .height = 768,
                     .cfg_scale = 7.5f};
    char *text = infotext_format(&info);
    ck_assert_str_eq(text, "a, b\nNegative prompt: c\nSteps: 20, Sampler: Euler a, Schedule type: Karras, "
                           "CFG scale: 7.5, Seed: 5, "
                           "Size: 512x768, Model hash: 0123456789, Model: \"x:y\", Variation seed: 6, "
                           "Variation seed strength: 0.1, Clip skip: 2, RNG: NV, Attention: \"sdp "
                           "(attune-cpu 1.0.0, portable)\", "
                           "Arithmetic: attune-f32-1, Determinism: repeatable, Sampler plugin: s 1, Version: "
                           "attune " ATTUNE_VERSION);
    free(text);
}
END_TEST

START_TEST(sizes_are_powers_of_1024) {
    uint64_t size;
    ck_assert(app_parse_size("8G", &size) == 0 && size == 8ull << 30);
    ck_assert(app_parse_size("1.5k", &size) == 0 && size == 1536);
    ck_assert(app_parse_size("7", &size) == 0 && size == 7);
    ck_assert(app_parse_size("-1", &size) && app_parse_size("", &size) && app_parse_size("1T", &size));
    ck_assert(app_parse_size("1GG", &size) && app_parse_size("inf", &size) &&
              app_parse_size("99999999999G", &size));
}
END_TEST

static void write_text(const char *path, const char *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

/* A version 1.0 file with a header and `data` zero bytes. */
static attune_code read_npy(const char *header, size_t data, npy_array *out, attune_error *error) {
    char path[4200], bytes[1024] = "\x93NUMPY\1\0";
    size_t length = strlen(header);
    (void)snprintf(path, sizeof path, "%s/x.npy", run_folder());
    bytes[8] = (char)length;
    memcpy(bytes + 10, header, length);
    write_text(path, bytes, 10 + length + data);
    return npy_read(path, out, error);
}

START_TEST(npy_reads_and_writes) {
    char path[4200];
    npy_array a;
    attune_error error;
    float values[6] = {1, 2, 3, 4, 5, 6};
    attune_device_id cpu = {.type = ATTUNE_DEVICE_CPU};
    attune_tensor tensor = attune_tensor_view(values, ATTUNE_F32, cpu, 2, (int64_t[]){2, 3});
    (void)snprintf(path, sizeof path, "%s/y.npy", run_folder());
    ck_assert_int_eq(npy_write(path, &tensor, &error), ATTUNE_OK);
    ck_assert_int_eq(npy_read(path, &a, &error), ATTUNE_OK);
    ck_assert_int_eq(a.tensor.ndim, 2);
    ck_assert_int_eq((int)a.tensor.shape[1], 3);
    ck_assert_mem_eq(a.tensor.data, values, sizeof values);
    npy_free(&a);
}
END_TEST

START_TEST(npy_refuses_what_is_broken) {
    npy_array a;
    attune_error error;
    const char *good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
    ck_assert_int_eq(read_npy(good, 8, &a, &error), ATTUNE_OK);
    npy_free(&a);
    ck_assert_int_eq(read_npy(good, 7, &a, &error), ATTUNE_DATA_LOSS);
    ck_assert_int_eq(read_npy(good, 9, &a, &error), ATTUNE_DATA_LOSS);
    ck_assert_int_eq(read_npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", 8, &a, &error),
                     ATTUNE_UNIMPLEMENTED);
    ck_assert_int_eq(read_npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8, &a, &error),
                     ATTUNE_UNIMPLEMENTED);
    ck_assert_int_eq(
        read_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,2), }", 8, &a, &error),
        ATTUNE_UNIMPLEMENTED);
    ck_assert_int_eq(read_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4), }",
                              8, &a, &error),
                     ATTUNE_DATA_LOSS);
    ck_assert_int_eq(read_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
                              8, &a, &error),
                     ATTUNE_DATA_LOSS);
    ck_assert_int_eq(read_npy("{'descr': '<f4', 'shape': (2,), }", 8, &a, &error), ATTUNE_DATA_LOSS);
    ck_assert_int_eq(read_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", 8, &a, &error),
                     ATTUNE_DATA_LOSS);
    ck_assert_int_eq(npy_read("/nowhere.npy", &a, &error), ATTUNE_NOT_FOUND);
    ck_assert_ptr_null(a.memory);
}
END_TEST

START_TEST(unknown_words_get_the_nearest_known_ones) {
    char model[4200], message[1400];
    (void)snprintf(model, sizeof model, "%s/models/emoji", run_source());
    ck_assert_uint_eq(words_unknown(model, "A red apple, on a blue background!", message, sizeof message), 0);
    ck_assert_uint_eq(words_unknown(model, "", message, sizeof message), 0);
    ck_assert_uint_eq(words_unknown(model, "red aple and a walrus", message, sizeof message), 2);
    ck_assert_ptr_nonnull(strstr(message, "\"aple\", \"walrus\""));
    ck_assert_ptr_nonnull(strstr(message, "apple"));
    ck_assert_ptr_null(strchr(message, '\n'));
    ck_assert_uint_eq(words_unknown(run_folder(), "walrus", message, sizeof message), 0);
}
END_TEST

TCase *units_cases(void) {
    TCase *cases = tcase_create("units");
    tcase_add_test(cases, edit_distance_counts_swaps_once);
    tcase_add_test(cases, infotext_is_the_webuis);
    tcase_add_test(cases, sizes_are_powers_of_1024);
    tcase_add_test(cases, npy_reads_and_writes);
    tcase_add_test(cases, npy_refuses_what_is_broken);
    tcase_add_test(cases, unknown_words_get_the_nearest_known_ones);
    return cases;
}
