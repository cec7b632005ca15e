/*
 * tokens.h: prompt → token ids, the byte pair encoding of CLIP (Radford et al. 2021) as transformers'
 * CLIPTokenizer does it: special tokens, NFC, white space, lower case, words, byte alphabet, merges by rank.
 *
 * A tokenizer is immutable after tokenizer_open: any number of threads may encode with it at once.
 */
#ifndef ATTUNE_SAMPLER_TOKENS_H
#define ATTUNE_SAMPLER_TOKENS_H

#include "attune/plugin.h"

#include <stddef.h>

typedef struct tokenizer tokenizer;

/* CLIP's context: a start token, at most 75 of the prompt, an end token, padding. */
enum { TOKENIZER_CHUNK = 77, TOKENIZER_CHUNK_TEXT = 75 };

/* What did not fit into a chunk. All 0 when everything did. */
typedef struct tokenizer_cut {
    size_t tokens;  /* how many tokens the prompt has, without start and end */
    size_t dropped; /* how many of them were left out */
    size_t offset;  /* byte offset in the prompt of the first white-space separated word that is not whole */
} tokenizer_cut;

/*
 * [any] Read vocab.json and merges.txt in `folder` (and the pad token from special_tokens_map.json or
 * tokenizer_config.json where one of them names it; otherwise it is <|endoftext|>). `memory` must outlive the
 * tokenizer, which the caller closes. Blocks. Errors: NOT_FOUND, DATA_LOSS (bad JSON, ids that are not
 * exactly 0 … n−1, a merge of unknown tokens, no special tokens), OUT_OF_RANGE (a file above 16 MiB),
 * RESOURCE_EXHAUSTED.
 */
attune_code tokenizer_open(const attune_memory_service *memory, const char *folder, tokenizer **out,
                           attune_error *error);

/* [main] Free it; NULL is allowed. */
void tokenizer_close(tokenizer *tokens);

/* [any] How many ids there are: the text encoder's vocab_size must not be less. */
uint32_t tokenizer_size(const tokenizer *tokens);

/* [any] The special ids. */
int32_t tokenizer_start(const tokenizer *tokens);
int32_t tokenizer_end(const tokenizer *tokens);
int32_t tokenizer_pad(const tokenizer *tokens);

/* [any] The id of a comma that ends a word, −1 where the vocabulary has none. */
int32_t tokenizer_comma(const tokenizer *tokens);

/* [any] The length of `text` in bytes. Error: INVALID_ARGUMENT where tokenizer_encode would give it. */
attune_code tokenizer_check(const char *text, size_t *length, attune_error *error);

/*
 * [any] The ids of `text` (UTF-8) without start and end. *count is how many there are; the first `capacity`
 * of them are written to `ids` (which may be NULL when capacity is 0). Errors: INVALID_ARGUMENT (not UTF-8,
 * with the byte offset; above 1 MiB), RESOURCE_EXHAUSTED.
 */
attune_code tokenizer_encode(const tokenizer *tokens, const char *text, int32_t *ids, size_t capacity,
                             size_t *count, attune_error *error);

/*
 * [any] One chunk as the text encoder takes it: start, up to 75 ids, end, then padding to 77, cut as
 * transformers' truncation does (the end token stays). `cut` may be NULL. Errors as tokenizer_encode.
 */
attune_code tokenizer_chunk77(const tokenizer *tokens, const char *text, int32_t ids[TOKENIZER_CHUNK],
                              tokenizer_cut *cut, attune_error *error);

#endif
