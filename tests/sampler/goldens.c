/* goldens.c: the files of tests/golden/data as arrays. */
#include "tests/sampler/goldens.h"

#include "tests/support/run.h"

#include <check.h>
#include <stdlib.h>

npy_array golden_read(attune_dtype dtype, int32_t ndim, const char *format, ...) {
    char name[128], path[4352];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(name, sizeof name, format, list);
    va_end(list);
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/%s.npy", run_source(), name);
    npy_array array;
    attune_error error;
    attune_code code = npy_read(path, &array, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s: %s", path, error.message);
    ck_assert_msg(memcmp(&array.tensor.dtype, &dtype, sizeof dtype) == 0 && array.tensor.ndim == ndim,
                  "%s has another type or shape", path);
    return array;
}

size_t golden_count(const npy_array *array) {
    size_t count = 1;
    for (int32_t i = 0; i < array->tensor.ndim; i++)
        count *= (size_t)array->tensor.shape[i];
    return count;
}

golden_lines golden_read_lines(const char *name) {
    char path[4352];
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/%s.txt", run_source(), name);
    size_t size;
    char *file = run_read(path, &size);
    golden_lines lines = {calloc(size + 1, sizeof(char *)), 0};
    for (char *line = strtok(file, "\n"); line; line = strtok(NULL, "\n")) {
        json_error_t reason;
        json_t *value = json_loads(line, JSON_DECODE_ANY, &reason);
        ck_assert_msg(json_is_string(value), "%s: %s", path, line);
        lines.text[lines.count++] = strdup(json_string_value(value));
        json_decref(value);
    }
    free(file);
    return lines;
}

void golden_lines_free(golden_lines *lines) {
    for (size_t i = 0; i < lines->count; i++)
        free(lines->text[i]);
    free(lines->text);
}
