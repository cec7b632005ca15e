/* goldens.h: the files of tests/golden/data as arrays. */
#ifndef ATTUNE_TESTS_SAMPLER_GOLDENS_H
#define ATTUNE_TESTS_SAMPLER_GOLDENS_H

#include "sample_host/npy.h"

/* tests/golden/data/NAME.npy; the test fails where it cannot be read or has another type or dimensions. The
 * caller calls npy_free. golden_count: how many elements it has. */
__attribute__((format(printf, 3, 4))) npy_array golden_read(attune_dtype dtype, int32_t ndim,
                                                            const char *format, ...);
size_t golden_count(const npy_array *array);

/* The lines of tests/golden/data/NAME.txt, each a JSON string, decoded to UTF-8. The caller calls
 * golden_lines_free. */
typedef struct golden_lines {
    char **text;
    size_t count;
} golden_lines;
golden_lines golden_read_lines(const char *name);
void golden_lines_free(golden_lines *lines);

#endif
