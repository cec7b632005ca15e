/* model_name.c: a model's name from its path. */
#include "model_name.h"

#include <stdio.h>
#include <string.h>

void model_name(const char *path, char *name, size_t size) {
    static const char ending[] = ".safetensors";
    size_t length = strlen(path), start;
    while (length > 1 && path[length - 1] == '/')
        --length;
    for (start = length; start > 0 && (path[start - 1] != '/' || start == length); --start)
        ;
    if (length - start > strlen(ending) &&
        memcmp(path + length - strlen(ending), ending, strlen(ending)) == 0)
        length -= strlen(ending);
    (void)snprintf(name, size, "%.*s", (int)(length - start), path + start);
}
