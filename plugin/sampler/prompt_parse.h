/*
 * prompt_parse.h: the web UI's prompt syntax → pieces of text with a weight (modules/prompt_parser.py,
 * parse_prompt_attention).
 */
#ifndef ATTUNE_SAMPLER_PROMPT_PARSE_H
#define ATTUNE_SAMPLER_PROMPT_PARSE_H

#include "plugin/sampler/services.h"

/* A run of text of one weight, or a BREAK: text "BREAK" of weight −1. */
typedef struct prompt_piece {
    size_t start; /* into prompt_pieces.text, which has a 0 behind each piece */
    size_t length;
    double weight;
} prompt_piece;

typedef struct prompt_pieces {
    prompt_piece *piece; /* owned */
    size_t count;        /* ≥ 1 */
    char *text;          /* owned */
} prompt_pieces;

/*
 * [any] `prompt` is UTF-8 (else INVALID_ARGUMENT, as above 1 MiB). Brackets that do not match are text or
 * count to the end, as in the web UI; a weight like 1.2.3, which fails there, is INVALID_ARGUMENT with the
 * byte offset. The caller closes `out`, after an error too.
 */
attune_code prompt_parse(const services *host, const char *prompt, prompt_pieces *out, attune_error *error);
void prompt_pieces_close(const services *host, prompt_pieces *pieces);

/* 1 where the piece ends a chunk. */
int prompt_is_break(const prompt_pieces *pieces, size_t index);

#endif
