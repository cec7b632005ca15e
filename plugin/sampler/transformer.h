/*
 * transformer.h: the spatial transformer of the UNet (Rombach et al. 2022; diffusers' Transformer2DModel):
 * pixels as tokens through blocks of self-attention, attention to the text, and a GEGLU feed-forward.
 */
#ifndef ATTUNE_SAMPLER_TRANSFORMER_H
#define ATTUNE_SAMPLER_TRANSFORMER_H

#include "plugin/sampler/attention.h"
#include "plugin/sampler/config.h"
#include "plugin/sampler/resnet.h"

/* What the text contributes: keys and values of every cross attention, computed once per session. */
typedef struct text_context {
    int64_t first;  /* of the texts below: the one that the present images' first belong to */
    int64_t texts;  /* 2: prompt and negative prompt; 1: the prompt alone. Images of one text lie together. */
    int64_t tokens; /* of each text */
    float **kv;     /* per cross attention: (texts, tokens, 2 · channels), keys then values */
} text_context;

/* BasicTransformerBlock. */
typedef struct transformer_block {
    weights_norm norm1;
    weights_norm norm2;
    weights_norm norm3;
    device_weights *qkv; /* self-attention's three products in one */
    device_weights *out1;
    device_weights *q;
    device_weights *kv; /* of the text */
    device_weights *out2;
    device_weights *ff1;
    device_weights *ff2;
    int32_t context; /* index into text_context.kv */
} transformer_block;

typedef struct transformer {
    int64_t channels;
    int64_t heads;
    int64_t groups;
    weights_norm norm;
    device_weights *proj_in; /* a linear layer or a 1×1 convolution: the same thing, channels last */
    device_weights *proj_out;
    int32_t layers;
    transformer_block block[CONFIG_MAX_TRANSFORMERS];
} transformer;

/* The weights below `base`; *contexts counts the cross attentions of the network. */
void transformer_load(weights_loader *loader, transformer *t, const char *base, int64_t channels,
                      int64_t heads, const unet_config *config, int32_t *contexts);

/* [session] Keys and values of `text` (texts · tokens rows of cross_attention_dim), into context->kv. */
attune_code transformer_read_text(pass *p, const transformer *t, const float *text,
                                  const text_context *context, attune_error *error);

/* [session] x stays, `out` is new. */
attune_code transformer_forward(pass *p, const transformer *t, const feature_map *x,
                                const text_context *context, feature_map *out, attune_error *error);

#endif
