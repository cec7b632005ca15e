/* plugin_search.c: the search order for manifests (XDG Base Directory Specification 0.8 for the two middle
 * steps). */
#include "plugin_search.h"
#include "structs.h"
#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MANIFEST "manifest.json"

typedef struct search {
    attune_paths *out, *places;
    const attune_logger *logger;
    bool failed; /* out of memory */
} search;

static void append(search *in, attune_paths *out, const char *path) {
    if (out->count == out->room) {
        uint32_t room = out->room ? 2 * out->room : 16;
        char **more = realloc(out->path, room * sizeof *more);
        if (!more) {
            in->failed = true;
            return;
        }
        out->path = more;
        out->room = room;
    }
    char *copy = strdup(path);
    if (copy)
        out->path[out->count++] = copy;
    else
        in->failed = true;
}

static void add(search *in, const char *path) {
    for (uint32_t i = 0; i < in->out->count; ++i)
        if (strcmp(in->out->path[i], path) == 0)
            return;
    append(in, in->out, path);
}

static void add_place(search *in, const char *path) {
    if (in->places)
        append(in, in->places, path);
}

static bool is_kind(const char *path, mode_t kind) {
    struct stat state;
    return stat(path, &state) == 0 && (state.st_mode & S_IFMT) == kind;
}

/* A manifest, or a folder that has one. */
static bool add_entry(search *in, const char *path) {
    char inner[PATH_MAX];
    if (is_kind(path, S_IFREG)) {
        add(in, path);
        return true;
    }
    int length = snprintf(inner, sizeof inner, "%s/" MANIFEST, path);
    if (length < 0 || (size_t)length >= sizeof inner || !is_kind(inner, S_IFREG))
        return false;
    add(in, inner);
    return true;
}

static int wanted(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* plugins.d: its own manifest.json, *.json files, and folders with a manifest.json, by name. */
static void add_folder(search *in, const char *folder) {
    struct dirent **entries;
    add_place(in, folder);
    int count = scandir(folder, &entries, wanted, by_bytes);
    for (int i = 0; i < count; ++i) {
        char path[PATH_MAX];
        size_t name = strlen(entries[i]->d_name);
        int length = snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        bool fits = length > 0 && (size_t)length < sizeof path, inner = fits && is_kind(path, S_IFDIR);
        if (inner)
            add_place(in, path);
        if (inner || (fits && name > 5 && strcmp(entries[i]->d_name + name - 5, ".json") == 0))
            (void)add_entry(in, path);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* Call `each` with every absolute entry of a colon list; warn about the others. */
static void each_entry(search *in, const char *variable, const char *list,
                       void (*each)(search *, const char *, const char *)) {
    while (*list) {
        char entry[PATH_MAX];
        size_t length = strcspn(list, ":");
        if (length > 0 && length < sizeof entry) {
            memcpy(entry, list, length);
            entry[length] = 0;
            if (*entry == '/')
                each(in, variable, entry);
            else
                attune_log(in->logger, ATTUNE_LOG_WARNING, ATTUNE_DOMAIN,
                           "%s: the relative entry \"%s\" is ignored", variable, entry);
        }
        list += length + (list[length] == ':');
    }
}

static void own_entry(search *in, const char *variable, const char *path) {
    add_place(in, path);
    if (!add_entry(in, path))
        attune_log(in->logger, ATTUNE_LOG_WARNING, ATTUNE_DOMAIN, "%s: no manifest at %s", variable, path);
}

static void data_entry(search *in, const char *variable, const char *path) {
    char folder[PATH_MAX];
    (void)variable;
    int length = snprintf(folder, sizeof folder, "%s/attune/plugins.d", path);
    if (length > 0 && (size_t)length < sizeof folder)
        add_folder(in, folder);
}

attune_code attune_search(const char *plugin_dir, const attune_logger *logger, attune_paths *out,
                          attune_paths *places, attune_error *error) {
    search in = {.out = out, .places = places, .logger = logger};
    char home_data[PATH_MAX];
    const char *own = secure_getenv("ATTUNE_PLUGIN_PATH");
    const char *data = secure_getenv("XDG_DATA_HOME");
    const char *shared = secure_getenv("XDG_DATA_DIRS");
    const char *home = secure_getenv("HOME");
    memset(out, 0, sizeof *out);
    if (places)
        memset(places, 0, sizeof *places);
    if (own)
        each_entry(&in, "ATTUNE_PLUGIN_PATH", own, own_entry);
    if ((!data || !*data) && home && *home) {
        int length = snprintf(home_data, sizeof home_data, "%s/.local/share", home);
        data = length > 0 && (size_t)length < sizeof home_data ? home_data : NULL;
    }
    if (data)
        each_entry(&in, "XDG_DATA_HOME", data, data_entry);
    each_entry(&in, "XDG_DATA_DIRS", shared && *shared ? shared : "/usr/local/share:/usr/share", data_entry);
    if (plugin_dir && *plugin_dir) {
        add_place(&in, plugin_dir);
        (void)add_entry(&in, plugin_dir);
    }
    return in.failed ? attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "search",
                                   "no memory for the list of manifests")
                     : ATTUNE_OK;
}

void attune_paths_free(attune_paths *paths) {
    for (uint32_t i = 0; i < paths->count; ++i)
        free(paths->path[i]);
    free(paths->path);
    memset(paths, 0, sizeof *paths);
}
