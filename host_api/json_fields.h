/*
 * json_fields.h: fields of a JSON object, each read with a check whose error names the place
 * ("$.libraries[0].size") and says what was expected and what was found.
 */
#ifndef HOST_API_JSON_FIELDS_H
#define HOST_API_JSON_FIELDS_H

#include "manifest.h"
#include <jansson.h>
#include <stdbool.h>

/* An object and where it stands. */
typedef struct json_place {
    const char *file;
    const json_t *object;
    char path[160];
    attune_error *error;
} json_place;

/* What a string may look like. */
typedef enum json_text {
    JSON_TEXT_ANY,       /* one line, not empty, no control characters */
    JSON_TEXT_NAME,      /* letters, digits, ".", "_", "-"; begins with a letter or digit */
    JSON_TEXT_VERSION,   /* semver: "1.2.3", "1.2.3-rc.1" */
    JSON_TEXT_PATH,      /* relative, no empty, "." or ".." component, no backslash */
    JSON_TEXT_INTERFACE, /* "attune.attention/1" */
    JSON_TEXT_LIBRARY,   /* a shared library by its soname: "libm.so.6" */
    JSON_TEXT_REQUIRED,  /* an interface or a library */
    JSON_TEXT_VENDOR     /* as ANY, or "*" */
} json_text;

/* [any] Whether a text is a JSON_TEXT_LIBRARY that an attune_required has room for. */
bool json_is_library(const char *text);

/* A word and the bit or number that it stands for; the list ends with a NULL word. */
typedef struct json_word {
    const char *word;
    uint32_t value;
} json_word;

/* All: [any]; OK, or INVALID_ARGUMENT with the place. `place` must be an object that json_enter accepted. */

/* Check that `value` is an object with no keys but `known` (ends with NULL) and "x-…", and make it `out`'s
 * place. */
attune_code json_enter(const json_place *parent, const json_t *value, const char *path,
                       const char *const *known, json_place *out);
attune_code json_text_field(const json_place *place, const char *key, json_text kind, char *out, size_t size);
attune_code json_integer_field(const json_place *place, const char *key, int64_t least, int64_t most,
                               int64_t *out);
attune_code json_word_field(const json_place *place, const char *key, const json_word *words, uint32_t *out);
/* A list of words without repeats, as a set of bits; `least` words at least. */
attune_code json_words_field(const json_place *place, const char *key, const json_word *words, uint32_t least,
                             uint32_t *out);
/* A list of texts without repeats. */
attune_code json_names_field(const json_place *place, const char *key, json_text kind, uint32_t least,
                             uint32_t most, attune_names *out);
/* A manifest's `requires`: at most ATTUNE_MANIFEST_REQUIRED texts without repeats. */
attune_code json_required_field(const json_place *place, const char *key, json_text kind,
                                attune_required *out);
/* A list of `least` to `most` values of any kind. */
attune_code json_list_field(const json_place *place, const char *key, uint32_t least, uint32_t most,
                            const json_t **out);
/* A field that must be an object, entered. */
attune_code json_object_field(const json_place *place, const char *key, const char *const *known,
                              json_place *out);
/* Fail for a field with what was expected. */
attune_code json_field_wrong(const json_place *place, const char *key, const json_t *found,
                             const char *expected);

#endif
