/* swap.h: attune_swap, as the watch calls it. */
#ifndef HOST_API_SWAP_H
#define HOST_API_SWAP_H

#include "attune/host.h"

#define ATTUNE_WATCH_TEXT sizeof(((attune_error *)0)->message)

/* [any] attune_swap. With `waiting` a manifest that cannot be read yet and a library whose hash does not
 * match yet are not logged: they may be a copy in progress. */
attune_code attune_swap_from(attune *host, const char *manifest_path, int waiting, attune_swap_report *report,
                             attune_error *error);

#endif
