/* watch.c: plugin folders under inotify; a manifest that changed is swapped in once its hashes match. */
#include "plugin_search.h"
#include "source.h"
#include "structs.h"
#include "swap.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUIET_MS   50   /* without a change: then what was changed is looked at */
#define LONGEST_MS 500  /* of changes without a pause: then it is looked at all the same */
#define SETTLED_MS 1000 /* a manifest whose hashes still do not match is no copy in progress */
#define LOOK_MS    200  /* how often folders that are not there are looked for */

/* One manifest, and what it and its libraries looked like when it was last tried. */
typedef struct watched {
    char *path;
    uint64_t signature;
    uint64_t tell_at; /* when to say that it is incomplete, in ms; 0 = not waiting */
    attune_code said; /* the last reason given, so that it is given once */
    char message[ATTUNE_WATCH_TEXT];
} watched;

struct attune_watch {
    attune *host;
    int events;
    bool dirty;
    bool vanished;        /* a folder of the list has no watch … */
    uint64_t look_at;     /* … and is looked for again then, in ms */
    uint64_t first, last; /* of the changes not looked at yet, in ms */
    uint32_t count, room;
    watched *list;
};

static uint64_t now_ms(void) {
    return attune_services_now(NULL) / 1000000u;
}

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

/* Of the manifest and of the libraries that were loaded from it. */
static uint64_t signature(attune *host, const char *manifest) {
    uint64_t hash = UINT64_C(14695981039346656037);
    mix_file(&hash, manifest);
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    for (uint32_t i = 0; i < snapshot->count; ++i)
        if (strcmp(snapshot->generation[i]->manifest, manifest) == 0)
            mix_file(&hash, snapshot->generation[i]->path);
    attune_snapshot_release(snapshot);
    return hash;
}

static void watch_folder_of(attune_watch *watch, const char *file) {
    char folder[PATH_MAX];
    attune_text_copy(folder, sizeof folder, file);
    char *slash = strrchr(folder, '/');
    if (!slash)
        return;
    slash[slash == folder] = 0;
    /* The same folder again only renews its watch. */
    if (inotify_add_watch(watch->events, folder,
                          IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
                              IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR) < 0)
        watch->vanished = true;
}

static attune_code add(attune_watch *watch, const char *path, bool seen, attune_error *error) {
    char real[PATH_MAX];
    const char *name = realpath(path, real) ? real : path;
    watch_folder_of(watch, name);
    for (uint32_t i = 0; i < watch->count; ++i)
        if (strcmp(watch->list[i].path, name) == 0)
            return ATTUNE_OK;
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
    one->signature = seen ? signature(watch->host, one->path) : 0;
    ++watch->count;
    return ATTUNE_OK;
}

/* All manifests: those of what is loaded, and those that a search finds now. `seen`: they count as known. */
static attune_code list_manifests(attune_watch *watch, bool seen, attune_error *error) {
    attune *host = watch->host;
    attune_manifest_paths paths = {0};
    const attune_logger silent = {0};
    attune_code code = ATTUNE_OK;
    char own[PATH_MAX];
    watch->vanished = false;
    (void)snprintf(own, sizeof own, "%s/manifest.json", host->plugin_dir);
    watch_folder_of(watch, own);
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    for (uint32_t i = 0; i < snapshot->count && !code; ++i) {
        const attune_generation *generation = snapshot->generation[i];
        if (!*generation->manifest)
            continue;
        watch_folder_of(watch, generation->path);
        code = add(watch, generation->manifest, seen, error);
    }
    attune_snapshot_release(snapshot);
    if (!code)
        code = attune_search(host->plugin_dir, &silent, &paths, error);
    for (uint32_t i = 0; i < paths.count && !code; ++i)
        code = add(watch, paths.path[i], seen, error);
    attune_search_free(&paths);
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
    watch->events = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    attune_code code = ATTUNE_OK;
    if (watch->events < 0) {
        code = attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, "attune_watch_open",
                           "inotify is not to be had: %s", strerror(errno));
        attune_hint(error, "see fs.inotify.max_user_instances; attune_swap works without");
    } else
        code = list_manifests(watch, true, error);
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
    if (watch->events >= 0)
        (void)close(watch->events);
    for (uint32_t i = 0; i < watch->count; ++i)
        free(watch->list[i].path);
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
    one->tell_at = 0;
    if (one->said == code && strcmp(one->message, error->message) == 0)
        return ATTUNE_DEADLINE_EXCEEDED;
    one->said = code;
    attune_text_copy(one->message, sizeof one->message, error->message);
    return code;
}

/* One manifest. DEADLINE_EXCEEDED = nothing to tell. */
static attune_code look_at(attune_watch *watch, watched *one, attune_swap_report *report,
                           attune_error *error) {
    uint64_t found = signature(watch->host, one->path), now = now_ms();
    bool changed = found != one->signature, told = one->tell_at && now >= one->tell_at;
    if (!changed && !told)
        return ATTUNE_DEADLINE_EXCEEDED;
    one->signature = found;
    *report = (attune_swap_report){.struct_size = sizeof *report};
    attune_code code = attune_swap_from(watch->host, one->path, !told, report, error);
    if (!code) {
        one->tell_at = 0;
        one->said = ATTUNE_OK;
        one->signature = signature(watch->host, one->path); /* of what is loaded now */
        return report->swapped || report->added ? ATTUNE_OK : ATTUNE_DEADLINE_EXCEEDED;
    }
    if (!told && incomplete(report)) {
        one->tell_at = now + SETTLED_MS;
        return ATTUNE_DEADLINE_EXCEEDED;
    }
    return say(one, code, error);
}

/* What was changed, until one of them has something to tell. */
static attune_code scan(attune_watch *watch, attune_swap_report *report, attune_error *error) {
    attune_code code = list_manifests(watch, false, error);
    watch->look_at = now_ms() + LOOK_MS;
    if (code)
        return code;
    for (uint32_t i = 0; i < watch->count; ++i) {
        code = look_at(watch, &watch->list[i], report, error);
        if (code != ATTUNE_DEADLINE_EXCEEDED)
            return code; /* still dirty: the rest comes with the next call */
    }
    watch->dirty = false;
    return ATTUNE_DEADLINE_EXCEEDED;
}

static void read_events(attune_watch *watch, uint64_t wait) {
    char buffer[4096];
    struct pollfd ready = {.fd = watch->events, .events = POLLIN};
    if (poll(&ready, 1, (int)wait) <= 0)
        return;
    while (read(watch->events, buffer, sizeof buffer) > 0)
        ;
    watch->last = now_ms();
    if (!watch->dirty)
        watch->first = watch->last;
    watch->dirty = true;
}

/* Folders that came back, and incomplete manifests whose time is up, need no event to be looked at. */
static bool overdue(const attune_watch *watch, uint64_t now) {
    for (uint32_t i = 0; i < watch->count; ++i)
        if (watch->list[i].tell_at && now >= watch->list[i].tell_at)
            return true;
    return watch->vanished && now >= watch->look_at;
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
        uint64_t left = end > now ? end - now : 0, most = watch->dirty ? QUIET_MS : LOOK_MS;
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
