/* check_config.c: what config.json files are read, and that others are refused by file, key and value. */
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"
#include "tests/support/run.h"

#include <check.h>
#include <jansson.h>

START_TEST(reads_both_models) {
    model_config emoji, tiny;
    attune_error error = {0};
    ck_assert_msg(config_read(rig_model_path("emoji"), &emoji, &error) == ATTUNE_OK, "%s", error.message);
    ck_assert_msg(config_read(rig_model_path("tiny"), &tiny, &error) == ATTUNE_OK, "%s", error.message);
    ck_assert_int_eq(emoji.unet.levels, 3);
    ck_assert_int_eq(emoji.unet.block_out_channels[2], 112);
    ck_assert_int_eq(emoji.unet.heads[0], 4);
    ck_assert_int_eq(emoji.unet.down_attention[2], 0);
    ck_assert_int_eq(emoji.unet.up_attention[2], 1);
    ck_assert_int_eq(emoji.unet.sample_width, 16);
    ck_assert_int_eq(emoji.text.hidden_act, DEVICE_QUICK_GELU);
    ck_assert_double_eq(emoji.vae.scaling_factor, 0.18215);
    ck_assert_int_eq(tiny.unet.heads[1], 3);
    ck_assert_int_eq(tiny.text.hidden_act, DEVICE_GELU);
    ck_assert_int_eq(tiny.vae.levels, 4);
    ck_assert_uint_eq(tiny.sigmas.num_train_timesteps, 1000);
}
END_TEST

/* One key of one file set to a JSON value, or removed (NULL); the file as it was is kept in `before`. */
static json_t *set_key(const char *folder, const char *file, const char *key, const char *value) {
    char path[4500];
    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    json_t *before = json_load_file(path, 0, NULL), *after = json_deep_copy(before);
    ck_assert_ptr_nonnull(before);
    if (value)
        ck_assert_int_eq(json_object_set_new(after, key, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
    else
        json_object_del(after, key);
    ck_assert_int_eq(json_dump_file(after, path, 0), 0);
    json_decref(after);
    return before;
}

static void put_back(const char *folder, const char *file, json_t *before) {
    char path[4500];
    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    ck_assert_int_eq(json_dump_file(before, path, 0), 0);
    json_decref(before);
}

static const struct {
    const char *file, *key, *value;
    attune_code code;
    const char *part; /* of message or hint */
} changes[] = {
    {"model_index.json", "_class_name", "\"StableDiffusionXLPipeline\"", ATTUNE_UNIMPLEMENTED,
     "Stable Diffusion XL"},
    {"model_index.json", "_class_name", NULL, ATTUNE_UNIMPLEMENTED, "nothing"},
    {"scheduler/scheduler_config.json", "prediction_type", "\"v_prediction\"", ATTUNE_UNIMPLEMENTED,
     "2.x 768"},
    {"scheduler/scheduler_config.json", "beta_schedule", "\"squaredcos_cap_v2\"", ATTUNE_UNIMPLEMENTED,
     "scaled_linear"},
    {"scheduler/scheduler_config.json", "rescale_betas_zero_snr", "true", ATTUNE_UNIMPLEMENTED, "zero_snr"},
    {"scheduler/scheduler_config.json", "trained_betas", "[0.1]", ATTUNE_UNIMPLEMENTED, "trained_betas"},
    {"scheduler/scheduler_config.json", "num_train_timesteps", "1", ATTUNE_INVALID_ARGUMENT,
     "from 2 to 65536"},
    {"text_encoder/config.json", "hidden_act", "\"relu\"", ATTUNE_UNIMPLEMENTED, "quick_gelu"},
    {"text_encoder/config.json", "num_attention_heads", "5", ATTUNE_INVALID_ARGUMENT, "divisor"},
    {"text_encoder/config.json", "hidden_size", "\"64\"", ATTUNE_INVALID_ARGUMENT, "'hidden_size' is \"64\""},
    {"text_encoder/config.json", "hidden_size", NULL, ATTUNE_INVALID_ARGUMENT, "'hidden_size' is nothing"},
    {"text_encoder/config.json", "max_position_embeddings", "16", ATTUNE_INVALID_ARGUMENT, "77"},
    {"unet/config.json", "addition_embed_type", "\"text_time\"", ATTUNE_UNIMPLEMENTED, "Stable Diffusion XL"},
    {"unet/config.json", "class_embed_type", "\"timestep\"", ATTUNE_UNIMPLEMENTED, "class_embed_type"},
    {"unet/config.json", "act_fn", "\"gelu\"", ATTUNE_UNIMPLEMENTED, "silu"},
    {"unet/config.json", "time_cond_proj_dim", "256", ATTUNE_UNIMPLEMENTED, "latent consistency"},
    {"unet/config.json", "down_block_types", "[\"DownBlock2D\",\"KDownBlock2D\",\"DownBlock2D\"]",
     ATTUNE_UNIMPLEMENTED, "CrossAttnDownBlock2D and DownBlock2D"},
    {"unet/config.json", "up_block_types", "[\"UpBlock2D\"]", ATTUNE_INVALID_ARGUMENT,
     "one block type per level"},
    {"unet/config.json", "block_out_channels", "[48,96,113]", ATTUNE_INVALID_ARGUMENT,
     "multiples of norm_num_groups"},
    {"unet/config.json", "block_out_channels", "[]", ATTUNE_INVALID_ARGUMENT, "1 to 8"},
    {"unet/config.json", "block_out_channels", "[48,96,1e9]", ATTUNE_INVALID_ARGUMENT, "block_out_channels"},
    {"unet/config.json", "attention_head_dim", "5", ATTUNE_INVALID_ARGUMENT, "divisor"},
    {"unet/config.json", "attention_head_dim", "[4,4]", ATTUNE_INVALID_ARGUMENT, "one per level"},
    {"unet/config.json", "num_attention_heads", "7", ATTUNE_INVALID_ARGUMENT, "num_attention_heads"},
    {"unet/config.json", "in_channels", "9", ATTUNE_UNIMPLEMENTED, "inpainting"},
    {"unet/config.json", "cross_attention_dim", "48", ATTUNE_INVALID_ARGUMENT, "hidden_size 64"},
    {"unet/config.json", "layers_per_block", "0", ATTUNE_INVALID_ARGUMENT, "layers_per_block"},
    {"unet/config.json", "norm_eps", "0", ATTUNE_INVALID_ARGUMENT, "norm_eps"},
    {"text_encoder/config.json", "layer_norm_eps", "0.0", ATTUNE_INVALID_ARGUMENT, "layer_norm_eps"},
    {"unet/config.json", "norm_eps", "-1", ATTUNE_INVALID_ARGUMENT, "norm_eps"},
    {"vae/config.json", "shift_factor", "0.1", ATTUNE_UNIMPLEMENTED, "Flux"},
    {"vae/config.json", "scaling_factor", "0", ATTUNE_INVALID_ARGUMENT, "positive"},
    {"vae/config.json", "latent_channels", "16", ATTUNE_INVALID_ARGUMENT, "latent_channels 16"},
    {"vae/config.json", "mid_block_add_attention", "false", ATTUNE_UNIMPLEMENTED, "mid_block_add_attention"},
};

START_TEST(other_models_are_refused) {
    const char *folder = rig_copy_model("emoji");
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; ++i) {
        model_config config;
        attune_error error = {0};
        json_t *before = set_key(folder, changes[i].file, changes[i].key, changes[i].value);
        attune_code code = config_read(folder, &config, &error);
        ck_assert_msg(code == changes[i].code, "%s = %s: %d %s", changes[i].key, changes[i].value, code,
                      error.message);
        ck_assert_msg(strstr(error.message, changes[i].part) || strstr(error.hint, changes[i].part),
                      "%s = %s: %s (%s)", changes[i].key, changes[i].value, error.message, error.hint);
        ck_assert_msg(strstr(error.message, changes[i].key) || strstr(error.message, "cross_attention_dim"),
                      "%s", error.message);
        put_back(folder, changes[i].file, before);
    }
}
END_TEST

/* Keys that old folders lack have diffusers' defaults; keys that do not matter may have any value. */
START_TEST(missing_keys_have_defaults) {
    static const char *const optional[][3] = {
        {"unet/config.json", "norm_eps", NULL},
        {"unet/config.json", "act_fn", NULL},
        {"unet/config.json", "flip_sin_to_cos", NULL},
        {"unet/config.json", "use_linear_projection", "true"},
        {"unet/config.json", "upcast_attention", "true"},
        {"unet/config.json", "sample_size", "[12, 20]"},
        {"unet/config.json", "num_attention_heads", "2"},
        {"unet/config.json", "resnet_out_scale_factor", "1"},
        {"vae/config.json", "scaling_factor", NULL},
        {"vae/config.json", "force_upcast", "false"},
        {"text_encoder/config.json", "hidden_act", NULL},
        {"text_encoder/config.json", "layer_norm_eps", NULL},
        {"scheduler/scheduler_config.json", "prediction_type", NULL},
        {"scheduler/scheduler_config.json", "beta_schedule", "\"linear\""}};
    const char *folder = rig_copy_model("emoji");
    model_config config;
    attune_error error = {0};
    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; ++i) {
        json_decref(set_key(folder, optional[i][0], optional[i][1], optional[i][2]));
        ck_assert_msg(config_read(folder, &config, &error) == ATTUNE_OK, "%s: %s", optional[i][1],
                      error.message);
    }
    ck_assert_int_eq(config.unet.sample_height, 12);
    ck_assert_int_eq(config.unet.sample_width, 20);
    ck_assert_int_eq(config.unet.heads[2], 2);
    ck_assert_int_eq(config.sigmas.beta_schedule, SIGMA_BETAS_LINEAR);
}
END_TEST

START_TEST(bad_files_are_located) {
    model_config config;
    attune_error error = {0};
    const char *folder = rig_copy_model("emoji");
    run_result edit = run("printf '{\\n  \"a\": tru\\n}' > '%s/vae/config.json'", folder);
    run_free(&edit);
    ck_assert_int_eq(config_read(folder, &config, &error), ATTUNE_DATA_LOSS);
    ck_assert_msg(strstr(error.message, "vae/config.json, line 2, column"), "%s", error.message);
    edit = run("rm '%s/unet/config.json'", folder);
    run_free(&edit);
    ck_assert_int_eq(config_read(folder, &config, &error), ATTUNE_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(error.message, "unet/config.json"));
    ck_assert_int_eq(config_read("/nonexistent", &config, &error), ATTUNE_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(error.hint, "diffusers folder"));
}
END_TEST

TCase *config_cases(void) {
    TCase *cases = tcase_create("config");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, reads_both_models);
    tcase_add_test(cases, other_models_are_refused);
    tcase_add_test(cases, missing_keys_have_defaults);
    tcase_add_test(cases, bad_files_are_located);
    return cases;
}
