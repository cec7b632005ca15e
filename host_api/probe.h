/* probe.h: whether a library survives its own constructors, tried in a child process. */
#ifndef HOST_API_PROBE_H
#define HOST_API_PROBE_H

#include "attune/abi.h"
#include <stdbool.h>

#define ATTUNE_PROBES 64

/* Verdicts by the library's SHA-256, so that each build is tried once; the oldest make room. Zeroed: empty.
 */
typedef struct attune_probes {
    uint32_t next;
    struct {
        uint8_t sha256[32];
        int32_t known;  /* 0 = an empty place */
        int32_t signal; /* what ended it; 0 = it lived */
    } verdict[ATTUNE_PROBES];
} attune_probes;

/*
 * [any, one at a time] Load the copy at `path` in a child process, ask its entry and unload it, unless the
 * verdict on these bytes is known. Blocks, at most ATTUNE_PROBE_SECONDS. A child that dies is tried twice: it
 * is forked from a process that may have other threads. `file` names the library in errors. Errors:
 * FAILED_PRECONDITION (died, with the signal), DEADLINE_EXCEEDED (never came back; not remembered),
 * RESOURCE_EXHAUSTED (no process or pipe).
 */
attune_code attune_probe(attune_probes *probes, const uint8_t sha256[32], const char *path, const char *file,
                         attune_error *error);

#define ATTUNE_PROBE_SECONDS 10

#endif
