/* watch.c: plugin folders under watch; a manifest that changed is swapped in once its hashes match. */
#include "notify.h"
#include "plugin_search.h"
#include "source.h"
#include "structs.h"
#include "swap.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define QUIET_MS   50  /* without a change: then what was changed is looked at */
#define LONGEST_MS 500 /* of changes without a pause: then it is looked at all the same */
#define SETTLED_MS                                                                                           \
    1000               /* unchanged since then, a manifest whose hashes do not match is no copy in progress */
#define COPY_MS  10000 /* nor is one that still changes after that time */
#define LOOK_MS  1000  /* how often folders that cannot be watched are looked at */
#define AWAKE_MS 200   /* the longest wait for an event: then what is overdue is looked for */

/* One manifest, and what it and its libraries looked like when it was last tried. */
typedef struct watched {
    char *path;
    uint64_t manifest, all; /* signatures: of the manifest's file, and with its libraries and their folders */
    uint32_t libraries;
    char **library;   /* paths, as the manifest had them when it could last be read */
    uint64_t since;   /* when it was first incomplete, in ms; 0 = it is not */
    uint64_t tell_at; /* when to say so */
    attune_code said; /* the last reason given, so that it is given once */
    char message[ATTUNE_WATCH_TEXT];
} watched;

struct attune_watch {
    attune *host;
    attune_notify notify;
    bool dirty;
    uint64_t look_at;     /* when to look again while the notifications are blind, in ms */
    uint64_t first, last; /* of the changes not looked at yet, in ms */
    uint32_t count, room;
    uint32_t hint; /* where the next manifest is looked for first */
    watched *list;
};

static uint64_t now_ms(void) {
    return attune_services_now(NULL) / 1000000u;
}

/* ---- what a manifest and its libraries look like ---- */

#define FNV_START UINT64_C(14695981039346656037)

static void mix(uint64_t *hash, const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size; ++i) /* FNV-1a (Fowler, Noll, Vo) */
        *hash = (*hash ^ at[i]) * UINT64_C(1099511628211);
}

static void mix_file(uint64_t *hash, const char *path) {
    struct stat state;
    int64_t facts[8] = {-1};
    if (lstat(path, &state) == 0) {
        const int64_t found[8] = {(int64_t)state.st_ino,  (int64_t)state.st_size, state.st_mtim.tv_sec,
                                  state.st_mtim.tv_nsec,  state.st_ctim.tv_sec,   state.st_ctim.tv_nsec,
                                  (int64_t)state.st_mode, (int64_t)state.st_uid};
        memcpy(facts, found, sizeof facts);
    }
    mix(hash, facts, sizeof facts);
}

/* Who may do what in the folder of a file; its contents show in the files. */
static void mix_rights(uint64_t *hash, const char *file) {
    char folder[PATH_MAX];
    struct stat state;
    int64_t facts[3] = {-1};
    attune_text_copy(folder, sizeof folder, file);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    if (slash && stat(folder, &state) == 0) {
        facts[0] = (int64_t)state.st_mode;
        facts[1] = (int64_t)state.st_uid;
        facts[2] = (int64_t)state.st_gid;
    }
    mix(hash, facts, sizeof facts);
}

static uint64_t manifest_signature(const watched *one) {
    uint64_t hash = FNV_START;
    mix_rights(&hash, one->path);
    mix_file(&hash, one->path);
    return hash;
}

static uint64_t signature(const watched *one) {
    uint64_t hash = manifest_signature(one);
    for (uint32_t i = 0; i < one->libraries; ++i) {
        mix_rights(&hash, one->library[i]);
        mix_file(&hash, one->library[i]);
    }
    return hash;
}

static void forget_libraries(watched *one) {
    for (uint32_t i = 0; i < one->libraries; ++i)
        free(one->library[i]);
    free(one->library);
    one->library = NULL;
    one->libraries = 0;
}

/* Which libraries a manifest names; of one that cannot be read, those that it named before. */
static attune_code learn(watched *one, attune_error *error) {
    attune_source *from = malloc(sizeof *from);
    attune_code code = from ? ATTUNE_OK : ATTUNE_RESOURCE_EXHAUSTED;
    if (from && attune_source_open(one->path, from, NULL) == ATTUNE_OK) {
        const attune_manifest *manifest = &from->manifest;
        forget_libraries(one);
        one->library = calloc(manifest->library_count + 1, sizeof *one->library);
        for (uint32_t i = 0; one->library && i < manifest->library_count && !code; ++i) {
            code = asprintf(&one->library[i], "%s/%s", from->folder_path, manifest->library[i].path) < 0
                       ? ATTUNE_RESOURCE_EXHAUSTED
                       : ATTUNE_OK;
            one->libraries += !code;
        }
        code = one->library ? code : ATTUNE_RESOURCE_EXHAUSTED;
        attune_source_close(from);
    }
    free(from);
    one->manifest = manifest_signature(one);
    return code ? attune_fail(error, code, ATTUNE_DOMAIN, one->path, "no memory to watch it") : ATTUNE_OK;
}

/* ---- what is watched ---- */

static void list_folder_of(attune_watch *watch, const char *file) {
    char folder[PATH_MAX];
    attune_text_copy(folder, sizeof folder, file);
    char *slash = strrchr(folder, '/');
    if (!slash)
        return;
    slash[slash == folder] = 0;
    attune_notify_list(&watch->notify, folder);
}

/* `seen`: it counts as known as it is. */
static attune_code add(attune_watch *watch, const char *path, bool seen, attune_error *error) {
    char real[PATH_MAX];
    const char *name = realpath(path, real) ? real : path;
    for (uint32_t k = 0; k < watch->count; ++k) { /* mostly they come in the order of the last time */
        uint32_t i = (watch->hint + k) % watch->count;
        if (strcmp(watch->list[i].path, name) != 0)
            continue;
        watch->hint = i + 1;
        return ATTUNE_OK;
    }
    if (watch->count == watch->room) {
        uint32_t room = watch->room ? 2 * watch->room : 16;
        watched *more = realloc(watch->list, room * sizeof *more);
        if (!more)
            return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, path,
                               "no memory to watch it");
        watch->list = more;
        watch->room = room;
    }
    watched *one = &watch->list[watch->count];
    memset(one, 0, sizeof *one);
    one->path = strdup(name);
    if (!one->path)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, path, "no memory to watch it");
    ++watch->count;
    attune_code code = learn(one, error);
    one->all = seen ? signature(one) : 0;
    return code;
}

static void drop(attune_watch *watch, uint32_t i) {
    forget_libraries(&watch->list[i]);
    free(watch->list[i].path);
    watch->list[i] = watch->list[--watch->count];
}

/* Whether anything in service came from a manifest. */
static bool serves_from(attune *host, const char *manifest) {
    bool found = false;
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    for (uint32_t i = 0; i < snapshot->count; ++i)
        found |= strcmp(snapshot->generation[i]->manifest, manifest) == 0 &&
                 atomic_load(&snapshot->generation[i]->state) == ATTUNE_STATE_ACTIVE;
    attune_snapshot_release(snapshot);
    return found;
}

/* A manifest that has gone is missed where something of it serves; else it was never of interest. */
static void drop_vanished(attune_watch *watch) {
    for (uint32_t i = 0; i < watch->count;) {
        struct stat state;
        const char *path = watch->list[i].path;
        if (lstat(path, &state) != 0 && (errno == ENOENT || errno == ENOTDIR) &&
            !serves_from(watch->host, path))
            drop(watch, i);
        else
            ++i;
    }
}

/* All manifests: those of what is loaded, and those that a search finds now; then all folders in which they,
 * their libraries and other manifests may change or appear. */
static attune_code list_all(attune_watch *watch, bool seen, attune_error *error) {
    attune *host = watch->host;
    attune_paths found = {0}, places = {0};
    const attune_logger silent = {0};
    attune_code code = attune_search(host->plugin_dir, &silent, &found, &places, error);
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    drop_vanished(watch);
    for (uint32_t i = 0; i < snapshot->count && !code; ++i)
        if (*snapshot->generation[i]->manifest)
            code = add(watch, snapshot->generation[i]->manifest, seen, error);
    attune_snapshot_release(snapshot);
    for (uint32_t i = 0; i < found.count && !code; ++i)
        code = add(watch, found.path[i], seen, error);
    for (uint32_t i = 0; i < places.count; ++i)
        attune_notify_list(&watch->notify, places.path[i]);
    for (uint32_t i = 0; i < watch->count; ++i) {
        list_folder_of(watch, watch->list[i].path);
        for (uint32_t k = 0; k < watch->list[i].libraries; ++k)
            list_folder_of(watch, watch->list[i].library[k]);
    }
    attune_notify_apply(&watch->notify);
    attune_paths_free(&found);
    attune_paths_free(&places);
    return code;
}

attune_code attune_watch_open(attune *host, attune_watch **out, attune_error *error) {
    if (!host || !out)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_watch_open",
                           "an argument is NULL");
    attune_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_watch_open",
                           "no memory for a watch");
    watch->host = host;
    attune_host_hold(host);
    attune_code code = attune_notify_open(&watch->notify, error);
    if (!code)
        code = list_all(watch, true, error);
    if (code)
        attune_watch_close(watch);
    else
        *out = watch;
    return code;
}

void attune_watch_close(attune_watch *watch) {
    if (!watch)
        return;
    attune *host = watch->host;
    attune_notify_close(&watch->notify);
    while (watch->count)
        drop(watch, watch->count - 1);
    free(watch->list);
    free(watch);
    attune_host_drop(host);
}

/* Whether a failure is what a copy in progress looks like. */
static bool incomplete(const attune_swap_report *report) {
    return strcmp(report->stage, "read") == 0 || strcmp(report->stage, "check") == 0;
}

/* Give a reason once. */
static attune_code say(watched *one, attune_code code, attune_error *error) {
    one->since = one->tell_at = 0;
    if (one->said == code && strcmp(one->message, error->message) == 0)
        return ATTUNE_DEADLINE_EXCEEDED;
    one->said = code;
    attune_text_copy(one->message, sizeof one->message, error->message);
    return code;
}

/* One manifest. DEADLINE_EXCEEDED = nothing to tell. */
static attune_code look_at(attune_watch *watch, watched *one, attune_swap_report *report,
                           attune_error *error) {
    uint64_t now = now_ms();
    attune_code code = manifest_signature(one) != one->manifest ? learn(one, error) : ATTUNE_OK;
    if (code)
        return code;
    uint64_t found = signature(one);
    bool changed = found != one->all, told = one->tell_at && now >= one->tell_at;
    if (!changed && !told)
        return ATTUNE_DEADLINE_EXCEEDED;
    one->all = found;
    *report = (attune_swap_report){.struct_size = sizeof *report};
    code = attune_swap_from(watch->host, one->path, !told, report, error);
    if (!code) {
        one->since = one->tell_at = 0;
        one->said = ATTUNE_OK;
        return report->swapped || report->added ? ATTUNE_OK : ATTUNE_DEADLINE_EXCEEDED;
    }
    if (!told && incomplete(report)) {
        one->since = one->since ? one->since : now;
        uint64_t last = one->since + COPY_MS;
        one->tell_at = now + SETTLED_MS < last ? now + SETTLED_MS : last;
        return ATTUNE_DEADLINE_EXCEEDED;
    }
    return say(one, code, error);
}

/* What was changed, until one of them has something to tell. */
static attune_code scan(attune_watch *watch, attune_swap_report *report, attune_error *error) {
    attune_code code = list_all(watch, false, error);
    watch->look_at = now_ms() + LOOK_MS;
    watch->dirty = true; /* until all have been looked at: the rest comes with the next call */
    for (uint32_t i = 0; i < watch->count && !code; ++i) {
        code = look_at(watch, &watch->list[i], report, error);
        if (code != ATTUNE_DEADLINE_EXCEEDED)
            return code;
        code = ATTUNE_OK;
    }
    if (code)
        return code;
    watch->dirty = false;
    return ATTUNE_DEADLINE_EXCEEDED;
}

static void read_events(attune_watch *watch, uint64_t wait) {
    if (!attune_notify_wait(&watch->notify, (uint32_t)wait))
        return;
    watch->last = now_ms();
    if (!watch->dirty)
        watch->first = watch->last;
    watch->dirty = true;
}

/* Incomplete manifests whose time is up, and folders that cannot be watched, need no event to be looked at.
 */
static bool overdue(const attune_watch *watch, uint64_t now) {
    for (uint32_t i = 0; i < watch->count; ++i)
        if (watch->list[i].tell_at && now >= watch->list[i].tell_at)
            return true;
    return watch->notify.blind && now >= watch->look_at;
}

attune_code attune_watch_wait(attune_watch *watch, uint32_t milliseconds, attune_swap_report *report,
                              attune_error *error) {
    attune_swap_report made = {.struct_size = sizeof made};
    attune_error reason = {.code = ATTUNE_OK};
    if (!watch)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_watch_wait",
                           "watch is NULL");
    attune_code code =
        report ? attune_struct_room(report, sizeof *report, "attune_swap_report", error) : ATTUNE_OK;
    if (code)
        return code;
    code = ATTUNE_DEADLINE_EXCEEDED;
    for (uint64_t now = now_ms(), end = now + milliseconds; code == ATTUNE_DEADLINE_EXCEEDED;
         now = now_ms()) {
        uint64_t left = end > now ? end - now : 0, most = watch->dirty ? QUIET_MS : AWAKE_MS;
        read_events(watch, left < most ? left : most);
        now = now_ms();
        bool ripe = watch->dirty && (now - watch->last >= QUIET_MS || now - watch->first >= LONGEST_MS);
        if (ripe || overdue(watch, now)) {
            code = scan(watch, &made, &reason);
            watch->first = now;
        }
        if (now >= end)
            break;
    }
    if (report)
        (void)attune_struct_out(report, &made, sizeof made, "attune_swap_report", NULL);
    if (code == ATTUNE_DEADLINE_EXCEEDED)
        return attune_fail(error, code, ATTUNE_DOMAIN, "attune_watch_wait", "nothing changed");
    if (code && error)
        *error = reason;
    return code;
}
