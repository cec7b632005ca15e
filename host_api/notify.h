/* notify.h: inotify on folders, there or not: each is seen when it comes, goes and comes back. */
#ifndef HOST_API_NOTIFY_H
#define HOST_API_NOTIFY_H

#include "attune/abi.h"
#include <limits.h>
#include <stdbool.h>

/* One thing of interest: every event in a folder, or only those that concern one name in it. */
typedef struct attune_interest {
    int watch;
    char *name; /* NULL = every event */
} attune_interest;

typedef struct attune_interests {
    uint32_t count, room;
    attune_interest *list;
} attune_interests;

typedef struct attune_notify {
    int events;
    bool blind; /* a folder that is there cannot be watched: it must be looked at now and then */
    bool next_blind;
    attune_interests now, next;
    char latest[PATH_MAX]; /* the latest path that was listed */
} attune_notify;

/* [one thread at a time, as all of these] Errors: UNAVAILABLE. */
attune_code attune_notify_open(attune_notify *notify, attune_error *error);
void attune_notify_close(attune_notify *notify);

/* List anew what is of interest: _list for each absolute path, then _apply. Of a path every folder above is
 * watched for the next name in it; if it is a folder, everything in it is of interest too. */
void attune_notify_list(attune_notify *notify, const char *path);
void attune_notify_apply(attune_notify *notify);

/* Wait at most `milliseconds`; true where something of interest has happened. */
bool attune_notify_wait(attune_notify *notify, uint32_t milliseconds);

#endif
