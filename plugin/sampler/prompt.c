/* prompt.c: the texts of a request as chunks of tokens, and what their weights do to the embeddings. */
#include "plugin/sampler/prompt.h"

#include <math.h>

enum { COMMA_BACKTRACK = 20 };

/* Chunks that are done, each of 77 ids and weights, and the one that is filled. */
typedef struct chunk_list {
    const services *host;
    const tokenizer *tokens;
    int32_t *ids;
    float *weights;
    int64_t count;
    int64_t room;
    int32_t now_ids[TOKENIZER_CHUNK_TEXT];
    float now_weights[TOKENIZER_CHUNK_TEXT];
    int64_t now;
    int64_t last_comma; /* −1: none in this chunk */
    int weighted;
} chunk_list;

static void list_free(chunk_list *list) {
    services_free(list->host, list->ids);
    services_free(list->host, list->weights);
}

/* Start, ids, end, and end tokens (or, where the model has another, the padding token) up to 77. */
static void write_chunk(const tokenizer *tokens, const int32_t *ids, const float *weights, int64_t count,
                        int32_t *out_ids, float *out_weights) {
    int32_t end = tokenizer_end(tokens), rest = end;
    for (int64_t i = 0; i < TOKENIZER_CHUNK; ++i) {
        int32_t id = i == 0 ? tokenizer_start(tokens) : i <= count ? ids[i - 1] : end;
        out_ids[i] = rest == end ? id : rest;
        out_weights[i] = i > 0 && i <= count ? weights[i - 1] : 1.0f;
        if (out_ids[i] == end)
            rest = tokenizer_pad(tokens);
    }
}

static attune_code make_room(chunk_list *list, attune_error *error) {
    if (list->count < list->room)
        return ATTUNE_OK;
    uint64_t room = list->room ? 2 * (uint64_t)list->room : 4, values = room * TOKENIZER_CHUNK;
    int32_t *ids = services_clear_alloc(list->host, values, sizeof *ids, "prompt");
    float *weights = services_clear_alloc(list->host, values, sizeof *weights, "prompt");
    if (!ids || !weights) {
        services_free(list->host, ids);
        services_free(list->host, weights);
        return services_no_memory("prompt", values * (sizeof *ids + sizeof *weights), error);
    }
    if (list->count) {
        memcpy(ids, list->ids, (size_t)list->count * TOKENIZER_CHUNK * sizeof *ids);
        memcpy(weights, list->weights, (size_t)list->count * TOKENIZER_CHUNK * sizeof *weights);
    }
    list_free(list);
    list->ids = ids;
    list->weights = weights;
    list->room = (int64_t)room;
    return ATTUNE_OK;
}

/* The present chunk ends after `keep` of its tokens; the others begin the next. */
static attune_code finish(chunk_list *list, int64_t keep, attune_error *error) {
    attune_code code = make_room(list, error);
    if (code)
        return code;
    write_chunk(list->tokens, list->now_ids, list->now_weights, keep,
                list->ids + list->count * TOKENIZER_CHUNK, list->weights + list->count * TOKENIZER_CHUNK);
    list->count++;
    list->now -= keep;
    memmove(list->now_ids, list->now_ids + keep, (size_t)list->now * sizeof *list->now_ids);
    memmove(list->now_weights, list->now_weights + keep, (size_t)list->now * sizeof *list->now_weights);
    list->last_comma = -1;
    return ATTUNE_OK;
}

/* A full chunk ends behind its last comma where that is at most 20 tokens back, else where it is full. */
static attune_code put_token(chunk_list *list, int32_t id, float weight, attune_error *error) {
    attune_code code = ATTUNE_OK;
    if (id == tokenizer_comma(list->tokens))
        list->last_comma = list->now;
    else if (list->now == TOKENIZER_CHUNK_TEXT && list->last_comma >= 0 &&
             list->now - list->last_comma <= COMMA_BACKTRACK)
        code = finish(list, list->last_comma + 1, error);
    if (code == ATTUNE_OK && list->now == TOKENIZER_CHUNK_TEXT)
        code = finish(list, list->now, error);
    if (code)
        return code;
    list->now_ids[list->now] = id;
    list->now_weights[list->now++] = weight;
    list->weighted |= weight != 1.0f;
    return ATTUNE_OK;
}

static attune_code put_piece(chunk_list *list, const char *text, double weight, attune_error *error) {
    size_t count = 0;
    attune_code code = tokenizer_encode(list->tokens, text, NULL, 0, &count, error);
    if (code || count == 0)
        return code;
    int32_t *ids = services_clear_alloc(list->host, count, sizeof *ids, "prompt");
    if (!ids)
        return services_no_memory("prompt", count * sizeof *ids, error);
    code = tokenizer_encode(list->tokens, text, ids, count, &count, error);
    if (code == ATTUNE_OK && !isfinite((float)weight))
        code = attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "prompt",
                           "the prompt gives words the weight %g, which is too large", weight);
    for (size_t i = 0; i < count && code == ATTUNE_OK; ++i)
        code = put_token(list, ids[i], (float)weight, error);
    services_free(list->host, ids);
    return code;
}

static attune_code read_text(chunk_list *list, const char *text, attune_error *error) {
    prompt_pieces pieces;
    attune_code code = prompt_parse(list->host, text, &pieces, error);
    for (size_t i = 0; code == ATTUNE_OK && i < pieces.count; ++i)
        code = prompt_is_break(&pieces, i)
                   ? finish(list, list->now, error)
                   : put_piece(list, pieces.text + pieces.piece[i].start, pieces.piece[i].weight, error);
    prompt_pieces_close(list->host, &pieces);
    if (code == ATTUNE_OK && (list->now || list->count == 0))
        code = finish(list, list->now, error);
    return code;
}

/* One text behind the other, each with as many chunks as the longer one has. */
static attune_code gather(const chunk_list *lists, const tokenizer *tokens, prompt_tokens *out,
                          attune_error *error) {
    const services *host = lists[0].host;
    for (int64_t t = 0; t < out->texts; ++t)
        out->chunks = lists[t].count > out->chunks ? lists[t].count : out->chunks;
    uint64_t count = (uint64_t)prompt_tokens_all(out);
    out->ids = services_clear_alloc(host, count, sizeof *out->ids, "prompt");
    out->weights = services_clear_alloc(host, count, sizeof *out->weights, "prompt");
    if (!out->ids || !out->weights)
        return services_no_memory("prompt", count * (sizeof *out->ids + sizeof *out->weights), error);
    for (int64_t t = 0; t < out->texts; ++t) {
        size_t used = (size_t)lists[t].count * TOKENIZER_CHUNK;
        int32_t *ids = out->ids + t * out->chunks * TOKENIZER_CHUNK;
        float *weights = out->weights + t * out->chunks * TOKENIZER_CHUNK;
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): every text has a chunk */
        memcpy(ids, lists[t].ids, used * sizeof *ids);
        memcpy(weights, lists[t].weights, used * sizeof *weights);
        for (int64_t c = lists[t].count; c < out->chunks; ++c)
            write_chunk(tokens, NULL, NULL, 0, ids + c * TOKENIZER_CHUNK, weights + c * TOKENIZER_CHUNK);
    }
    return ATTUNE_OK;
}

attune_code prompt_read(const services *host, const tokenizer *tokens, const char *prompt,
                        const char *negative, prompt_tokens *out, attune_error *error) {
    const char *texts[PROMPT_MAX_TEXTS] = {prompt, negative};
    chunk_list lists[PROMPT_MAX_TEXTS];
    attune_code code = ATTUNE_OK;
    int weighted = 0;
    memset(lists, 0, sizeof lists);
    const int64_t count = negative ? 2 : 1;
    *out = (prompt_tokens){.texts = count};
    for (int64_t i = 0; i < count && code == ATTUNE_OK; ++i) {
        lists[i].host = host;
        lists[i].tokens = tokens;
        lists[i].last_comma = -1;
        code = read_text(&lists[i], texts[i], error);
        weighted |= lists[i].weighted;
    }
    if (code == ATTUNE_OK)
        code = gather(lists, tokens, out, error);
    for (int64_t i = 0; i < PROMPT_MAX_TEXTS; ++i)
        if (lists[i].host)
            list_free(&lists[i]);
    if (code == ATTUNE_OK && !weighted) {
        services_free(host, out->weights);
        out->weights = NULL;
    }
    return code;
}

void prompt_close(const services *host, prompt_tokens *prompt) {
    services_free(host, prompt->ids);
    services_free(host, prompt->weights);
    prompt->ids = NULL;
    prompt->weights = NULL;
}

static attune_code emphasise_chunk(const float *weights, int64_t hidden, float *rows, attune_error *error) {
    double before = 0, after = 0;
    for (int64_t i = 0; i < TOKENIZER_CHUNK * hidden; ++i) {
        before += rows[i];
        rows[i] *= weights[i / hidden];
        after += rows[i];
    }
    float ratio = (float)(before / after);
    int finite = 1;
    for (int64_t i = 0; i < TOKENIZER_CHUNK * hidden; ++i) {
        rows[i] = rows[i] * ratio + 0.0f;
        finite &= isfinite(rows[i]) != 0;
    }
    if (finite)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_OUT_OF_RANGE, SAMPLER_DOMAIN, "prompt",
                       "the prompt's weights leave embeddings of mean %g; use smaller ones",
                       after / (double)(TOKENIZER_CHUNK * hidden));
}

attune_code prompt_emphasise(const prompt_tokens *prompt, int64_t hidden, float *embeddings,
                             attune_error *error) {
    attune_code code = ATTUNE_OK;
    for (int64_t c = 0; c < prompt->texts * prompt->chunks && code == ATTUNE_OK; ++c) {
        const float *weights = prompt->weights + c * TOKENIZER_CHUNK;
        int weighted = 0;
        for (int64_t i = 0; i < TOKENIZER_CHUNK; ++i)
            weighted |= weights[i] != 1.0f;
        if (weighted)
            code = emphasise_chunk(weights, hidden, embeddings + c * TOKENIZER_CHUNK * hidden, error);
    }
    return code;
}
