/*
 * check_models.c: text encoder, UNet and VAE against diffusers and transformers (tests/golden), on the emoji
 * model and on a tiny random one with odd channels, head sizes and storage types.
 *
 * Tolerances: both sides compute in float32 with sums in their own order. precision.json has the distance of
 * torch's float32 from double for each array; ours may be about as far on the other side, so each bound is
 * four times that distance, and not less than 1e-5 (the activations' exp and erf are within 3e-7 of the
 * value, a few hundred of them in a row).
 */
#include "tests/sampler/goldens.h"
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"

#include "plugin/sampler/pixels.h"

#include <stdlib.h>

static void close_to(const float *got, const npy_array *wanted, double bound, const char *what) {
    double distance = rig_distance(got, wanted->tensor.data, golden_count(wanted));
    ck_assert_msg(distance <= bound, "%s: off by %g, %g allowed", what, distance, bound);
}

/* hidden_states[-skip] after the final layer norm. */
static void check_text(const char *name, int64_t skip, double bound) {
    rig r;
    pass p;
    attune_error error = {0};
    float *out;
    rig_open(&r, 2);
    model *m = rig_model(&r, name);
    npy_array ids = golden_read((attune_dtype){ATTUNE_TYPE_INT, 32, 1}, 2, "%s_text_ids", name);
    npy_array hidden = golden_read(ATTUNE_F32, 3, "%s_text_hidden%s", name, skip == 2 ? "_skip_2" : "");
    text_input input = {ids.tensor.data, hidden.tensor.shape[0], 77, skip};
    if (skip == 2)
        input.ids += 77; /* "red apple" alone */
    rig_pass_plan(&r, m, &p);
    ck_assert_int_eq(text_encoder_forward(&p, &m->text, &input, &out, &error), ATTUNE_OK);
    rig_pass_run(&r, m, &p);
    attune_code code = text_encoder_forward(&p, &m->text, &input, &out, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    close_to(out, &hidden, bound, name);
    pass_close(&p);
    npy_free(&ids);
    npy_free(&hidden);
    r.sampler->model_close(m);
    rig_close(&r);
}

START_TEST(text_encoder_matches) {
    check_text("emoji", 1, 8e-5);
    check_text("tiny", 1, 1e-5);
}
END_TEST

START_TEST(clip_skip_leaves_out_the_last_layers) {
    check_text("emoji", 2, 1e-5);
    check_text("tiny", 2, 1e-5);
}
END_TEST

/* The golden's arrays are (batch, channels, pixels); the networks' are (batch, pixels, channels). */
static float *channels_last(const npy_array *array) {
    const int64_t *shape = array->tensor.shape;
    int64_t pixels = shape[2] * shape[3], one = shape[1] * pixels;
    float *out = malloc(golden_count(array) * sizeof *out);
    for (int64_t i = 0; i < shape[0]; ++i)
        pixels_interleave((const float *)array->tensor.data + i * one, shape[1], pixels, 1.0f, out + i * one);
    return out;
}

static attune_code walk_unet(pass *p, model *m, const npy_array *context, text_context *text,
                             const unet_input *input, float **out, attune_error *error) {
    float *embeddings;
    size_t count = golden_count(context);
    PASS_TRY(pass_take(p, (int64_t)count, &embeddings, error));
    if (!p->run.planning)
        memcpy(embeddings, context->tensor.data, count * sizeof *embeddings);
    PASS_TRY(unet_read_text(p, &m->unet, embeddings, text, error));
    pass_give(p, &embeddings);
    return unet_forward(p, &m->unet, input, out, error);
}

static void check_unet(const char *name, int height, int width, double bound) {
    rig r;
    pass p;
    attune_error error = {0};
    float *out, *kv[64];
    rig_open(&r, 2);
    model *m = rig_model(&r, name);
    npy_array sample = golden_read(ATTUNE_F32, 4, "%s_unet_%dx%d_sample", name, height, width);
    npy_array wanted = golden_read(ATTUNE_F32, 4, "%s_unet_%dx%d_out", name, height, width);
    npy_array timesteps = golden_read(ATTUNE_F32, 1, "%s_unet_timesteps", name);
    npy_array context = golden_read(ATTUNE_F32, 3, "%s_unet_context", name);
    text_context text = {0, 2, 77, kv};
    float *latents = channels_last(&sample), *noise = channels_last(&wanted);
    unet_input input = {latents, timesteps.tensor.data, 2, height, width, &text};
    ck_assert_int_le(m->unet.contexts, 64);
    rig_pass_plan(&r, m, &p);
    ck_assert_int_eq(walk_unet(&p, m, &context, &text, &input, &out, &error), ATTUNE_OK);
    rig_pass_run(&r, m, &p);
    attune_code code = walk_unet(&p, m, &context, &text, &input, &out, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    double distance = rig_distance(out, noise, golden_count(&wanted));
    ck_assert_msg(distance <= bound, "%s %dx%d: off by %g, %g allowed", name, height, width, distance, bound);
    pass_close(&p);
    free(latents);
    free(noise);
    npy_free(&sample);
    npy_free(&wanted);
    npy_free(&timesteps);
    npy_free(&context);
    r.sampler->model_close(m);
    rig_close(&r);
}

/* The bound covers, besides the sums, that diffusers rounds the angles of the time embedding to float: up to
 * 3e-5 of an angle at t = 801, which precision.json's distance (the embedding in double there) contains. */
START_TEST(unet_matches) {
    check_unet("emoji", 16, 16, 1.2e-5);
    check_unet("tiny", 8, 12, 1e-5);
}
END_TEST

START_TEST(unet_matches_odd_sizes) {
    check_unet("emoji", 13, 17, 1.2e-5);
    check_unet("tiny", 9, 7, 1e-5);
}
END_TEST

static void check_vae(const char *name, int height, int width, double bound) {
    rig r;
    pass p;
    attune_error error = {0};
    float *out;
    rig_open(&r, 2);
    model *m = rig_model(&r, name);
    npy_array sample = golden_read(ATTUNE_F32, 4, "%s_vae_%dx%d_scaled_latents", name, height, width);
    npy_array wanted = golden_read(ATTUNE_F32, 4, "%s_vae_%dx%d_out", name, height, width);
    float *latents = channels_last(&sample), *image = channels_last(&wanted);
    rig_pass_plan(&r, m, &p);
    ck_assert_int_eq(vae_decode(&p, &m->vae, latents, height, width, &out, &error), ATTUNE_OK);
    rig_pass_run(&r, m, &p);
    attune_code code = vae_decode(&p, &m->vae, latents, height, width, &out, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    double distance = rig_distance(out, image, golden_count(&wanted));
    ck_assert_msg(distance <= bound, "%s %dx%d: off by %g, %g allowed", name, height, width, distance, bound);
    pass_close(&p);
    free(latents);
    free(image);
    npy_free(&sample);
    npy_free(&wanted);
    r.sampler->model_close(m);
    rig_close(&r);
}

START_TEST(vae_decoder_matches) {
    check_vae("emoji", 16, 16, 1e-5);
    check_vae("tiny", 5, 7, 1e-5);
    check_vae("tiny", 8, 8, 1e-5);
}
END_TEST

TCase *models_cases(void) {
    TCase *cases = tcase_create("models");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, text_encoder_matches);
    tcase_add_test(cases, clip_skip_leaves_out_the_last_layers);
    tcase_add_test(cases, unet_matches);
    tcase_add_test(cases, unet_matches_odd_sizes);
    tcase_add_test(cases, vae_decoder_matches);
    return cases;
}
