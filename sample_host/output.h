/*
 * output.h: files appear whole or not at all: written to a temporary file in the same folder, then renamed.
 */
#ifndef ATTUNE_OUTPUT_H
#define ATTUNE_OUTPUT_H

#include "attune/abi.h"
#include <stdio.h>

typedef struct output_file {
    FILE *stream;         /* write here */
    char temporary[4096]; /* "" where the path is written directly */
    char path[4096];
} output_file;

/* Before any work: whether `path` can be written, as far as can be told without writing. Errors: NOT_FOUND
 * (no such folder), PERMISSION_DENIED (folder or file), FAILED_PRECONDITION (too long, a folder). */
attune_code output_check(const char *path, attune_error *error);

/* Start `path`, after output_check; a device or a pipe is written directly, a link is followed and stays. */
attune_code output_begin(output_file *file, const char *path, attune_error *error);

/* Flush, sync to the file system's knowledge and rename over `path`; with `keep` an existing file is not
 * replaced and the code is ALREADY_EXISTS (no message). On any failure nothing is left behind. Errors:
 * RESOURCE_EXHAUSTED (disk full). */
attune_code output_commit(output_file *file, int keep, attune_error *error);

/* Remove the temporary file of an output that was begun and not committed. Harmless afterwards. */
void output_abandon(output_file *file);

/* Remove, from a fatal signal's handler or at exit, whatever output is begun. [async-signal-safe] */
void output_abandon_all(void);

/* Fill `error` from errno, with the code that fits, and return it. */
attune_code output_errno(attune_error *error, const char *doing, const char *path);

#endif
