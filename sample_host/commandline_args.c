/* commandline_args.c: a shell's quoting. Source: Python's shlex, POSIX mode. */
#include "commandline_args.h"

#include <stdlib.h>
#include <string.h>

int commandline_args_split(const char *text, const char ***words) {
    size_t length = strlen(text), most = length / 2 + 1;
    const char **word = malloc(most * sizeof *word + length + 1);
    char *to = (char *)(word + most), quote = 0;
    int count = 0, inside = 0; /* a word */
    *words = word;
    if (!word)
        return -2;
    for (; *text; ++text) {
        if (!quote && strchr(" \t\r\n", *text)) {
            if (inside)
                *to++ = 0;
            inside = 0;
            continue;
        }
        if (!inside)
            word[count++] = to;
        inside = 1;
        if (*text == quote)
            quote = 0;
        else if (!quote && (*text == '"' || *text == '\''))
            quote = *text;
        else if (*text == '\\' && quote != '\'') {
            if (!*++text)
                return -1;
            if (quote && *text != '\\' && *text != quote)
                *to++ = '\\';
            *to++ = *text;
        } else
            *to++ = *text;
    }
    *to = 0;
    return quote ? -1 : count;
}
