/*
 * tokens.c: text → ids.
 *
 * The stages and their order are those of transformers' CLIPTokenizer: special tokens in the raw text; NFC,
 * lower case character by character; words by the pattern
 *   <|startoftext|> | <|endoftext|> | 's | 't | 're | 've | 'm | 'll | 'd | letters | one number | other
 * non-space ; then byte pair encoding (Sennrich et al. 2016), lowest rank first, leftmost first. Unicode data
 * is utf8proc's. Where its version and that of the Rust libraries behind transformers differ, so do
 * characters that were added in between (none of Unicode 3.2's).
 */
#include "plugin/sampler/domain.h"
#include "plugin/sampler/tokens_table.h"

#include <utf8proc.h>

enum { TEXT_BYTES_MAX = 1 << 20, MARKS_MAX = 1024, STACK_SYMBOLS = 64 };

/* Where ids go, and which white-space separated word the first id beyond `limit` came from. */
typedef struct token_sink {
    int32_t *ids;
    size_t capacity;
    size_t count;
    size_t words; /* begun so far */
    size_t limit;
    size_t cut_word;
    int in_word;
} token_sink;

static void put(token_sink *sink, int32_t id) {
    if (sink->count < sink->capacity)
        sink->ids[sink->count] = id;
    if (sink->count == sink->limit)
        sink->cut_word = sink->words;
    sink->count++;
}

/* ---- byte pair encoding of one word ---- */

/* A symbol of a word, in a doubly linked list by index; −1 ends it. */
typedef struct word_symbol {
    int32_t id;
    int32_t before;
    int32_t after;
} word_symbol;

/* A merge that may be done; stale when the symbols at `at` have changed since. */
typedef struct word_merge {
    uint32_t rank;
    int32_t at;
    int32_t result;
} word_merge;

typedef struct word_work {
    const tokenizer *tokens;
    word_symbol *symbols;
    word_merge *heap; /* smallest first */
    size_t heap_count;
} word_work;

static int sooner(const word_merge *a, const word_merge *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(word_work *work, word_merge item) {
    size_t i = work->heap_count++;
    while (i > 0 && sooner(&item, &work->heap[(i - 1) / 2])) {
        work->heap[i] = work->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    work->heap[i] = item;
}

static word_merge heap_pop(word_work *work) {
    word_merge top = work->heap[0], item = work->heap[--work->heap_count];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < work->heap_count) {
        if (child + 1 < work->heap_count && sooner(&work->heap[child + 1], &work->heap[child]))
            child++;
        if (!sooner(&work->heap[child], &item))
            break;
        work->heap[i] = work->heap[child];
        i = child;
    }
    work->heap[i] = item;
    return top;
}

static const token_merge *merge_at(const word_work *work, int32_t at) {
    int32_t after = at < 0 ? -1 : work->symbols[at].after;
    if (after < 0)
        return NULL;
    const token_merge *merge = token_merge_slot(work->tokens, work->symbols[at].id, work->symbols[after].id);
    return merge->left < 0 ? NULL : merge;
}

static void consider(word_work *work, int32_t at) {
    const token_merge *merge = merge_at(work, at);
    if (merge)
        heap_push(work, (word_merge){merge->rank, at, merge->result});
}

/* Merge until nothing merges. A heap instead of a search per merge keeps one long word from taking n² time.
 */
static void merge_all(word_work *work) {
    while (work->heap_count) {
        word_merge next = heap_pop(work);
        word_symbol *left = &work->symbols[next.at];
        const token_merge *merge = left->id < 0 ? NULL : merge_at(work, next.at);
        if (!merge || merge->rank != next.rank)
            continue;
        word_symbol *right = &work->symbols[left->after];
        left->id = next.result;
        left->after = right->after;
        right->id = -1; /* swallowed */
        if (left->after >= 0)
            work->symbols[left->after].before = next.at;
        consider(work, left->before);
        consider(work, next.at);
    }
}

static attune_code put_word(const tokenizer *tokens, const uint8_t *bytes, size_t length, token_sink *sink,
                            attune_error *error) {
    /* n − 1 pairs at first, and at most two new ones for each of n − 1 merges */
    word_symbol few_symbols[STACK_SYMBOLS];
    word_merge few_merges[3 * STACK_SYMBOLS];
    word_work work = {tokens, few_symbols, few_merges, 0};
    char *block = NULL;
    if (length > STACK_SYMBOLS) {
        const attune_memory_service *memory = tokens->memory;
        block = memory->alloc(memory->context, length * (sizeof(word_symbol) + 3 * sizeof(word_merge)),
                              "tokenizer");
        if (!block)
            return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, "prompt",
                               "no memory for a word of %zu bytes", length);
        work.symbols = (word_symbol *)(void *)block;
        work.heap = (word_merge *)(void *)(block + length * sizeof(word_symbol));
    }
    int32_t count = (int32_t)length;
    for (int32_t i = 0; i < count; i++) {
        int32_t id = i + 1 < count ? tokens->inner[bytes[i]] : tokens->last[bytes[i]];
        work.symbols[i] = (word_symbol){id, i - 1, i + 1 < count ? i + 1 : -1};
    }
    for (int32_t i = 0; i < count; i++)
        consider(&work, i);
    merge_all(&work);
    for (int32_t i = 0; i >= 0; i = work.symbols[i].after)
        put(sink, work.symbols[i].id);
    tokens->memory->free(tokens->memory->context, block);
    return ATTUNE_OK;
}

/* ---- words ---- */

/* Unicode's White_Space; not the separators U+001C … 001F, not U+200B. */
static int is_space(int32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

enum { CLASS_SPACE, CLASS_LETTER, CLASS_NUMBER, CLASS_OTHER };

static int class_of(int32_t c) {
    if (is_space(c))
        return CLASS_SPACE;
    utf8proc_category_t category = utf8proc_category(c);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO)
        return CLASS_LETTER;
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO)
        return CLASS_NUMBER;
    return CLASS_OTHER;
}

/* Does the ASCII `literal` stand at the front of the code points? Its length, or 0. */
static size_t literal_at(const int32_t *points, size_t count, const char *literal) {
    size_t length = strlen(literal);
    if (length > count)
        return 0;
    for (size_t i = 0; i < length; i++)
        if (points[i] != literal[i])
            return 0;
    return length;
}

/* How many code points the word at the front has; points[0] is not white space. *special: it is one of the
 * literals. */
static size_t word_length(const int32_t *points, size_t count, int *special) {
    static const char *const literals[] = {TOKENS_START, TOKENS_END, "'s",  "'t", "'re",
                                           "'ve",        "'m",       "'ll", "'d"};
    *special = 0;
    if (points[0] == '<' || points[0] == '\'')
        for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++) {
            size_t length = literal_at(points, count, literals[i]);
            *special = length && i < 2;
            if (length)
                return length;
        }
    int kind = class_of(points[0]);
    size_t length = 1;
    while (kind != CLASS_NUMBER && length < count && class_of(points[length]) == kind)
        length++;
    return length;
}

/* ---- one stretch of text between special tokens ---- */

typedef struct stretch {
    int32_t *points; /* NFC and lower case; owns the block */
    size_t count;
    uint8_t *bytes; /* room for the UTF-8 of all of it */
} stretch;

/* NFC, then lower case. utf8proc has the one-to-one mappings; U+0130 alone becomes two characters. */
static attune_code normalise(const attune_memory_service *memory, const char *text, size_t length,
                             stretch *out, attune_error *error) {
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    const uint8_t *bytes = (const uint8_t *)text;
    *out = (stretch){0};
    utf8proc_ssize_t room = utf8proc_decompose(bytes, (utf8proc_ssize_t)length, NULL, 0, options);
    if (room < 0)
        return attune_fail(error, ATTUNE_INTERNAL, SAMPLER_DOMAIN, "prompt", "%s", utf8proc_errmsg(room));
    size_t most = (size_t)room;
    /* composed, then lower case (twice as many at most), then the bytes (four each) */
    int32_t *block = memory->alloc(memory->context, most * (1 + 2 + 2) * sizeof(int32_t), "tokenizer");
    if (!block)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, "prompt",
                           "no memory for %zu characters", most);
    utf8proc_ssize_t count = utf8proc_decompose(bytes, (utf8proc_ssize_t)length, block, room, options);
    count = count < 0 ? count : utf8proc_normalize_utf32(block, count, options);
    *out = (stretch){block, 0, (uint8_t *)(block + 3 * most)};
    int32_t *lower = block + most;
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        if (block[i] == 0x130) {
            lower[out->count++] = 'i';
            lower[out->count++] = 0x307;
        } else
            lower[out->count++] = utf8proc_tolower(block[i]);
    }
    memmove(block, lower, out->count * sizeof(int32_t));
    return ATTUNE_OK;
}

/* The word's ids. A literal special token that appears only after lower case ("<|ENDOFTEXT|>") is never
 * special: it falls into its three parts. */
static attune_code put_points(const tokenizer *tokens, const stretch *text, const int32_t *points,
                              size_t count, int special, token_sink *sink, attune_error *error) {
    size_t part[3] = {count, 0, 0};
    if (special) {
        part[0] = 2;
        part[1] = count - 4;
        part[2] = 2;
    }
    for (int p = 0; p < 3 && part[p]; p++) {
        size_t length = 0;
        for (size_t i = 0; i < part[p]; i++)
            length += (size_t)utf8proc_encode_char(*points++, text->bytes + length);
        attune_code code = put_word(tokens, text->bytes, length, sink, error);
        if (code)
            return code;
    }
    return ATTUNE_OK;
}

static attune_code put_stretch(const tokenizer *tokens, const char *bytes, size_t length, token_sink *sink,
                               attune_error *error) {
    stretch text;
    attune_code code = normalise(tokens->memory, bytes, length, &text, error);
    if (code)
        return code;
    for (size_t at = 0; at < text.count && code == ATTUNE_OK;) {
        if (is_space(text.points[at])) {
            sink->in_word = 0;
            at++;
            continue;
        }
        sink->words += !sink->in_word;
        sink->in_word = 1;
        int special;
        size_t word = word_length(text.points + at, text.count - at, &special);
        code = put_points(tokens, &text, text.points + at, word, special, sink, error);
        at += word;
    }
    tokens->memory->free(tokens->memory->context, text.points);
    return code;
}

/* ---- the whole text ---- */

/* Marks that NFC may reorder: three Tibetan vowels are of class 0 but decompose into such. */
static int is_mark(utf8proc_int32_t point) {
    return utf8proc_get_property(point)->combining_class != 0 || point == 0x0f73 || point == 0x0f75 ||
           point == 0x0f81;
}

attune_code tokenizer_check(const char *text, size_t *length, attune_error *error) {
    size_t marks = 0;
    *length = strnlen(text, TEXT_BYTES_MAX + 1);
    if (*length > TEXT_BYTES_MAX)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "prompt", "longer than %d bytes",
                           TEXT_BYTES_MAX);
    for (size_t at = 0; at < *length;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t bytes =
            utf8proc_iterate((const uint8_t *)text + at, (utf8proc_ssize_t)(*length - at), &point);
        if (bytes <= 0) {
            attune_code code =
                attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "prompt",
                            "not UTF-8 at byte offset %zu (0x%02x)", at, (unsigned char)text[at]);
            attune_hint(error, "pass the prompt as UTF-8; check the terminal's or the file's encoding");
            return code;
        }
        marks = is_mark(point) ? marks + 1 : 0;
        if (marks > MARKS_MAX)
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "prompt",
                               "more than %d combining marks one after another at byte offset %zu", MARKS_MAX,
                               at);
        at += (size_t)bytes;
    }
    return ATTUNE_OK;
}

/* The next special token in the raw text, or its end; *id is the token's, −1 at the end. */
static const char *find_special(const tokenizer *tokens, const char *text, int32_t *id, size_t *length) {
    const size_t start = strlen(TOKENS_START), end = strlen(TOKENS_END);
    for (const char *at = strstr(text, "<|"); at; at = strstr(at + 1, "<|")) {
        int is_start = strncmp(at, TOKENS_START, start) == 0;
        if (is_start || strncmp(at, TOKENS_END, end) == 0) {
            *id = is_start ? tokens->start : tokens->end;
            *length = is_start ? start : end;
            return at;
        }
    }
    *id = -1;
    *length = 0;
    return text + strlen(text);
}

static attune_code encode(const tokenizer *tokens, const char *text, token_sink *sink, attune_error *error) {
    size_t length;
    attune_code code = tokenizer_check(text, &length, error);
    int32_t id = 0;
    while (code == ATTUNE_OK && id >= 0) {
        const char *special = find_special(tokens, text, &id, &length);
        if (special > text)
            code = put_stretch(tokens, text, (size_t)(special - text), sink, error);
        if (code == ATTUNE_OK && id >= 0) {
            sink->words += !sink->in_word;
            sink->in_word = 1;
            put(sink, id);
        }
        text = special + length;
    }
    return code;
}

attune_code tokenizer_encode(const tokenizer *tokens, const char *text, int32_t *ids, size_t capacity,
                             size_t *count, attune_error *error) {
    token_sink sink = {.ids = ids, .capacity = capacity, .limit = SIZE_MAX};
    attune_code code = encode(tokens, text, &sink, error);
    *count = code == ATTUNE_OK ? sink.count : 0;
    return code;
}

/* Where the number-th word (from 1) of the text begins. Neither NFC nor lower case makes or removes white
 * space, so the words are those that were counted. */
static size_t word_offset(const char *text, size_t number) {
    size_t at = 0, words = 0;
    for (int in_word = 0;;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t bytes = utf8proc_iterate((const uint8_t *)text + at, -1, &point);
        int space = is_space(point);
        words += !space && !in_word;
        if (words == number || point == 0)
            return at;
        in_word = !space;
        at += (size_t)bytes;
    }
}

attune_code tokenizer_chunk77(const tokenizer *tokens, const char *text, int32_t ids[TOKENIZER_CHUNK],
                              tokenizer_cut *cut, attune_error *error) {
    token_sink sink = {.ids = ids + 1, .capacity = TOKENIZER_CHUNK_TEXT, .limit = TOKENIZER_CHUNK_TEXT};
    attune_code code = encode(tokens, text, &sink, error);
    if (code)
        return code;
    size_t kept = sink.count < TOKENIZER_CHUNK_TEXT ? sink.count : TOKENIZER_CHUNK_TEXT;
    ids[0] = tokens->start;
    ids[kept + 1] = tokens->end;
    for (size_t i = kept + 2; i < TOKENIZER_CHUNK; i++)
        ids[i] = tokens->pad;
    if (cut) {
        *cut = (tokenizer_cut){.tokens = sink.count, .dropped = sink.count - kept};
        if (cut->dropped)
            cut->offset = word_offset(text, sink.cut_word);
    }
    return ATTUNE_OK;
}
