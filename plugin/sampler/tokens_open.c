/*
 * tokens_open.c: vocab.json and merges.txt → the tables of a tokenizer.
 *
 * The byte alphabet is GPT-2's (Radford et al. 2019): every byte has a visible character, so that symbols can
 * be written as JSON strings. Files are untrusted: each way in which they can be wrong is an error that says
 * where.
 */
#include "plugin/sampler/domain.h"
#include "plugin/sampler/files.h"
#include "plugin/sampler/tokens_table.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 16 << 20, SYMBOL_BYTES_MAX = 1024 };

/* A whole file, a 0 behind it. */
typedef struct file_text {
    char path[PATH_MAX];
    char *text;
    size_t length;
} file_text;

/* A file of at most FILE_BYTES_MAX into memory. */
static attune_code read_open_file(const attune_memory_service *memory, int descriptor, uint64_t bytes,
                                  file_text *file, attune_error *error) {
    if (bytes > FILE_BYTES_MAX)
        return attune_fail(error, ATTUNE_OUT_OF_RANGE, SAMPLER_DOMAIN, file->path,
                           "%s has %llu bytes; at most %d are read", file->path, (unsigned long long)bytes,
                           FILE_BYTES_MAX);
    size_t size = (size_t)bytes;
    file->text = memory->alloc(memory->context, size + 1, "tokenizer");
    if (!file->text)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, file->path,
                           "no memory for %zu bytes", size);
    while (file->length < size) {
        ssize_t got = read(descriptor, file->text + file->length, size - file->length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            attune_code code = attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path,
                                           "only %zu of %zu bytes could be read", file->length, size);
            if (error)
                error->native_code = got < 0 ? errno : 0;
            return code;
        }
        file->length += (size_t)got;
    }
    file->text[size] = 0;
    return ATTUNE_OK;
}

/* folder/name; free file->text whatever the result. */
static attune_code read_file(const attune_memory_service *memory, const char *folder, const char *name,
                             file_text *file, attune_error *error) {
    file->text = NULL;
    file->length = 0;
    int wanted = snprintf(file->path, sizeof file->path, "%s/%s", folder, name);
    if (wanted < 0 || (size_t)wanted >= sizeof file->path)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, name,
                           "the folder's path is too long");
    int descriptor;
    uint64_t bytes;
    attune_code code = file_open(file->path, &descriptor, &bytes, error);
    if (code == ATTUNE_NOT_FOUND)
        attune_hint(error, "a CLIP tokenizer is a folder with vocab.json and merges.txt");
    if (code != ATTUNE_OK)
        return code;
    code = read_open_file(memory, descriptor, bytes, file, error);
    (void)close(descriptor);
    return code;
}

static attune_code parse_object(const file_text *file, json_t **out, attune_error *error) {
    json_error_t reason;
    *out = json_loadb(file->text, file->length, JSON_REJECT_DUPLICATES, &reason);
    if (!*out)
        return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path, "%s, line %d, column %d: %s",
                           file->path, reason.line, reason.column, reason.text);
    if (json_is_object(*out))
        return ATTUNE_OK;
    json_decref(*out);
    *out = NULL;
    return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path, "%s is not a JSON object",
                       file->path);
}

/* The id of a symbol, or −1. */
static int32_t find_id(const json_t *vocabulary, const char *symbol, size_t length) {
    const json_t *id = json_object_getn(vocabulary, symbol, length);
    return id ? (int32_t)json_integer_value(id) : -1;
}

/* Ids must be exactly 0 … n − 1; n distinct ones in that range leave no hole. */
static attune_code check_ids(const attune_memory_service *memory, const file_text *file, json_t *vocabulary,
                             attune_error *error) {
    size_t count = json_object_size(vocabulary);
    uint8_t *seen = memory->alloc(memory->context, count, "tokenizer");
    if (!seen)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, file->path,
                           "no memory for %zu ids", count);
    memset(seen, 0, count);
    attune_code code = ATTUNE_OK;
    const char *symbol;
    json_t *value;
    json_object_foreach(vocabulary, symbol, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || (uint64_t)id >= count) {
            code = attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path,
                               "the id of '%.64s' is not an integer from 0 to %zu", symbol, count - 1);
            break;
        }
        if (seen[id]) {
            code = attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path,
                               "id %lld is given twice, the second time to '%.64s'", (long long)id, symbol);
            break;
        }
        seen[id] = 1;
    }
    memory->free(memory->context, seen);
    return code;
}

/* The code point that shows a byte: itself where it is visible in Latin-1, else the next free one from 256.
 */
static uint32_t byte_character(uint32_t byte) {
    uint32_t hidden = 0;
    for (uint32_t b = 0; b <= byte; b++) {
        int visible = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte && visible)
            return byte;
        hidden += !visible;
    }
    return 255 + hidden;
}

static attune_code read_symbols(tokenizer *tokens, const file_text *file, const json_t *vocabulary,
                                attune_error *error) {
    tokens->size = (uint32_t)json_object_size(vocabulary);
    tokens->start = find_id(vocabulary, TOKENS_START, strlen(TOKENS_START));
    tokens->end = find_id(vocabulary, TOKENS_END, strlen(TOKENS_END));
    if (tokens->start < 0 || tokens->end < 0)
        return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path,
                           "the special token %s is missing", tokens->start < 0 ? TOKENS_START : TOKENS_END);
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t character = byte_character(byte);
        char symbol[8] = {(char)character};
        size_t length = 1;
        if (character >= 0x80) {
            symbol[0] = (char)(0xc0 | character >> 6);
            symbol[1] = (char)(0x80 | (character & 0x3f));
            length = 2;
        }
        int32_t inner = find_id(vocabulary, symbol, length);
        memcpy(symbol + length, "</w>", 4); /* NOLINT(bugprone-not-null-terminated-result): has a length */
        int32_t last = find_id(vocabulary, symbol, length + 4);
        tokens->inner[byte] = inner < 0 ? tokens->end : inner;
        tokens->last[byte] = last < 0 ? tokens->end : last;
    }
    return ATTUNE_OK;
}

/* One line "left right" of merges.txt. */
static attune_code add_merge(tokenizer *tokens, const file_text *file, const json_t *vocabulary,
                             const char *line, size_t length, size_t number, uint32_t rank,
                             attune_error *error) {
    const char *space = memchr(line, ' ', length);
    size_t first = space ? (size_t)(space - line) : 0, second = space ? length - first - 1 : 0;
    if (first == 0 || second == 0 || memchr(space + 1, ' ', second) || length > SYMBOL_BYTES_MAX)
        return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path,
                           "line %zu is not two symbols with one space between them", number);
    char joined[SYMBOL_BYTES_MAX];
    memcpy(joined, line, first);
    memcpy(joined + first, space + 1, second);
    int32_t left = find_id(vocabulary, line, first), right = find_id(vocabulary, space + 1, second);
    int32_t result = find_id(vocabulary, joined, first + second);
    if (left < 0 || right < 0 || result < 0) {
        const char *missing = left < 0 ? line : right < 0 ? space + 1 : joined;
        size_t bytes = left < 0 ? first : right < 0 ? second : first + second;
        return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path,
                           "line %zu merges to or from '%.*s', which vocab.json does not have", number,
                           (int)(bytes < 64 ? bytes : 64), missing);
    }
    *token_merge_slot(tokens, left, right) =
        (token_merge){left, right, rank, result}; /* the last of two equals wins */
    return ATTUNE_OK;
}

static attune_code read_merges(tokenizer *tokens, const file_text *file, const json_t *vocabulary,
                               attune_error *error) {
    const char *end = file->text + file->length, *line = file->text;
    size_t lines = 1, slots = 2, merges = 0;
    for (const char *c = line; (c = memchr(c, '\n', (size_t)(end - c))); c++)
        lines++;
    for (const char *c = line; c < end; c++)
        merges += *c != '\n' && (c + 1 == end || c[1] == '\n');
    if (merges >
        json_object_size(vocabulary) + 1) /* each makes a token of its own; one line may be the heading */
        return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path,
                           "%s has %zu merges, more than the vocabulary has tokens", file->path, merges);
    while (slots < 2 * merges)
        slots *= 2;
    tokens->mask = (uint32_t)(slots - 1);
    tokens->merges = tokens->memory->alloc(tokens->memory->context, slots * sizeof(token_merge), "tokenizer");
    if (!tokens->merges)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, file->path,
                           "no memory for %zu merges", merges);
    for (size_t i = 0; i < slots; i++)
        tokens->merges[i].left = -1;
    uint32_t rank = 0;
    for (size_t number = 1; number <= lines; number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *stop = newline ? newline : end;
        size_t length = (size_t)(stop - line);
        if (length && line[length - 1] == '\r')
            length--;
        int heading = number == 1 && length >= 8 && memcmp(line, "#version", 8) == 0;
        if (length && !heading) {
            attune_code code = add_merge(tokens, file, vocabulary, line, length, number, rank++, error);
            if (code)
                return code;
        }
        line = stop + 1;
    }
    return ATTUNE_OK;
}

/* The pad token that a configuration file names, where there is such a file and it names one. SD 2.x pads
 * with "!". In a prompt "!" stays an ordinary character then, as in the web UI (transformers would make it
 * special). */
static attune_code read_pad(tokenizer *tokens, const char *folder, const char *name, const json_t *vocabulary,
                            int *found, attune_error *error) {
    file_text file;
    attune_error absent;
    attune_code code = read_file(tokens->memory, folder, name, &file, &absent);
    json_t *config = NULL;
    if (code == ATTUNE_NOT_FOUND)
        return ATTUNE_OK; /* both files are optional */
    if (code && error)
        *error = absent;
    if (!code)
        code = parse_object(&file, &config, error);
    tokens->memory->free(tokens->memory->context, file.text);
    if (code)
        return code;
    const json_t *pad = json_object_get(config, "pad_token");
    if (json_is_object(pad))
        pad = json_object_get(pad, "content");
    if (json_is_string(pad)) {
        *found = 1;
        tokens->pad = find_id(vocabulary, json_string_value(pad), json_string_length(pad));
        if (tokens->pad < 0)
            code = attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file.path,
                               "pad_token '%.64s' is not in vocab.json", json_string_value(pad));
    }
    json_decref(config);
    return code;
}

static attune_code read_all(tokenizer *tokens, const char *folder, attune_error *error) {
    file_text file;
    json_t *vocabulary = NULL;
    attune_code code = read_file(tokens->memory, folder, "vocab.json", &file, error);
    if (!code)
        code = parse_object(&file, &vocabulary, error);
    if (!code)
        code = check_ids(tokens->memory, &file, vocabulary, error);
    if (!code)
        code = read_symbols(tokens, &file, vocabulary, error);
    tokens->memory->free(tokens->memory->context, file.text);
    if (!code) {
        code = read_file(tokens->memory, folder, "merges.txt", &file, error);
        if (!code)
            code = read_merges(tokens, &file, vocabulary, error);
        tokens->memory->free(tokens->memory->context, file.text);
    }
    int found = 0;
    tokens->pad = tokens->end;
    if (!code)
        code = read_pad(tokens, folder, "tokenizer_config.json", vocabulary, &found, error);
    if (!code && !found)
        code = read_pad(tokens, folder, "special_tokens_map.json", vocabulary, &found, error);
    json_decref(vocabulary);
    return code;
}

attune_code tokenizer_open(const attune_memory_service *memory, const char *folder, tokenizer **out,
                           attune_error *error) {
    *out = NULL;
    tokenizer *tokens = memory->alloc(memory->context, sizeof *tokens, "tokenizer");
    if (!tokens)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, folder,
                           "no memory for a tokenizer");
    memset(tokens, 0, sizeof *tokens);
    tokens->memory = memory;
    attune_code code = read_all(tokens, folder, error);
    if (code)
        tokenizer_close(tokens);
    else
        *out = tokens;
    return code;
}

void tokenizer_close(tokenizer *tokens) {
    if (!tokens)
        return;
    const attune_memory_service *memory = tokens->memory;
    memory->free(memory->context, tokens->merges);
    memory->free(memory->context, tokens);
}

uint32_t tokenizer_size(const tokenizer *tokens) {
    return tokens->size;
}

int32_t tokenizer_start(const tokenizer *tokens) {
    return tokens->start;
}

int32_t tokenizer_end(const tokenizer *tokens) {
    return tokens->end;
}

int32_t tokenizer_comma(const tokenizer *tokens) {
    return tokens->last[','] == tokens->end ? -1
                                            : tokens->last[',']; /* the end token stands for a missing one */
}

int32_t tokenizer_pad(const tokenizer *tokens) {
    return tokens->pad;
}
