/* config.c: the environment, the lock, the n-th failing call and last errors of the stand-in runtime
 * (runtime.h). */
#include "tests/cuda_emulator/runtime.h"

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static runtime_config config;
static bool configured;
static uint64_t calls;
static const char *failed_call;
static cudaError_t device_errors[MAX_DEVICES];
static _Thread_local cudaError_t last_error;

void runtime_say(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(stderr, "cuda emulator: %s\n", line);
}

static _Noreturn void refuse(const char *name, const char *value, const char *wanted) {
    runtime_say("%s=%s: give %s", name, value, wanted);
    exit(2); /* a test that asks for something else than it gets must not go on */
}

static uint64_t number(const char *name, uint64_t otherwise, uint64_t most, const char *wanted) {
    const char *value = getenv(name);
    if (!value)
        return otherwise;
    char *end = NULL;
    uint64_t n = strtoull(value, &end, 10);
    const char *units = "KMG", *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        n <<= 10 * (unit - units + 1);
        ++end;
    }
    if (end == value || *end || n > most)
        refuse(name, value, wanted);
    return n;
}

static void read_failure(void) { /* N, or NAME:N, or either with :CODE after it */
    const char *value = getenv("ATTUNE_EMULATOR_FAIL");
    if (!value)
        return;
    const char *rest = value;
    unsigned long long at = 0;
    int code = cudaErrorMemoryAllocation, read = 0;
    if (isalpha((unsigned char)*rest)) {
        const size_t n = strcspn(rest, ":");
        if (n >= sizeof config.fail_name || rest[n] != ':')
            refuse("ATTUNE_EMULATOR_FAIL", value, "N, cudaName:N or cudaName:N:CODE");
        memcpy(config.fail_name, rest, n);
        rest += n + 1;
    }
    if (sscanf(rest, "%llu%n", &at, &read) != 1 ||
        (rest[read] == ':' ? sscanf(rest + read, ":%d", &code) != 1 : rest[read] != 0))
        refuse("ATTUNE_EMULATOR_FAIL", value, "N, cudaName:N or cudaName:N:CODE");
    config.fail_at = at;
    config.fail_code = (cudaError_t)code;
}

static void configure(void) {
    configured = true;
    config.devices =
        (int)number("ATTUNE_EMULATOR_DEVICES", 1, MAX_DEVICES, "a number of devices from 0 to 16");
    config.memory = number("ATTUNE_EMULATOR_MEMORY", 8ull << 30, 1ull << 42, "bytes, or with K, M or G");
    config.no_driver = number("ATTUNE_EMULATOR_NO_DRIVER", 0, 1, "0 or 1");
    config.checks = number("ATTUNE_EMULATOR_CHECKS", 1, 1, "0 or 1");
    config.count = number("ATTUNE_EMULATOR_COUNTERS", 0, 1, "0 or 1");
    config.instruction_limit =
        number("ATTUNE_EMULATOR_LIMIT", 1ull << 40, 1ull << 60, "instructions of one warp");
    const char *cc = getenv("ATTUNE_EMULATOR_CC");
    int major = 8, minor = 6, read = 0;
    if (cc && (sscanf(cc, "%d.%d%n", &major, &minor, &read) != 2 || cc[read] || major < 5 || major > 99 ||
               minor < 0 || minor > 9))
        refuse("ATTUNE_EMULATOR_CC", cc, "a compute capability such as 8.6");
    config.capability = major * 10 + minor;
    read_failure();
}

const runtime_config *runtime_get_config(void) {
    if (!configured)
        configure();
    return &config;
}

bool runtime_enter(const char *name, cudaError_t *error) {
    pthread_mutex_lock(&lock);
    const runtime_config *c = runtime_get_config();
    if (c->fail_at && (!c->fail_name[0] || strcmp(c->fail_name, name) == 0) && ++calls == c->fail_at) {
        *error = c->fail_code;
        failed_call = name;
        return false;
    }
    *error = c->no_driver      ? cudaErrorInsufficientDriver
             : c->devices == 0 ? cudaErrorNoDevice
                               : device_errors[runtime_current_device()];
    return *error == cudaSuccess;
}

const char *cuda_emulator_failed_call(void) {
    return failed_call;
}

cudaError_t runtime_leave(cudaError_t error) {
    pthread_mutex_unlock(&lock);
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

cudaError_t runtime_device_error(int device) {
    return device_errors[device];
}

void runtime_set_device_error(int device, cudaError_t error) {
    device_errors[device] = error;
}

/* ---- errors ---- */

cudaError_t cudaGetLastError(void) {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) {
    return last_error;
}

static const struct {
    cudaError_t code;
    const char *name;
} errors[] = {
#define X(code) {code, #code},
#include "cuda_error_names.h"
#undef X
};

const char *cudaGetErrorName(cudaError_t error) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; ++i)
        if (errors[i].code == error)
            return errors[i].name;
    return "unrecognized error code";
}

/* The name in words: "cudaErrorInvalidValue" is "invalid value". The real library's texts are its own. */
const char *cudaGetErrorString(cudaError_t error) {
    static char texts[sizeof errors / sizeof *errors][80];
    static pthread_mutex_t text_lock = PTHREAD_MUTEX_INITIALIZER;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; ++i) {
        if (errors[i].code != error)
            continue;
        if (error == cudaSuccess)
            return "no error";
        pthread_mutex_lock(&text_lock);
        size_t n = 0;
        const bool made = texts[i][0];
        for (const char *c = errors[i].name + strlen("cudaError"); !made && *c && n + 3 < sizeof texts[i];
             ++c) {
            if (isupper((unsigned char)*c) && n)
                texts[i][n++] = ' ';
            texts[i][n++] = (char)tolower((unsigned char)*c);
        }
        pthread_mutex_unlock(&text_lock);
        return texts[i];
    }
    return "unrecognized error code";
}
