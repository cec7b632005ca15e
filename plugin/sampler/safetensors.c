/* safetensors.c: reading and checking a .safetensors file. */
#include "plugin/sampler/safetensors.h"
#include "plugin/sampler/files.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8, MAX_HEADER = 16 << 20, MAX_TENSORS = 65536, MAX_NAME = 512 };

__attribute__((format(printf, 3, 4))) static attune_code damaged(const safetensors *file, attune_error *error,
                                                                 const char *format, ...) {
    char what[400];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(what, sizeof what, format, list);
    va_end(list);
    attune_code code =
        attune_fail(error, ATTUNE_DATA_LOSS, SAMPLER_DOMAIN, file->path, "%s: %s", file->path, what);
    attune_hint(error, "fetch the file again");
    return code;
}

static attune_code map_file(safetensors *file, attune_error *error) {
    int descriptor;
    attune_code code = file_open(file->path, &descriptor, &file->bytes, error);
    if (code != ATTUNE_OK)
        return code;
    if (file->bytes < LENGTH_BYTES) {
        (void)close(descriptor);
        return damaged(file, error, "%llu bytes are too few for a safetensors file",
                       (unsigned long long)file->bytes);
    }
    file->map = mmap(NULL, file->bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    (void)close(descriptor);
    if (file->map == MAP_FAILED) {
        file->map = NULL;
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, file->path, "cannot map %s: %s",
                           file->path, strerror(errno));
    }
    return ATTUNE_OK;
}

static uint64_t header_bytes(const safetensors *file) {
    const unsigned char *bytes = file->map;
    uint64_t length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; --i)
        length = length << 8 | bytes[i];
    return length;
}

/* The types of the format with their sizes; only three of them are read as weights. */
static const struct type {
    char name[8];
    uint32_t bits;
    attune_dtype dtype;
} types[] = {
    {"F32", 32, {ATTUNE_TYPE_FLOAT, 32, 1}},
    {"F16", 16, {ATTUNE_TYPE_FLOAT, 16, 1}},
    {"BF16", 16, {ATTUNE_TYPE_BFLOAT, 16, 1}},
    {"F64", 64, {0, 0, 0}},
    {"I64", 64, {0, 0, 0}},
    {"U64", 64, {0, 0, 0}},
    {"I32", 32, {0, 0, 0}},
    {"U32", 32, {0, 0, 0}},
    {"I16", 16, {0, 0, 0}},
    {"U16", 16, {0, 0, 0}},
    {"I8", 8, {0, 0, 0}},
    {"U8", 8, {0, 0, 0}},
    {"BOOL", 8, {0, 0, 0}},
    {"F8_E4M3", 8, {0, 0, 0}},
    {"F8_E5M2", 8, {0, 0, 0}},
};

static attune_code read_type(const safetensors *file, const json_t *value, safetensors_tensor *tensor,
                             uint32_t *bits, attune_error *error) {
    const char *name = json_string_value(value);
    for (size_t i = 0; name && i < sizeof types / sizeof types[0]; ++i)
        if (strcmp(types[i].name, name) == 0) {
            tensor->dtype = types[i].dtype;
            memcpy(tensor->stored, types[i].name, sizeof tensor->stored);
            *bits = types[i].bits;
            return ATTUNE_OK;
        }
    return damaged(file, error, "tensor '%s' has no known dtype", tensor->name);
}

/* The shape, and the bytes that it takes. */
static attune_code read_shape(const safetensors *file, const json_t *value, safetensors_tensor *tensor,
                              uint32_t bits, attune_error *error) {
    size_t ndim = json_array_size(value);
    if (!json_is_array(value) || ndim > SAFETENSORS_MAX_DIMS)
        return damaged(file, error, "tensor '%s' has no shape of at most %d dimensions", tensor->name,
                       SAFETENSORS_MAX_DIMS);
    uint64_t bytes = bits / 8;
    tensor->ndim = (int32_t)ndim;
    for (size_t i = 0; i < ndim; ++i) {
        const json_t *extent = json_array_get(value, i);
        json_int_t n = json_is_integer(extent) ? json_integer_value(extent) : -1;
        if (n < 0 || __builtin_mul_overflow(bytes, (uint64_t)n, &bytes))
            return damaged(file, error, "tensor '%s' has an impossible shape", tensor->name);
        tensor->shape[i] = n;
    }
    tensor->bytes = bytes;
    return ATTUNE_OK;
}

static attune_code read_range(const safetensors *file, const json_t *value, uint64_t data_start,
                              safetensors_tensor *tensor, attune_error *error) {
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first))
        return damaged(file, error, "tensor '%s' has impossible data_offsets", tensor->name);
    uint64_t begin = (uint64_t)json_integer_value(first), end = (uint64_t)json_integer_value(last);
    if (end - begin != tensor->bytes)
        return damaged(file, error, "tensor '%s' takes %llu bytes by its shape, %llu by its data_offsets",
                       tensor->name, (unsigned long long)tensor->bytes, (unsigned long long)(end - begin));
    if (end > file->bytes - data_start)
        return damaged(file, error, "truncated: %llu bytes, but tensor '%s' ends at byte %llu",
                       (unsigned long long)file->bytes, tensor->name, (unsigned long long)data_start + end);
    tensor->data = (const char *)file->map + data_start + begin;
    return ATTUNE_OK;
}

static attune_code read_tensor(const safetensors *file, const json_t *entry, uint64_t data_start,
                               safetensors_tensor *tensor, attune_error *error) {
    uint32_t bits = 0;
    if (!json_is_object(entry))
        return damaged(file, error, "tensor '%s' is not described by an object", tensor->name);
    attune_code code = read_type(file, json_object_get(entry, "dtype"), tensor, &bits, error);
    if (code == ATTUNE_OK)
        code = read_shape(file, json_object_get(entry, "shape"), tensor, bits, error);
    if (code == ATTUNE_OK)
        code = read_range(file, json_object_get(entry, "data_offsets"), data_start, tensor, error);
    return code;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensors_tensor *)a)->name, ((const safetensors_tensor *)b)->name);
}

static int by_place(const void *a, const void *b) {
    const safetensors_tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    return p != q ? (p > q) - (p < q) : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The format has every byte behind the header belong to exactly one tensor. */
static attune_code check_places(safetensors *file, uint64_t data_start, attune_error *error) {
    const char *end = (const char *)file->map + data_start;
    qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
    for (uint64_t i = 0; i < file->count; ++i) {
        const safetensors_tensor *here = &file->tensors[i];
        const char *data = here->data;
        if (data < end)
            return damaged(file, error, "tensors '%s' and '%s' overlap", here[-1].name, here->name);
        if (data > end)
            return damaged(file, error, "%llu bytes before tensor '%s' belong to no tensor",
                           (unsigned long long)(data - end), here->name);
        end += here->bytes;
    }
    uint64_t rest = file->bytes - (uint64_t)(end - (const char *)file->map);
    if (rest > 0)
        return damaged(file, error, "%llu bytes at the end belong to no tensor", (unsigned long long)rest);
    qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    return ATTUNE_OK;
}

/* Room for the tensors and a copy of their names, which end with the JSON tree. */
static attune_code make_room(safetensors *file, const json_t *header, attune_error *error) {
    const char *name;
    const json_t *entry;
    uint64_t bytes = 1;
    json_t *walk = (json_t *)(uintptr_t)header; /* jansson's iterators are not const */
    if (json_object_size(header) > MAX_TENSORS)
        return damaged(file, error, "more than %d tensors", MAX_TENSORS);
    json_object_foreach(walk, name, entry) {
        if (strlen(name) > MAX_NAME)
            return damaged(file, error, "a tensor's name is longer than %d bytes", MAX_NAME);
        bytes += strlen(name) + 1;
    }
    file->tensors =
        services_clear_alloc(file->host, json_object_size(header) + 1, sizeof *file->tensors, "model");
    file->names = services_clear_alloc(file->host, bytes, 1, "model");
    return file->tensors && file->names ? ATTUNE_OK : services_no_memory(file->path, bytes, error);
}

static attune_code read_header(safetensors *file, const json_t *header, uint64_t data_start,
                               attune_error *error) {
    attune_code code = make_room(file, header, error);
    if (code != ATTUNE_OK)
        return code;
    const char *name;
    const json_t *entry;
    json_t *walk = (json_t *)(uintptr_t)header;
    char *names = file->names;
    json_object_foreach(walk, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        safetensors_tensor *tensor = &file->tensors[file->count];
        size_t length = strlen(name) + 1;
        tensor->name = memcpy(names, name, length);
        names += length;
        code = read_tensor(file, entry, data_start, tensor, error);
        if (code != ATTUNE_OK)
            return code;
        file->count++;
    }
    return check_places(file, data_start, error);
}

static attune_code parse(safetensors *file, attune_error *error) {
    uint64_t length = header_bytes(file);
    if (length > MAX_HEADER)
        return damaged(file, error, "a header of %llu bytes (at most %d are read)",
                       (unsigned long long)length, MAX_HEADER);
    if (length > file->bytes - LENGTH_BYTES)
        return damaged(file, error, "truncated: %llu bytes, but its header alone takes %llu",
                       (unsigned long long)file->bytes, (unsigned long long)length + LENGTH_BYTES);
    json_error_t where;
    json_t *header =
        json_loadb((const char *)file->map + LENGTH_BYTES, length, JSON_REJECT_DUPLICATES, &where);
    if (!header)
        return damaged(file, error, "header line %d column %d: %s", where.line, where.column, where.text);
    attune_code code = json_is_object(header) ? read_header(file, header, LENGTH_BYTES + length, error)
                                              : damaged(file, error, "the header is not an object");
    json_decref(header);
    return code;
}

attune_code safetensors_open(const services *host, const char *path, safetensors *out, attune_error *error) {
    memset(out, 0, sizeof *out);
    out->host = host;
    int length = snprintf(out->path, sizeof out->path, "%s", path);
    if (length < 0 || (size_t)length >= sizeof out->path)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "safetensors",
                           "the path is too long: %s", path);
    attune_code code = map_file(out, error);
    if (code == ATTUNE_OK)
        code = parse(out, error);
    if (code != ATTUNE_OK)
        safetensors_close(out);
    return code;
}

void safetensors_close(safetensors *file) {
    if (!file->host)
        return;
    services_free(file->host, file->tensors);
    services_free(file->host, file->names);
    if (file->map)
        munmap(file->map, file->bytes);
    memset(file, 0, sizeof *file);
}

const safetensors_tensor *safetensors_find(const safetensors *file, const char *name) {
    safetensors_tensor key = {.name = name};
    return bsearch(&key, file->tensors, file->count, sizeof key, by_name);
}

void safetensors_release(const safetensors *file) {
    if (file->map)
        (void)madvise(file->map, file->bytes, MADV_DONTNEED);
}

void safetensors_release_range(const void *data, uint64_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)data / page * page;
    (void)madvise((void *)first, (uintptr_t)data + bytes - first, MADV_DONTNEED);
}
