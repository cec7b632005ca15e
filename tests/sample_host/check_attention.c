/* check_attention.c: `sample_host attention`: numpy's result in double within 1e-5; the same bytes however it
 * is computed. */
#include "kernels/attention.h"
#include "kernels/storage.h"
#include "sample_host/npy.h"
#include "suite.h"
#include "tests/support/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static npy_array read_array(const char *folder, const char *name) {
    char path[4400];
    npy_array array;
    attune_error error;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    ck_assert_msg(npy_read(path, &array, &error) == ATTUNE_OK, "%s", error.message);
    return array;
}

static json_t *cases_of(const char *name) {
    char path[4400];
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/%s", run_source(), name);
    json_t *list = json_load_file(path, 0, NULL);
    ck_assert_msg(json_array_size(list) > 0, "no cases in %s", path);
    return list;
}

/* Options that name a case's files; a bool mask, stored as uint8 there, is written as bool. */
static void arguments_of(json_t *entry, char *text, size_t size) {
    json_t *files = json_object_get(entry, "files");
    char data[4200], mask[4600] = "", scale[64] = "";
    (void)snprintf(data, sizeof data, "%s/tests/golden/data", run_source());
    if (strcmp(text_of(entry, "mask"), "bool") == 0) {
        attune_error error;
        char path[4400];
        npy_array array = read_array(data, text_of(files, "mask"));
        array.tensor.dtype = ATTUNE_BOOL;
        (void)snprintf(path, sizeof path, "%s/mask.npy", run_folder());
        ck_assert_int_eq(npy_write(path, &array.tensor, &error), ATTUNE_OK);
        npy_free(&array);
        (void)snprintf(mask, sizeof mask, "--mask mask.npy");
    } else if (strcmp(text_of(entry, "mask"), "float") == 0)
        (void)snprintf(mask, sizeof mask, "--mask '%s/%s'", data, text_of(files, "mask"));
    if (json_number_value(json_object_get(entry, "scale")) != 0)
        (void)snprintf(scale, sizeof scale, "--scale %.9g",
                       json_number_value(json_object_get(entry, "scale")));
    int used = snprintf(text, size, "--q '%s/%s' --k '%s/%s' --v '%s/%s' %s %s", data, text_of(files, "q"),
                        data, text_of(files, "k"), data, text_of(files, "v"), mask, scale);
    ck_assert_int_lt(used, (int)size);
}

START_TEST(equals_numpy_in_double) {
    json_t *list = cases_of("attention_cases.json"), *entry;
    size_t i, compared = 0;
    char data[4200], arguments[16384];
    (void)snprintf(data, sizeof data, "%s/tests/golden/data", run_source());
    json_array_foreach(list, i, entry) {
        if (json_is_true(
                json_object_get(entry, "causal"))) /* no option of the command: tests/kernels has it */
            continue;
        arguments_of(entry, arguments, sizeof arguments);
        static const char *const backends[] = {"sdp-no-mem", "sdp",  "xformers",
                                               "Doggettx",   "None", "sub-quadratic"};
        for (size_t b = 0; b < sizeof backends / sizeof *backends; ++b) {
            run_result r =
                run("\"$HOST\" attention --attention-required %s -o out.npy %s", backends[b], arguments);
            ck_assert_msg(r.status == 0, "%s: %s", text_of(entry, "stem"), r.err);
            ck_assert_str_eq(r.out, "out.npy\n");
            run_free(&r);
            npy_array expected = read_array(data, text_of(json_object_get(entry, "files"), "out"));
            npy_array got = read_array(run_folder(), "out.npy");
            ck_assert_uint_eq(got.tensor.bytes, expected.tensor.bytes);
            const float *x = got.tensor.data, *y = expected.tensor.data;
            /* scores are float: at 87 one unit in the last place is 7.6e-6, and as much of a weight; 1e-5
             * holds up to 40 */
            float largest = (float)json_number_value(json_object_get(entry, "max_abs_score"));
            float tolerance = largest <= 40 ? 1e-5f : largest * 2.5e-7f;
            for (size_t k = 0; k < got.tensor.bytes / sizeof(float); ++k)
                ck_assert_msg(fabsf(x[k] - y[k]) <= tolerance, "%s[%zu]: %g, expected %g",
                              text_of(entry, "stem"), k, (double)x[k], (double)y[k]);
            npy_free(&expected);
            npy_free(&got);
            ++compared;
        }
    }
    ck_assert_uint_ge(compared, 42);
    json_decref(list);
}
END_TEST

/* The problem of arrays as they are, without a mask. */
static attune_attention_f32 attention_of(const npy_array *q, const npy_array *k, const npy_array *v,
                                         float *out) {
    const int64_t *s = q->tensor.shape;
    attune_attention_f32 args = {.batch = s[0],
                                 .heads_q = s[1],
                                 .heads_kv = s[1],
                                 .n_q = s[2],
                                 .n_k = k->tensor.shape[2],
                                 .d_qk = s[3],
                                 .d_v = s[3],
                                 .q = q->tensor.data,
                                 .k = k->tensor.data,
                                 .v = v->tensor.data,
                                 .out = out};
    memcpy(args.stride_q, q->tensor.stride, sizeof args.stride_q);
    memcpy(args.stride_out, q->tensor.stride, sizeof args.stride_out);
    memcpy(args.stride_k, k->tensor.stride, sizeof args.stride_k);
    memcpy(args.stride_v, v->tensor.stride, sizeof args.stride_v);
    return args;
}

/* out as kernels/reference computes it. */
static void reference(json_t *entry, float *out) {
    char data[4200];
    json_t *files = json_object_get(entry, "files");
    (void)snprintf(data, sizeof data, "%s/tests/golden/data", run_source());
    npy_array q = read_array(data, text_of(files, "q")), k = read_array(data, text_of(files, "k"));
    npy_array v = read_array(data, text_of(files, "v")), mask = {0};
    attune_attention_f32 args = attention_of(&q, &k, &v, out);
    args.scale = (float)json_number_value(json_object_get(entry, "scale"));
    if (json_is_string(json_object_get(files, "mask"))) {
        mask = read_array(data, text_of(files, "mask"));
        args.mask = mask.tensor.data;
        args.mask_kind =
            strcmp(text_of(entry, "mask"), "bool") == 0 ? ATTUNE_KERNEL_MASK_BOOL : ATTUNE_KERNEL_MASK_FLOAT;
        for (int axis = 0; axis < 4; ++axis)
            args.stride_mask[axis] = mask.tensor.shape[axis] == 1 ? 0 : mask.tensor.stride[axis];
    }
    attune_attention_f32_reference(&args);
    npy_free(&q);
    npy_free(&k);
    npy_free(&v);
    npy_free(&mask);
}

START_TEST(same_bytes_for_every_thread_count_and_isa) {
    json_t *list = cases_of("attention_cases.json"), *entry;
    size_t i;
    char arguments[16384];
    json_array_foreach(list, i, entry) {
        if (json_is_true(json_object_get(entry, "causal")))
            continue;
        arguments_of(entry, arguments, sizeof arguments);
        run_result r = run(
            "\"$HOST\" attention --attention-required sdp-no-mem --threads 1 -o first.npy %s && "
            "for mask in generic avx2 avx512; do for threads in 1 2 3; do "
            "ATTUNE_CPU_MASK=$mask \"$HOST\" attention --attention-required sdp-no-mem -q --threads $threads "
            "-o other.npy %s >/dev/null && cmp first.npy other.npy || exit 9; done; done",
            arguments, arguments);
        ck_assert_msg(r.status == 0, "%s: %s%s", text_of(entry, "stem"), r.out, r.err);
        run_free(&r);
        npy_array got = read_array(run_folder(), "first.npy");
        float *expected = malloc(got.tensor.bytes);
        reference(entry, expected);
        ck_assert_mem_eq(got.tensor.data, expected, got.tensor.bytes);
        free(expected);
        npy_free(&got);
    }
    json_decref(list);
}
END_TEST

/* A golden file's values in float16, and what they widen to in place. */
static void to_float16(const char *golden, const char *name, npy_array *wide) {
    attune_error error;
    char data[4200], path[4400];
    (void)snprintf(data, sizeof data, "%s/tests/golden/data", run_source());
    (void)snprintf(path, sizeof path, "%s/%s", run_folder(), name);
    *wide = read_array(data, golden);
    attune_tensor narrow = attune_tensor_view(NULL, ATTUNE_F16, wide->tensor.device, 4, wide->tensor.shape);
    uint16_t *stored = malloc(narrow.bytes);
    ck_assert_ptr_nonnull(stored);
    float *values = wide->tensor.data;
    for (size_t i = 0; i < narrow.bytes / 2; ++i) {
        stored[i] = attune_narrow_f16(values[i]);
        values[i] = attune_widen_f16(stored[i]);
    }
    narrow.data = stored;
    ck_assert_int_eq(npy_write(path, &narrow, &error), ATTUNE_OK);
    free(stored);
}

/* Computed in float32 from the widened values and rounded once: the reference's result, in float16. */
START_TEST(float16_in_float16_out) {
    npy_array q, k, v;
    to_float16("attention_cross_amplitude_4_q.npy", "q.npy", &q);
    to_float16("attention_cross_amplitude_0.04_k.npy", "k.npy", &k);
    to_float16("attention_cross_amplitude_0.04_v.npy", "v.npy", &v);
    run_result r = run("\"$HOST\" attention --q q.npy --k k.npy --v v.npy -q -o out.npy");
    ck_assert_msg(r.status == 0, "%s", r.err);
    run_free(&r);
    npy_array got = read_array(run_folder(), "out.npy");
    ck_assert(attune_dtype_equal(got.tensor.dtype, ATTUNE_F16));
    float *expected = malloc(2 * got.tensor.bytes);
    ck_assert_ptr_nonnull(expected);
    attune_attention_f32 args = attention_of(&q, &k, &v, expected);
    attune_attention_f32_reference(&args);
    for (size_t i = 0; i < got.tensor.bytes / 2; ++i)
        ck_assert_uint_eq(((const uint16_t *)got.tensor.data)[i], attune_narrow_f16(expected[i]));
    free(expected);
    npy_free(&q), npy_free(&k), npy_free(&v), npy_free(&got);
    r = run("\"$HOST\" attention --q q.npy --k \"$S/tests/golden/data/attention_cross_amplitude_0.04_k.npy\" "
            "--v v.npy -q -o out.npy");
    ck_assert_int_eq(r.status, 2);
    ck_assert_ptr_nonnull(strstr(r.err, "q is float16 and k is float32"));
    run_free(&r);
}
END_TEST

START_TEST(bad_arrays_are_refused) {
    static const char *const wrong[][3] = {
        {"cp \"$D/attention_cross_amplitude_0.4_q.npy\" q.npy; head -c 500 q.npy > t.npy", "t.npy",
         "bytes of data"},
        {"echo nonsense > n.npy", "n.npy", "magic"},
        {":", "missing.npy", "missing.npy"},
        {":", "\"$D/text_prompts.txt\"", "magic"},
        {":", "\"$D/noise_seed_0_n_16.npy\"", "axes"},
        {":", "\"$D/emoji_text_ids.npy\"", "float32"},
        {":", "\"$D/emoji_unet_16x16_out.npy\"", "differ"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
        run_result r = run("D=\"$S/tests/golden/data\"; %s; \"$HOST\" attention --q "
                           "\"$D/attention_cross_amplitude_0.4_q.npy\" "
                           "--k %s --v \"$D/attention_cross_amplitude_0.04_v.npy\" -o z.npy",
                           wrong[i][0], wrong[i][1]);
        ck_assert_msg(r.status == 1 || r.status == 2, "%s: %d", wrong[i][1], r.status);
        ck_assert_msg(strstr(r.err, wrong[i][2]) != NULL, "%s: %s", wrong[i][1], r.err);
        ck_assert_uint_eq(run_lines(r.err), 1);
        run_free(&r);
        r = run("test ! -e z.npy");
        ck_assert_int_eq(r.status, 0);
        run_free(&r);
    }
}
END_TEST

TCase *attention_cases(void) {
    TCase *cases = tcase_create("attention");
    tcase_add_test(cases, equals_numpy_in_double);
    tcase_add_test(cases, same_bytes_for_every_thread_count_and_isa);
    tcase_add_test(cases, float16_in_float16_out);
    tcase_add_test(cases, bad_arrays_are_refused);
    return cases;
}
