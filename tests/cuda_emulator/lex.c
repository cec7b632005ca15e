/* lex.c: tokens of PTX text (PTX ISA 9.0, section 4). */
#include "tests/cuda_emulator/parse.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void parse_fail(parser *p, const char *format, ...) {
    const int n = snprintf(p->error, p->error_size, "PTX line %d: ", p->line);
    va_list arguments;
    va_start(arguments, format);
    if (n > 0 && (size_t)n < p->error_size)
        vsnprintf(p->error + n, p->error_size - (size_t)n, format, arguments);
    va_end(arguments);
    longjmp(p->failed, 1);
}

static void skip_space(parser *p) {
    while (p->at < p->end) {
        if (*p->at == '\n') {
            ++p->line;
            ++p->at;
        } else if (isspace((unsigned char)*p->at)) {
            ++p->at;
        } else if (p->end - p->at > 1 && p->at[0] == '/' && p->at[1] == '/') {
            while (p->at < p->end && *p->at != '\n')
                ++p->at;
        } else if (p->end - p->at > 1 && p->at[0] == '/' && p->at[1] == '*') {
            p->at += 2;
            while (p->end - p->at > 1 && !(p->at[0] == '*' && p->at[1] == '/'))
                p->line += *p->at++ == '\n';
            p->at = p->end - p->at > 1 ? p->at + 2 : p->end;
        } else {
            return;
        }
    }
}

void lex_skip_line(parser *p) {
    while (p->at < p->end && *p->at != '\n')
        ++p->at;
    lex_next(p);
}

static bool word_character(const char *at, const char *end) {
    if (isalnum((unsigned char)*at) || *at == '_' || *at == '$' || *at == '%' || *at == '.')
        return true;
    /* "::" inside a mnemonic, as in ld.global.L2::128B */
    return *at == ':' && end - at > 1 && (at[1] == ':' || at[-1] == ':');
}

static void number(parser *p, token *t) {
    char *end = NULL;
    if (t->text[0] == '0' &&
        (t->text[1] == 'f' || t->text[1] == 'F' || t->text[1] == 'd' || t->text[1] == 'D')) {
        t->floating = (char)tolower((unsigned char)t->text[1]);
        t->value = strtoull(t->text + 2, &end, 16);
    } else if (strchr(t->text, '.')) {
        const double value = strtod(t->text, &end); /* a decimal literal is a binary64 (4.5.2) */
        t->floating = 'd';
        memcpy(&t->value, &value, sizeof value);
    } else if (t->text[0] == '0' && (t->text[1] == 'b' || t->text[1] == 'B')) {
        t->value = strtoull(t->text + 2, &end, 2);
    } else {
        t->value = strtoull(t->text, &end, 0);
        if (*end == 'U')
            ++end;
    }
    if (*end)
        parse_fail(p, "'%s' is no number", t->text);
    t->kind = TOKEN_NUMBER;
}

void lex_next(parser *p) {
    skip_space(p);
    token *t = &p->token;
    t->floating = 0;
    t->value = 0;
    size_t n = 0;
    if (p->at >= p->end) {
        t->kind = TOKEN_END;
    } else if (*p->at == '"') {
        t->kind = TOKEN_STRING;
        ++p->at;
        while (p->at < p->end && *p->at != '"' && *p->at != '\n') {
            if (n + 1 < sizeof t->text)
                t->text[n++] = *p->at;
            ++p->at;
        }
        ++p->at;
    } else if (word_character(p->at, p->end)) {
        while (p->at < p->end && word_character(p->at, p->end)) {
            if (n + 1 >= sizeof t->text)
                parse_fail(p, "a name is longer than %zu characters", sizeof t->text - 1);
            t->text[n++] = *p->at++;
        }
        t->text[n] = 0;
        t->kind = TOKEN_WORD;
        if (isdigit((unsigned char)t->text[0]))
            number(p, t);
    } else {
        t->kind = TOKEN_PUNCTUATION;
        t->text[n++] = *p->at++;
    }
    t->text[n] = 0;
}

bool lex_is(const parser *p, const char *text) {
    return p->token.kind != TOKEN_STRING && p->token.kind != TOKEN_END && strcmp(p->token.text, text) == 0;
}

void lex_expect(parser *p, const char *text) {
    if (!lex_is(p, text))
        parse_fail(p, "expected '%s', found '%s'", text,
                   p->token.kind == TOKEN_END ? "the end" : p->token.text);
    lex_next(p);
}

bool lex_accept(parser *p, const char *text) {
    if (!lex_is(p, text))
        return false;
    lex_next(p);
    return true;
}
