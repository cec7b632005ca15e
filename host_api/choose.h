/* choose.h: which attention backend serves a problem, and why the others do not. */
#ifndef HOST_API_CHOOSE_H
#define HOST_API_CHOOSE_H

#include "registry.h"

/* The backend that was chosen. The generation is leased for the caller. */
typedef struct attune_chosen {
    attune_generation *generation;
    uint32_t index;
    attune_attention_answer answer;
} attune_chosen;

/*
 * [any] Choose among the active generations of a snapshot. `problem` was checked and already carries the
 * class and the budget that are wanted; `wish` (never NULL, checked) gives name and filters. `choice` and
 * `chosen` may be NULL. Order: name asked for → hard filters → cost → priority → name. `choice` is filled on
 * failure too. Errors: NOT_FOUND, UNAVAILABLE, RESOURCE_EXHAUSTED (memory for the list).
 */
attune_code attune_choose_from(const attune_snapshot *snapshot, const attune_wish *wish,
                               const attune_attention_problem *problem, attune_choice *choice,
                               attune_chosen *chosen, attune_error *error);

/* [any] Check a wish; errors: INVALID_ARGUMENT, UNIMPLEMENTED. */
attune_code attune_wish_check(const attune_wish *wish, attune_error *error);

/* How far a device came through the wish's filters. */
enum { ATTUNE_FILTER_DEVICE, ATTUNE_FILTER_VENDOR, ATTUNE_FILTER_MEMORY, ATTUNE_FILTER_PASSED };

/* [any] The filter that a device does not pass, with the reason in `reason`, or ATTUNE_FILTER_PASSED.
 * `memory_min` is what the backend itself needs. The device is looked up in the snapshot for name and memory.
 */
int attune_wish_device(const attune_snapshot *snapshot, const attune_wish *wish,
                       const attune_device_id *device, const char *vendor, uint64_t memory_min,
                       char reason[192]);

/* [any] The name in the list that is most like `name`: at most 2 edits away and not more than a third of it.
 * NULL = none. `names` holds `count` names in rows of `row` bytes. */
const char *attune_did_you_mean(const char *name, const char *names, size_t row, uint32_t count);

/* A binding: host.h's handle, and what a session keeps for each of its problems. */
struct attune_binding {
    attune *host; /* held */
    attune_chosen chosen;
    attune_attention_problem problem;
    attune_choice choice;
    uint64_t alignment;              /* of the workspace, from the device */
    attune_generation *device_owner; /* leased; NULL where no plugin drives the device */
    uint32_t device_index;
    _Atomic(void *) spare; /* CPU: a workspace that no call uses now */
};

/* [any] Make a binding for what was chosen; takes over its lease on success. Errors: RESOURCE_EXHAUSTED. */
attune_code attune_binding_new(attune *host, const attune_snapshot *snapshot, const attune_chosen *chosen,
                               const attune_attention_problem *problem, const attune_choice *choice,
                               attune_binding **out, attune_error *error);

#endif
