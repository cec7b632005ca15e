/* words.c: known words of a small model. */
#include "words.h"
#include "nearest.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS = 4096, MAX_LENGTH = 48, MAX_NAMED = 8, NEAREST = 3 };

typedef struct word_list {
    size_t count;
    size_t nouns; /* those of known_words.txt, which come first: what is worth suggesting */
    char word[MAX_WORDS][MAX_LENGTH];
} word_list;

/* Read the next run of letters and digits, lower-cased; 0 at the end. Bytes of UTF-8 sequences count as
 * letters. */
static int next_word(const char **at, char word[MAX_LENGTH]) {
    size_t length = 0;
    while (**at && !isalnum((unsigned char)**at) && !(**at & 0x80))
        ++*at;
    for (; isalnum((unsigned char)**at) || (**at & 0x80); ++*at)
        if (length + 1 < MAX_LENGTH)
            word[length++] = (char)tolower((unsigned char)**at);
    word[length] = 0;
    return length > 0;
}

static int has_word(const word_list *list, const char *word) {
    for (size_t i = 0; i < list->count; ++i)
        if (strcmp(list->word[i], word) == 0)
            return 1;
    return 0;
}

static int read_list(word_list *list, const char *model, const char *name) {
    char path[4200], line[512], word[MAX_LENGTH];
    (void)snprintf(path, sizeof path, "%s/%s", model, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file)) {
        const char *at = line;
        while (line[0] != '#' && next_word(&at, word))
            if (!has_word(list, word) && list->count < MAX_WORDS)
                memcpy(list->word[list->count++], word, sizeof word);
    }
    fclose(file);
    return 1;
}

/* Append the known words nearest to an unknown one; a word that is named already is not named again. */
static void name_nearest(const word_list *list, const char *unknown, char *names, size_t size) {
    const char *best[NEAREST] = {NULL};
    unsigned distance[NEAREST] = {0};
    for (size_t i = 0; i < list->nouns; ++i) {
        unsigned d = nearest_distance(unknown, list->word[i]);
        const char *word = list->word[i];
        for (size_t k = 0; k < NEAREST && word; ++k)
            if (!best[k] || d < distance[k]) {
                const char *moved = best[k];
                unsigned moved_distance = distance[k];
                best[k] = word;
                distance[k] = d;
                word = moved;
                d = moved_distance;
            }
    }
    const unsigned near = (unsigned)strlen(unknown) / 2;
    for (size_t k = 0; k < NEAREST && best[k] && (k == 0 || distance[k] <= near); ++k) {
        size_t used = strlen(names);
        const char *named = strstr(names, best[k]);
        if (named && (named == names || named[-1] == ' ') &&
            (!named[strlen(best[k])] || named[strlen(best[k])] == ','))
            continue;
        (void)snprintf(names + used, size - used, "%s%s", used ? ", " : "", best[k]);
    }
}

size_t words_unknown(const char *model, const char *prompt, char *message, size_t size) {
    word_list *list = calloc(1, sizeof *list);
    char unknown[512] = "", nearest[512] = "", word[MAX_LENGTH];
    size_t count = 0;
    if (list && read_list(list, model, "known_words.txt")) {
        list->nouns = list->count;
        (void)read_list(list, model, "known_modifiers.txt");
        for (const char *at = prompt; next_word(&at, word);)
            if (!has_word(list, word) && ++count <= MAX_NAMED) {
                size_t used = strlen(unknown);
                (void)snprintf(unknown + used, sizeof unknown - used, "%s\"%s\"", used ? ", " : "", word);
                name_nearest(list, word, nearest, sizeof nearest);
            }
    }
    free(list);
    if (count)
        (void)snprintf(
            message, size,
            "the model does not know %s%s and will draw something else; the nearest words that it knows: %s "
            "(all of them: known_words.txt of the model)",
            unknown, count > MAX_NAMED ? ", …" : "", nearest);
    return count;
}
