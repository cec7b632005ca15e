/*
 * checkpoint.h: Stable Diffusion 1.x in one .safetensors file, with the names of the latent diffusion
 * repository (github.com/CompVis/latent-diffusion: UNetModel in openaimodel.py, Decoder in the diffusion
 * modules' model.py, FrozenCLIPEmbedder): what it is, what its shapes tell, and which tensor is which of
 * diffusers'.
 */
#ifndef ATTUNE_SAMPLER_CHECKPOINT_H
#define ATTUNE_SAMPLER_CHECKPOINT_H

#include "plugin/sampler/config.h"
#include "plugin/sampler/weights.h"

/*
 * [any] Map the file; the caller closes it. Blocks. Errors: UNIMPLEMENTED (a pickle, or another kind of
 * model: which one it looks like), and safetensors_open's.
 */
attune_code checkpoint_open(const services *host, const char *path, safetensors *out, attune_error *error);

/*
 * [any] The configuration: shapes first, Stable Diffusion 1.x's values for what they do not tell, and over
 * both what `config_path` says, or with NULL the file NAME.json beside NAME.safetensors where there is one.
 * Blocks. Errors: as config_parse's, and INVALID_ARGUMENT (a tensor that the shapes are read from is
 * missing), NOT_FOUND, DATA_LOSS (the configuration's file).
 */
attune_code checkpoint_config(const safetensors *file, const char *config_path, model_config *out,
                              attune_error *error);

/* Where the names stand. */
typedef struct checkpoint_names {
    const safetensors *file;
    const model_config *config;
} checkpoint_names;

/* weights_rename of the three parts; the context is a checkpoint_names. */
void checkpoint_text_name(const void *context, const char *name, char out[WEIGHTS_TENSOR_NAME]);
void checkpoint_unet_name(const void *context, const char *name, char out[WEIGHTS_TENSOR_NAME]);
void checkpoint_vae_name(const void *context, const char *name, char out[WEIGHTS_TENSOR_NAME]);

/* [any] After loading: INVALID_ARGUMENT where a tensor of the networks was taken by none of them. */
attune_code checkpoint_check_used(const safetensors *file, attune_error *error);

/* [any] UNIMPLEMENTED or INVALID_ARGUMENT where the file's own noise schedule (alphas_cumprod, in float32) is
 * not the one that the configuration makes. */
attune_code checkpoint_check_schedule(const safetensors *file, const sigma_model *sigmas,
                                      attune_error *error);

/* [any] How many names start with the text. */
uint64_t checkpoint_count(const safetensors *file, const char *start);

/* What stands before every tensor of the text encoder: the file's "cond_stage_model.transformer.text_model.",
 * or, as some tools write it, without "text_model.". */
const char *checkpoint_text_prefix(const safetensors *file);

#endif
