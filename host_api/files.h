/*
 * files.h: opening files that nobody else can change, and the private copy of a library that is really
 * loaded.
 *
 * The path is walked one folder at a time, following no symbolic link, because each folder is checked as
 * well: whoever can write a folder can swap the file in it. After a copy is made, overwriting the file on
 * disk touches nothing that runs.
 */
#ifndef HOST_API_FILES_H
#define HOST_API_FILES_H

#include "attune/abi.h"

/* [any] Open the folder at `path` (symbolic links in the path itself are followed) and check that its owner
 * is root or this user and that no group or other user can write it. The caller closes `*out`. Errors:
 * NOT_FOUND, PERMISSION_DENIED with the command that helps. */
attune_code attune_folder_open(const char *path, int *out, attune_error *error);

/* [any] Open the regular file `relative` beneath the open folder `folder`, whose path `folder_path` is for
 * messages. Every folder on the way and the file are checked as above. The caller closes `*out`; `*size` is
 * its size in bytes. Errors: NOT_FOUND, PERMISSION_DENIED (also for a symbolic link), FAILED_PRECONDITION
 * (not a regular file). */
attune_code attune_file_open(int folder, const char *folder_path, const char *relative, int *out,
                             uint64_t *size, attune_error *error);

/* [any] Read a whole open file of at most `limit` bytes; the caller frees `*out`, which a NUL follows.
 * Errors: OUT_OF_RANGE larger; RESOURCE_EXHAUSTED; UNAVAILABLE unreadable. */
attune_code attune_file_read(int file, const char *path, uint64_t limit, char **out, size_t *length,
                             attune_error *error);

/* A library's private copy: a sealed memfd, or a file in a folder of mode 0700 of its own. */
typedef struct attune_copy {
    int fd; /* open as long as the copy may be mapped: dlopen tells libraries apart by path and inode */
    uint64_t size;
    const void *bytes; /* the copy itself, mapped read-only until attune_copy_unmap */
    char path[512];    /* what to dlopen */
    char folder[480];  /* the private folder, or "" for a memfd */
} attune_copy;

/* [any] Copy the first `size` bytes of an open file. `name` is what debuggers shall show ("attune-cpu.so").
 * A memfd is used unless ATTUNE_PLUGIN_COPY=file or the system does not let memfds be executed.
 * Errors: DATA_LOSS (the file has another size), RESOURCE_EXHAUSTED, UNAVAILABLE. */
attune_code attune_copy_make(int file, uint64_t size, const char *name, const char *path, attune_copy *out,
                             attune_error *error);
/* [any] Compare the copy's SHA-256 with the manifest's. Errors: UNAUTHENTICATED with both. */
attune_code attune_copy_verify(const attune_copy *copy, const uint8_t sha256[32], const char *path,
                               attune_error *error);
/* [any] Give back the view for hashing; the copy stays. */
void attune_copy_unmap(attune_copy *copy);
/* [any] Remove the file, if it is one, whether or not the copy is mapped as code. */
void attune_copy_remove(attune_copy *copy);
/* [any] Close the descriptor: only when nothing maps the copy any more. */
void attune_copy_close(attune_copy *copy);

#endif
