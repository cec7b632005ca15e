/* npy.c: numpy's .npy files. The header is a Python dict literal of three keys; it is untrusted. */
#include "npy.h"
#include "output.h"

#include <ctype.h>
#include <stdlib.h>
#include <sys/stat.h>

static const struct {
    char descr[4];
    attune_dtype dtype;
} npy_types[] = {
    {"|b1", {ATTUNE_TYPE_BOOL, 8, 1}},   {"|u1", {ATTUNE_TYPE_UINT, 8, 1}},
    {"<i4", {ATTUNE_TYPE_INT, 32, 1}},   {"<i8", {ATTUNE_TYPE_INT, 64, 1}},
    {"<f2", {ATTUNE_TYPE_FLOAT, 16, 1}}, {"<f4", {ATTUNE_TYPE_FLOAT, 32, 1}},
    {"<f8", {ATTUNE_TYPE_FLOAT, 64, 1}},
};

static attune_code corrupt(attune_error *error, const char *path, const char *what) {
    attune_fail(error, ATTUNE_DATA_LOSS, "npy", path, "%s is no readable .npy file: %s", path, what);
    attune_hint(error, "write it with numpy.save(path, array.astype('float32'))");
    return ATTUNE_DATA_LOSS;
}

/* The text after 'key': in the header, or NULL. */
static const char *find_value(const char *header, const char *key) {
    const char *at = strstr(header, key);
    if (!at)
        return NULL;
    at += strlen(key);
    while (isspace((unsigned char)*at))
        ++at;
    if (*at++ != ':')
        return NULL;
    while (isspace((unsigned char)*at))
        ++at;
    return at;
}

static attune_code parse_shape(const char *at, const char *path, attune_tensor *out, attune_error *error) {
    int64_t shape[ATTUNE_MAX_DIMS];
    int32_t count = 0;
    if (*at++ != '(')
        return corrupt(error, path, "its shape is not a tuple");
    for (;;) {
        while (isspace((unsigned char)*at) || *at == ',')
            ++at;
        if (*at == ')')
            break;
        if (!isdigit((unsigned char)*at))
            return corrupt(error, path, "its shape is not a tuple of numbers");
        if (count == ATTUNE_MAX_DIMS)
            return attune_fail(error, ATTUNE_UNIMPLEMENTED, "npy", path, "%s has more than %d axes", path,
                               ATTUNE_MAX_DIMS);
        char *end;
        unsigned long long extent = strtoull(at, &end, 10);
        if (extent > INT64_MAX / 16)
            return corrupt(error, path, "its shape is too large");
        shape[count++] = (int64_t)extent;
        at = end;
    }
    attune_device_id cpu;
    memset(&cpu, 0, sizeof cpu);
    cpu.type = ATTUNE_DEVICE_CPU;
    *out = attune_tensor_view(NULL, out->dtype, cpu, count, shape);
    return out->ndim < 0 ? corrupt(error, path, "its shape is too large") : ATTUNE_OK;
}

static attune_code parse_header(const char *header, const char *path, attune_tensor *out,
                                attune_error *error) {
    const char *descr = find_value(header, "'descr'");
    const char *order = find_value(header, "'fortran_order'");
    const char *shape = find_value(header, "'shape'");
    if (!descr || !order || !shape)
        return corrupt(error, path, "its header lacks descr, fortran_order or shape");
    if (strncmp(order, "False", 5) != 0) {
        attune_fail(error, ATTUNE_UNIMPLEMENTED, "npy", path, "%s is in Fortran order", path);
        attune_hint(error, "save numpy.ascontiguousarray(array)");
        return ATTUNE_UNIMPLEMENTED;
    }
    size_t type = 0, types = sizeof npy_types / sizeof npy_types[0];
    while (type < types &&
           (descr[0] != '\'' || strncmp(descr + 1, npy_types[type].descr, 3) != 0 || descr[4] != '\''))
        ++type;
    if (type == types)
        return attune_fail(
            error, ATTUNE_UNIMPLEMENTED, "npy", path,
            "%s has element type %.12s (bool, uint8, int32, int64, float16, float32, float64 are read)", path,
            descr);
    out->dtype = npy_types[type].dtype;
    return parse_shape(shape, path, out, error);
}

/* Read magic, version and header text (at most 64 KiB) into `header`. */
static attune_code read_header(FILE *file, const char *path, char header[65537], attune_error *error) {
    unsigned char start[12];
    if (fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY", 6) != 0)
        return corrupt(error, path, "it does not start with the .npy magic");
    uint32_t length = (uint32_t)start[8] | (uint32_t)start[9] << 8;
    if (start[6] < 1 || start[6] > 3)
        return corrupt(error, path, "its format version is unknown");
    if (start[6] > 1) {
        if (fread(start + 10, 1, 2, file) != 2)
            return corrupt(error, path, "it is truncated in its header");
        length |= (uint32_t)start[10] << 16 | (uint32_t)start[11] << 24;
    }
    if (length > 65536)
        return corrupt(error, path, "its header is longer than 64 KiB");
    if (fread(header, 1, length, file) != length)
        return corrupt(error, path, "it is truncated in its header");
    header[length] = 0;
    return ATTUNE_OK;
}

static attune_code read_data(FILE *file, const char *path, npy_array *out, attune_error *error) {
    struct stat status;
    long at = ftell(file);
    if (at < 0 || fstat(fileno(file), &status) != 0)
        return output_errno(error, "read", path);
    if (!S_ISREG(status.st_mode) || (uint64_t)(status.st_size - at) != out->tensor.bytes)
        return attune_fail(error, ATTUNE_DATA_LOSS, "npy", path,
                           "%s holds %lld bytes of data, its shape needs %llu", path,
                           (long long)(status.st_size - at), (unsigned long long)out->tensor.bytes);
    out->memory = aligned_alloc(64, (out->tensor.bytes + 64) / 64 * 64);
    if (!out->memory)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "npy", path, "no memory for %llu bytes of %s",
                           (unsigned long long)out->tensor.bytes, path);
    if (fread(out->memory, 1, out->tensor.bytes, file) != out->tensor.bytes)
        return corrupt(error, path, "it is truncated");
    out->tensor.data = out->memory;
    return ATTUNE_OK;
}

attune_code npy_read(const char *path, npy_array *out, attune_error *error) {
    memset(out, 0, sizeof *out);
    FILE *file = fopen(path, "rbe");
    if (!file)
        return output_errno(error, "read", path);
    char *header = malloc(65537);
    attune_code code =
        header ? read_header(file, path, header, error)
               : attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, "npy", path, "no memory to read %s", path);
    if (code == ATTUNE_OK)
        code = parse_header(header, path, &out->tensor, error);
    if (code == ATTUNE_OK)
        code = read_data(file, path, out, error);
    free(header);
    fclose(file);
    if (code != ATTUNE_OK)
        npy_free(out);
    return code;
}

void npy_free(npy_array *array) {
    free(array->memory);
    memset(array, 0, sizeof *array);
}

attune_code npy_write(const char *path, const attune_tensor *tensor, attune_error *error) {
    char header[512], shape[256] = "";
    size_t type = 0, types = sizeof npy_types / sizeof npy_types[0], used = 0;
    while (type < types && !attune_dtype_equal(npy_types[type].dtype, tensor->dtype))
        ++type;
    if (type == types)
        return attune_fail(error, ATTUNE_UNIMPLEMENTED, "npy", path, "%s cannot be written as .npy",
                           attune_dtype_name(tensor->dtype));
    for (int32_t i = 0; i < tensor->ndim; ++i)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%lld, ", (long long)tensor->shape[i]);
    int length = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                          npy_types[type].descr, shape);
    int padded = (10 + length + 1 + 63) / 64 * 64 - 10;
    output_file file;
    attune_code code = output_begin(&file, path, error);
    if (code != ATTUNE_OK)
        return code;
    unsigned char start[10] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)padded, (unsigned char)(padded >> 8)};
    fwrite(start, 1, sizeof start, file.stream);
    fprintf(file.stream, "%-*s\n", padded - 1, header);
    fwrite(tensor->data, 1, tensor->bytes, file.stream);
    return output_commit(&file, 0, error);
}
