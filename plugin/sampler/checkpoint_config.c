/*
 * checkpoint_config.c: a checkpoint's configuration, written as diffusers would and then read by config.c, so
 * that a model is checked in the same way wherever it comes from.
 */
#include "plugin/sampler/checkpoint.h"
#include "plugin/sampler/files.h"

#include <jansson.h>
#include <unistd.h>

static const char *const parts[] = {"scheduler", "text_encoder", "unet", "vae"};
enum { PARTS = 4, COUNT_LIMIT = 257 }; /* one more than any configuration may have */

/* Reading shapes; after a failure everything reads 0. */
typedef struct shapes {
    const safetensors *file;
    attune_code code;
    attune_error *error;
} shapes;

/* An extent of the tensor with this name, which must have so many dimensions. */
__attribute__((format(printf, 4, 5))) static json_int_t extent(shapes *from, int32_t axis, int32_t ndim,
                                                               const char *format, ...) {
    char name[WEIGHTS_TENSOR_NAME];
    va_list list;
    if (from->code != ATTUNE_OK)
        return 0;
    va_start(list, format);
    (void)vsnprintf(name, sizeof name, format, list);
    va_end(list);
    const safetensors_tensor *tensor = safetensors_find(from->file, name);
    if (tensor && tensor->ndim == ndim)
        return tensor->shape[axis];
    from->code = tensor ? attune_fail(from->error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, from->file->path,
                                      "%s: tensor '%s' has %d dimensions, %d are expected", from->file->path,
                                      name, tensor->ndim, ndim)
                        : attune_fail(from->error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, from->file->path,
                                      "%s: 1 tensor is missing: %s", from->file->path, name);
    attune_hint(from->error, "the file is damaged, or of another kind of model");
    return 0;
}

/* The channels that a residual block makes: its first convolution's, which the norm behind it must confirm.
 */
static json_int_t block_channels(shapes *from, const char *block, const char *convolution, const char *norm) {
    json_int_t out = extent(from, 0, 4, "%s%s", block, convolution);
    json_int_t normed = extent(from, 0, 1, "%s%s", block, norm);
    if (from->code == ATTUNE_OK && out != normed)
        from->code =
            attune_fail(from->error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, from->file->path,
                        "%s: tensors '%s%s' and '%s%s' have %lld and %lld channels", from->file->path, block,
                        convolution, block, norm, (long long)out, (long long)normed);
    return out;
}

__attribute__((format(printf, 2, 3))) static int has(const shapes *from, const char *format, ...) {
    char start[WEIGHTS_TENSOR_NAME];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(start, sizeof start, format, list);
    va_end(list);
    return checkpoint_count(from->file, start) > 0;
}

/* How many of PREFIX0., PREFIX1., … there are from the first on. */
static int numbered(const shapes *from, const char *prefix) {
    int count = 0;
    while (count < COUNT_LIMIT && has(from, "%s%d.", prefix, count))
        ++count;
    return count;
}

#define UNET "model.diffusion_model."

/* The way down: blocks until one that halves are a level. What does not fit the level's first block is found
 * when the tensors are loaded. */
static int read_down(shapes *from, json_t *channels, json_t *types) {
    int layers = 0, first = 1, i = 1;
    for (; i < COUNT_LIMIT && from->code == ATTUNE_OK && (i == 1 || has(from, UNET "input_blocks.%d.", i));
         ++i) {
        if (has(from, UNET "input_blocks.%d.0.op.", i)) {
            first = 1;
            continue;
        }
        if (first) {
            int attention = has(from, UNET "input_blocks.%d.1.", i);
            char block[96];
            (void)snprintf(block, sizeof block, UNET "input_blocks.%d.0.", i);
            json_array_append_new(channels, json_integer(block_channels(from, block, "in_layers.2.weight",
                                                                        "out_layers.0.weight")));
            json_array_append_new(types, json_string(attention ? "CrossAttnDownBlock2D" : "DownBlock2D"));
        }
        first = 0;
        layers += json_array_size(channels) == 1;
    }
    return layers;
}

static json_t *unet_shapes(shapes *from) {
    json_t *channels = json_array(), *down = json_array(), *up = json_array();
    int layers = read_down(from, channels, down);
    for (size_t i = 0; i < json_array_size(channels); ++i) {
        int attention = has(from, UNET "output_blocks.%zu.1.transformer_blocks.", i * ((size_t)layers + 1));
        json_array_append_new(up, json_string(attention ? "CrossAttnUpBlock2D" : "UpBlock2D"));
    }
    json_int_t in = extent(from, 1, 4, UNET "input_blocks.0.0.weight");
    json_int_t out = extent(from, 0, 4, UNET "out.2.weight");
    json_int_t text = extent(from, 1, 2, UNET "middle_block.1.transformer_blocks.0.attn2.to_k.weight");
    return json_pack("{s:I, s:I, s:I, s:i, s:i, s:o, s:o, s:o}", "in_channels", in, "out_channels", out,
                     "cross_attention_dim", text, "layers_per_block", layers, "transformer_layers_per_block",
                     numbered(from, UNET "middle_block.1.transformer_blocks."), "block_out_channels",
                     channels, "down_block_types", down, "up_block_types", up);
}

#define DECODER "first_stage_model.decoder."

static json_t *vae_shapes(shapes *from) {
    json_t *channels = json_array(), *types = json_array();
    int levels = numbered(from, DECODER "up."), blocks = numbered(from, DECODER "up.0.block.");
    for (int i = 0; i < levels; ++i) {
        char block[96];
        (void)snprintf(block, sizeof block, DECODER "up.%d.block.0.", i);
        json_array_append_new(channels,
                              json_integer(block_channels(from, block, "conv1.weight", "norm2.weight")));
        json_array_append_new(types, json_string("UpDecoderBlock2D"));
    }
    json_int_t latent = extent(from, 1, 4, DECODER "conv_in.weight");
    json_int_t out = extent(from, 0, 4, DECODER "conv_out.weight");
    return json_pack("{s:I, s:I, s:i, s:o, s:o, s:b}", "latent_channels", latent, "out_channels", out,
                     "layers_per_block", blocks - 1, "block_out_channels", channels, "up_block_types", types,
                     "use_post_quant_conv", has(from, "first_stage_model.post_quant_conv."));
}

static json_t *text_shapes(shapes *from) {
    const char *prefix = checkpoint_text_prefix(from->file);
    char layers[96];
    (void)snprintf(layers, sizeof layers, "%sencoder.layers.", prefix);
    json_int_t words = extent(from, 0, 2, "%sembeddings.token_embedding.weight", prefix);
    json_int_t hidden = extent(from, 1, 2, "%sembeddings.token_embedding.weight", prefix);
    json_int_t positions = extent(from, 0, 2, "%sembeddings.position_embedding.weight", prefix);
    json_int_t inner = extent(from, 0, 2, "%s0.mlp.fc1.weight", layers);
    return json_pack("{s:I, s:I, s:I, s:I, s:i}", "vocab_size", words, "hidden_size", hidden,
                     "max_position_embeddings", positions, "intermediate_size", inner, "num_hidden_layers",
                     numbered(from, layers));
}

/* The noise schedule's length, where the file has the schedule. */
static json_t *scheduler_shapes(const shapes *from) {
    const safetensors_tensor *alphas = safetensors_find(from->file, "alphas_cumprod");
    return alphas && alphas->ndim == 1
               ? json_pack("{s:I}", "num_train_timesteps", (json_int_t)alphas->shape[0])
               : json_object();
}

/* What no shape tells, as Stable Diffusion 1.1 to 1.5 have it. */
static const struct {
    const char *part, *key, *value;
} assumed[] = {
    {"unet", "attention_head_dim", "8"},
    {"unet", "norm_num_groups", "32"},
    {"vae", "norm_num_groups", "32"},
    {"vae", "scaling_factor", "0.18215"},
    {"text_encoder", "num_attention_heads", "12"},
    {"text_encoder", "hidden_act", "\"quick_gelu\""},
    {"scheduler", "num_train_timesteps", "1000"},
    {"scheduler", "beta_start", "0.00085"},
    {"scheduler", "beta_end", "0.012"},
    {"scheduler", "beta_schedule", "\"scaled_linear\""},
    {"scheduler", "prediction_type", "\"epsilon\""},
};

/* Whether the networks have Stable Diffusion 1.x's sizes, to which these values belong. */
static int is_sd1(const json_t *config) {
    json_t *channels = json_pack("[i, i, i, i]", 320, 640, 1280, 1280);
    const json_t *unet = json_object_get(config, "unet"), *text = json_object_get(config, "text_encoder");
    int same = json_equal(json_object_get(unet, "block_out_channels"), channels) &&
               json_integer_value(json_object_get(text, "hidden_size")) == 768;
    json_decref(channels);
    return same;
}

/* Fill in what neither the shapes nor the user told; of a model of other sizes that is a guess, and said. */
static attune_code assume(const safetensors *file, json_t *config, attune_error *error) {
    char message[512];
    int used = snprintf(message, sizeof message,
                        "%s has not Stable Diffusion 1.x's sizes; assumed:", file->path),
        before = used;
    for (size_t i = 0; i < sizeof assumed / sizeof assumed[0]; ++i) {
        json_t *part = json_object_get(config, assumed[i].part);
        if (json_object_get(part, assumed[i].key) ||
            (i == 0 && json_object_get(part, "num_attention_heads"))) /* the newer key for the same */
            continue;
        if (json_object_set_new(part, assumed[i].key, json_loads(assumed[i].value, JSON_DECODE_ANY, NULL)) !=
            0)
            return services_no_memory("configuration", file->count, error);
        if (used < (int)sizeof message)
            used += snprintf(message + used, sizeof message - (size_t)used, " %s.%s %s,", assumed[i].part,
                             assumed[i].key, assumed[i].value);
    }
    if (used > before && !is_sd1(config)) {
        message[(used < (int)sizeof message ? used : (int)sizeof message) - 1] = 0;
        file->host->log->log(file->host->log->context, ATTUNE_LOG_WARNING, message);
    }
    return ATTUNE_OK;
}

/* ---- what the user says ---- */

/* NAME.json for NAME.safetensors; 0 where there is none. */
static int beside(const char *path, char out[512]) {
    size_t length = strlen(path);
    const char *dot = strrchr(path, '.');
    if (dot && !strchr(dot, '/'))
        length = (size_t)(dot - path);
    int written = snprintf(out, 512, "%.*s.json", (int)length, path);
    return written > 0 && written < 512 && strcmp(out, path) != 0 && access(out, F_OK) == 0;
}

/* One entry of the user's file over the shapes'. In a NAME.json that nobody named the web UI may keep its
 * notes on the model ("description", "vae": "a file's name"): only objects are meant for us there. */
static attune_code merge(json_t *config, const char *path, int named, const char *key, json_t *value,
                         attune_error *error) {
    json_t *part = NULL;
    for (int i = 0; i < PARTS; ++i)
        if (strcmp(key, parts[i]) == 0)
            part = json_object_get(config, key);
    if (part && json_is_object(value))
        return json_object_update(part, value) == 0
                   ? ATTUNE_OK
                   : services_no_memory(path, json_object_size(value), error);
    if (!named)
        return ATTUNE_OK;
    if (part)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, path, "%s: '%s' is not an object",
                           path, key);
    attune_code code = attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, path,
                                   "%s: '%s' is no part of a model", path, key);
    attune_hint(error, "the parts are scheduler, text_encoder, unet and vae");
    return code;
}

static attune_code merge_file(json_t *config, const char *path, int named, attune_error *error) {
    json_t *root = NULL, *value;
    const char *key;
    attune_code code = file_json(path, &root, error);
    if (code == ATTUNE_OK)
        json_object_foreach(root, key, value) {
            code = merge(config, path, named, key, value, error);
            if (code != ATTUNE_OK)
                break;
        }
    json_decref(root);
    return code;
}

attune_code checkpoint_config(const safetensors *file, const char *config_path, model_config *out,
                              attune_error *error) {
    shapes from = {file, ATTUNE_OK, error};
    char path[512];
    int found = !config_path && beside(file->path, path);
    const char *given = found ? path : config_path;
    json_t *scheduler = scheduler_shapes(&from), *text = text_shapes(&from), *unet = unet_shapes(&from),
           *vae = vae_shapes(&from);
    json_t *config =
        json_pack("{s:o, s:o, s:o, s:o}", parts[0], scheduler, parts[1], text, parts[2], unet, parts[3], vae);
    attune_code code = from.code;
    if (code == ATTUNE_OK && !config)
        code = services_no_memory("configuration", file->count, error);
    if (code == ATTUNE_OK && given)
        code = merge_file(config, given, !found, error);
    if (code == ATTUNE_OK)
        code = assume(file, config, error);
    if (code == ATTUNE_OK) {
        code = config_parse(config, given ? given : file->path, out, error);
        if (code != ATTUNE_OK && error && !error->hint[0])
            attune_hint(error,
                        "what shapes do not tell is Stable Diffusion 1.5's, unless --model-config FILE or "
                        "NAME.json beside NAME.safetensors says otherwise");
    }
    json_decref(config);
    return code;
}
