/*
 * fuzz_prompt.c: a prompt and a negative one, 0x1e between them (without: the prompt alone) → pieces, chunks
 * of 77 weighted tokens, and embeddings times the weights. What is read is whole: finite weights, known ids,
 * start and end in each chunk; running out of memory anywhere is an error.
 */
#include "plugin/sampler/prompt.h"
#include "tests/fuzz/tiny_tokenizer.h"

#include <math.h>

enum { HIDDEN = 2, MOST_CHUNKS = 64 };

static char *text_of(const uint8_t *part, size_t length) {
    char *text = part ? malloc(length + 1) : NULL;
    if (text) {
        memcpy(text, part, length);
        text[length] = 0;
    }
    return text;
}

/* Each piece ends with a 0 and lies behind the one before, which has another weight. */
static void check_pieces(const services *host, const char *text) {
    prompt_pieces pieces;
    attune_error error;
    memset(&error, 0xff, sizeof error);
    attune_code code = prompt_parse(host, text, &pieces, &error);
    fuzz_check_error(code, &error);
    FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_INVALID_ARGUMENT);
    size_t end = 0;
    FUZZ_CHECK(code != ATTUNE_OK || pieces.count >= 1);
    for (size_t i = 0; code == ATTUNE_OK && i < pieces.count; ++i) {
        const prompt_piece *piece = &pieces.piece[i];
        FUZZ_CHECK(piece->start == end && strlen(pieces.text + piece->start) == piece->length);
        FUZZ_CHECK(i == 0 || piece->weight != pieces.piece[i - 1].weight);
        FUZZ_CHECK(!prompt_is_break(&pieces, i) || piece->length == 5);
        end += piece->length + 1;
    }
    FUZZ_CHECK(code != ATTUNE_OK || end <= 2 * strlen(text) + 2);
    prompt_pieces_close(host, &pieces);
}

/* Start, at most 75 others, end, padding. */
static void check_chunk(const tokenizer *tokens, const int32_t *ids, const float *weights) {
    int64_t end = 1;
    FUZZ_CHECK(ids[0] == tokenizer_start(tokens));
    while (end < TOKENIZER_CHUNK && ids[end] != tokenizer_end(tokens))
        ++end;
    FUZZ_CHECK(end < TOKENIZER_CHUNK);
    for (int64_t i = 0; i < TOKENIZER_CHUNK; ++i) {
        FUZZ_CHECK(ids[i] >= 0 && (uint32_t)ids[i] < tokenizer_size(tokens));
        FUZZ_CHECK(i <= end || ids[i] == tokenizer_pad(tokens));
        FUZZ_CHECK(!weights || isfinite(weights[i]));
    }
    FUZZ_CHECK(!weights || (weights[0] == 1.0f && weights[TOKENIZER_CHUNK - 1] == 1.0f));
}

/* Either all embeddings are finite or it is an error; weights of 1 change no bit. */
static void check_emphasis(const prompt_tokens *prompt) {
    size_t count = (size_t)prompt_tokens_all(prompt) * HIDDEN;
    float *embeddings = malloc(count * sizeof *embeddings);
    attune_error error;
    memset(&error, 0xff, sizeof error);
    FUZZ_CHECK(embeddings);
    for (size_t i = 0; i < count; ++i)
        embeddings[i] = (float)(int)(i * 7919 % 2003) / 100.0f - 9.0f;
    attune_code code = prompt_emphasise(prompt, HIDDEN, embeddings, &error);
    fuzz_check_error(code, &error);
    FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_OUT_OF_RANGE);
    for (size_t i = 0; i < count && code == ATTUNE_OK; ++i)
        FUZZ_CHECK(isfinite(embeddings[i]));
    free(embeddings);
}

static attune_code read_once(const tokenizer *tokens, const char *prompt, const char *negative,
                             uint64_t fail_at, uint64_t *calls) {
    fuzz_memory memory;
    services host = {.memory = &memory.service};
    prompt_tokens got;
    attune_error error;
    fuzz_memory_init(&memory, fail_at);
    memset(&error, 0xff, sizeof error);
    attune_code code = prompt_read(&host, tokens, prompt, negative, &got, &error);
    fuzz_check_error(code, &error);
    if (code == ATTUNE_OK) {
        int weighted = 0;
        FUZZ_CHECK(got.texts == (negative ? 2 : 1) && got.chunks >= 1);
        for (int64_t i = 0; i < got.texts * got.chunks; ++i)
            check_chunk(tokens, got.ids + i * TOKENIZER_CHUNK,
                        got.weights ? got.weights + i * TOKENIZER_CHUNK : NULL);
        for (int64_t i = 0; got.weights && i < prompt_tokens_all(&got); ++i)
            weighted |= got.weights[i] != 1.0f;
        FUZZ_CHECK(weighted == (got.weights != NULL));
        if (weighted && got.chunks <= MOST_CHUNKS)
            check_emphasis(&got);
    }
    prompt_close(&host, &got);
    FUZZ_CHECK(memory.live == 0);
    *calls = memory.calls;
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static fuzz_memory memory;
    const tokenizer *tokens = fuzz_tiny_tokenizer(&memory);
    services host = {.memory = &memory.service};
    size_t length = 0;
    uint64_t calls, ignored;
    const uint8_t *part = fuzz_part(&data, &size, &length);
    char *prompt = text_of(part ? part : (const uint8_t *)"", length);
    part = fuzz_part(&data, &size, &length);
    char *negative = text_of(part, length);
    FUZZ_CHECK(prompt);
    check_pieces(&host, prompt);
    attune_code code = read_once(tokens, prompt, negative, 0, &calls);
    FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_INVALID_ARGUMENT);
    for (uint64_t at = 1; at <= calls && code == ATTUNE_OK; at += 1 + at / 4)
        FUZZ_CHECK(read_once(tokens, prompt, negative, at, &ignored) == ATTUNE_RESOURCE_EXHAUSTED);
    free(prompt);
    free(negative);
    return 0;
}
