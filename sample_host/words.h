/*
 * words.h: a model that was trained on few words brings a list of them; a prompt word that is not in it draws
 * a blob, so the user is told, with the nearest words that the model does know.
 */
#ifndef ATTUNE_WORDS_H
#define ATTUNE_WORDS_H

#include <stddef.h>

/* Compare a prompt with MODEL/known_words.txt and MODEL/known_modifiers.txt (one word or phrase a line).
 * Writes one line into `message` and returns how many words are unknown; 0 where all are known or the model
 * brings no list. */
size_t words_unknown(const char *model, const char *prompt, char *message, size_t size);

#endif
