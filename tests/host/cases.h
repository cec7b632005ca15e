/* cases.h: the families of the host suite, and what they share. */
#ifndef TESTS_HOST_CASES_H
#define TESTS_HOST_CASES_H

#include "attune/host.h"
#include "tests/support/fixture_plugins.h"
#include "tests/support/run.h"
#include <check.h>

TCase *abi_cases(void);
TCase *manifest_cases(void);
TCase *elf_cases(void);
TCase *loader_cases(void);
TCase *library_cases(void);
TCase *search_cases(void);
TCase *services_cases(void);
TCase *pool_cases(void);
TCase *registry_cases(void);
TCase *problem_cases(void);
TCase *choose_cases(void);
TCase *attend_cases(void);
TCase *session_cases(void);

/* An OK, or the test fails with the error's own words. */
#define assert_ok(call, error)                                                                               \
    do {                                                                                                     \
        attune_code code_ = (call);                                                                          \
        ck_assert_msg(code_ == ATTUNE_OK, "%s: %s: %s: %s (%s)", #call, attune_code_name(code_),             \
                      (error).where, (error).message, (error).hint);                                         \
    } while (0)

/* A failure with this code whose message or hint has this text. */
#define assert_fails(call, error, expected, text)                                                            \
    do {                                                                                                     \
        memset(&(error), 0, sizeof(error));                                                                  \
        attune_code code_ = (call);                                                                          \
        ck_assert_msg(code_ == (expected) && (error).code == (expected), "%s: %s (%s), expected %s", #call,  \
                      attune_code_name(code_), (error).message, attune_code_name(expected));                 \
        ck_assert_msg(strstr((error).message, text) || strstr((error).hint, text) ||                         \
                          strstr((error).where, text),                                                       \
                      "%s: \"%s\" at \"%s\" (%s) lacks \"%s\"", #call, (error).message, (error).where,       \
                      (error).hint, text);                                                                   \
        ck_assert_msg(!strchr((error).message, '\n'), "more than one line: %s", (error).message);            \
    } while (0)

/* A host of 2 threads whose log is kept in test_log; closed by the caller. */
attune *open_host(void);
/* A host that has loaded these fixtures (ends with NULL). */
attune *open_with(const char *name, ...) __attribute__((sentinel));
/* All log lines so far, "LEVEL DOMAIN: MESSAGE\n" each. */
const char *test_log(void);

/* Plugin i of the registry, and how many there are. */
attune_plugin_status plugin_status(attune *host, uint32_t i);
uint32_t plugin_count(attune *host);

/* A compact float32 CPU tensor of 4 axes over `data` (which has room), filled with numbers from `seed` in
 * (−1, 1). */
attune_tensor filled(float *data, int64_t b, int64_t h, int64_t n, int64_t d, unsigned seed);

#endif
