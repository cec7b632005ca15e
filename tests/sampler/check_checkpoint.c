/*
 * check_checkpoint.c: checkpoints in one file: the same pictures as from the diffusers folder, configurations
 * from shapes and from files, and what is refused by which words.
 */
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"
#include "tests/support/run.h"
#include "tests/support/single_file.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* A path in the test's folder; two at a time. */
static const char *in_folder(const char *name) {
    static char paths[2][4400];
    static int next;
    next = !next;
    (void)snprintf(paths[next], sizeof paths[next], "%s/%s", run_folder(), name);
    return paths[next];
}

static const char *vocabulary(const char *name) {
    static char path[4500];
    (void)snprintf(path, sizeof path, "%s/tokenizer", rig_model_path(name));
    return path;
}

static attune_code try_open(rig *r, const char *path, const char *config, model **out, attune_error *error) {
    attune_model_options options = {
        .struct_size = sizeof options, .vocabulary = vocabulary("tiny"), .config = config};
    void *made = NULL;
    memset(error, 0, sizeof *error);
    attune_code code = r->sampler->model_open(r->instance, path, &options, &r->stream, NULL, &made, error);
    if (out)
        *out = made;
    else if (code == ATTUNE_OK)
        r->sampler->model_close(made);
    return code;
}

/* `words` stand in the error, or in its hint. */
static void refused(rig *r, const char *path, const char *config, attune_code code, const char *words) {
    attune_error error;
    attune_code got = try_open(r, path, config, NULL, &error);
    ck_assert_msg(got == code, "%s: %s instead of %s: %s", words, attune_code_name(got),
                  attune_code_name(code), error.message);
    ck_assert_msg(strstr(error.message, words) || strstr(error.hint, words), "no '%s' in: %s; %s", words,
                  error.message, error.hint);
}

/* x.safetensors of a model, with x.json beside it. */
static const char *whole(const char *name) {
    single_file_write(name, in_folder("x.safetensors"));
    single_file_text(in_folder("x.json"), single_file_config(name));
    static char path[4400];
    (void)snprintf(path, sizeof path, "%s", in_folder("x.safetensors"));
    return path;
}

static uint8_t *draw(rig *r, model *m, size_t *size) {
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_request request = {.struct_size = sizeof request,
                              .prompt = "red apple",
                              .negative_prompt = "blue",
                              .seed = 7,
                              .memory_limit = UINT64_MAX,
                              .steps = 2,
                              .batch_size = 1,
                              .cfg_scale = 7.0f};
    attune_error error = {0};
    void *made = NULL;
    attune_code code =
        r->sampler->session_begin(m, &request, &r->binder, &r->stream, NULL, &made, &plan, &error);
    while (code == ATTUNE_OK && !progress.done)
        code = r->sampler->session_step(made, NULL, &progress, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    *size = (size_t)plan.width * plan.height * 3;
    uint8_t *pixels = malloc(*size);
    attune_image image = {sizeof image, plan.width, plan.height, plan.width * 3, pixels};
    ck_assert_int_eq(r->sampler->session_image(made, 0, &image, &error), ATTUNE_OK);
    r->sampler->session_close(made);
    return pixels;
}

static void check_same(const char *name, const char *path, const char *config) {
    rig r;
    attune_error error;
    size_t size, other_size;
    model *one = NULL;
    rig_open(&r, 2);
    attune_model_options options = {
        .struct_size = sizeof options, .vocabulary = vocabulary(name), .config = config};
    void *made = NULL;
    attune_code code = r.sampler->model_open(r.instance, path, &options, &r.stream, NULL, &made, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    one = made;
    ck_assert_str_eq(r.logged, "");
    model *folder = rig_model(&r, name);
    ck_assert_mem_eq(&one->config, &folder->config, sizeof one->config);
    uint8_t *pixels = draw(&r, one, &size), *wanted = draw(&r, folder, &other_size);
    ck_assert_uint_eq(size, other_size);
    ck_assert_mem_eq(pixels, wanted, size);
    free(pixels);
    free(wanted);
    r.sampler->model_close(one);
    r.sampler->model_close(folder);
    rig_close(&r);
}

START_TEST(pictures_equal_the_folders) {
    check_same("tiny", whole("tiny"), NULL);
    check_same("emoji", whole("emoji"), NULL);
    ck_assert_int_eq(rename(in_folder("x.json"), in_folder("elsewhere.json")), 0);
    check_same("emoji", in_folder("x.safetensors"), in_folder("elsewhere.json"));
}
END_TEST

START_TEST(a_file_is_described) {
    rig r;
    model *m;
    attune_error error;
    attune_model_info info = {.struct_size = sizeof info};
    rig_open(&r, 1);
    const char *path = whole("tiny");
    ck_assert_int_eq(try_open(&r, path, NULL, &m, &error), ATTUNE_OK);
    ck_assert_int_eq(r.sampler->model_describe(m, &info, &error), ATTUNE_OK);
    ck_assert_str_eq(info.weights_file, "x.safetensors");
    ck_assert_str_eq(info.dtype, "float16");
    ck_assert_uint_eq(info.width, 64);
    size_t size;
    free(run_read(path, &size));
    ck_assert_uint_eq(info.weights_bytes, size);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* A key of the header under another name. */
static void rename_key(json_t *header, const char *from, const char *to) {
    json_t *value = json_incref(json_object_get(header, from));
    ck_assert_msg(value != NULL, "there is no %s", from);
    json_object_del(header, from);
    json_object_set(header, to, value);
    json_decref(value);
}

START_TEST(the_text_encoder_may_lack_a_part_of_its_name) {
    rig r;
    attune_error error;
    rig_open(&r, 1);
    const char *path = whole("tiny"), *key;
    json_t *header = single_file_header(path), *renamed = json_object(), *value;
    json_object_foreach(header, key, value) {
        char name[256];
        const char *part = strstr(key, "text_model.");
        (void)snprintf(name, sizeof name, "%.*s%s", part ? (int)(part - key) : 0, key,
                       part ? part + strlen("text_model.") : key);
        json_object_set(renamed, name, value);
    }
    single_file_put(path, renamed);
    json_decref(header);
    json_decref(renamed);
    ck_assert_msg(try_open(&r, path, NULL, NULL, &error) == ATTUNE_OK, "%s", error.message);
    rig_close(&r);
}
END_TEST

#define UNET "model.diffusion_model."

/* One tensor taken away: its own name is in the error, wherever it stands. */
START_TEST(missing_tensors_are_named) {
    static const char *const names[] = {
        UNET "input_blocks.0.0.weight",
        UNET "input_blocks.1.0.in_layers.2.weight",
        UNET "input_blocks.2.0.in_layers.2.weight",
        UNET "input_blocks.3.0.op.bias",
        UNET "input_blocks.4.0.skip_connection.weight",
        UNET "input_blocks.5.1.proj_in.weight",
        UNET "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
        UNET "middle_block.2.emb_layers.1.bias",
        UNET "output_blocks.2.1.conv.weight",
        UNET "output_blocks.5.2.conv.bias",
        UNET "output_blocks.8.1.transformer_blocks.0.ff.net.0.proj.weight",
        UNET "out.2.weight",
        UNET "time_embed.2.bias",
        "first_stage_model.post_quant_conv.bias",
        "first_stage_model.decoder.conv_in.weight",
        "first_stage_model.decoder.mid.attn_1.proj_out.weight",
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.bias",
        "first_stage_model.decoder.up.2.block.0.conv1.weight",
        "first_stage_model.decoder.up.3.upsample.conv.weight",
        "first_stage_model.decoder.norm_out.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.bias",
        "cond_stage_model.transformer.text_model.final_layer_norm.bias"};
    rig r;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        json_t *header = single_file_header(path), *damaged = json_deep_copy(header);
        rename_key(damaged, names[i], "elsewhere");
        single_file_put(path, damaged);
        refused(&r, path, NULL, ATTUNE_INVALID_ARGUMENT, names[i]);
        single_file_put(path, header);
        json_decref(damaged);
        json_decref(header);
    }
    rig_close(&r);
}
END_TEST

/* A tensor's shape as JSON, of as many values as it has. */
static const struct {
    const char *name, *shape, *words;
} shapes[] = {
    {UNET "input_blocks.5.0.in_layers.2.weight", "[36, 3, 3, 36]",
     "36x3x3x36, but the configuration makes it 36x36x3x3"},
    {UNET "input_blocks.1.0.in_layers.2.weight", "[400, 9]", "has 2 dimensions, 4 are expected"},
    {UNET "input_blocks.4.0.in_layers.2.weight", "[20, 36, 3, 3]",
     "out_layers.0.weight' have 20 and 36 channels"},
    {UNET "output_blocks.8.0.out_layers.0.weight", "[4, 5]", "4x5, but the configuration makes it 20"},
    {"first_stage_model.decoder.mid.attn_1.q.weight", "[784, 1, 1, 1]", "makes it 28x28"},
    {"first_stage_model.decoder.up.1.block.0.conv1.weight", "[28, 20, 3, 3]",
     "norm2.weight' have 28 and 20 channels"},
    {"cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight", "[24, 60]", "makes it 60x24"},
};

START_TEST(shapes_that_contradict_name_a_tensor) {
    rig r;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i) {
        json_t *header = single_file_header(path), *damaged = json_deep_copy(header);
        json_t *entry = json_object_get(damaged, shapes[i].name);
        ck_assert_msg(entry != NULL, "there is no %s", shapes[i].name);
        json_object_set_new(entry, "shape", json_loads(shapes[i].shape, 0, NULL));
        single_file_put(path, damaged);
        refused(&r, path, NULL, ATTUNE_INVALID_ARGUMENT, shapes[i].name);
        refused(&r, path, NULL, ATTUNE_INVALID_ARGUMENT, shapes[i].words);
        single_file_put(path, header);
        json_decref(damaged);
        json_decref(header);
    }
    rig_close(&r);
}
END_TEST

START_TEST(tensors_without_a_place_are_named) {
    static const char *const names[] = {
        UNET "label_emb.0.0.weight", UNET "output_blocks.9.0.in_layers.0.bias",
        UNET "input_blocks.8.1.norm.weight", "first_stage_model.decoder.up.0.attn.0.q.bias",
        "cond_stage_model.transformer.text_model.encoder.extra.bias"};
    static const char *const harmless[] = {"model_ema.decay", "model_ema.num_updates", "betas",
                                           "cond_stage_model.transformer.text_model.embeddings.position_ids"};
    rig r;
    attune_error error;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    json_t *header = single_file_header(path);
    json_t *none = json_pack("{s:s, s:[i], s:[i, i]}", "dtype", "F32", "shape", 0, "data_offsets", 0, 0);
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; ++i)
        json_object_set(header, harmless[i], none);
    single_file_put(path, header);
    ck_assert_msg(try_open(&r, path, NULL, NULL, &error) == ATTUNE_OK, "%s", error.message);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        json_object_set(header, names[i], none);
        single_file_put(path, header);
        refused(&r, path, NULL, ATTUNE_INVALID_ARGUMENT, names[i]);
        json_object_del(header, names[i]);
    }
    json_decref(none);
    json_decref(header);
    rig_close(&r);
}
END_TEST

/* Half-precision values that are no numbers, in a table, a norm, a bias; the VAE's are float32. */
START_TEST(damaged_values_are_named_as_in_the_file) {
    static const char *const names[] = {
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        UNET "input_blocks.4.0.in_layers.0.weight", UNET "output_blocks.3.0.emb_layers.1.bias",
        "first_stage_model.decoder.up.2.block.1.norm1.bias"};
    rig r;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        char word[256];
        single_file_poison(path, names[i]);
        (void)snprintf(word, sizeof word, "%s", names[i]);
        if (strstr(word, "emb_layers")) /* of a layer the name without its end */
            *strrchr(word, '.') = 0;
        refused(&r, path, NULL, ATTUNE_DATA_LOSS, word);
        whole("tiny");
    }
    rig_close(&r);
}
END_TEST

/* ---- configurations ---- */

static const struct {
    const char *text;
    attune_code code;
    const char *words;
} configs[] = {
    {"", ATTUNE_DATA_LOSS, "given.json, line 1"},
    {"{\"unet\": {", ATTUNE_DATA_LOSS, "given.json, line 1"},
    {"{\"unet\": {}, \"unet\": {}}", ATTUNE_DATA_LOSS, "duplicate"},
    {"[]", ATTUNE_DATA_LOSS, "not a JSON object"},
    {"{\"attention_head_dim\": 8}", ATTUNE_INVALID_ARGUMENT, "'attention_head_dim' is no part of a model"},
    {"{\"unet\": 8}", ATTUNE_INVALID_ARGUMENT, "'unet' is not an object"},
    {"{\"unet\": {\"norm_num_group\": 4}}", ATTUNE_INVALID_ARGUMENT, "'norm_num_group' is no key"},
    {"{\"unet\": {\"norm_num_groups\": \"4\"}}", ATTUNE_INVALID_ARGUMENT, "'norm_num_groups' is \"4\""},
    {"{\"unet\": {\"norm_num_groups\": 0}}", ATTUNE_INVALID_ARGUMENT, "'norm_num_groups' is 0"},
    {"{\"unet\": {\"norm_num_groups\": 4, \"attention_head_dim\": [2, 3]}}", ATTUNE_INVALID_ARGUMENT,
     "attention_head_dim"},
    {"{\"scheduler\": {\"prediction_type\": \"v_prediction\"}}", ATTUNE_UNIMPLEMENTED, "v_prediction"},
    {"{\"text_encoder\": {\"num_attention_heads\": 5}}", ATTUNE_INVALID_ARGUMENT, "divisor of hidden_size"},
    {"{\"vae\": {\"scaling_factor\": -1, \"norm_num_groups\": 4}, \"unet\": {\"norm_num_groups\": 4, "
     "\"attention_head_dim\": 4}}",
     ATTUNE_INVALID_ARGUMENT, "given.json, vae: 'scaling_factor'"},
    /* Against the shapes. */
    {"{\"unet\": {\"block_out_channels\": [20, 36, 56], \"norm_num_groups\": 4, \"attention_head_dim\": 4}, "
     "\"vae\": {\"norm_num_groups\": 4}}",
     ATTUNE_INVALID_ARGUMENT, "tensor 'model.diffusion_model.input_blocks.7.0."},
    {"{\"unet\": {\"layers_per_block\": 1, \"norm_num_groups\": 4, \"attention_head_dim\": 4}, "
     "\"vae\": {\"norm_num_groups\": 4}}",
     ATTUNE_INVALID_ARGUMENT, "model.diffusion_model.input_blocks."},
    {"{\"text_encoder\": {\"num_hidden_layers\": 1}, \"unet\": {\"norm_num_groups\": 4, "
     "\"attention_head_dim\": 4}, \"vae\": {\"norm_num_groups\": 4}}",
     ATTUNE_INVALID_ARGUMENT, "encoder.layers.1."},
};

START_TEST(configurations_are_checked) {
    rig r;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; ++i) {
        single_file_text(in_folder("given.json"), configs[i].text);
        refused(&r, path, in_folder("given.json"), configs[i].code, configs[i].words);
    }
    refused(&r, path, in_folder("nowhere.json"), ATTUNE_NOT_FOUND, "nowhere.json");
    refused(&r, path, run_folder(), ATTUNE_INVALID_ARGUMENT, "is not a regular file");
    refused(&r, rig_model_path("tiny"), in_folder("x.json"), ATTUNE_INVALID_ARGUMENT,
            "is a diffusers folder");
    rig_close(&r);
}
END_TEST

START_TEST(nothing_is_assumed_in_silence) {
    rig r;
    attune_error error;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    ck_assert_int_eq(unlink(in_folder("x.json")), 0);
    refused(&r, path, NULL, ATTUNE_INVALID_ARGUMENT, "multiples of norm_num_groups");
    refused(&r, path, NULL, ATTUNE_INVALID_ARGUMENT, "--model-config FILE");
    /* 24 channels divide by 12 heads: nothing is wrong, but nobody said it. */
    single_file_text(in_folder("x.json"),
                     "{\"unet\": {\"num_attention_heads\": 4, \"norm_num_groups\": 4}, \"vae\": "
                     "{\"norm_num_groups\": 4}}");
    ck_assert_msg(try_open(&r, path, NULL, NULL, &error) == ATTUNE_OK, "%s", error.message);
    ck_assert_msg(strstr(r.logged, "text_encoder.num_attention_heads 12") != NULL, "%s", r.logged);
    ck_assert_msg(strstr(r.logged, "vae.scaling_factor 0.18215") != NULL, "%s", r.logged);
    ck_assert_msg(strstr(r.logged, "attention_head_dim") == NULL, "%s", r.logged);
    rig_close(&r);
}
END_TEST

/* The web UI's own NAME.json, which is no configuration. */
START_TEST(the_web_uis_notes_are_let_be) {
    rig r;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    char text[600];
    (void)snprintf(text, sizeof text,
                   "{\"description\": \"mine\", \"sd version\": \"SD1\", \"vae\": \"Automatic\"}");
    single_file_text(in_folder("x.json"), text);
    refused(&r, path, NULL, ATTUNE_INVALID_ARGUMENT, "x.json, unet: 'block_out_channels'");
    refused(&r, path, in_folder("x.json"), ATTUNE_INVALID_ARGUMENT, "is no part of a model");
    rig_close(&r);
}
END_TEST

/* alphas_cumprod as the file has it: the model's own schedule, one value of which may be another. */
static void put_schedule(const char *path, const sigma_model *sigmas, uint32_t count, uint32_t at,
                         float value) {
    json_t *header = single_file_header(path);
    size_t size;
    free(run_read(path, &size));
    char *text = json_dumps(header, JSON_COMPACT);
    json_int_t begin = (json_int_t)(size - 8 - strlen(text));
    free(text);
    json_object_set_new(header, "alphas_cumprod",
                        json_pack("{s:s, s:[I], s:[I, I]}", "dtype", "F32", "shape", (json_int_t)count,
                                  "data_offsets", begin, begin + 4 * (json_int_t)count));
    single_file_put(path, header);
    json_decref(header);
    FILE *file = fopen(path, "ab");
    for (uint32_t i = 0; i < count; ++i) {
        float alpha = (float)(1.0 / (1.0 + sigmas->sigmas[i] * sigmas->sigmas[i]));
        if (i == at)
            alpha = value;
        ck_assert_uint_eq(fwrite(&alpha, sizeof alpha, 1, file), 1);
    }
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(the_files_schedule_must_be_the_configurations) {
    rig r;
    attune_error error;
    rig_open(&r, 1);
    model *m = rig_model(&r, "tiny");
    put_schedule(whole("tiny"), &m->sigmas, 1000, 1000, 0);
    ck_assert_msg(try_open(&r, in_folder("x.safetensors"), NULL, NULL, &error) == ATTUNE_OK, "%s",
                  error.message);
    static const char other[] =
        "{\"scheduler\": {\"beta_schedule\": \"linear\"}, \"unet\": {\"norm_num_groups\": 4, "
        "\"attention_head_dim\": 4}, \"vae\": {\"norm_num_groups\": 4}}";
    single_file_text(in_folder("given.json"), other);
    refused(&r, in_folder("x.safetensors"), in_folder("given.json"), ATTUNE_UNIMPLEMENTED,
            "'alphas_cumprod' is");
    put_schedule(whole("tiny"), &m->sigmas, 1000, 999, 0.0f); /* zero terminal SNR */
    refused(&r, in_folder("x.safetensors"), NULL, ATTUNE_UNIMPLEMENTED, "is 0 at timestep 999");
    put_schedule(whole("tiny"), &m->sigmas, 1000, 3, nanf(""));
    refused(&r, in_folder("x.safetensors"), NULL, ATTUNE_UNIMPLEMENTED, "at timestep 3");
    put_schedule(whole("tiny"), &m->sigmas, 900, 900, 0);
    refused(&r, in_folder("x.safetensors"), NULL, ATTUNE_INVALID_ARGUMENT, "has 900 timesteps");
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* ---- other files ---- */

static const struct {
    const char *names[4];
    const char *shape; /* of the first */
    attune_code code;
    const char *words;
} kinds[] = {
    {{"cond_stage_model.model.ln_final.bias", UNET "out.2.bias", "first_stage_model.x", NULL},
     NULL,
     ATTUNE_UNIMPLEMENTED,
     "looks like Stable Diffusion 2.x"},
    {{"conditioner.embedders.0.transformer.x", UNET "out.2.bias", NULL},
     NULL,
     ATTUNE_UNIMPLEMENTED,
     "looks like Stable Diffusion XL"},
    {{"double_blocks.0.img_attn.proj.bias", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "looks like Flux"},
    {{UNET "double_blocks.0.img_attn.proj.bias", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "looks like Flux"},
    {{UNET "joint_blocks.0.x_block.attn.proj.bias", NULL},
     NULL,
     ATTUNE_UNIMPLEMENTED,
     "looks like Stable Diffusion 3"},
    {{UNET "input_blocks.0.0.weight", "first_stage_model.x", "cond_stage_model.transformer.x", NULL},
     "[8, 9, 3, 3]",
     ATTUNE_UNIMPLEMENTED,
     "inpainting model"},
    {{UNET "input_blocks.0.0.weight", "first_stage_model.x", "cond_stage_model.transformer.x", NULL},
     "[8, 8, 3, 3]",
     ATTUNE_UNIMPLEMENTED,
     "InstructPix2Pix"},
    {{"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", NULL},
     NULL,
     ATTUNE_UNIMPLEMENTED,
     "a LoRA"},
    {{"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "a LoRA"},
    {{"control_model.input_blocks.0.0.weight", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "a ControlNet"},
    {{"v_pred", UNET "out.2.bias", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "v prediction"},
    {{"emb_params", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "textual inversion"},
    {{"down_blocks.0.resnets.0.conv1.bias", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "the UNet alone"},
    {{"decoder.up_blocks.0.resnets.0.conv1.bias", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "the VAE alone"},
    {{"decoder.up.0.block.0.conv1.bias", "encoder.conv_in.bias", NULL},
     NULL,
     ATTUNE_UNIMPLEMENTED,
     "a VAE alone"},
    {{"text_model.final_layer_norm.bias", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "the text encoder alone"},
    {{"input_blocks.0.0.weight", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "a UNet alone"},
    {{UNET "out.2.bias", NULL},
     NULL,
     ATTUNE_INVALID_ARGUMENT,
     ", without the VAE (first_stage_model.*), without the text encoder"},
    {{UNET "out.2.bias", "first_stage_model.x", NULL},
     NULL,
     ATTUNE_INVALID_ARGUMENT,
     "without the text encoder (cond_stage_model.transformer.*)"},
    {{"something", NULL}, NULL, ATTUNE_UNIMPLEMENTED, "no checkpoint of Stable Diffusion"},
    {{UNET "x", "first_stage_model.x", "cond_stage_model.transformer.x", NULL},
     NULL,
     ATTUNE_INVALID_ARGUMENT,
     "tensor is missing: "},
};

START_TEST(another_kind_of_model_is_named) {
    rig r;
    rig_open(&r, 1);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i) {
        single_file_names(in_folder("y.safetensors"), kinds[i].names, kinds[i].shape);
        refused(&r, in_folder("y.safetensors"), NULL, kinds[i].code, kinds[i].words);
    }
    rig_close(&r);
}
END_TEST

START_TEST(pickles_are_refused_with_the_way_out) {
    rig r;
    rig_open(&r, 1);
    single_file_text(in_folder("m.ckpt"), "PK\3\4 and so on, as torch.save writes");
    refused(&r, in_folder("m.ckpt"), NULL, ATTUNE_UNIMPLEMENTED, "safetensors.torch");
    single_file_text(in_folder("m.pt"), "\x80\2}q\1(X\5");
    refused(&r, in_folder("m.pt"), NULL, ATTUNE_UNIMPLEMENTED, "a pickle, which can run code");
    single_file_text(in_folder("m.safetensors"), "\x80\2}q\1(X\5"); /* whatever it is called */
    refused(&r, in_folder("m.safetensors"), NULL, ATTUNE_UNIMPLEMENTED, "weights_only=True");
    single_file_text(in_folder("m.gguf"), "GGUF\3\1\1\1");
    refused(&r, in_folder("m.gguf"), NULL, ATTUNE_UNIMPLEMENTED, "GGUF");
    single_file_text(in_folder("m.safetensors"), "");
    refused(&r, in_folder("m.safetensors"), NULL, ATTUNE_DATA_LOSS, "too few");
    refused(&r, "/dev/null", NULL, ATTUNE_NOT_FOUND, "/dev/null");
    rig_close(&r);
}
END_TEST

/* ---- the call ---- */

START_TEST(the_host_brings_the_vocabulary) {
    rig r;
    attune_error error;
    void *made = NULL;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    ck_assert_int_eq(r.sampler->model_open(r.instance, path, NULL, &r.stream, NULL, &made, &error),
                     ATTUNE_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(error.message, "brings no vocabulary"));
    /* A host of the interface's first revision knows no `config`. */
    attune_model_options options = {.struct_size = offsetof(attune_model_options, config),
                                    .vocabulary = vocabulary("tiny"),
                                    .config = "/nonexistent"};
    ck_assert_int_eq(r.sampler->model_open(r.instance, path, &options, &r.stream, NULL, &made, &error),
                     ATTUNE_OK);
    r.sampler->model_close(made);
    options.struct_size = 8;
    ck_assert_int_eq(r.sampler->model_open(r.instance, path, &options, &r.stream, NULL, &made, &error),
                     ATTUNE_INVALID_ARGUMENT);
    options = (attune_model_options){.struct_size = sizeof options, .vocabulary = vocabulary("emoji")};
    ck_assert_int_eq(r.sampler->model_open(r.instance, path, &options, &r.stream, NULL, &made, &error),
                     ATTUNE_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(error.message, "49408 tokens"));
    rig_close(&r);
}
END_TEST

START_TEST(allocation_failures_are_survived) {
    rig r;
    attune_error error;
    rig_open(&r, 1);
    const char *path = whole("tiny");
    uint64_t before = atomic_load(&r.allocs);
    ck_assert_int_eq(try_open(&r, path, NULL, NULL, &error), ATTUNE_OK);
    uint64_t needed = atomic_load(&r.allocs) - before;
    ck_assert_uint_gt(needed, 10);
    /* The first ones are the file, the vocabulary and the pool; then it is layer after layer. */
    for (uint64_t n = 1; n <= needed; n += n < 60 ? 1 : needed / 40 + 1) {
        int64_t live = atomic_load(&r.live);
        r.fail_at = atomic_load(&r.allocs) + n;
        ck_assert_int_eq(try_open(&r, path, NULL, NULL, &error), ATTUNE_RESOURCE_EXHAUSTED);
        ck_assert_int_eq(atomic_load(&r.live), live);
    }
    rig_close(&r);
}
END_TEST

static int cancel(void *context) {
    (void)context;
    return 1;
}

START_TEST(opening_can_be_cancelled) {
    rig r;
    attune_error error;
    void *made = NULL;
    attune_control control = {.struct_size = sizeof control, .cancelled = cancel};
    attune_model_options options = {.struct_size = sizeof options, .vocabulary = vocabulary("tiny")};
    rig_open(&r, 1);
    const char *path = whole("tiny");
    ck_assert_int_eq(r.sampler->model_open(r.instance, path, &options, &r.stream, &control, &made, &error),
                     ATTUNE_CANCELLED);
    rig_close(&r);
}
END_TEST

TCase *checkpoint_cases(void) {
    TCase *cases = tcase_create("checkpoint");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, pictures_equal_the_folders);
    tcase_add_test(cases, a_file_is_described);
    tcase_add_test(cases, the_text_encoder_may_lack_a_part_of_its_name);
    tcase_add_test(cases, missing_tensors_are_named);
    tcase_add_test(cases, shapes_that_contradict_name_a_tensor);
    tcase_add_test(cases, tensors_without_a_place_are_named);
    tcase_add_test(cases, damaged_values_are_named_as_in_the_file);
    tcase_add_test(cases, configurations_are_checked);
    tcase_add_test(cases, nothing_is_assumed_in_silence);
    tcase_add_test(cases, the_web_uis_notes_are_let_be);
    tcase_add_test(cases, the_files_schedule_must_be_the_configurations);
    tcase_add_test(cases, another_kind_of_model_is_named);
    tcase_add_test(cases, pickles_are_refused_with_the_way_out);
    tcase_add_test(cases, the_host_brings_the_vocabulary);
    tcase_add_test(cases, allocation_failures_are_survived);
    tcase_add_test(cases, opening_can_be_cancelled);
    return cases;
}
