/* fuzz_tokens.c: a prompt's bytes → ids, with the small vocabulary of tests/golden. Text is refused exactly
 * where it is not UTF-8; white space separates; chunk77 agrees with encode and says rightly what it cut. */
#include "tests/fuzz/tiny_tokenizer.h"

typedef struct encoding {
    int32_t *ids;
    size_t count;
} encoding;

/* Bytes of the UTF-8 character at the front by RFC 3629's table, 0 where there is none. */
static size_t character(const uint8_t *at, size_t size) {
    size_t length = at[0] < 0x80   ? 1
                    : at[0] < 0xc2 ? 0
                    : at[0] < 0xe0 ? 2
                    : at[0] < 0xf0 ? 3
                    : at[0] < 0xf5 ? 4
                                   : 0;
    if (length > size)
        return 0;
    for (size_t i = 1; i < length; ++i)
        if (at[i] < 0x80 || at[i] > 0xbf)
            return 0;
    int bad = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
              (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f);
    return bad ? 0 : length;
}

/* How many bytes of the text are UTF-8. */
static size_t utf8_bytes(const char *text, size_t size) {
    size_t at = 0, length;
    while (at < size && (length = character((const uint8_t *)text + at, size - at)) > 0)
        at += length;
    return at;
}

/* A text that must encode. Twice, and without room for ids, it is the same. */
static encoding encode(const tokenizer *tokens, const char *text) {
    encoding one = {NULL, 0};
    size_t count = 0;
    FUZZ_CHECK(tokenizer_encode(tokens, text, NULL, 0, &one.count, NULL) == ATTUNE_OK);
    size_t bytes = (one.count ? one.count : 1) * sizeof(int32_t);
    int32_t *again = malloc(bytes);
    one.ids = malloc(bytes);
    FUZZ_CHECK(one.ids && again);
    FUZZ_CHECK(tokenizer_encode(tokens, text, one.ids, one.count, &count, NULL) == ATTUNE_OK);
    FUZZ_CHECK(count == one.count);
    FUZZ_CHECK(tokenizer_encode(tokens, text, again, one.count, &count, NULL) == ATTUNE_OK);
    FUZZ_CHECK(count == one.count && memcmp(one.ids, again, count * sizeof *again) == 0);
    for (size_t i = 0; i < count; ++i)
        FUZZ_CHECK(one.ids[i] >= 0 && (uint32_t)one.ids[i] < tokenizer_size(tokens));
    free(again);
    return one;
}

/* The ids of head + " " + tail are those of the head, then those of the tail. */
static void check_split(const tokenizer *tokens, const char *text, size_t at) {
    size_t size = strlen(text);
    char *joined = malloc(size + 2), *head = strndup(text, at);
    FUZZ_CHECK(joined && head);
    (void)snprintf(joined, size + 2, "%s %s", head, text + at);
    encoding one = encode(tokens, head), two = encode(tokens, text + at), both = encode(tokens, joined);
    FUZZ_CHECK(both.count == one.count + two.count);
    FUZZ_CHECK(memcmp(both.ids, one.ids, one.count * sizeof *one.ids) == 0);
    FUZZ_CHECK(memcmp(both.ids + one.count, two.ids, two.count * sizeof *two.ids) == 0);
    free(one.ids);
    free(two.ids);
    free(both.ids);
    free(head);
    free(joined);
}

/* What stands before the cut is whole: its ids are the first ones, and they fit. */
static void check_cut(const tokenizer *tokens, const char *text, const encoding *all,
                      const tokenizer_cut *cut) {
    size_t kept = all->count < TOKENIZER_CHUNK_TEXT ? all->count : TOKENIZER_CHUNK_TEXT;
    FUZZ_CHECK(cut->tokens == all->count && cut->dropped == all->count - kept);
    if (!cut->dropped) {
        FUZZ_CHECK(cut->offset == 0);
        return;
    }
    FUZZ_CHECK(cut->offset < strlen(text) && utf8_bytes(text, cut->offset) == cut->offset);
    char *head = strndup(text, cut->offset);
    FUZZ_CHECK(head);
    encoding before = encode(tokens, head);
    FUZZ_CHECK(before.count <= TOKENIZER_CHUNK_TEXT);
    FUZZ_CHECK(memcmp(before.ids, all->ids, before.count * sizeof *before.ids) == 0);
    free(before.ids);
    free(head);
}

static void check_chunk(const tokenizer *tokens, const char *text) {
    int32_t chunk[TOKENIZER_CHUNK];
    tokenizer_cut cut;
    encoding all = encode(tokens, text);
    size_t kept = all.count < TOKENIZER_CHUNK_TEXT ? all.count : TOKENIZER_CHUNK_TEXT;
    FUZZ_CHECK(tokenizer_chunk77(tokens, text, chunk, &cut, NULL) == ATTUNE_OK);
    FUZZ_CHECK(chunk[0] == tokenizer_start(tokens) && chunk[kept + 1] == tokenizer_end(tokens));
    FUZZ_CHECK(memcmp(chunk + 1, all.ids, kept * sizeof *chunk) == 0);
    for (size_t i = kept + 2; i < TOKENIZER_CHUNK; ++i)
        FUZZ_CHECK(chunk[i] == tokenizer_pad(tokens));
    check_cut(tokens, text, &all, &cut);
    free(all.ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static fuzz_memory memory;
    const tokenizer *tokens = fuzz_tiny_tokenizer(&memory);
    attune_error error;
    char *text = malloc(size + 1), offset[48];
    FUZZ_CHECK(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    size_t length = strlen(text), valid = utf8_bytes(text, length), count;
    int64_t live = memory.live;
    memset(&error, 0xff, sizeof error);
    attune_code code = tokenizer_encode(tokens, text, NULL, 0, &count, &error);
    fuzz_check_error(code, &error);
    FUZZ_CHECK((code == ATTUNE_OK) == (valid == length));
    if (code == ATTUNE_OK) {
        check_chunk(tokens, text);
        size_t half = length / 2;
        while (half > 0 && ((uint8_t)text[half] & 0xc0) == 0x80)
            --half;
        check_split(tokens, text, half);
    } else {
        (void)snprintf(offset, sizeof offset, "byte offset %zu ", valid);
        FUZZ_CHECK(code == ATTUNE_INVALID_ARGUMENT && count == 0 && strstr(error.message, offset));
    }
    FUZZ_CHECK(memory.live == live);
    free(text);
    return 0;
}
