/* rig.h: what the families of the swap suite share: plugins put in place, a host, what the process holds. */
#ifndef TESTS_SWAP_RIG_H
#define TESTS_SWAP_RIG_H

#include "attune/host.h"
#include "host_api/registry.h"
#include "tests/support/fixture_plugins.h"
#include "tests/support/run.h"
#include <check.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* every library stays mapped then, so that reports have names */
#else
#define SANITIZED 0
#endif

TCase *stage_cases(void);
TCase *storm_cases(void);
TCase *session_swap_cases(void);
TCase *watch_cases(void);
TCase *line_cases(void);
TCase *real_cases(void);
TCase *self_test_cases(void);

#define assert_ok(call, error)                                                                               \
    do {                                                                                                     \
        attune_code code_ = (call);                                                                          \
        ck_assert_msg(code_ == ATTUNE_OK, "%s: %s: %s: %s (%s)", #call, attune_code_name(code_),             \
                      (error).where, (error).message, (error).hint);                                         \
    } while (0)

/* How a library is put into a folder. */
typedef enum put_how { PUT_RENAMED, PUT_IN_PLACE } put_how;

/* Put the built fixture `name` as FOLDER/plug.so under id fixture-plain with a manifest that says "unload":
 * "safe"; returns the manifest's path (static). */
const char *put_plain(const char *folder, const char *name, put_how how);
/* The same with the manifest still to be changed; give it to put_manifest. */
json_t *put_library(const char *folder, const char *name, put_how how);
const char *put_manifest(const char *folder, json_t *manifest);

/* The real plugins as they were built, and attune-cpu again: the same code in a file of other bytes. The
 * manifests' paths (static). */
const char *real_build(void);
const char *second_build(void);
const char *emoji_model(void);

/* A host of 2 threads whose log is kept. Under sanitizers, where every library stays mapped, any number may
 * be parked. */
attune *rig_open(void);
const char *rig_log(void);

/* The generation that serves under fixture-plain; 0 = none. */
uint64_t serving(attune *host);
/* How many listed generations have this state. */
uint32_t in_state(attune *host, const char *state);

/* How many of something to do: `few`, or `many` where ATTUNE_CHECK_TIMES is above 1 (make check-long);
 * SWAPS=N in the environment says it outright. */
unsigned how_many(unsigned few, unsigned many);

/* What the process holds. */
typedef struct holdings {
    unsigned descriptors, threads, copies; /* copies: mappings of memfds */
} holdings;
holdings held_now(void);

/* One small attention call: chooses, runs, checks the numbers. Returns the generation that served, 0 = wrong
 * or failed. */
uint64_t attend_once(attune *host);

#endif
