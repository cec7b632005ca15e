/*
 * prompt.h: prompt → tokens, for the prompt and, with classifier-free guidance, the negative prompt.
 */
#ifndef ATTUNE_SAMPLER_PROMPT_H
#define ATTUNE_SAMPLER_PROMPT_H

#include "plugin/sampler/services.h"
#include "plugin/sampler/tokens.h"

enum { PROMPT_MAX_TEXTS = 2 };

/* What the text encoder gets: one row of tokens per text, the prompt first. */
typedef struct prompt_tokens {
    int64_t texts; /* 1: the prompt alone; 2: and the negative prompt */
    int32_t ids[PROMPT_MAX_TEXTS * TOKENIZER_CHUNK];
} prompt_tokens;

/* [any] `negative` NULL = no second text. A prompt that is too long is cut, and the log says where. Errors:
 * those of tokenizer_chunk77. */
attune_code prompt_read(const services *host, const tokenizer *tokens, const char *prompt,
                        const char *negative, prompt_tokens *out, attune_error *error);

#endif
