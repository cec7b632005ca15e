/* prompt_parse.c: brackets, weights, escapes and BREAK. */
#include "plugin/sampler/prompt_parse.h"
#include "plugin/sampler/tokens.h"

#include <utf8proc.h>

enum { DEPTH_MAX = 256 }; /* open brackets of a kind: bounds the work, each piece is scaled once for each */

/* Where pieces from an open bracket on begin. */
typedef struct brackets {
    size_t first[DEPTH_MAX];
    size_t count;
} brackets;

typedef struct parser {
    const char *prompt;
    const char *end;
    prompt_pieces *out;
    size_t used; /* bytes of out->text */
    brackets round;
    brackets square;
} parser;

static const double round_factor = 1.1, square_factor = 1 / 1.1;

static void add(parser *p, const char *text, size_t length, double weight) {
    p->out->piece[p->out->count++] = (prompt_piece){p->used, length, weight};
    memcpy(p->out->text + p->used, text, length);
    p->used += length;
    p->out->text[p->used++] = 0;
}

static void scale_from(parser *p, size_t first, double factor) {
    for (size_t i = first; i < p->out->count; ++i)
        p->out->piece[i].weight *= factor;
}

static attune_code open_bracket(parser *p, brackets *open, size_t at, attune_error *error) {
    if (open->count == DEPTH_MAX)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "prompt",
                           "more than %d brackets are open at byte offset %zu", DEPTH_MAX, at);
    open->first[open->count++] = p->out->count;
    return ATTUNE_OK;
}

/* ---- characters as Python's re sees them ---- */

static int is_white(int32_t point) {
    return (point >= 9 && point <= 13) || (point >= 0x1c && point <= 0x20) || point == 0x85 ||
           point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 ||
           point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

static int is_word(int32_t point) {
    utf8proc_category_t kind = utf8proc_category(point);
    return point == '_' || (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
           (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

/* The code point at `at` and its bytes; the text is UTF-8 already. */
static int32_t point_at(const char *at, size_t *bytes) {
    utf8proc_int32_t point;
    *bytes = (size_t)utf8proc_iterate((const uint8_t *)at, -1, &point);
    return point;
}

static const char *before(const char *at) {
    do
        --at;
    while (((unsigned char)*at & 0xc0) == 0x80);
    return at;
}

static const char *skip_white(const char *at, const char *end) {
    size_t bytes;
    while (at < end && is_white(point_at(at, &bytes)))
        at += bytes;
    return at;
}

/* ---- BREAK ---- */

/* The next whole word BREAK in [from, end) of a run that begins at `start`; NULL = none. */
static const char *find_break(const char *start, const char *from, const char *end) {
    size_t bytes;
    for (const char *at = from; end - at >= 5; ++at)
        if (memcmp(at, "BREAK", 5) == 0 && (at == start || !is_word(point_at(before(at), &bytes))) &&
            (at + 5 == end || !is_word(point_at(at + 5, &bytes))))
            return at;
    return NULL;
}

/* A run of plain text, cut at each BREAK with the white space around it. */
static void add_run(parser *p, const char *start, const char *end) {
    const char *from = start;
    for (const char *found; (found = find_break(start, from, end)) != NULL;) {
        const char *last = found;
        size_t bytes;
        while (last > from && is_white(point_at(before(last), &bytes)))
            last = before(last);
        add(p, from, (size_t)(last - from), 1.0);
        add(p, "BREAK", 5, -1.0);
        from = skip_white(found + 5, end);
    }
    add(p, from, (size_t)(end - from), 1.0);
}

/* ---- weights ---- */

/* Digits with at most one dot: correctly rounded up to 15 digits, and independent of the locale. */
static int read_number(const char *at, const char *end, double *out) {
    double value = 0, divisor = 1;
    int digits = 0, dots = 0, negative = *at == '-';
    for (at += *at == '-' || *at == '+'; at < end; ++at) {
        if (*at == '.') {
            dots++;
            continue;
        }
        digits++;
        if (dots && divisor >= 1e22)
            continue; /* beyond what a double can tell */
        value = value * 10 + (*at - '0');
        divisor *= dots ? 10 : 1;
    }
    *out = negative ? -value / divisor : value / divisor;
    return digits > 0 && dots < 2;
}

/* ":1.2)" at `at`, with white space around the number: how many bytes, 0 = it is none. [*from, *to) is the
 * number. */
static size_t weight_length(const char *at, const char *end, const char **from, const char **to) {
    const char *number = skip_white(at + 1, end), *digits = number + (*number == '+' || *number == '-');
    size_t length = strspn(digits, ".0123456789");
    *from = number;
    *to = digits + length;
    const char *close = skip_white(*to, end);
    return length > 0 && *close == ')' ? (size_t)(close + 1 - at) : 0;
}

static attune_code close_weight(parser *p, const char *from, const char *to, attune_error *error) {
    double weight;
    if (!read_number(from, to, &weight))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "prompt",
                           "the weight %.*s at byte offset %zu is no number",
                           (int)(to - from > 40 ? 40 : to - from), from, (size_t)(from - p->prompt));
    scale_from(p, p->round.first[--p->round.count], weight);
    return ATTUNE_OK;
}

/* ---- the whole prompt ---- */

/* One token of the syntax at `at`; *length is its bytes. */
static attune_code read_one(parser *p, const char *at, size_t *length, attune_error *error) {
    const char *from, *to;
    *length = 1;
    if (*at == '\\') {
        *length = at[1] && strchr("()[]\\", at[1]) ? 2 : 1;
        add(p, at + 1, *length - 1, 1.0);
        return ATTUNE_OK;
    }
    if (*at == '(' || *at == '[')
        return open_bracket(p, *at == '(' ? &p->round : &p->square, (size_t)(at - p->prompt), error);
    if (*at == ')' && p->round.count)
        scale_from(p, p->round.first[--p->round.count], round_factor);
    else if (*at == ']' && p->square.count)
        scale_from(p, p->square.first[--p->square.count], square_factor);
    else if (*at == ':') {
        size_t weight = weight_length(at, p->end, &from, &to);
        *length = weight ? weight : 1;
        if (weight && p->round.count)
            return close_weight(p, from, to, error);
        add(p, at, *length, 1.0);
    } else {
        if (*at != ')' && *at != ']')
            *length = strcspn(at, "\\()[]:");
        add_run(p, at, at + *length);
    }
    return ATTUNE_OK;
}

/* Neighbours of equal weight become one piece: words may be joined across a bracket. */
static void join(prompt_pieces *pieces) {
    size_t kept = 0, end = pieces->piece[0].length; /* of the text so far */
    for (size_t i = 1; i < pieces->count; ++i) {
        prompt_piece *last = &pieces->piece[kept], next = pieces->piece[i];
        if (last->weight == next.weight) {
            memmove(pieces->text + end, pieces->text + next.start, next.length);
            last->length += next.length;
        } else {
            memmove(pieces->text + end + 1, pieces->text + next.start, next.length);
            pieces->text[end++] = 0;
            next.start = end;
            pieces->piece[++kept] = next;
        }
        end += next.length;
        pieces->text[end] = 0;
    }
    pieces->count = kept + 1;
}

attune_code prompt_parse(const services *host, const char *prompt, prompt_pieces *out, attune_error *error) {
    size_t size, length;
    *out = (prompt_pieces){0};
    attune_code code = tokenizer_check(prompt, &size, error);
    if (code)
        return code;
    /* each piece took at least a byte of the prompt, but for the one of an empty prompt */
    out->piece = services_clear_alloc(host, size + 1, sizeof *out->piece, "prompt");
    out->text = services_clear_alloc(host, 2 * (uint64_t)size + 2, 1, "prompt");
    if (!out->piece || !out->text)
        return services_no_memory("prompt", (uint64_t)size * (sizeof *out->piece + 2), error);
    parser p = {.prompt = prompt, .end = prompt + size, .out = out};
    for (const char *at = prompt; *at && code == ATTUNE_OK; at += length)
        code = read_one(&p, at, &length, error);
    while (p.round.count)
        scale_from(&p, p.round.first[--p.round.count], round_factor);
    while (p.square.count)
        scale_from(&p, p.square.first[--p.square.count], square_factor);
    if (out->count == 0)
        add(&p, "", 0, 1.0);
    join(out);
    return code;
}

void prompt_pieces_close(const services *host, prompt_pieces *pieces) {
    services_free(host, pieces->piece);
    services_free(host, pieces->text);
    *pieces = (prompt_pieces){0};
}

int prompt_is_break(const prompt_pieces *pieces, size_t index) {
    const prompt_piece *piece = &pieces->piece[index];
    return piece->weight == -1 && strcmp(pieces->text + piece->start, "BREAK") == 0;
}
