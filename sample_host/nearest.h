/* nearest.h: "did you mean": the closest of some words to one that is not among them. */
#ifndef ATTUNE_NEAREST_H
#define ATTUNE_NEAREST_H

#include <stddef.h>

/* Edit distance (Damerau's optimal string alignment, ASCII case ignored); words longer than 63 bytes are cut.
 */
unsigned nearest_distance(const char *a, const char *b);

/* The closest of `count` words, or NULL where none is within a third of the word's length + 1. */
const char *nearest_word(const char *word, const char *const *words, size_t count);

#endif
