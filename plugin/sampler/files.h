/*
 * files.h: a model's files are opened here and nowhere else: regular files only, so that a pipe, a socket, a
 * device or a folder in place of one is an error and nothing that is waited for.
 */
#ifndef ATTUNE_SAMPLER_FILES_H
#define ATTUNE_SAMPLER_FILES_H

#include "attune/abi.h"

/* [any] Open for reading; the caller closes *descriptor. Errors: NOT_FOUND, PERMISSION_DENIED,
 * INVALID_ARGUMENT (no regular file), UNKNOWN; native_code is errno. */
attune_code file_open(const char *path, int *descriptor, uint64_t *bytes, attune_error *error);

/* [any] A JSON object without double keys; the caller decrefs. Errors: file_open's, OUT_OF_RANGE (above
 * 16 MiB), DATA_LOSS (line and column; no object). */
struct json_t;
attune_code file_json(const char *path, struct json_t **out, attune_error *error);

#endif
