/* model.c: opening a diffusers folder, or a checkpoint in one file. */
#include "plugin/sampler/model.h"
#include "plugin/sampler/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

enum { PART_TEXT, PART_UNET, PART_VAE, PARTS };

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

/* The tokenizer in the model's folder (NULL: one file, without), or the vocabulary that the host brings. */
static attune_code open_tokenizer(model *m, const char *folder, const attune_model_options *options,
                                  attune_error *error) {
    static const char *const parts[] = {"vocab.json", "merges.txt"};
    char path[600] = "";
    const char *vocabulary = options ? options->vocabulary : NULL;
    int own = 0; /* a folder with one of the two is meant to have both */
    for (int i = 0; folder && i < 2; ++i) {
        (void)snprintf(path, sizeof path, "%s/tokenizer/%s", folder, parts[i]);
        own |= access(path, F_OK) == 0;
    }
    if (folder)
        (void)snprintf(path, sizeof path, "%s/tokenizer", folder);
    if (!folder && !vocabulary)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "tokenizer",
                           "a checkpoint in one file brings no vocabulary, and the host gives none");
    const char *from = own || !vocabulary ? path : vocabulary;
    attune_code code = tokenizer_open(m->host.memory, from, &m->tokens, error);
    if (code != ATTUNE_OK)
        return code;
    if (tokenizer_size(m->tokens) > m->config.text.vocab_size)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, from,
                           "the vocabulary has %u tokens, the text encoder knows %lld",
                           tokenizer_size(m->tokens), (long long)m->config.text.vocab_size);
    return ATTUNE_OK;
}

/* A part's network from a file, which has the names of a checkpoint where `names` is given. */
static attune_code load_part(model *m, int part, const safetensors *file, const checkpoint_names *names,
                             attune_error *error) {
    static const weights_rename renames[PARTS] = {checkpoint_text_name, checkpoint_unet_name,
                                                  checkpoint_vae_name};
    weights_loader loader;
    weights_begin(&loader, &m->pool, file, part == PART_TEXT && !names ? "text_model." : NULL, error);
    if (names)
        weights_rename_with(&loader, renames[part], names);
    if (part == PART_TEXT)
        text_encoder_load(&loader, &m->text, &m->config.text);
    else if (part == PART_UNET)
        unet_load(&loader, &m->unet, &m->config.unet);
    else
        vae_load(&loader, &m->vae, &m->config.vae);
    return weights_end(&loader);
}

static int is_cancelled(const attune_control *control) {
    return control && control->cancelled && control->cancelled(control->context);
}

static attune_code cancelled(const char *path, attune_error *error) {
    return attune_fail(error, ATTUNE_CANCELLED, SAMPLER_DOMAIN, path, "cancelled");
}

static void note_dtype(model *m, const safetensors *file, const char *first) {
    (void)snprintf(m->dtype, sizeof m->dtype, "%s", attune_dtype_name(safetensors_find(file, first)->dtype));
}

static attune_code read_folder(model *m, const char *path, const attune_model_options *options,
                               const attune_control *control, attune_error *error) {
    const char *const *names[PARTS] = {text_names, unet_names, vae_names};
    const char *chosen = "";
    if (options && options->config)
        return attune_fail(
            error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, path,
            "%s is a diffusers folder, which has its own configuration; %s is for checkpoints in "
            "one file",
            path, options->config);
    PASS_TRY(config_read(path, &m->config, error));
    PASS_TRY(sigma_model_open(m->host.memory, &m->config.sigmas, &m->sigmas, error));
    PASS_TRY(open_tokenizer(m, path, options, error));
    for (int i = 0; i < PARTS; ++i) {
        if (is_cancelled(control))
            return cancelled(path, error);
        PASS_TRY(open_weights(m, path, names[i], &m->files[i], &chosen, error));
        PASS_TRY(load_part(m, i, &m->files[i], NULL, error));
        if (i == PART_UNET)
            (void)snprintf(m->unet_name, sizeof m->unet_name, "%s", chosen);
    }
    note_dtype(m, &m->files[PART_UNET], "conv_in.weight");
    return ATTUNE_OK;
}

static attune_code read_file(model *m, const char *path, const attune_model_options *options,
                             const attune_control *control, attune_error *error) {
    safetensors *file = &m->files[0];
    const char *slash = strrchr(path, '/');
    checkpoint_names names = {file, &m->config};
    PASS_TRY(checkpoint_open(&m->host, path, file, error));
    PASS_TRY(checkpoint_config(file, options ? options->config : NULL, &m->config, error));
    PASS_TRY(sigma_model_open(m->host.memory, &m->config.sigmas, &m->sigmas, error));
    PASS_TRY(checkpoint_check_schedule(file, &m->sigmas, error));
    PASS_TRY(open_tokenizer(m, NULL, options, error));
    for (int i = 0; i < PARTS; ++i) {
        if (is_cancelled(control))
            return cancelled(path, error);
        PASS_TRY(load_part(m, i, file, &names, error));
    }
    PASS_TRY(checkpoint_check_used(file, error));
    (void)snprintf(m->unet_name, sizeof m->unet_name, "%s", slash ? slash + 1 : path);
    note_dtype(m, file, "model.diffusion_model.input_blocks.0.0.weight");
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
    struct stat info;
    int one_file = stat(path, &info) == 0 && S_ISREG(info.st_mode);
    attune_code code = one_file ? read_file(m, path, options, control, error)
                                : read_folder(m, path, options, control, error);
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
    for (int i = 0; i < MODEL_FILES; ++i)
        safetensors_close(&m->files[i]);
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
    for (int i = 0; i < MODEL_FILES; ++i)
        out->weights_bytes += m->files[i].bytes;
    (void)snprintf(out->kind, sizeof out->kind, "Stable Diffusion 1.x");
    memcpy(out->dtype, m->dtype, sizeof out->dtype);
    memcpy(out->weights_file, m->unet_name, sizeof out->weights_file);
}
