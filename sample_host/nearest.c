/* nearest.c: edit distance. Source: L. Boytsov, "Indexing methods for approximate dictionary searching",
 * 2011, §2.2. */
#include "nearest.h"

#include <ctype.h>
#include <string.h>

#define LONGEST 63

unsigned nearest_distance(const char *a, const char *b) {
    unsigned row[3][LONGEST + 1];
    size_t na = strnlen(a, LONGEST), nb = strnlen(b, LONGEST);
    for (size_t j = 0; j <= nb; ++j)
        row[0][j] = (unsigned)j;
    for (size_t i = 1; i <= na; ++i) {
        unsigned *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; ++j) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            unsigned best = last[j - 1] + (ca != cb);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                cb == tolower((unsigned char)a[i - 2]) && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[na % 3][nb];
}

const char *nearest_word(const char *word, const char *const *words, size_t count) {
    const char *best = NULL;
    unsigned limit = (unsigned)strlen(word) / 3 + 1, distance = limit + 1;
    for (size_t i = 0; i < count; ++i) {
        unsigned d = nearest_distance(word, words[i]);
        if (d < distance) {
            distance = d;
            best = words[i];
        }
    }
    return best;
}
