/* check_safetensors.c: the reader of .safetensors files, on good, hostile and truncated ones. */
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"
#include "tests/support/run.h"
#include "tests/support/single_file.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static const char *path_of_file(void) {
    static char path[4352];
    (void)snprintf(path, sizeof path, "%s/x.safetensors", run_folder());
    return path;
}

/* A file: length (of `header` when −1), header, `data` bytes of zeros. */
static void write_file(int64_t length, const char *header, size_t data) {
    FILE *file = fopen(path_of_file(), "wb");
    uint64_t size = length == -1 ? strlen(header) : (uint64_t)length;
    ck_assert_ptr_nonnull(file);
    for (int i = 0; i < 8; ++i)
        fputc((int)(size >> (8 * i) & 0xff), file);
    fputs(header, file);
    for (size_t i = 0; i < data; ++i)
        fputc(0, file);
    ck_assert_int_eq(fclose(file), 0);
}

static attune_code open_file(rig *r, safetensors *file, attune_error *error) {
    memset(error, 0, sizeof *error);
    return safetensors_open(&r->services, path_of_file(), file, error);
}

START_TEST(reads_what_is_there) {
    rig r;
    safetensors file;
    attune_error error;
    rig_open(&r, 1);
    write_file(-1,
               "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_"
               "offsets\":[4,16]},"
               "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
               "\"ids\":{\"dtype\":\"I64\",\"shape\":[1,2],\"data_offsets\":[16,32]},"
               "\"none\":{\"dtype\":\"BF16\",\"shape\":[0,7],\"data_offsets\":[32,32]}}",
               32);
    ck_assert_msg(open_file(&r, &file, &error) == ATTUNE_OK, "%s", error.message);
    ck_assert_uint_eq(file.count, 4);
    const safetensors_tensor *b = safetensors_find(&file, "b");
    ck_assert_int_eq(b->ndim, 2);
    ck_assert_int_eq(b->shape[1], 3);
    ck_assert_uint_eq(b->bytes, 12);
    ck_assert(attune_dtype_equal(b->dtype, ATTUNE_F16));
    ck_assert_ptr_eq(b->data, (const char *)safetensors_find(&file, "a")->data + 4);
    ck_assert_uint_eq(safetensors_find(&file, "ids")->dtype.bits, 0);
    ck_assert_ptr_null(safetensors_find(&file, "c"));
    safetensors_release(&file);
    ck_assert_int_eq(*(const char *)b->data, 0);
    safetensors_close(&file);
    rig_close(&r);
}
END_TEST

/* Every line is a lie of its own kind. */
static const struct {
    int64_t length;
    const char *header;
    size_t data;
    const char *part; /* of the message */
} hostile[] = {
    {1 << 30, "{}", 0, "header of 1073741824 bytes"},
    {INT64_MIN, "{}", 0, "header of 9223372036854775808 bytes"},
    {-2, "{}", 0, "header of 18446744073709551614 bytes"},
    {100, "{}", 0, "truncated: 10 bytes, but its header alone takes 108"},
    {-1, "{\"a\":", 0, "line 1 column"},
    {-1, "[]", 0, "not an object"},
    {-1, "{\"a\":1}", 0, "not described by an object"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "truncated: "},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 8, "8 bytes by its shape, 4 by"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,4]}}", 8, "impossible data_offsets"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 8, "impossible data_offsets"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 8, "impossible data_offsets"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 8, "impossible data_offsets"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 8, "impossible shape"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 8,
     "impossible shape"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "at most 8"},
    {-1, "{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no known dtype"},
    {-1, "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no known dtype"},
    {-1,
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775803,9223372036854775807]}}",
     4, "truncated"},
    {-1,
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, "duplicate"},
    {-1,
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, "'a' and 'b' overlap"},
    {-1,
     "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}",
     8, "'b' and 'a' overlap"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
     "4 bytes before tensor 'a' belong to no tensor"},
    {-1,
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[7,11]}}",
     11, "3 bytes before tensor 'b' belong to no tensor"},
    {-1, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 9,
     "5 bytes at the end belong to no tensor"},
    {-1, "{}", 1, "1 bytes at the end belong to no tensor"},
};

START_TEST(refuses_lies) {
    rig r;
    rig_open(&r, 1);
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; ++i) {
        safetensors file;
        attune_error error;
        write_file(hostile[i].length, hostile[i].header, hostile[i].data);
        ck_assert_msg(open_file(&r, &file, &error) == ATTUNE_DATA_LOSS, "case %zu was read", i);
        ck_assert_msg(strstr(error.message, hostile[i].part) != NULL, "case %zu: %s", i, error.message);
        safetensors_close(&file);
    }
    rig_close(&r);
}
END_TEST

START_TEST(refuses_what_is_no_file) {
    rig r;
    safetensors file;
    attune_error error;
    rig_open(&r, 1);
    unlink(path_of_file());
    ck_assert_int_eq(open_file(&r, &file, &error), ATTUNE_NOT_FOUND);
    ck_assert_int_eq(safetensors_open(&r.services, run_folder(), &file, &error), ATTUNE_INVALID_ARGUMENT);
    rig_close(&r);
}
END_TEST

/* Every shorter file is an error. */
START_TEST(truncated_anywhere) {
    rig r;
    rig_open(&r, 1);
    const char *header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}";
    write_file(-1, header, 12);
    for (long size = (long)(8 + strlen(header) + 11); size >= 0; --size) {
        safetensors file;
        attune_error error;
        ck_assert_int_eq(truncate(path_of_file(), size), 0);
        ck_assert_int_eq(open_file(&r, &file, &error), ATTUNE_DATA_LOSS);
    }
    rig_close(&r);
}
END_TEST

/* ---- a model with damaged weights ---- */

/* The start of the file's data, from the header's length. */
static long data_start(FILE *file) {
    long length = 0;
    rewind(file);
    for (int i = 0; i < 8; ++i)
        length |= (long)fgetc(file) << (8 * i);
    return 8 + length;
}

/* `name` with the first of `from` that it holds replaced by the `to` beside it; pairs end with NULL. */
static void new_name(char out[256], const char *name, const char *const (*pairs)[2]) {
    for (; (*pairs)[0]; ++pairs) {
        const char *at = strstr(name, (*pairs)[0]);
        if (!at)
            continue;
        (void)snprintf(out, 256, "%.*s%s%s", (int)(at - name), name, (*pairs)[1], at + strlen((*pairs)[0]));
        return;
    }
    (void)snprintf(out, 256, "%s", name);
}

/* Rename tensors in a file's header. */
static void rename_tensors(const char *folder, const char *part, const char *const (*pairs)[2]) {
    char path[4500], name[256];
    size_t size;
    (void)snprintf(path, sizeof path, "%s/%s", folder, part);
    char *bytes = run_read(path, &size);
    FILE *file = fopen(path, "r+b");
    long start = data_start(file);
    json_t *header = json_loadb(bytes + 8, (size_t)start - 8, 0, NULL), *renamed = json_object(), *value;
    const char *key;
    json_object_foreach(header, key, value) {
        new_name(name, key, pairs);
        ck_assert_int_eq(json_object_set(renamed, name, value), 0);
    }
    char *text = json_dumps(renamed, JSON_COMPACT);
    file = freopen(path, "wb", file);
    for (int i = 0; i < 8; ++i)
        fputc((int)(strlen(text) >> (8 * i) & 0xff), file);
    fputs(text, file);
    ck_assert_uint_eq(fwrite(bytes + start, 1, size - (size_t)start, file), size - (size_t)start);
    ck_assert_int_eq(fclose(file), 0);
    free(text);
    free(bytes);
    json_decref(header);
    json_decref(renamed);
}

static attune_code open_copy(rig *r, const char *folder, attune_error *error) {
    void *m = NULL;
    memset(error, 0, sizeof *error);
    attune_code code = r->sampler->model_open(r->instance, folder, NULL, &r->stream, NULL, &m, error);
    if (code == ATTUNE_OK)
        r->sampler->model_close(m);
    return code;
}

START_TEST(missing_tensors_are_named) {
    static const char *const one[][2] = {{"conv_in.weight", "conv_no.weight"}, {NULL, NULL}};
    static const char *const more[][2] = {{"conv_out.bias", "x"},
                                          {"time_embedding.linear_1.bias", "y"},
                                          {"time_embedding.linear_2.bias", "z"},
                                          {NULL, NULL}};
    rig r;
    attune_error error;
    const char *folder = rig_copy_model("tiny"), *weights = "unet/diffusion_pytorch_model.safetensors";
    rig_open(&r, 1);
    ck_assert_int_eq(open_copy(&r, folder, &error), ATTUNE_OK);
    rename_tensors(folder, weights, one);
    ck_assert_int_eq(open_copy(&r, folder, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(error.message, "1 tensor is missing: conv_in.weight"));
    rename_tensors(folder, weights, more);
    ck_assert_int_eq(open_copy(&r, folder, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_msg(strstr(error.message,
                         "4 tensors are missing: conv_in.weight, time_embedding.linear_1.bias, "
                         "time_embedding.linear_2.bias, ...") != NULL,
                  "%s", error.message);
    rig_close(&r);
}
END_TEST

START_TEST(wrong_shapes_name_both) {
    rig r;
    attune_error error;
    const char *folder = rig_copy_model("tiny");
    rig_open(&r, 1);
    run_result edit =
        run("sed -i 's/\"cross_attention_dim\": 24/\"cross_attention_dim\": 12/' '%s/unet/config.json' && "
            "sed -i 's/\"hidden_size\": 24/\"hidden_size\": 12/' '%s/text_encoder/config.json'",
            folder, folder);
    ck_assert_int_eq(edit.status, 0);
    run_free(&edit);
    ck_assert_int_eq(open_copy(&r, folder, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_msg(strstr(error.message,
                         "embeddings.token_embedding.weight' is 1024x24, but config.json makes it "
                         "1024x12") != NULL,
                  "%s", error.message);
    rig_close(&r);
}
END_TEST

/* Names as they were before diffusers 0.18 in the VAE, and without "text_model." in the text encoder. */
START_TEST(older_names_are_read) {
    static const char *const vae[][2] = {{".to_q.", ".query."},
                                         {".to_k.", ".key."},
                                         {".to_v.", ".value."},
                                         {".to_out.0.", ".proj_attn."},
                                         {NULL, NULL}};
    static const char *const text[][2] = {{"text_model.", ""}, {NULL, NULL}};
    rig r;
    attune_error error;
    const char *folder = rig_copy_model("tiny");
    rig_open(&r, 1);
    rename_tensors(folder, "vae/diffusion_pytorch_model.safetensors", vae);
    rename_tensors(folder, "text_encoder/model.safetensors", text);
    ck_assert_msg(open_copy(&r, folder, &error) == ATTUNE_OK, "%s", error.message);
    rig_close(&r);
}
END_TEST

/* A weight that is not finite is refused, by name: in a table when the model opens, in a layer when it is
 * packed. */
START_TEST(weights_that_are_not_finite) {
    rig r;
    attune_error error = {0};
    attune_session_plan plan = {.struct_size = sizeof plan};
    void *m = NULL, *made = NULL;
    char path[4500];
    const char *folder = rig_copy_model("emoji");
    (void)snprintf(path, sizeof path, "%s/unet/diffusion_pytorch_model.safetensors", folder);
    safetensors file;
    rig_open(&r, 1);
    ck_assert_int_eq(safetensors_open(&r.services, path, &file, &error), ATTUNE_OK);
    long offset = (const char *)safetensors_find(&file, "conv_in.weight")->data - (const char *)file.map;
    safetensors_close(&file);
    FILE *damaged = fopen(path, "r+b");
    ck_assert_int_gt(offset, data_start(damaged) - 1);
    fseek(damaged, offset + 10, SEEK_SET);
    fputs("\x01\x7c", damaged); /* a NaN in half precision */
    fclose(damaged);
    ck_assert_int_eq(r.sampler->model_open(r.instance, folder, NULL, &r.stream, NULL, &m, &error), ATTUNE_OK);
    attune_request request = {.struct_size = sizeof request,
                              .prompt = "",
                              .steps = 1,
                              .batch_size = 1,
                              .cfg_scale = 7,
                              .memory_limit = UINT64_MAX};
    ck_assert_int_eq(r.sampler->session_begin(m, &request, &r.binder, &r.stream, NULL, &made, &plan, &error),
                     ATTUNE_DATA_LOSS);
    ck_assert_ptr_nonnull(strstr(error.message, "conv_in"));
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* The same for an infinity and a NaN of each other type, in each kind of layer: the error has the file's name
 * of the tensor, of a layer without its end. */
START_TEST(infinities_and_nans_are_named) {
    static const char *const tensors[][2] = {
        {"text_encoder/model.safetensors", "text_model.embeddings.token_embedding.weight"},
        {"text_encoder/model.safetensors", "text_model.embeddings.position_embedding.weight"},
        {"text_encoder/model.safetensors", "text_model.encoder.layers.1.layer_norm2.bias"},
        {"text_encoder/model.safetensors", "text_model.encoder.layers.0.self_attn.v_proj.weight"},
        {"unet/diffusion_pytorch_model.safetensors", "mid_block.attentions.0.proj_out.weight"},
        {"unet/diffusion_pytorch_model.safetensors", "up_blocks.1.upsamplers.0.conv.weight"},
        {"vae/diffusion_pytorch_model.safetensors", "decoder.conv_norm_out.weight"},
        {"vae/diffusion_pytorch_model.safetensors", "decoder.mid_block.attentions.0.to_k.bias"}};
    rig r;
    rig_open(&r, 1);
    const char *folder = rig_copy_model("tiny");
    char path[4500], kept[4500], word[128];
    (void)snprintf(kept, sizeof kept, "%s/kept", folder);
    for (size_t i = 0; i < 2 * sizeof tensors / sizeof tensors[0]; ++i) {
        const char *const *tensor = tensors[i / 2];
        attune_error error = {0};
        attune_session_plan plan = {.struct_size = sizeof plan};
        void *m = NULL, *made = NULL;
        (void)snprintf(path, sizeof path, "%s/%s", folder, tensor[0]);
        run_result copied = run("cp '%s' '%s'", path, kept);
        run_free(&copied);
        single_file_set(path, tensor[1], i % 2 ? INFINITY : NAN);
        attune_code code = r.sampler->model_open(r.instance, folder, NULL, &r.stream, NULL, &m, &error);
        attune_request request = {.struct_size = sizeof request,
                                  .prompt = "",
                                  .steps = 1,
                                  .batch_size = 1,
                                  .cfg_scale = 7,
                                  .memory_limit = UINT64_MAX};
        if (code == ATTUNE_OK)
            code = r.sampler->session_begin(m, &request, &r.binder, &r.stream, NULL, &made, &plan, &error);
        ck_assert_msg(code == ATTUNE_DATA_LOSS, "%s: %d %s", tensor[1], code, error.message);
        (void)snprintf(word, sizeof word, "'%.*s", (int)(strrchr(tensor[1], '.') - tensor[1]), tensor[1]);
        ck_assert_msg(strstr(error.message, word) != NULL, "no %s in: %s", word, error.message);
        r.sampler->model_close(m);
        ck_assert_int_eq(rename(kept, path), 0);
    }
    rig_close(&r);
}
END_TEST

/* A type of the format that is not read as weights, in each network. */
START_TEST(other_types_are_refused) {
    static const char *const cases[][3] = {
        {"text_encoder/model.safetensors", "text_model.final_layer_norm.bias", "U16"},
        {"unet/diffusion_pytorch_model.safetensors", "conv_in.weight", "I16"},
        {"vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.bias", "I32"}};
    rig r;
    attune_error error;
    rig_open(&r, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char path[4500], words[128];
        const char *folder = rig_copy_model("tiny");
        (void)snprintf(path, sizeof path, "%s/%s", folder, cases[i][0]);
        json_t *header = single_file_header(path);
        json_object_set_new(json_object_get(header, cases[i][1]), "dtype", json_string(cases[i][2]));
        single_file_put(path, header);
        json_decref(header);
        ck_assert_int_eq(open_copy(&r, folder, &error), ATTUNE_UNIMPLEMENTED);
        (void)snprintf(words, sizeof words, "tensor '%s' is stored as %s", cases[i][1], cases[i][2]);
        ck_assert_msg(strstr(error.message, words) != NULL, "%s", error.message);
        run_result removed = run("rm -r '%s'", folder);
        run_free(&removed);
    }
    rig_close(&r);
}
END_TEST

static uint8_t *draw(rig *r, const char *folder, size_t *size) {
    attune_request request = {.struct_size = sizeof request,
                              .prompt = "red apple",
                              .steps = 1,
                              .batch_size = 1,
                              .cfg_scale = 7,
                              .memory_limit = UINT64_MAX};
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_error error = {0};
    void *m = NULL, *made = NULL;
    attune_code code = r->sampler->model_open(r->instance, folder, NULL, &r->stream, NULL, &m, &error);
    if (code == ATTUNE_OK)
        code = r->sampler->session_begin(m, &request, &r->binder, &r->stream, NULL, &made, &plan, &error);
    while (code == ATTUNE_OK && !progress.done)
        code = r->sampler->session_step(made, NULL, &progress, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    *size = (size_t)plan.width * plan.height * 3;
    attune_image image = {sizeof image, plan.width, plan.height, plan.width * 3, malloc(*size)};
    ck_assert_int_eq(r->sampler->session_image(made, 0, &image, &error), ATTUNE_OK);
    r->sampler->session_close(made);
    r->sampler->model_close(m);
    return image.pixels;
}

/* Put the data of a file at a byte that is `rest` modulo 4, by way of a note in the header. */
static void put_data_at(const char *path, long rest) {
    char note[8] = "";
    long start = 0;
    for (size_t length = 0; start % 4 != rest; ++length) {
        ck_assert_uint_lt(length, 4);
        memset(note, 'x', length);
        json_t *header = single_file_header(path);
        json_object_set_new(header, "__metadata__", json_pack("{s:s}", "note", note));
        single_file_put(path, header);
        json_decref(header);
        FILE *file = fopen(path, "rb");
        start = data_start(file);
        (void)fclose(file);
    }
}

/* Weights that begin at any byte give the same picture. */
START_TEST(weights_may_lie_anywhere) {
    static const char *const files[] = {"text_encoder/model.safetensors",
                                        "unet/diffusion_pytorch_model.safetensors",
                                        "vae/diffusion_pytorch_model.safetensors"};
    rig r;
    size_t size, other;
    rig_open(&r, 2);
    const char *folder = rig_copy_model("tiny");
    uint8_t *wanted = draw(&r, folder, &size);
    for (long rest = 1; rest < 4; rest += 2) {
        for (int i = 0; i < 3; ++i) {
            char path[4500];
            (void)snprintf(path, sizeof path, "%s/%s", folder, files[i]);
            put_data_at(path, rest);
        }
        uint8_t *pixels = draw(&r, folder, &other);
        ck_assert_uint_eq(other, size);
        ck_assert_mem_eq(pixels, wanted, size);
        free(pixels);
    }
    free(wanted);
    rig_close(&r);
}
END_TEST

TCase *safetensors_cases(void) {
    TCase *cases = tcase_create("safetensors");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, reads_what_is_there);
    tcase_add_test(cases, refuses_lies);
    tcase_add_test(cases, refuses_what_is_no_file);
    tcase_add_test(cases, truncated_anywhere);
    tcase_add_test(cases, missing_tensors_are_named);
    tcase_add_test(cases, wrong_shapes_name_both);
    tcase_add_test(cases, older_names_are_read);
    tcase_add_test(cases, weights_that_are_not_finite);
    tcase_add_test(cases, infinities_and_nans_are_named);
    tcase_add_test(cases, other_types_are_refused);
    tcase_add_test(cases, weights_may_lie_anywhere);
    return cases;
}
