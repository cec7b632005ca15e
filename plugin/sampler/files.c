/* files.c: opening a model's files. */
#include "plugin/sampler/files.h"
#include "plugin/sampler/domain.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JSON_BYTES_MAX = 16 << 20 };

static attune_code cannot_open(const char *path, int number, attune_error *error) {
    attune_code code = number == ENOENT || number == ENOTDIR ? ATTUNE_NOT_FOUND
                       : number == EACCES                    ? ATTUNE_PERMISSION_DENIED
                                                             : ATTUNE_UNKNOWN;
    (void)attune_fail(error, code, SAMPLER_DOMAIN, path, "cannot open %s: %s", path, strerrordesc_np(number));
    if (error)
        error->native_code = number;
    return code;
}

attune_code file_open(const char *path, int *descriptor, uint64_t *bytes, attune_error *error) {
    struct stat about;
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (opened < 0 && errno != ENXIO) /* ENXIO: a socket */
        return cannot_open(path, errno, error);
    if (opened < 0 || fstat(opened, &about) != 0 || !S_ISREG(about.st_mode)) {
        if (opened >= 0)
            (void)close(opened);
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, path, "%s is not a regular file",
                           path);
    }
    *descriptor = opened;
    *bytes = (uint64_t)about.st_size;
    return ATTUNE_OK;
}

static attune_code parse(FILE *file, const char *path, json_t **out, attune_error *error) {
    json_error_t where;
    *out = json_loadf(file, JSON_REJECT_DUPLICATES, &where);
    if (!*out)
        return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, path, "%s, line %d, column %d: %s", path,
                           where.line, where.column, where.text);
    if (json_is_object(*out))
        return ATTUNE_OK;
    json_decref(*out);
    *out = NULL;
    return attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, path, "%s is not a JSON object", path);
}

attune_code file_json(const char *path, json_t **out, attune_error *error) {
    int descriptor;
    uint64_t bytes;
    *out = NULL;
    attune_code code = file_open(path, &descriptor, &bytes, error);
    if (code != ATTUNE_OK)
        return code;
    FILE *file = bytes <= JSON_BYTES_MAX ? fdopen(descriptor, "r") : NULL;
    if (!file) {
        (void)close(descriptor);
        return bytes > JSON_BYTES_MAX ? attune_fail(error, ATTUNE_OUT_OF_RANGE, SAMPLER_DOMAIN, path,
                                                    "%s has %llu bytes; at most %d are read", path,
                                                    (unsigned long long)bytes, JSON_BYTES_MAX)
                                      : attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, path,
                                                    "no memory to read %s", path);
    }
    code = parse(file, path, out, error);
    (void)fclose(file);
    return code;
}
