/* json_fields.c: checked reading of JSON objects; every error says place, expectation and finding. */
#include "json_fields.h"
#include "structs.h"

/* What stands there, in words: short enough for one line, without the text itself where that could be long.
 */
static void describe(const json_t *value, char *out, size_t size) {
    if (!value)
        attune_text_copy(out, size, "nothing");
    else if (json_is_string(value) && strlen(json_string_value(value)) <= 64)
        (void)snprintf(out, size, "\"%s\"", json_string_value(value));
    else if (json_is_integer(value))
        (void)snprintf(out, size, "%lld", (long long)json_integer_value(value));
    else if (json_is_array(value))
        (void)snprintf(out, size, "a list of %zu", json_array_size(value));
    else
        attune_text_copy(out, size,
                         json_is_string(value)    ? "a string of more than 64 bytes"
                         : json_is_real(value)    ? "a number with a fraction"
                         : json_is_boolean(value) ? "a boolean"
                         : json_is_null(value)    ? "null"
                                                  : "an object");
}

static attune_code wrong_at(const json_place *place, const char *where, const json_t *found,
                            const char *expected) {
    char text[96];
    describe(found, text, sizeof text);
    return attune_fail(place->error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, place->file,
                       "%s: expected %s, found %s", where, expected, text);
}

attune_code json_field_wrong(const json_place *place, const char *key, const json_t *found,
                             const char *expected) {
    char where[256];
    (void)snprintf(where, sizeof where, "%s.%s", place->path, key);
    return wrong_at(place, where, found, expected);
}

attune_code json_enter(const json_place *parent, const json_t *value, const char *path,
                       const char *const *known, json_place *out) {
    *out = (json_place){.file = parent->file, .object = value, .error = parent->error};
    attune_text_copy(out->path, sizeof out->path, path);
    if (!json_is_object(value))
        return wrong_at(parent, path, value, "an object");
    /* jansson's iterator wants a mutable object, but only reads it */
    for (void *i = json_object_iter((json_t *)value); i; i = json_object_iter_next((json_t *)value, i)) {
        const char *key = json_object_iter_key(i);
        bool fine = strncmp(key, "x-", 2) == 0;
        for (size_t k = 0; known[k] && !fine; ++k)
            fine = strcmp(known[k], key) == 0;
        if (!fine) {
            (void)attune_fail(parent->error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, parent->file,
                              "%s: unknown key \"%.64s\"", path, key);
            attune_hint(parent->error, "keys of your own begin with \"x-\"");
            return ATTUNE_INVALID_ARGUMENT;
        }
    }
    return ATTUNE_OK;
}

static bool letter_or_digit(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_name(const char *text) {
    if (!letter_or_digit(*text))
        return false;
    for (; *text; ++text)
        if (!letter_or_digit(*text) && !strchr("._-", *text))
            return false;
    return true;
}

static bool is_version(const char *text) {
    for (int part = 0; part < 3; ++part) {
        size_t digits = strspn(text, "0123456789");
        if (!digits)
            return false;
        text += digits;
        if (part < 2 && *text++ != '.')
            return false;
    }
    if (!*text)
        return true;
    if (*text != '-' && *text != '+')
        return false;
    for (++text; *text; ++text)
        if (!letter_or_digit(*text) && !strchr(".+-", *text))
            return false;
    return true;
}

/* Beneath the folder by its text alone; the loader also follows no symbolic link (files.h). */
static bool is_path(const char *text) {
    for (;;) {
        size_t length = strcspn(text, "/");
        if (length == 0 || (length == 1 && text[0] == '.') ||
            (length == 2 && text[0] == '.' && text[1] == '.') || memchr(text, '\\', length))
            return false;
        if (!text[length])
            return true;
        text += length + 1;
    }
}

static bool is_interface(const char *text) {
    char name[64];
    const char *slash = strchr(text, '/');
    if (!slash || (size_t)(slash - text) >= sizeof name)
        return false;
    (void)snprintf(name, sizeof name, "%.*s", (int)(slash - text), text);
    size_t digits = strspn(slash + 1, "0123456789");
    return is_name(name) && digits > 0 && digits < 6 && slash[1] != '0' && !slash[1 + digits];
}

/* "libNAME.so", with or without a version behind it; the name itself may hold ".so" too. */
bool json_is_library(const char *text) {
    const char *so = NULL;
    for (const char *at = text; (at = strstr(at, ".so")) != NULL; ++at)
        so = at;
    if (!letter_or_digit(*text) || !so || (so[3] && so[3] != '.') || strlen(text) >= ATTUNE_LIBRARY_NAME)
        return false;
    for (; *text; ++text)
        if (!letter_or_digit(*text) && !strchr("._-+", *text))
            return false;
    return true;
}

static bool is_line(const char *text) {
    if (!*text)
        return false;
    for (; *text; ++text)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

static const char *expected_text(json_text kind) {
    static const char *const text[] = {
        [JSON_TEXT_ANY] = "one line of text",
        [JSON_TEXT_NAME] = "a name of letters, digits, '.', '_' and '-'",
        [JSON_TEXT_VERSION] = "a version such as \"1.2.3\"",
        [JSON_TEXT_PATH] = "a relative path beneath the manifest's folder, without \"..\" or empty parts",
        [JSON_TEXT_INTERFACE] = "an interface with its revision, such as \"attune.attention/1\"",
        [JSON_TEXT_LIBRARY] = "a shared library's name, such as \"libm.so.6\"",
        [JSON_TEXT_REQUIRED] =
            "an interface such as \"attune.attention/1\", or a shared library's name such as \"libm.so.6\"",
        [JSON_TEXT_VENDOR] = "a vendor's name or \"*\"",
    };
    return text[kind];
}

static attune_code check_text(const json_place *place, const char *where, const json_t *value, json_text kind,
                              char *out, size_t size) {
    const char *text = json_string_value(value);
    char expected[160];
    bool right = text && is_line(text);
    if (right && kind == JSON_TEXT_NAME)
        right = is_name(text);
    if (right && kind == JSON_TEXT_VERSION)
        right = is_version(text);
    if (right && kind == JSON_TEXT_PATH)
        right = is_path(text);
    if (right && kind == JSON_TEXT_INTERFACE)
        right = is_interface(text);
    if (right && kind == JSON_TEXT_LIBRARY)
        right = json_is_library(text);
    if (right && kind == JSON_TEXT_REQUIRED)
        right = is_interface(text) || json_is_library(text);
    if (right && strlen(text) < size) {
        attune_text_copy(out, size, text);
        return ATTUNE_OK;
    }
    (void)snprintf(expected, sizeof expected, "%s (at most %zu bytes)", expected_text(kind), size - 1);
    return wrong_at(place, where, value, expected);
}

attune_code json_text_field(const json_place *place, const char *key, json_text kind, char *out,
                            size_t size) {
    char where[256];
    (void)snprintf(where, sizeof where, "%s.%s", place->path, key);
    return check_text(place, where, json_object_get(place->object, key), kind, out, size);
}

attune_code json_integer_field(const json_place *place, const char *key, int64_t least, int64_t most,
                               int64_t *out) {
    const json_t *value = json_object_get(place->object, key);
    int64_t number = json_integer_value(value);
    if (json_is_integer(value) && number >= least && number <= most) {
        *out = number;
        return ATTUNE_OK;
    }
    char expected[96];
    (void)snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)least,
                   (long long)most);
    return json_field_wrong(place, key, value, expected);
}

static bool find_word(const json_word *words, const json_t *value, uint32_t *out) {
    const char *text = json_string_value(value);
    for (; text && words->word; ++words)
        if (strcmp(words->word, text) == 0) {
            *out = words->value;
            return true;
        }
    return false;
}

static void list_words(const json_word *words, char *out, size_t size, const char *lead) {
    attune_text_copy(out, size, lead);
    for (size_t i = 0; words[i].word; ++i) {
        size_t used = strlen(out);
        (void)snprintf(out + used, size - used, "%s\"%s\"",
                       i == 0              ? ""
                       : words[i + 1].word ? ", "
                                           : " or ",
                       words[i].word);
    }
}

attune_code json_word_field(const json_place *place, const char *key, const json_word *words, uint32_t *out) {
    const json_t *value = json_object_get(place->object, key);
    char expected[160];
    if (find_word(words, value, out))
        return ATTUNE_OK;
    list_words(words, expected, sizeof expected, "");
    return json_field_wrong(place, key, value, expected);
}

attune_code json_list_field(const json_place *place, const char *key, uint32_t least, uint32_t most,
                            const json_t **out) {
    const json_t *value = json_object_get(place->object, key);
    *out = value;
    if (json_is_array(value) && json_array_size(value) >= least && json_array_size(value) <= most)
        return ATTUNE_OK;
    char expected[96];
    (void)snprintf(expected, sizeof expected, "a list of %u to %u entries", least, most);
    return json_field_wrong(place, key, value, expected);
}

attune_code json_words_field(const json_place *place, const char *key, const json_word *words, uint32_t least,
                             uint32_t *out) {
    const json_t *list;
    attune_code code = json_list_field(place, key, least, 16, &list);
    *out = 0;
    for (size_t i = 0; !code && i < json_array_size(list); ++i) {
        char entry[64], expected[160];
        uint32_t bit;
        (void)snprintf(entry, sizeof entry, "%s[%zu]", key, i);
        if (find_word(words, json_array_get(list, i), &bit) && !(*out & bit)) {
            *out |= bit;
            continue;
        }
        list_words(words, expected, sizeof expected, "one of, each once: ");
        code = json_field_wrong(place, entry, json_array_get(list, i), expected);
    }
    return code;
}

/* `names` has room for `most` texts of `size` bytes. */
static attune_code read_names(const json_place *place, const char *key, json_text kind, uint32_t least,
                              uint32_t most, uint32_t *count, char *names, size_t size) {
    const json_t *list;
    attune_code code = json_list_field(place, key, least, most, &list);
    *count = 0;
    for (size_t i = 0; !code && i < json_array_size(list); ++i) {
        char where[256];
        (void)snprintf(where, sizeof where, "%s.%s[%zu]", place->path, key, i);
        code = check_text(place, where, json_array_get(list, i), kind, names + i * size, size);
        for (uint32_t k = 0; !code && k < *count; ++k)
            if (strcmp(names + k * size, names + i * size) == 0)
                code = wrong_at(place, where, json_array_get(list, i), "each entry only once");
        ++*count;
    }
    return code;
}

attune_code json_names_field(const json_place *place, const char *key, json_text kind, uint32_t least,
                             uint32_t most, attune_names *out) {
    return read_names(place, key, kind, least, most, &out->count, out->name[0], sizeof out->name[0]);
}

attune_code json_required_field(const json_place *place, const char *key, json_text kind,
                                attune_required *out) {
    return read_names(place, key, kind, 0, ATTUNE_MANIFEST_REQUIRED, &out->count, out->name[0],
                      sizeof out->name[0]);
}

attune_code json_object_field(const json_place *place, const char *key, const char *const *known,
                              json_place *out) {
    char where[256];
    (void)snprintf(where, sizeof where, "%s.%s", place->path, key);
    return json_enter(place, json_object_get(place->object, key), where, known, out);
}
