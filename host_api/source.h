/* source.h: a manifest on disk, and which of its libraries is meant. */
#ifndef HOST_API_SOURCE_H
#define HOST_API_SOURCE_H

#include "manifest.h"
#include "registry.h"
#include <limits.h>

/* A manifest on disk: its folder is open while libraries are taken from it. */
typedef struct attune_source {
    char path[PATH_MAX];
    char folder_path[PATH_MAX];
    int folder;
    attune_manifest manifest;
} attune_source;

/* [any] Open and parse the manifest at `given`. The caller closes `out`. Errors: NOT_FOUND, those of files.h
 * and of attune_manifest_parse. */
attune_code attune_source_open(const char *given, attune_source *out, attune_error *error);
void attune_source_close(attune_source *from);

/* [any] Who already serves under this id, or was refused from this very path; NULL = nobody. `path` may be
 * NULL: then refusals do not count. */
attune_generation *attune_source_loaded(const attune_snapshot *snapshot, const char *id, const char *path);

/* [any] Whether another build of the same library suits this machine better; `level` is that of library i, −1
 * = does not fit. */
bool attune_source_outdone(const attune_manifest *manifest, uint32_t i, int level);

#endif
