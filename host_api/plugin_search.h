/* plugin_search.h: where manifests are looked for (docs/embed.md). Never the current folder. */
#ifndef HOST_API_PLUGIN_SEARCH_H
#define HOST_API_PLUGIN_SEARCH_H

#include "services.h"

typedef struct attune_paths {
    uint32_t count;
    uint32_t room;
    char **path;
} attune_paths;

/*
 * [any] List the manifests that exist: of ATTUNE_PLUGIN_PATH (files, or folders with a manifest.json), then
 * of attune/plugins.d beneath $XDG_DATA_HOME and each of $XDG_DATA_DIRS (its own manifest.json, *.json files
 * and folders with a manifest.json, by name), then of `plugin_dir`. The environment is ignored in a set-uid
 * program. Relative entries are left out with a warning. `out` has them in the order in which they are to be
 * loaded; `places` (may be NULL) has where a manifest may yet appear, there or not: every entry of the
 * search, and the folders in plugins.d. The caller frees both with attune_paths_free, after an error too.
 * Errors: RESOURCE_EXHAUSTED.
 */
attune_code attune_search(const char *plugin_dir, const attune_logger *logger, attune_paths *out,
                          attune_paths *places, attune_error *error);
void attune_paths_free(attune_paths *paths);

#endif
