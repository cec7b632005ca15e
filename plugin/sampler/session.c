/* session.c: the steps of a session. */
#include "plugin/sampler/session.h"
#include "plugin/sampler/pixels.h"

#include <math.h>

attune_code session_begin(model *m, const attune_request *request, const attune_binder *binder,
                          const attune_stream *stream, const attune_control *control, session **out,
                          attune_session_plan *plan, attune_error *error) {
    session *s = services_clear_alloc(&m->host, 1, sizeof *s, "session");
    if (!s)
        return services_no_memory("session", sizeof *s, error);
    s->m = m;
    s->pass.control = control;
    attune_code code = session_prepare(s, request, binder, stream, plan, error);
    s->pass.control = NULL;
    if (code == ATTUNE_OK)
        *out = s;
    else
        session_close(s);
    return code;
}

void session_close(session *s) {
    if (!s)
        return;
    services host = s->m->host;
    if (s->latent)
        latent_close(s->latent);
    session_leave(s);
    pass_close(&s->pass);
    services_free(&host, s->layers);
    services_free(&host, s->context.kv);
    services_free(&host, s->staged);
    services_free(&host, s->uncond);
    services_free(&host, s->timesteps);
    services_free(&host, s->embeddings);
    prompt_close(&host, &s->prompt);
    services_free(&host, s->decoded);
    services_free(&host, s->pixels);
    services_free(&host, s);
}

/* The prompt's weights, by way of host memory: the embeddings are small. */
static attune_code emphasise(session *s, float *embeddings, attune_error *error) {
    const model *m = s->m;
    int64_t hidden = m->text.config.hidden_size;
    uint64_t count = (uint64_t)(prompt_tokens_all(&s->prompt) * hidden);
    PASS_TRY(m->ops->download(m->dev, s->pass.run.stream, s->embeddings, embeddings, count, error));
    PASS_TRY(prompt_emphasise(&s->prompt, hidden, s->embeddings, error));
    return m->ops->upload(m->dev, s->pass.run.stream, embeddings, s->embeddings, count, error);
}

/* tokens → embeddings → keys and values of every cross attention, which stay in the arena until the session
 * ends. */
static attune_code walk_text(session *s, attune_error *error) {
    const model *m = s->m;
    float *embeddings;
    text_input input = {s->prompt.ids, s->prompt.texts * s->prompt.chunks, TOKENIZER_CHUNK, s->clip_skip};
    (void)snprintf(s->pass.part, sizeof s->pass.part, "the text encoder");
    PASS_TRY(text_encoder_forward(&s->pass, &m->text, &input, &embeddings, error));
    if (s->prompt.weights && !s->pass.run.planning)
        PASS_TRY(emphasise(s, embeddings, error));
    (void)snprintf(s->pass.part, sizeof s->pass.part, "the UNet, reading the prompt");
    PASS_TRY(unet_read_text(&s->pass, &m->unet, embeddings, &s->context, error));
    pass_give(&s->pass, &embeddings);
    return ATTUNE_OK;
}

/* Always watched: it is a walk for a whole image, and a small one. */
attune_code session_read_text(session *s, attune_error *error) {
    pass_forget(&s->pass, 1);
    s->pass.watching = 1;
    attune_code code = walk_text(s, error);
    s->pass.watching = 0;
    return code;
}

/* One walk from latents, which `scale` belongs to. *finite = 0 where what it made is not all finite. */
typedef attune_code (*latent_walk)(session *s, const float *latents, float scale, int32_t *finite,
                                   attune_error *error);

/*
 * Not-a-number spreads over a whole image: say where it came from rather than draw it. Only the end of a walk
 * is looked at, which costs next to nothing; where that is not finite the walk is taken again, with the same
 * input in the same memory, and watched. An infinity that never reaches the end does no harm.
 */
static attune_code run_walk(session *s, latent_walk walk, const float *latents, float scale,
                            attune_error *error) {
    pass *p = &s->pass;
    int32_t finite = 1;
    pass_forget(p, 0);
    attune_code code = walk(s, latents, scale, &finite, error);
    if (code != ATTUNE_OK || finite)
        return code;
    pass_forget(p, 0);
    p->watching = 1;
    code = walk(s, latents, scale, &finite, error);
    p->watching = 0;
    if (code != ATTUNE_OK)
        return code;
    code = attune_fail(error, ATTUNE_OUT_OF_RANGE, SAMPLER_DOMAIN, p->part,
                       "%s gave values that are not finite numbers, but not when it was run again", p->part);
    attune_hint(error, "try again; where it happens often the machine's memory or processor is faulty");
    return code;
}

/* While watching: the walk's own input, on the host. */
static attune_code watch_latents(const session *s, int64_t count, attune_error *error) {
    for (int64_t i = 0; s->pass.watching && i < count; ++i) {
        if (isfinite(s->staged[i]))
            continue;
        attune_code code = attune_fail(error, ATTUNE_OUT_OF_RANGE, SAMPLER_DOMAIN, "latent",
                                       "%s is given latents that are not finite numbers (CFG scale %g)",
                                       s->pass.part, (double)s->cfg_scale);
        attune_hint(error, "the steps before overflow: try a smaller CFG scale, or another sampler");
        return code;
    }
    return ATTUNE_OK;
}

/* The noise that the UNet sees in some of s->staged's latents, in their place: latents `first` …, which all
 * have one text, or are all there are. */
static attune_code predict_chunk(session *s, int64_t first, int64_t count, int32_t *finite,
                                 attune_error *error) {
    const model *m = s->m;
    pass *p = &s->pass;
    const int64_t channels = m->config.unet.in_channels, pixels = s->height * s->width;
    const uint64_t values = (uint64_t)(count * pixels * channels);
    float *latents, *noise, *staged = p->run.planning ? NULL : s->staged + first * pixels * channels;
    text_context context = s->context;
    if (count <= s->images) {
        context.first = first / s->images;
        context.texts = 1;
    }
    PASS_TRY(pass_take(p, count * pixels * channels, &latents, error));
    if (!p->run.planning)
        PASS_TRY(m->ops->upload(m->dev, p->run.stream, latents, staged, values, error));
    unet_input input = {latents, s->timesteps, count, s->height, s->width, &context};
    PASS_TRY(unet_forward(p, &m->unet, &input, &noise, error));
    if (!p->run.planning) {
        int32_t good;
        PASS_TRY(m->ops->finite(m->dev, &p->run, noise, count * pixels, channels, channels, &good, error));
        *finite &= good;
        PASS_TRY(m->ops->download(m->dev, p->run.stream, staged, noise, values, error));
    }
    pass_give(p, &noise);
    pass_give(p, &latents);
    return ATTUNE_OK;
}

/* The noise that the UNet sees in x · c_in, for every text, in s->staged. */
static attune_code predict_noise(session *s, const float *x, float c_in, int32_t *finite,
                                 attune_error *error) {
    const int64_t channels = s->m->config.unet.in_channels, pixels = s->height * s->width,
                  batch = s->prompt.texts * s->images;
    if (!s->pass.run.planning) {
        for (int64_t i = 0; i < batch; ++i)
            pixels_interleave(x + i % s->images * pixels * channels, channels, pixels, c_in,
                              s->staged + i * pixels * channels);
        PASS_TRY(watch_latents(s, batch * pixels * channels, error));
    }
    for (int64_t first = 0; first < batch; first += s->chunk)
        PASS_TRY(predict_chunk(s, first, s->chunk, finite, error));
    return ATTUNE_OK;
}

/* k-diffusion's denoiser for epsilon prediction (external.py, DiscreteEpsDDPMDenoiser; Karras et al. 2022,
 * table 1): D(x; sigma) = x − sigma · eps(x / sqrt(sigma² + 1), t(sigma)), t fractional; then classifier-free
 * guidance. */
attune_code session_predict(session *s, const float *x, double sigma, float *denoised, attune_error *error) {
    int64_t channels = s->m->config.unet.in_channels, pixels = s->height * s->width, one = pixels * channels;
    float noise_level = (float)sigma, c_in = 1.0f / sqrtf(noise_level * noise_level + 1.0f);
    if (!s->pass.run.planning)
        for (int64_t i = 0; i < s->prompt.texts * s->images; ++i)
            s->timesteps[i] = (float)sigma_to_t(&s->m->sigmas, sigma);
    (void)snprintf(s->pass.part, sizeof s->pass.part, "the UNet at sigma %g", sigma);
    PASS_TRY(run_walk(s, predict_noise, x, c_in, error));
    if (s->pass.run.planning)
        return ATTUNE_OK;
    for (int64_t i = 0; i < s->images; ++i) {
        const float *cond = s->staged + i * one, *uncond = cond + s->images * one;
        pixels_separate(cond, channels, pixels, x + i * one, -noise_level, denoised + i * one);
        if (s->prompt.texts == 2)
            pixels_separate(uncond, channels, pixels, x + i * one, -noise_level, s->uncond + i * one);
    }
    if (s->prompt.texts == 2)
        latent_guide(denoised, s->uncond, s->cfg_scale, denoised, (uint64_t)(s->images * one));
    return ATTUNE_OK;
}

/* The image that the VAE makes of latent / factor, in s->decoded. */
static attune_code decode_latent(session *s, const float *latent, float factor, int32_t *finite,
                                 attune_error *error) {
    const model *m = s->m;
    pass *p = &s->pass;
    int64_t channels = m->config.vae.latent_channels, pixels = s->height * s->width,
            scale = vae_scale(&m->config.vae), rows = pixels * scale * scale;
    float *latents, *image;
    PASS_TRY(pass_take(p, pixels * channels, &latents, error));
    if (!p->run.planning) {
        pixels_interleave(latent, channels, pixels, 1.0f, s->staged);
        for (int64_t i = 0; i < pixels * channels; ++i)
            s->staged[i] /= factor;
        PASS_TRY(watch_latents(s, pixels * channels, error));
        PASS_TRY(
            m->ops->upload(m->dev, p->run.stream, latents, s->staged, (uint64_t)(pixels * channels), error));
    }
    PASS_TRY(vae_decode(p, &m->vae, latents, s->height, s->width, &image, error));
    if (!p->run.planning) {
        PASS_TRY(m->ops->finite(m->dev, &p->run, image, rows, 3, 3, finite, error));
        PASS_TRY(m->ops->download(m->dev, p->run.stream, s->decoded, image, (uint64_t)(rows * 3), error));
    }
    pass_give(p, &image);
    pass_give(p, &latents);
    return ATTUNE_OK;
}

/* One latent → VAE → pixels. */
attune_code session_decode(session *s, const float *latent, uint8_t *out, attune_error *error) {
    int64_t scale = vae_scale(&s->m->config.vae), values = s->height * s->width * scale * scale * 3;
    (void)snprintf(s->pass.part, sizeof s->pass.part, "the VAE");
    PASS_TRY(run_walk(s, decode_latent, latent, (float)s->m->config.vae.scaling_factor, error));
    if (!s->pass.run.planning)
        pixels_from_floats(s->decoded, (uint64_t)values, out);
    return ATTUNE_OK;
}

static attune_code denoise(void *context, const float *x, double sigma, float *denoised,
                           attune_error *error) {
    return session_predict(context, x, sigma, denoised, error);
}

static uint64_t image_bytes(const session *s) {
    int64_t scale = vae_scale(&s->m->config.vae);
    return (uint64_t)(s->height * s->width * scale * scale * 3);
}

static attune_code run_unit(session *s, attune_progress *progress, attune_error *error) {
    progress->steps = 1;
    if (!s->text_done) {
        progress->phase = ATTUNE_PHASE_TEXT;
        progress->step = 1;
        PASS_TRY(session_enter(s, PHASE_TEXT, error));
        PASS_TRY(session_read_text(s, error));
        session_leave(s);
        s->text_done = 1;
        return ATTUNE_OK;
    }
    if (latent_steps_done(s->latent) < s->steps) {
        latent_denoiser denoiser = {denoise, s};
        PASS_TRY(session_enter(s, PHASE_UNET, error));
        PASS_TRY(latent_step(s->latent, &denoiser, error));
        progress->phase = ATTUNE_PHASE_SAMPLE;
        progress->step = latent_steps_done(s->latent);
        progress->steps = s->steps;
        progress->sigma = latent_sigma(s->latent);
        return ATTUNE_OK;
    }
    PASS_TRY(session_enter(s, PHASE_VAE, error));
    PASS_TRY(session_decode(s, latent_x(s->latent, s->images_done),
                            s->pixels + s->images_done * image_bytes(s), error));
    s->images_done++;
    progress->phase = ATTUNE_PHASE_DECODE;
    progress->step = s->images_done;
    progress->steps = (uint32_t)s->images;
    progress->done = s->images_done == s->images;
    return ATTUNE_OK;
}

attune_code session_step(session *s, const attune_control *control, attune_progress *progress,
                         attune_error *error) {
    attune_progress made = {.struct_size = sizeof made};
    if (s->failed != ATTUNE_OK || s->images_done == s->images)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, SAMPLER_DOMAIN, "session_step",
                           s->failed != ATTUNE_OK ? "a step has failed: the session can only be closed"
                                                  : "all images are done");
    s->pass.control = control;
    s->failed = run_unit(s, &made, error);
    s->pass.control = NULL;
    if (s->failed == ATTUNE_OK)
        memcpy(progress, &made, sizeof made);
    return s->failed;
}

static attune_code check_image(const session *s, uint32_t index, const attune_image *image,
                               attune_error *error) {
    int64_t scale = vae_scale(&s->m->config.vae);
    if (index >= s->images)
        return attune_fail(error, ATTUNE_OUT_OF_RANGE, SAMPLER_DOMAIN, "image", "image %u of %lld", index,
                           (long long)s->images);
    if (image->struct_size < sizeof *image || !image->pixels || image->width != s->width * scale ||
        image->height != s->height * scale || image->stride < image->width * 3)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "image",
                           "room for %lld x %lld pixels of 3 bytes is needed", (long long)(s->width * scale),
                           (long long)(s->height * scale));
    return ATTUNE_OK;
}

static void copy_rows(const attune_image *image, const uint8_t *pixels) {
    for (uint32_t y = 0; y < image->height; ++y)
        memcpy(image->pixels + (uint64_t)y * image->stride, pixels + (uint64_t)y * image->width * 3,
               (size_t)image->width * 3);
}

attune_code session_preview(session *s, uint32_t index, const attune_control *control, attune_image *image,
                            attune_error *error) {
    PASS_TRY(check_image(s, index, image, error));
    const float *latent = latent_denoised(s->latent, index);
    if (s->failed != ATTUNE_OK || !latent)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, SAMPLER_DOMAIN, "session_preview",
                           "there is no estimate yet: no sampler step is done");
    uint8_t *pixels = s->m->host.memory->alloc(s->m->host.memory->context, image_bytes(s), "preview");
    if (!pixels)
        return services_no_memory("preview", image_bytes(s), error);
    s->pass.control = control;
    attune_code code = session_enter(s, PHASE_VAE, error);
    if (code == ATTUNE_OK)
        code = session_decode(s, latent, pixels, error);
    s->pass.control = NULL;
    if (code == ATTUNE_OK)
        copy_rows(image, pixels);
    services_free(&s->m->host, pixels);
    return code;
}

attune_code session_image(session *s, uint32_t index, attune_image *image, attune_error *error) {
    PASS_TRY(check_image(s, index, image, error));
    if (index >= s->images_done)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, SAMPLER_DOMAIN, "session_image",
                           "image %u is not done yet", index);
    copy_rows(image, s->pixels + index * image_bytes(s));
    return ATTUNE_OK;
}
