/* run.c: command lines under test. */
#include "run.h"

#include <check.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *absolute(const char *variable, char *storage) {
    const char *value = getenv(variable);
    ck_assert_msg(value != NULL, "%s is not set: run the tests by make check", variable);
    if (!storage[0])
        ck_assert_msg(realpath(value, storage) != NULL, "%s=%s does not exist", variable, value);
    return storage;
}

const char *run_build(void) {
    static char path[PATH_MAX];
    return absolute("ATTUNE_BUILD", path);
}

const char *run_source(void) {
    static char path[PATH_MAX];
    return absolute("ATTUNE_SOURCE", path);
}

static char folder[PATH_MAX];
static pid_t folder_owner;

static void remove_folder(void) {
    char command[2 * PATH_MAX + 64];
    if (folder_owner != getpid())
        return;
    (void)snprintf(command, sizeof command, "chmod -R u+w '%s'; rm -rf '%s'", folder, folder);
    if (system(command) != 0)
        fprintf(stderr, "could not remove %s\n", folder);
}

const char *run_folder(void) {
    if (folder_owner != getpid()) {
        const char *base = getenv("TMPDIR");
        (void)snprintf(folder, sizeof folder, "%s/attune-test-XXXXXX", base ? base : "/tmp");
        ck_assert_msg(mkdtemp(folder) != NULL, "no temporary folder");
        folder_owner = getpid();
        atexit(remove_folder);
    }
    return folder;
}

run_result run(const char *format, ...) {
    char command[8192], script[12288], path[PATH_MAX + 16];
    run_result result = {0};
    va_list list;
    va_start(list, format);
    int length = vsnprintf(command, sizeof command, format, list);
    va_end(list);
    ck_assert_int_lt(length, (int)sizeof command);
    length = snprintf(script, sizeof script,
                      "cd '%s' && B='%s' && S='%s' && HOST=\"$B/sample_host\" && unset COMMANDLINE_ARGS && { "
                      "%s\n} >.stdout 2>.stderr",
                      run_folder(), run_build(), run_source(), command);
    ck_assert_int_lt(length, (int)sizeof script);
    int status = system(script);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    (void)snprintf(path, sizeof path, "%s/.stdout", run_folder());
    result.out = run_read(path, NULL);
    (void)snprintf(path, sizeof path, "%s/.stderr", run_folder());
    result.err = run_read(path, NULL);
    return result;
}

void run_free(run_result *result) {
    free(result->out);
    free(result->err);
    memset(result, 0, sizeof *result);
}

void run_fails(const char *command, int status, const char *text) {
    run_result r = run("%s", command);
    ck_assert_msg(r.status == status, "%s: status %d, expected %d\n%s", command, r.status, status, r.err);
    ck_assert_msg(strstr(r.err, text) != NULL, "%s: no \"%s\" in\n%s", command, text, r.err);
    ck_assert_msg(run_lines(r.err) == 1, "%s: more than one line\n%s", command, r.err);
    ck_assert_str_eq(r.out, "");
    run_free(&r);
}

size_t run_lines(const char *text) {
    size_t lines = 0;
    for (; *text; ++text)
        lines += *text == '\n';
    return lines;
}

json_t *run_json(const run_result *result) {
    json_error_t error;
    json_t *json = json_loads(result->out, JSON_REJECT_DUPLICATES, &error);
    ck_assert_msg(json != NULL, "no JSON on standard output (%s):\n%s\n%s", error.text, result->out,
                  result->err);
    return json;
}

char *run_read(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "cannot read %s", path);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    long length = ftell(file);
    rewind(file);
    char *text = malloc((size_t)length + 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_eq(fread(text, 1, (size_t)length, file), (size_t)length);
    fclose(file);
    text[length] = 0;
    if (size)
        *size = (size_t)length;
    return text;
}
