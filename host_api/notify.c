/* notify.c: inotify on folders, there or not. */
#include "notify.h"
#include "structs.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#define MASK                                                                                                 \
    (IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB |          \
     IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
/* In a folder that only leads to another: names that come, go or change their rights. IN_MASK_ADD, because
 * the same folder may be of interest itself. */
#define MASK_ABOVE                                                                                           \
    (IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF |       \
     IN_ONLYDIR | IN_MASK_ADD)

attune_code attune_notify_open(attune_notify *notify, attune_error *error) {
    memset(notify, 0, sizeof *notify);
    notify->events = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (notify->events >= 0)
        return ATTUNE_OK;
    (void)attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, "attune_watch_open",
                      "inotify is not to be had: %s", strerror(errno));
    attune_hint(error, "see fs.inotify.max_user_instances; attune_swap works without");
    return ATTUNE_UNAVAILABLE;
}

static void forget(attune_interests *list) {
    for (uint32_t i = 0; i < list->count; ++i)
        free(list->list[i].name);
    free(list->list);
    memset(list, 0, sizeof *list);
}

void attune_notify_close(attune_notify *notify) {
    if (notify->events >= 0)
        (void)close(notify->events);
    notify->events = -1;
    forget(&notify->now);
    forget(&notify->next);
}

/* Takes over `name`; false where memory is out. */
static bool keep(attune_interests *list, int watch, char *name) {
    if (list->count == list->room) {
        uint32_t room = list->room ? 2 * list->room : 64;
        attune_interest *more = realloc(list->list, room * sizeof *more);
        if (!more) {
            free(name);
            return false;
        }
        list->list = more;
        list->room = room;
    }
    list->list[list->count++] = (attune_interest){watch, name};
    return true;
}

/* `name` NULL = everything in the folder. False where the folder is not there: then nothing beneath is. */
static bool watch_folder(attune_notify *notify, const char *folder, const char *name) {
    int watch = inotify_add_watch(notify->events, folder, name ? MASK_ABOVE : MASK);
    if (watch < 0) {
        bool missing = errno == ENOENT || errno == ENOTDIR;
        notify->next_blind |= !missing;
        return !missing;
    }
    char *copy = name ? strdup(name) : NULL;
    if ((name && !copy) || !keep(&notify->next, watch, copy))
        notify->next_blind = true;
    return true;
}

/* From the root down, so that what comes into being meanwhile is an event in a folder that is watched
 * already. What the path shares with the latest one is watched. */
void attune_notify_list(attune_notify *notify, const char *path) {
    char folder[PATH_MAX], name[NAME_MAX + 1];
    size_t shared = 0, length = strlen(path);
    if (*path != '/' || length >= sizeof folder)
        return;
    for (size_t i = 0; path[i] && path[i] == notify->latest[i]; ++i)
        if (path[i] == '/')
            shared = i;
    attune_text_copy(notify->latest, sizeof notify->latest, path);
    for (size_t at = shared; path[at];) { /* path[at] is the slash in front of a name */
        size_t next = at + 1 + strcspn(path + at + 1, "/");
        if (next == at + 1) { /* two slashes, or one at the end */
            at = next;
            continue;
        }
        if (next - at - 1 >= sizeof name)
            return;
        memcpy(name, path + at + 1, next - at - 1);
        name[next - at - 1] = 0;
        attune_text_copy(folder, at ? at + 1 : 2, path);
        if (!watch_folder(notify, folder, name))
            return;
        at = next;
    }
    (void)watch_folder(notify, path, NULL);
}

static int by_watch(const void *a, const void *b) {
    const attune_interest *left = a, *right = b;
    return left->watch < right->watch ? -1 : left->watch > right->watch;
}

/* The first interest in a watch; the list's count where there is none. */
static uint32_t find(const attune_interests *list, int watch) {
    uint32_t low = 0, high = list->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (list->list[middle].watch < watch)
            low = middle + 1;
        else
            high = middle;
    }
    return low < list->count && list->list[low].watch == watch ? low : list->count;
}

void attune_notify_apply(attune_notify *notify) {
    attune_interests old = notify->now;
    if (notify->next.count)
        qsort(notify->next.list, notify->next.count, sizeof *notify->next.list, by_watch);
    notify->now = notify->next;
    memset(&notify->next, 0, sizeof notify->next);
    notify->blind = notify->next_blind;
    notify->next_blind = false;
    *notify->latest = 0;
    for (uint32_t i = 0; i < old.count; ++i)
        if ((i == 0 || old.list[i].watch != old.list[i - 1].watch) &&
            find(&notify->now, old.list[i].watch) == notify->now.count)
            (void)inotify_rm_watch(notify->events, old.list[i].watch);
    forget(&old);
}

static bool concerns(const attune_notify *notify, const struct inotify_event *event) {
    const attune_interests *now = &notify->now;
    if (event->mask & IN_Q_OVERFLOW)
        return true;
    for (uint32_t i = find(now, event->wd); i < now->count && now->list[i].watch == event->wd; ++i)
        if (!now->list[i].name || !event->len || strcmp(now->list[i].name, event->name) == 0)
            return true;
    return false;
}

bool attune_notify_wait(attune_notify *notify, uint32_t milliseconds) {
    _Alignas(struct inotify_event) char buffer[4096];
    struct pollfd ready = {.fd = notify->events, .events = POLLIN};
    bool found = false;
    if (poll(&ready, 1, (int)milliseconds) <= 0)
        return false;
    for (ssize_t got; (got = read(notify->events, buffer, sizeof buffer)) > 0;)
        for (ssize_t at = 0; at < got;) {
            struct inotify_event event;
            memcpy(&event, buffer + at, sizeof event);
            found |= concerns(notify, (const struct inotify_event *)(const void *)(buffer + at));
            at += (ssize_t)(sizeof event + event.len);
        }
    return found;
}
