/* run.h: run a command line as a user would and look at what it printed. */
#ifndef ATTUNE_TEST_RUN_H
#define ATTUNE_TEST_RUN_H

#include <jansson.h>
#include <stddef.h>

typedef struct run_result {
    int status; /* exit status; 128 + n where signal n ended it */
    char *out, *err;
} run_result;

/* The build folder and the repository's root, absolute (ATTUNE_BUILD, ATTUNE_SOURCE). */
const char *run_build(void);
const char *run_source(void);

/* A fresh folder under $TMPDIR that the test may fill; removed at exit of the process that made it. */
const char *run_folder(void);

/* Run through /bin/sh in run_folder(), with $B = the build folder, $S = the source, $HOST = sample_host and
 * no COMMANDLINE_ARGS; free with run_free. */
__attribute__((format(printf, 1, 2))) run_result run(const char *format, ...);
void run_free(run_result *result);

/* A command line that must fail with `status` and one line on standard error that contains `text`. */
void run_fails(const char *command, int status, const char *text);

/* How many lines a text has. */
size_t run_lines(const char *text);

/* The output as a JSON object; the test fails where it is none. The caller decrefs. */
json_t *run_json(const run_result *result);

/* A whole file; the caller frees. The test fails where it cannot be read. */
char *run_read(const char *path, size_t *size);

#endif
