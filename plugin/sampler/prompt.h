/*
 * prompt.h: prompt → chunks of weighted tokens, for the prompt and, with classifier-free guidance, the
 * negative prompt, by the web UI's rules (web UI 1.10: modules/prompt_parser.py, sd_hijack_clip.py,
 * sd_emphasis.py):
 * `(a)` × 1.1, `[a]` ÷ 1.1, `(a:1.2)`, nested, escapes with a backslash, BREAK; 75 tokens a chunk, each with
 * its own start and end token; emphasis "Original".
 */
#ifndef ATTUNE_SAMPLER_PROMPT_H
#define ATTUNE_SAMPLER_PROMPT_H

#include "plugin/sampler/prompt_parse.h"
#include "plugin/sampler/services.h"
#include "plugin/sampler/tokens.h"

enum { PROMPT_MAX_TEXTS = 2 };

/* What the text encoder gets: rows of 77 tokens, (texts, chunks, 77), the prompt first. */
typedef struct prompt_tokens {
    int64_t texts;  /* 1: the prompt alone; 2: and the negative prompt */
    int64_t chunks; /* of each text: the shorter one is filled up with those of an empty prompt */
    int32_t *ids;   /* owned */
    float *weights; /* owned, one for each id; NULL when all are 1 */
} prompt_tokens;

static inline int64_t prompt_tokens_all(const prompt_tokens *prompt) {
    return prompt->texts * prompt->chunks * TOKENIZER_CHUNK;
}

/* [any] `negative` NULL = no second text. The caller closes `out`, after an error too. Errors: those of
 * prompt_parse and tokenizer_encode, INVALID_ARGUMENT (a weight too large for a float), RESOURCE_EXHAUSTED.
 */
attune_code prompt_read(const services *host, const tokenizer *tokens, const char *prompt,
                        const char *negative, prompt_tokens *out, attune_error *error);
void prompt_close(const services *host, prompt_tokens *prompt);

/*
 * [any] `embeddings`, (texts, chunks · 77, hidden) on the host, times their tokens' weights, each chunk then
 * scaled so that its mean is what it was. Sums are in double, in order. Chunks without weights keep their
 * bits. Error: OUT_OF_RANGE where the weights leave a mean of 0 or overflow.
 */
attune_code prompt_emphasise(const prompt_tokens *prompt, int64_t hidden, float *embeddings,
                             attune_error *error);

#endif
