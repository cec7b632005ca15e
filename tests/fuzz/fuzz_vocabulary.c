/* fuzz_vocabulary.c: a tokenizer's files, 0x1e between them: vocab.json, merges.txt, tokenizer_config.json,
 * special_tokens_map.json; a missing part is a missing file. What opens encodes a fixed text to ids of its
 * own, and running out of memory at any allocation is an error that keeps nothing. */
#include "plugin/sampler/tokens.h"
#include "tests/fuzz/fuzz.h"

static const char text[] = "abab ABC aaaa, a'll b's 1234 <|endoftext|> caf\xc3\xa9 \xf0\x9f\x8d\x8e!!! "
                           "abcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabc";

static void check_encoding(const tokenizer *tokens) {
    int32_t ids[sizeof text], chunk[TOKENIZER_CHUNK];
    size_t count;
    int64_t most = tokenizer_size(tokens);
    FUZZ_CHECK(tokenizer_start(tokens) >= 0 && tokenizer_start(tokens) < most);
    FUZZ_CHECK(tokenizer_end(tokens) >= 0 && tokenizer_end(tokens) < most);
    FUZZ_CHECK(tokenizer_pad(tokens) >= 0 && tokenizer_pad(tokens) < most);
    FUZZ_CHECK(tokenizer_encode(tokens, text, ids, sizeof text, &count, NULL) == ATTUNE_OK);
    FUZZ_CHECK(count >= 20 && count < sizeof text); /* words, and bytes */
    for (size_t i = 0; i < count; ++i)
        FUZZ_CHECK(ids[i] >= 0 && ids[i] < most);
    FUZZ_CHECK(tokenizer_chunk77(tokens, text, chunk, NULL, NULL) == ATTUNE_OK);
    size_t kept = count < TOKENIZER_CHUNK_TEXT ? count : TOKENIZER_CHUNK_TEXT;
    FUZZ_CHECK(chunk[0] == tokenizer_start(tokens) && memcmp(chunk + 1, ids, kept * sizeof *ids) == 0);
    FUZZ_CHECK(chunk[kept + 1] == tokenizer_end(tokens));
}

/* How many allocations opening takes. */
static uint64_t open_once(const char *folder, uint64_t fail_at) {
    fuzz_memory memory;
    tokenizer *tokens;
    attune_error error;
    fuzz_memory_init(&memory, fail_at);
    memset(&error, 0xff, sizeof error);
    attune_code code = tokenizer_open(&memory.service, folder, &tokens, &error);
    uint64_t calls = memory.calls;
    fuzz_check_error(code, &error);
    FUZZ_CHECK((code == ATTUNE_OK) == (tokens != NULL));
    if (fail_at)
        FUZZ_CHECK(code == ATTUNE_RESOURCE_EXHAUSTED);
    else
        FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_DATA_LOSS || code == ATTUNE_NOT_FOUND);
    if (tokens)
        check_encoding(tokens);
    tokenizer_close(tokens);
    FUZZ_CHECK(memory.live == 0);
    return code == ATTUNE_OK ? calls : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    const char *folder = fuzz_folder();
    for (int i = 0; i < 4; ++i) {
        size_t length = 0;
        const uint8_t *part = fuzz_part(&data, &size, &length);
        fuzz_put(folder, names[i], part ? (const void *)part : i == 0 ? "" : NULL, length);
    }
    uint64_t calls = open_once(folder, 0);
    for (uint64_t fail_at = 1; fail_at <= calls; ++fail_at)
        (void)open_once(folder, fail_at);
    return 0;
}
