/*
 * names.h: tables of things that a user calls by name: lookup without regard to case, and errors that help.
 */
#ifndef ATTUNE_SAMPLER_NAMES_H
#define ATTUNE_SAMPLER_NAMES_H

#include "attune/abi.h"

/* An entry's names: the label shown to users first, then what else it is called, then NULL. */
enum { NAMES_MAX = 6 };
typedef const char *names_list[NAMES_MAX];

/* A table's view: `count` entries of `stride` bytes, each of which starts with a names_list. */
typedef struct names_table {
    const void *entries;
    size_t stride;
    size_t count;
    const char *kind; /* for messages: "sampler", "scheduler" */
} names_table;

/* [any] The entry that the first `length` bytes of `name` call, ASCII letters in any case, or NULL. */
const void *names_find(const names_table *table, const char *name, size_t length);

/* [any] The index-th label, or NULL behind the end. */
const char *names_label(const names_table *table, size_t index);

/* [any] NOT_FOUND: "unknown sampler 'Euller a'; known: …", with the nearest name as the hint. */
attune_code names_unknown(const names_table *table, const char *name, attune_error *error);

#endif
