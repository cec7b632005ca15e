/* source.c: a manifest on disk, opened and read; which of its libraries is meant. */
#include "source.h"
#include "loader.h"
#include "structs.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Links in the path that the user gave are followed once, here; from the real folder on none is. */
attune_code attune_source_open(const char *given, attune_source *out, attune_error *error) {
    int file;
    uint64_t size;
    char *text;
    size_t length;
    if (!realpath(given, out->path))
        return errno == ENOENT || errno == ENOTDIR
                   ? attune_fail(error, ATTUNE_NOT_FOUND, ATTUNE_DOMAIN, given, "no such manifest")
                   : attune_fail(error, ATTUNE_PERMISSION_DENIED, ATTUNE_DOMAIN, given,
                                 "the manifest cannot be reached: %s", strerror(errno));
    char *slash = strrchr(out->path, '/');
    attune_text_copy(out->folder_path, sizeof out->folder_path, out->path);
    out->folder_path[slash == out->path ? 1 : slash - out->path] = 0;
    attune_code code = attune_folder_open(out->folder_path, &out->folder, error);
    if (code)
        return code;
    code = attune_file_open(out->folder, out->folder_path, slash + 1, &file, &size, error);
    if (!code) {
        code = attune_file_read(file, out->path, ATTUNE_MANIFEST_BYTES, &text, &length, error);
        (void)close(file);
    }
    if (!code) {
        code = attune_manifest_parse(text, length, out->path, &out->manifest, error);
        free(text);
    }
    if (code)
        (void)close(out->folder);
    return code;
}

void attune_source_close(attune_source *from) {
    attune_manifest_free(&from->manifest);
    (void)close(from->folder);
}

attune_generation *attune_source_loaded(const attune_snapshot *snapshot, const char *id, const char *path) {
    for (uint32_t i = 0; i < snapshot->count; ++i) {
        attune_generation *generation = snapshot->generation[i];
        bool refused = atomic_load(&generation->state) == ATTUNE_STATE_REFUSED;
        if (strcmp(generation->id, id) == 0 && (!refused || (path && strcmp(generation->path, path) == 0)))
            return generation;
    }
    return NULL;
}

bool attune_source_outdone(const attune_manifest *manifest, uint32_t i, int level) {
    for (uint32_t k = 0; k < manifest->library_count; ++k) {
        int other;
        if (k != i && strcmp(manifest->library[k].id, manifest->library[i].id) == 0 &&
            attune_loader_fits(manifest, &manifest->library[k], &other, NULL) == ATTUNE_OK && other > level)
            return true;
    }
    return false;
}
