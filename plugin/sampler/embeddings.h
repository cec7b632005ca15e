/*
 * embeddings.h: tokens → embeddings, the text encoder of CLIP (Radford et al. 2021; transformers'
 * CLIPTextModel): hidden_states[-N] after the final layer norm, N = 1 for last_hidden_state.
 */
#ifndef ATTUNE_SAMPLER_EMBEDDINGS_H
#define ATTUNE_SAMPLER_EMBEDDINGS_H

#include "plugin/sampler/attention.h"
#include "plugin/sampler/config.h"
#include "plugin/sampler/weights.h"

typedef struct text_layer {
    weights_norm norm1;
    weights_norm norm2;
    device_weights *qkv;
    device_weights *out;
    device_weights *fc1;
    device_weights *fc2;
} text_layer;

typedef struct text_encoder {
    text_config config;
    device_stored tokens; /* (vocab_size, hidden_size) as stored: only the rows that a prompt uses are read */
    char table[DEVICE_NAME]; /* what errors call it */
    float *positions;        /* (max_position_embeddings, hidden_size) */
    text_layer *layers;      /* owned */
    weights_norm final_norm;
} text_encoder;

/* Fill the encoder; its weights belong to the loader's pool. text_encoder_close frees the rest. Errors go to
 * the loader. */
void text_encoder_load(weights_loader *loader, text_encoder *encoder, const text_config *config);
void text_encoder_close(const services *host, text_encoder *encoder);

/* What one call takes. */
typedef struct text_input {
    const int32_t *ids; /* host memory, (texts, tokens), each < vocab_size */
    int64_t texts;
    int64_t tokens;
    int64_t skip; /* N, 1 … num_hidden_layers: the last N − 1 layers are left out */
} text_input;

/* [session] *out is new: (texts, tokens, hidden_size). */
attune_code text_encoder_forward(pass *p, const text_encoder *encoder, const text_input *input, float **out,
                                 attune_error *error);

#endif
