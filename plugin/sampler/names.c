/*
 * names.c: lookup by name, and errors that list what is known and guess what was meant.
 */
#include "plugin/sampler/names.h"

#include "plugin/sampler/domain.h"

enum { NAME_BYTES = 64 }; /* of what the user typed: as much as an error shows and the guess looks at */

static const names_list *entry_names(const names_table *table, size_t index) {
    return (const names_list *)((const char *)table->entries + index * table->stride);
}

/* Only ASCII, so that the process's locale does not matter. */
static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static int same(const char *known, const char *name, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (!known[i] || lower(known[i]) != lower(name[i]))
            return 0;
    return known[length] == 0;
}

const void *names_find(const names_table *table, const char *name, size_t length) {
    for (size_t i = 0; i < table->count; i++) {
        const names_list *names = entry_names(table, i);
        for (size_t k = 0; k < NAMES_MAX && (*names)[k]; k++)
            if (same((*names)[k], name, length))
                return names;
    }
    return NULL;
}

const char *names_label(const names_table *table, size_t index) {
    return index < table->count ? (*entry_names(table, index))[0] : NULL;
}

/* Levenshtein's distance, case ignored; both are shorter than NAME_BYTES. */
static size_t distance(const char *a, const char *b) {
    size_t row[NAME_BYTES], columns = strlen(b);
    for (size_t j = 0; j <= columns; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < columns; j++) {
            size_t change = diagonal + (lower(a[i]) != lower(b[j]));
            diagonal = row[j + 1];
            size_t shift = (row[j] < diagonal ? row[j] : diagonal) + 1;
            row[j + 1] = change < shift ? change : shift;
        }
    }
    return row[columns];
}

/* The label of the entry with the nearest name, or NULL when more than half of it would have to change. */
static const char *nearest(const names_table *table, const char *name) {
    size_t best = strlen(name) / 2 + 1;
    const char *label = NULL;
    for (size_t i = 0; i < table->count; i++) {
        const names_list *names = entry_names(table, i);
        for (size_t k = 0; k < NAMES_MAX && (*names)[k]; k++) {
            size_t d = distance(name, (*names)[k]);
            if (d < best) {
                best = d;
                label = (*names)[0];
            }
        }
    }
    return label;
}

attune_code names_unknown(const names_table *table, const char *name, attune_error *error) {
    char shown[NAME_BYTES], known[400];
    size_t used = 0, length = 0;
    for (; name[length] && length + 1 < NAME_BYTES; length++) /* one line, whatever was typed */
        shown[length] = (unsigned char)name[length] < 0x20 || name[length] == 0x7f ? '?' : name[length];
    shown[length] = 0;
    known[0] = 0;
    for (size_t i = 0; i < table->count && used < sizeof known; i++)
        used +=
            (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names_label(table, i));
    attune_code code = attune_fail(error, ATTUNE_NOT_FOUND, SAMPLER_DOMAIN, table->kind,
                                   "unknown %s '%s'; known: %s", table->kind, shown, known);
    const char *guess = nearest(table, shown);
    if (guess)
        attune_hint(error, "did you mean '%s'?", guess);
    else
        attune_hint(error, "use one of the known names");
    return code;
}
