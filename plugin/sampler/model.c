/* model.c: opening a diffusers folder. */
#include "plugin/sampler/model.h"

#include <unistd.h>

/* A part's weights: the first of these names that exists. */
static const char *const text_names[] = {"text_encoder/model.safetensors",
                                         "text_encoder/model.fp16.safetensors", NULL};
static const char *const unet_names[] = {"unet/diffusion_pytorch_model.safetensors",
                                         "unet/diffusion_pytorch_model.fp16.safetensors", NULL};
static const char *const vae_names[] = {"vae/diffusion_pytorch_model.safetensors",
                                        "vae/diffusion_pytorch_model.fp16.safetensors", NULL};

static attune_code open_weights(model *m, const char *folder, const char *const *names, safetensors *out,
                                const char **chosen, attune_error *error) {
    char path[512];
    for (int i = 0; names[i]; ++i) {
        int length = snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (length < 0 || (size_t)length >= sizeof path)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, folder,
                               "the model's path is too long");
        if (access(path, F_OK) == 0) {
            *chosen = names[i];
            return safetensors_open(&m->host, path, out, error);
        }
    }
    attune_code code =
        attune_fail(error, ATTUNE_NOT_FOUND, SAMPLER_DOMAIN, names[0], "there is no %s/%s", folder, names[0]);
    attune_hint(error, "only .safetensors weights are read; convert .bin or .ckpt files first");
    return code;
}

/* The tokenizer of the model, or the vocabulary that the host brings. */
static attune_code open_tokenizer(model *m, const char *folder, const attune_model_options *options,
                                  attune_error *error) {
    char path[600];
    const char *vocabulary = options ? options->vocabulary : NULL;
    (void)snprintf(path, sizeof path, "%s/tokenizer/vocab.json", folder);
    int own = access(path, F_OK) == 0;
    (void)snprintf(path, sizeof path, "%s/tokenizer", folder);
    attune_code code =
        tokenizer_open(m->host.memory, own || !vocabulary ? path : vocabulary, &m->tokens, error);
    if (code != ATTUNE_OK)
        return code;
    if (tokenizer_size(m->tokens) > m->config.text.vocab_size)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, path,
                           "the vocabulary has %u tokens, the text encoder knows %lld",
                           tokenizer_size(m->tokens), (long long)m->config.text.vocab_size);
    return ATTUNE_OK;
}

static attune_code load_text(model *m, attune_error *error) {
    weights_loader loader;
    weights_begin(&loader, &m->pool, &m->text_file, "text_model.", error);
    text_encoder_load(&loader, &m->text, &m->config.text);
    return weights_end(&loader);
}

static attune_code load_unet(model *m, attune_error *error) {
    weights_loader loader;
    weights_begin(&loader, &m->pool, &m->unet_file, NULL, error);
    unet_load(&loader, &m->unet, &m->config.unet);
    return weights_end(&loader);
}

static attune_code load_vae(model *m, attune_error *error) {
    weights_loader loader;
    weights_begin(&loader, &m->pool, &m->vae_file, NULL, error);
    vae_load(&loader, &m->vae, &m->config.vae);
    return weights_end(&loader);
}

static int is_cancelled(const attune_control *control) {
    return control && control->cancelled && control->cancelled(control->context);
}

static attune_code read_parts(model *m, const char *path, const attune_model_options *options,
                              const attune_control *control, attune_error *error) {
    static attune_code (*const loads[])(model *, attune_error *) = {load_text, load_unet, load_vae};
    const char *const *names[] = {text_names, unet_names, vae_names};
    safetensors *files[] = {&m->text_file, &m->unet_file, &m->vae_file};
    const char *chosen = "";
    attune_code code = config_read(path, &m->config, error);
    if (code == ATTUNE_OK)
        code = sigma_model_open(m->host.memory, &m->config.sigmas, &m->sigmas, error);
    if (code == ATTUNE_OK)
        code = open_tokenizer(m, path, options, error);
    for (int i = 0; i < 3 && code == ATTUNE_OK; ++i) {
        if (is_cancelled(control))
            return attune_fail(error, ATTUNE_CANCELLED, SAMPLER_DOMAIN, path, "cancelled");
        code = open_weights(m, path, names[i], files[i], &chosen, error);
        if (code == ATTUNE_OK)
            code = loads[i](m, error);
        if (i == 1)
            (void)snprintf(m->unet_name, sizeof m->unet_name, "%s", chosen);
    }
    if (code != ATTUNE_OK)
        return code;
    const safetensors_tensor *first = safetensors_find(&m->unet_file, "conv_in.weight");
    (void)snprintf(m->dtype, sizeof m->dtype, "%s", attune_dtype_name(first->dtype));
    return ATTUNE_OK;
}

attune_code model_open(const services *host, const device_ops *ops, device *dev, const char *path,
                       const attune_model_options *options, const attune_control *control, model **out,
                       attune_error *error) {
    model *m = services_clear_alloc(host, 1, sizeof *m, "model");
    if (!m)
        return services_no_memory("model", sizeof *m, error);
    m->host = *host;
    m->ops = ops;
    m->dev = dev;
    weights_pool_open(&m->pool, &m->host, ops, dev);
    (void)pthread_mutex_init(&m->preparing, NULL); /* cannot fail with default attributes on Linux */
    attune_code code = read_parts(m, path, options, control, error);
    if (code == ATTUNE_OK)
        *out = m;
    else
        model_close(m);
    return code;
}

void model_close(model *m) {
    if (!m)
        return;
    services host = m->host;
    weights_pool_close(&m->pool);
    text_encoder_close(&host, &m->text);
    unet_close(&host, &m->unet);
    vae_close(&host, &m->vae);
    safetensors_close(&m->text_file);
    safetensors_close(&m->unet_file);
    safetensors_close(&m->vae_file);
    tokenizer_close(m->tokens);
    sigma_model_close(&m->sigmas);
    (void)pthread_mutex_destroy(&m->preparing);
    services_free(&host, m);
}

void model_describe(const model *m, attune_model_info *out) {
    int64_t scale = vae_scale(&m->config.vae);
    memset(out, 0, sizeof *out);
    out->struct_size = sizeof *out;
    out->width = (uint32_t)(m->config.unet.sample_width * scale);
    out->height = (uint32_t)(m->config.unet.sample_height * scale);
    out->size_multiple = (uint32_t)scale;
    out->weights_bytes = m->text_file.bytes + m->unet_file.bytes + m->vae_file.bytes;
    (void)snprintf(out->kind, sizeof out->kind, "Stable Diffusion 1.x");
    memcpy(out->dtype, m->dtype, sizeof out->dtype);
    memcpy(out->weights_file, m->unet_name, sizeof out->weights_file);
}
