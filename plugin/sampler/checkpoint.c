/* checkpoint.c: what kind of file it is, and the names of its tensors. */
#include "plugin/sampler/checkpoint.h"
#include "plugin/sampler/files.h"

#include <unistd.h>

static const char unet_prefix[] = "model.diffusion_model.", vae_prefix[] = "first_stage_model.";

uint64_t checkpoint_count(const safetensors *file, const char *start) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < file->count; ++i)
        count += strncmp(file->tensors[i].name, start, strlen(start)) == 0;
    return count;
}

const char *checkpoint_text_prefix(const safetensors *file) {
    static const char whole[] = "cond_stage_model.transformer.text_model.";
    static const char bare[] = "cond_stage_model.transformer.";
    return checkpoint_count(file, whole) ? whole : bare;
}

/* ---- what it is ---- */

static attune_code refuse(const char *path, const char *what, const char *hint, attune_error *error) {
    attune_code code =
        attune_fail(error, ATTUNE_UNIMPLEMENTED, SAMPLER_DOMAIN, path,
                    "%s: this looks like %s; Stable Diffusion 1.x checkpoints are read", path, what);
    attune_hint(error, "%s", hint);
    return code;
}

/* Pickles (protocol 2 and later starts with 0x80 and the protocol) and the zip files that PyTorch puts them
 * in run code when they are read: only the format that cannot is read. */
static attune_code check_magic(const char *path, attune_error *error) {
    unsigned char head[4] = {0};
    int file;
    uint64_t bytes;
    attune_code code = file_open(path, &file, &bytes, error);
    if (code != ATTUNE_OK)
        return code;
    ssize_t got = pread(file, head, sizeof head, 0);
    (void)close(file);
    int zip = got == 4 && memcmp(head, "PK\3\4", 4) == 0;
    int pickle = got == 4 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5 && (head[2] | head[3]) != 0;
    if (zip || pickle)
        return refuse(path, "a PyTorch checkpoint (.ckpt, .pt: a pickle, which can run code)",
                      "convert it: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load("
                      "'X.ckpt', weights_only=True)['state_dict'], 'X.safetensors')\"",
                      error);
    if (got == 4 && memcmp(head, "GGUF", 4) == 0)
        return refuse(path, "a GGUF file", "use the model's .safetensors file", error);
    return ATTUNE_OK;
}

static const char use_1x[] = "use a Stable Diffusion 1.x checkpoint or diffusers folder";
static const char use_whole[] = "give the whole checkpoint, or the diffusers folder that the file lies in";

/* The first of these beginnings that some tensor has says what the file is. */
static const struct {
    const char *start, *what, *hint;
} kinds[] = {
    {"double_blocks.", "Flux", use_1x},
    {"model.diffusion_model.double_blocks.", "Flux", use_1x},
    {"joint_blocks.", "Stable Diffusion 3", use_1x},
    {"model.diffusion_model.joint_blocks.", "Stable Diffusion 3", use_1x},
    {"conditioner.embedders.", "Stable Diffusion XL", use_1x},
    {"cond_stage_model.model.", "Stable Diffusion 2.x", use_1x},
    {"v_pred", "a model with v prediction", use_1x},
    {"ztsnr", "a model with zero terminal SNR", use_1x},
    {"control_model.", "a ControlNet", use_1x},
    {"lora_", "a LoRA", "give the checkpoint that the LoRA is for; LoRA files are not read"},
    {"string_to_param", "a textual inversion embedding", use_1x},
    {"emb_params", "a textual inversion embedding", use_1x},
    {"down_blocks.", "the UNet alone, from a diffusers folder", use_whole},
    {"decoder.up_blocks.", "the VAE alone, from a diffusers folder", use_whole},
    {"text_model.", "the text encoder alone", use_whole},
    {"decoder.up.", "a VAE alone", use_whole},
    {"input_blocks.", "a UNet alone", use_whole},
};

/* LoRA files of diffusers and PEFT have it in the middle of names. */
static int is_lora(const safetensors *file) {
    for (uint64_t i = 0; i < file->count; ++i)
        if (strstr(file->tensors[i].name, ".lora_") || strstr(file->tensors[i].name, ".lora."))
            return 1;
    return 0;
}

/* Models that take more than the latent have more input channels. */
static attune_code check_input(const safetensors *file, attune_error *error) {
    const safetensors_tensor *first = safetensors_find(file, "model.diffusion_model.input_blocks.0.0.weight");
    if (!first || first->ndim != 4 || first->shape[1] == 4)
        return ATTUNE_OK;
    if (first->shape[1] == 9)
        return refuse(file->path, "an inpainting model (9 input channels)", use_1x, error);
    if (first->shape[1] == 8)
        return refuse(file->path, "an InstructPix2Pix model (8 input channels)", use_1x, error);
    return ATTUNE_OK;
}

static attune_code check_kind(const safetensors *file, attune_error *error) {
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i)
        if (checkpoint_count(file, kinds[i].start))
            return refuse(file->path, kinds[i].what, kinds[i].hint, error);
    int text = checkpoint_count(file, "cond_stage_model.transformer.") > 0;
    int unet = checkpoint_count(file, unet_prefix) > 0, vae = checkpoint_count(file, vae_prefix) > 0;
    if (text && unet && vae)
        return check_input(file, error);
    if (is_lora(file))
        return refuse(file->path, "a LoRA", "give the checkpoint that the LoRA is for", error);
    if (!text && !unet && !vae)
        return refuse(file->path, "no checkpoint of Stable Diffusion", use_1x, error);
    attune_code code = attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, file->path,
                                   "%s: part of a checkpoint%s%s%s", file->path,
                                   unet ? "" : ", without the UNet (model.diffusion_model.*)",
                                   vae ? "" : ", without the VAE (first_stage_model.*)",
                                   text ? "" : ", without the text encoder (cond_stage_model.transformer.*)");
    attune_hint(error, "%s", use_whole);
    return code;
}

attune_code checkpoint_open(const services *host, const char *path, safetensors *out, attune_error *error) {
    memset(out, 0, sizeof *out);
    attune_code code = check_magic(path, error);
    if (code == ATTUNE_OK)
        code = safetensors_open(host, path, out, error);
    if (code != ATTUNE_OK)
        return code;
    code = check_kind(out, error);
    if (code != ATTUNE_OK)
        safetensors_close(out);
    return code;
}

/* ---- names ---- */

/* Layers of a residual block, as diffusers calls them and as the file does: the UNet's, the VAE's. */
typedef struct layer_name {
    const char *diffusers, *ldm;
} layer_name;

static const layer_name unet_resnet[] = {{"norm1", "in_layers.0"},
                                         {"conv1", "in_layers.2"},
                                         {"time_emb_proj", "emb_layers.1"},
                                         {"norm2", "out_layers.0"},
                                         {"conv2", "out_layers.3"},
                                         {"conv_shortcut", "skip_connection"},
                                         {NULL, NULL}};
static const layer_name vae_resnet[] = {{"norm1", "norm1"},
                                        {"conv1", "conv1"},
                                        {"norm2", "norm2"},
                                        {"conv2", "conv2"},
                                        {"conv_shortcut", "nin_shortcut"},
                                        {NULL, NULL}};
static const layer_name vae_attention[] = {
    {"group_norm", "norm"},   {"to_q", "q"}, {"to_k", "k"}, {"to_v", "v"},
    {"to_out.0", "proj_out"}, {NULL, NULL}};
static const layer_name unet_ends[] = {{"conv_in", "input_blocks.0.0"},
                                       {"time_embedding.linear_1", "time_embed.0"},
                                       {"time_embedding.linear_2", "time_embed.2"},
                                       {"conv_norm_out", "out.0"},
                                       {"conv_out", "out.2"},
                                       {NULL, NULL}};
static const layer_name vae_ends[] = {{"post_quant_conv", "post_quant_conv"},
                                      {"decoder.conv_in", "decoder.conv_in"},
                                      {"decoder.conv_norm_out", "decoder.norm_out"},
                                      {"decoder.conv_out", "decoder.conv_out"},
                                      {NULL, NULL}};

/* A block's name in the file and the rest of the tensor's, with its layer renamed by the table (NULL: the
 * layers are called the same). "" where the table lacks it. */
static void join(char out[WEIGHTS_TENSOR_NAME], const char *block, const char *rest,
                 const layer_name *layers) {
    out[0] = 0;
    if (!layers)
        (void)snprintf(out, WEIGHTS_TENSOR_NAME, "%s%s", block, rest);
    for (; layers && layers->diffusers; ++layers) {
        size_t length = strlen(layers->diffusers);
        if (strncmp(rest, layers->diffusers, length) == 0 && rest[length] == '.')
            (void)snprintf(out, WEIGHTS_TENSOR_NAME, "%s%s%s", block, layers->ldm, rest + length);
    }
}

void checkpoint_text_name(const void *context, const char *name, char out[WEIGHTS_TENSOR_NAME]) {
    const checkpoint_names *names = context;
    join(out, checkpoint_text_prefix(names->file), name, NULL);
}

/*
 * UNetModel counts its blocks through: input block 0 is the first convolution, then each level has its layers
 * and one block that halves; output blocks are the layers, the last of a level followed in its own block by
 * the doubling. Within a block 0 is the residual block, 1 the transformer, where the level has one.
 */
void checkpoint_unet_name(const void *context, const char *name, char out[WEIGHTS_TENSOR_NAME]) {
    const unet_config *config = &((const checkpoint_names *)context)->config->unet;
    int per_level = (int)config->layers_per_block + 1, i = 0, j = 0, rest = 0;
    const layer_name *layers = NULL;
    char block[96];
    if (sscanf(name, "down_blocks.%d.resnets.%d.%n", &i, &j, &rest) == 2 && rest) {
        (void)snprintf(block, sizeof block, "%sinput_blocks.%d.0.", unet_prefix, 1 + i * per_level + j);
        layers = unet_resnet;
    } else if (sscanf(name, "down_blocks.%d.attentions.%d.%n", &i, &j, &rest) == 2 && rest)
        (void)snprintf(block, sizeof block, "%sinput_blocks.%d.1.", unet_prefix, 1 + i * per_level + j);
    else if (sscanf(name, "down_blocks.%d.downsamplers.0.conv.%n", &i, &rest) == 1 && rest)
        (void)snprintf(block, sizeof block, "%sinput_blocks.%d.0.op.", unet_prefix, (i + 1) * per_level);
    else if (sscanf(name, "mid_block.resnets.%d.%n", &i, &rest) == 1 && rest) {
        (void)snprintf(block, sizeof block, "%smiddle_block.%d.", unet_prefix, 2 * i);
        layers = unet_resnet;
    } else if (sscanf(name, "mid_block.attentions.%d.%n", &i, &rest) == 1 && rest)
        (void)snprintf(block, sizeof block, "%smiddle_block.1.", unet_prefix);
    else if (sscanf(name, "up_blocks.%d.resnets.%d.%n", &i, &j, &rest) == 2 && rest) {
        (void)snprintf(block, sizeof block, "%soutput_blocks.%d.0.", unet_prefix, i * per_level + j);
        layers = unet_resnet;
    } else if (sscanf(name, "up_blocks.%d.attentions.%d.%n", &i, &j, &rest) == 2 && rest)
        (void)snprintf(block, sizeof block, "%soutput_blocks.%d.1.", unet_prefix, i * per_level + j);
    else if (sscanf(name, "up_blocks.%d.upsamplers.0.conv.%n", &i, &rest) == 1 && rest)
        (void)snprintf(block, sizeof block, "%soutput_blocks.%d.%d.conv.", unet_prefix,
                       (i + 1) * per_level - 1, config->up_attention[i] ? 2 : 1);
    else {
        (void)snprintf(block, sizeof block, "%s", unet_prefix);
        layers = unet_ends;
    }
    join(out, block, name + rest, layers);
}

/* Decoder numbers its levels from the image's end. */
void checkpoint_vae_name(const void *context, const char *name, char out[WEIGHTS_TENSOR_NAME]) {
    const vae_config *config = &((const checkpoint_names *)context)->config->vae;
    int last = config->levels - 1, i = 0, j = 0, rest = 0;
    const layer_name *layers = vae_resnet;
    char block[96];
    if (sscanf(name, "decoder.up_blocks.%d.resnets.%d.%n", &i, &j, &rest) == 2 && rest)
        (void)snprintf(block, sizeof block, "%sdecoder.up.%d.block.%d.", vae_prefix, last - i, j);
    else if (sscanf(name, "decoder.up_blocks.%d.upsamplers.0.conv.%n", &i, &rest) == 1 && rest) {
        (void)snprintf(block, sizeof block, "%sdecoder.up.%d.upsample.conv.", vae_prefix, last - i);
        layers = NULL;
    } else if (sscanf(name, "decoder.mid_block.resnets.%d.%n", &i, &rest) == 1 && rest)
        (void)snprintf(block, sizeof block, "%sdecoder.mid.block_%d.", vae_prefix, i + 1);
    else if (sscanf(name, "decoder.mid_block.attentions.%d.%n", &i, &rest) == 1 && rest) {
        (void)snprintf(block, sizeof block, "%sdecoder.mid.attn_1.", vae_prefix);
        layers = vae_attention;
    } else {
        (void)snprintf(block, sizeof block, "%s", vae_prefix);
        layers = vae_ends;
    }
    join(out, block, name + rest, layers);
}

attune_code checkpoint_check_used(const safetensors *file, attune_error *error) {
    static const char *const networks[] = {
        unet_prefix, "first_stage_model.decoder.", "first_stage_model.post_quant_conv.",
        "cond_stage_model.transformer.text_model.encoder.", "cond_stage_model.transformer.encoder."};
    for (uint64_t i = 0; i < file->count; ++i)
        for (size_t k = 0; k < sizeof networks / sizeof networks[0] && !file->tensors[i].used; ++k)
            if (strncmp(file->tensors[i].name, networks[k], strlen(networks[k])) == 0) {
                attune_code code = attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, file->path,
                                               "%s: tensor '%s' has no place in the model that the other "
                                               "tensors and the configuration make",
                                               file->path, file->tensors[i].name);
                attune_hint(error, "the file is of another kind of model, or the configuration is wrong");
                return code;
            }
    return ATTUNE_OK;
}

attune_code checkpoint_check_schedule(const safetensors *file, const sigma_model *sigmas,
                                      attune_error *error) {
    const double bound = 1e-3; /* float32 rounds 1e-7; another schedule is off by far more */
    const safetensors_tensor *alphas = safetensors_find(file, "alphas_cumprod");
    if (!alphas || alphas->ndim != 1 || !attune_dtype_equal(alphas->dtype, ATTUNE_F32))
        return ATTUNE_OK;
    if (alphas->shape[0] != (int64_t)sigmas->count)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, file->path,
                           "%s: tensor 'alphas_cumprod' has %lld timesteps, the configuration %u", file->path,
                           (long long)alphas->shape[0], sigmas->count);
    for (uint32_t i = 0; i < sigmas->count; ++i) {
        float is;
        memcpy(&is, (const char *)alphas->data + i * sizeof is, sizeof is);
        double wanted = 1.0 / (1.0 + sigmas->sigmas[i] * sigmas->sigmas[i]), off = (double)is - wanted;
        if (off <= bound * wanted && off >= -bound * wanted)
            continue;
        attune_code code = attune_fail(error, ATTUNE_UNIMPLEMENTED, SAMPLER_DOMAIN, file->path,
                                       "%s: tensor 'alphas_cumprod' is %g at timestep %u, where the "
                                       "configuration's betas make it %g",
                                       file->path, (double)is, i, wanted);
        attune_hint(error,
                    "the model was trained with other betas, or zero terminal SNR: --model-config can say "
                    "beta_start, beta_end and beta_schedule");
        return code;
    }
    return ATTUNE_OK;
}
