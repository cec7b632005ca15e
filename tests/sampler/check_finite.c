/*
 * check_finite.c: values that stop being finite numbers: the error names the network, the layer as the file
 * does, and for attention the backend and its plugin. Finite weights near float32's largest make layers
 * overflow; those that are not finite are refused before (check_safetensors.c, check_checkpoint.c).
 */
#include "attune/host.h"
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"
#include "tests/support/fixture_plugins.h"
#include "tests/support/run.h"
#include "tests/support/single_file.h"

#include <check.h>

#define TEXT "text_encoder/model.safetensors"
#define UNET "unet/diffusion_pytorch_model.safetensors"
#define VAE  "vae/diffusion_pytorch_model.safetensors"

static const float huge = 3.39e38f;

static attune_request request_of(const char *prompt) {
    attune_request request = {.struct_size = sizeof request,
                              .prompt = prompt,
                              .negative_prompt = "blue",
                              .seed = 5,
                              .memory_limit = UINT64_MAX,
                              .steps = 2,
                              .width = 64,
                              .height = 64,
                              .batch_size = 1,
                              .cfg_scale = 7.0f};
    return request;
}

static model *open_model(rig *r, const char *path) {
    attune_error error = {0};
    attune_model_options options = {.struct_size = sizeof options};
    char vocabulary[4500];
    void *made = NULL;
    (void)snprintf(vocabulary, sizeof vocabulary, "%s/tokenizer", rig_model_path("tiny"));
    options.vocabulary = vocabulary;
    attune_code code = r->sampler->model_open(r->instance, path, &options, &r->stream, NULL, &made, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    return made;
}

/* A session that goes on until a step fails or all is done. */
static attune_code draw(rig *r, model *m, const attune_request *request, const attune_control *control,
                        attune_error *error) {
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_progress progress = {.struct_size = sizeof progress};
    void *made = NULL;
    memset(error, 0, sizeof *error);
    attune_code code =
        r->sampler->session_begin(m, request, &r->binder, &r->stream, NULL, &made, &plan, error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error->message);
    while (code == ATTUNE_OK && !progress.done)
        code = r->sampler->session_step(made, control, &progress, error);
    if (code != ATTUNE_OK)
        ck_assert_int_eq(r->sampler->session_step(made, control, &progress, NULL),
                         ATTUNE_FAILED_PRECONDITION);
    r->sampler->session_close(made);
    return code;
}

static void check_named(const attune_error *error, const char *part, const char *layer) {
    char quoted[160];
    (void)snprintf(quoted, sizeof quoted, "'%s'", layer);
    ck_assert_msg(error->code == ATTUNE_OUT_OF_RANGE && strstr(error->message, part) == error->message &&
                      strstr(error->message, quoted) && strstr(error->message, "not finite"),
                  "not '%s' of %s: %s", layer, part, error->message);
    ck_assert_str_eq(error->where, layer);
    ck_assert_str_ne(error->hint, "");
}

/* The first value of `tensor` made huge: the tensor's layer is named, each time anew. */
static void check_layer(const char *path, const char *file, const char *tensor, const char *part) {
    rig r;
    attune_error error;
    char layer[256];
    rig_open(&r, 2);
    single_file_set(file, tensor, huge);
    model *m = open_model(&r, path);
    attune_request request = request_of("red apple");
    (void)snprintf(layer, sizeof layer, "%.*s", (int)(strrchr(tensor, '.') - tensor), tensor);
    for (int i = 0; i < 2; ++i) {
        (void)draw(&r, m, &request, NULL, &error);
        check_named(&error, part, layer);
        ck_assert_ptr_null(strstr(error.message, "rig-attention"));
    }
    r.sampler->model_close(m);
    rig_close(&r);
}

#define BLOCK "down_blocks.0.attentions.0.transformer_blocks.0"

static const struct {
    const char *file, *tensor, *part;
} layers[] = {
    {TEXT, "text_model.encoder.layers.0.layer_norm2.weight", "the text encoder: "},
    {TEXT, "text_model.encoder.layers.0.self_attn.k_proj.weight", "the text encoder: "},
    {TEXT, "text_model.encoder.layers.1.mlp.fc1.weight", "the text encoder: "},
    {TEXT, "text_model.final_layer_norm.weight", "the text encoder: "},
    {UNET, BLOCK ".attn2.to_v.weight", "the UNet, reading the prompt: "},
    {UNET, "conv_in.weight", "the UNet at sigma 14.6"},
    {UNET, "down_blocks.0.resnets.1.norm1.weight", "the UNet at sigma 14.6"},
    {UNET, "down_blocks.0.resnets.1.conv2.weight", "the UNet at sigma 14.6"},
    {UNET, "down_blocks.1.downsamplers.0.conv.weight", "the UNet at sigma 14.6"},
    {UNET, BLOCK ".attn1.to_v.weight", "the UNet at sigma 14.6"},
    {UNET, BLOCK ".norm2.weight", "the UNet at sigma 14.6"},
    {UNET, BLOCK ".ff.net.0.proj.weight", "the UNet at sigma 14.6"},
    {UNET, "up_blocks.0.upsamplers.0.conv.weight", "the UNet at sigma 14.6"},
    {UNET, "conv_out.weight", "the UNet at sigma 14.6"},
    {VAE, "post_quant_conv.weight", "the VAE: "},
    {VAE, "decoder.mid_block.attentions.0.group_norm.weight", "the VAE: "},
    {VAE, "decoder.mid_block.attentions.0.to_q.weight", "the VAE: "},
    {VAE, "decoder.up_blocks.3.resnets.0.conv_shortcut.weight", "the VAE: "},
    {VAE, "decoder.conv_out.weight", "the VAE: "},
};

START_TEST(the_layer_that_overflows_is_named) {
    const char *folder = rig_copy_model("tiny");
    char file[4500], kept[4500];
    (void)snprintf(kept, sizeof kept, "%s/kept", folder);
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; ++i) {
        (void)snprintf(file, sizeof file, "%s/%s", folder, layers[i].file);
        run_result copied = run("cp '%s' '%s'", file, kept);
        check_layer(folder, file, layers[i].tensor, layers[i].part);
        ck_assert_int_eq(rename(kept, file), 0);
        run_free(&copied);
    }
}
END_TEST

START_TEST(a_checkpoint_has_its_own_names) {
    static const char *const names[][2] = {
        {"cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.weight", "the text encoder: "},
        {"model.diffusion_model.input_blocks.1.0.in_layers.0.weight", "the UNet at sigma 14.6"},
        {"model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_k.weight",
         "the UNet at sigma 14.6"},
        {"first_stage_model.decoder.up.0.block.0.nin_shortcut.weight", "the VAE: "}};
    char path[4500], config[4500];
    (void)snprintf(path, sizeof path, "%s/x.safetensors", run_folder());
    (void)snprintf(config, sizeof config, "%s/x.json", run_folder());
    single_file_text(config, single_file_config("tiny"));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        single_file_write("tiny", path);
        check_layer(path, path, names[i][0], names[i][1]);
    }
}
END_TEST

/* ---- attention ---- */

/* Queries and keys that are finite, and products that are not. */
START_TEST(scores_that_overflow_name_the_backend) {
    rig r;
    attune_error error;
    char file[4500];
    const char *folder = rig_copy_model("tiny");
    rig_open(&r, 2);
    (void)snprintf(file, sizeof file, "%s/%s", folder, UNET);
    single_file_set(file, BLOCK ".attn1.to_q.weight", 1e25f);
    single_file_set(file, BLOCK ".attn1.to_k.weight", 1e25f);
    model *m = open_model(&r, folder);
    attune_request request = request_of("red apple");
    (void)draw(&r, m, &request, NULL, &error);
    check_named(&error, "the UNet at sigma 14.6", BLOCK ".attn1");
    ck_assert_ptr_nonnull(strstr(error.message, " by rig-attention (rig-plugin) "));
    ck_assert_ptr_nonnull(strstr(error.hint, "--attention"));
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* A call that fails once and not again is named all the same, in each network. */
START_TEST(one_bad_call_is_named) {
    rig r;
    attune_error error;
    rig_open(&r, 2);
    model *m = rig_model(&r, "tiny");
    attune_request request = request_of("red apple");
    request.batch_size = 2; /* each text has a call of its own */
    ck_assert_int_eq(draw(&r, m, &request, NULL, &error), ATTUNE_OK);
    uint64_t calls = atomic_load(&r.attends);
    const struct {
        uint64_t call;
        const char *name, *part;
    } bad[] = {{2, "text_model.encoder.layers.1.self_attn", "the text encoder: "},
               {3, BLOCK ".attn1", "the UNet at sigma 14.6"},
               {5, BLOCK ".attn2", "the UNet at sigma 14.6"},
               {calls - 2, "up_blocks.2.attentions.2.transformer_blocks.0.attn2", "the UNet at sigma 0.02"},
               {calls, "decoder.mid_block.attentions.0", "the VAE: "}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
        atomic_store(&r.attends, 0);
        r.nan_at = bad[i].call;
        (void)draw(&r, m, &request, NULL, &error);
        check_named(&error, bad[i].part, bad[i].name);
        ck_assert_ptr_nonnull(strstr(error.message, " by rig-attention (rig-plugin) "));
        ck_assert_uint_eq(atomic_load(&r.attends), bad[i].call); /* at once, without another walk */
    }
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* The same through libattune, which knows who served. */
START_TEST(the_host_names_backend_and_plugin) {
    attune_options options = {.struct_size = sizeof options, .threads = 2, .plugin_dir = "/nonexistent"};
    attune_wish wish = {.struct_size = sizeof wish, .attention = "nan", .required = 1};
    attune_request request = request_of("red apple");
    attune_error error = {0};
    attune *host = NULL;
    attune_model *m = NULL;
    attune_session *made = NULL;
    char manifest[4500];
    (void)snprintf(manifest, sizeof manifest, "%s/manifest.json", run_build());
    ck_assert_int_eq(attune_open(&options, &host, &error), ATTUNE_OK);
    ck_assert_msg(attune_load(host, manifest, &error) == ATTUNE_OK, "%s", error.message);
    ck_assert_msg(attune_load(host, fixture_plugins("nan", NULL), &error) == ATTUNE_OK, "%s", error.message);
    attune_code code = attune_model_open(host, rig_model_path("tiny"), NULL, NULL, &m, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    code = attune_session_open(m, &request, &wish, NULL, &made, NULL, NULL, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    while (code == ATTUNE_OK)
        code = attune_session_step(made, NULL, NULL, &error);
    check_named(&error, "the UNet at sigma 14.6", BLOCK ".attn2");
    ck_assert_msg(strstr(error.message, " by nan (fixture-nan) ") != NULL, "%s", error.message);
    attune_session_close(made);
    attune_model_close(m);
    attune_close(host);
}
END_TEST

/* ---- what else overflows ---- */

START_TEST(latents_and_prompts_that_overflow) {
    rig r;
    attune_error error;
    rig_open(&r, 2);
    model *m = rig_model(&r, "tiny");
    attune_request request = request_of("red apple");
    request.cfg_scale = 3e38f;
    ck_assert_int_eq(draw(&r, m, &request, NULL, &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_msg(strstr(error.message, "is given latents that are not finite numbers (CFG scale 3e+38)"),
                  "%s", error.message);
    ck_assert_ptr_nonnull(strstr(error.hint, "smaller CFG scale"));
    request.steps = 1; /* then the VAE is given them */
    ck_assert_int_eq(draw(&r, m, &request, NULL, &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_ptr_eq(strstr(error.message, "the VAE is given latents"), error.message);
    request = request_of("(red:300000000000000000000000000000000000000)");
    ck_assert_int_eq(draw(&r, m, &request, NULL, &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_ptr_nonnull(strstr(error.message, "the prompt's weights leave"));
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

static int32_t cancel_at(void *context) {
    int *left = context;
    return --*left < 0;
}

/* The second walk heeds the control as the first does, and takes no memory that the plan has not. */
START_TEST(the_second_walk_is_a_walk_like_any) {
    rig r;
    attune_error error;
    char file[4500];
    const char *folder = rig_copy_model("tiny");
    rig_open(&r, 2);
    (void)snprintf(file, sizeof file, "%s/%s", folder, UNET);
    single_file_set(file, "conv_out.weight", huge);
    model *m = open_model(&r, folder);
    attune_request request = request_of("red apple");
    int looks = 1 << 30, all, cancelled = 0;
    attune_control control = {.struct_size = sizeof control, .context = &looks, .cancelled = cancel_at};
    ck_assert_int_eq(draw(&r, m, &request, &control, &error), ATTUNE_OUT_OF_RANGE);
    all = (1 << 30) - looks;
    int64_t peak = atomic_load(&r.peak);
    for (int after = all * 2 / 3; after < all; after += all / 20) {
        looks = after;
        ck_assert_int_eq(draw(&r, m, &request, &control, &error), ATTUNE_CANCELLED);
        ck_assert_int_eq(looks, -1);
        ++cancelled;
    }
    ck_assert_int_gt(cancelled, 3);
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_progress progress = {.struct_size = sizeof progress};
    void *made = NULL;
    int64_t before = atomic_load(&r.bytes);
    atomic_store(&r.peak, before);
    ck_assert_int_eq(r.sampler->session_begin(m, &request, &r.binder, &r.stream, NULL, &made, &plan, &error),
                     ATTUNE_OK);
    while (r.sampler->session_step(made, NULL, &progress, &error) == ATTUNE_OK)
        ;
    ck_assert_int_le(atomic_load(&r.peak) - before,
                     (int64_t)(plan.weights + plan.activations + plan.workspace) + 65536);
    ck_assert_int_le(atomic_load(&r.peak), peak);
    r.sampler->session_close(made);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

TCase *finite_cases(void) {
    TCase *cases = tcase_create("finite");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, the_layer_that_overflows_is_named);
    tcase_add_test(cases, a_checkpoint_has_its_own_names);
    tcase_add_test(cases, scores_that_overflow_name_the_backend);
    tcase_add_test(cases, one_bad_call_is_named);
    tcase_add_test(cases, the_host_names_backend_and_plugin);
    tcase_add_test(cases, latents_and_prompts_that_overflow);
    tcase_add_test(cases, the_second_walk_is_a_walk_like_any);
    return cases;
}
