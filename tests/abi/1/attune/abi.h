/*
 * attune/abi.h: version, error codes and the base rules of the contract between host and plugin.
 *
 * Rules that hold in every header of this folder (docs/abi.md numbers them and names their tests):
 *  - Public structs hold fixed-width integers, float, fixed arrays and pointers only; padding is explicit and
 * 0.
 *  - Every struct that may grow starts with `struct_size`, filled by its author with sizeof. Inside one
 *    revision of an interface a struct only grows at its end; a reader uses no field beyond struct_size.
 *  - Reserved fields are 0; a callee refuses (INVALID_ARGUMENT) what is not.
 *  - A call returns an attune_code; where it takes an attune_error it fills it on failure and leaves it alone
 *    on success. `error` may be NULL.
 *  - A callee never exits, prints, or changes process state (signals, locale, environment, FP modes).
 *
 * Thread tags used below: [any] may be called from any thread at any time, [session] from one thread at a
 * time per object, [main] only while no other call into the same object runs.
 */
#ifndef ATTUNE_ABI_H
#define ATTUNE_ABI_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#define ATTUNE_STATIC_ASSERT static_assert
#else
#define ATTUNE_STATIC_ASSERT _Static_assert
#endif

/* The contract's version. 1 is frozen: tests/abi/1 holds it, and newer headers keep speaking it (docs/abi.md,
 * rule 1). */
#define ATTUNE_ABI_VERSION 1u

#define ATTUNE_EXPORT __attribute__((visibility("default")))

/* The canonical codes of absl/gRPC (google/rpc/code.proto): name, number, what it means here. */
#define ATTUNE_CODES(X)                                                                                      \
    X(OK, 0, "done")                                                                                         \
    X(CANCELLED, 1, "the caller asked to stop")                                                              \
    X(UNKNOWN, 2, "failed without a known kind")                                                             \
    X(INVALID_ARGUMENT, 3, "an argument is wrong whatever the state")                                        \
    X(DEADLINE_EXCEEDED, 4, "the call's deadline has passed")                                                \
    X(NOT_FOUND, 5, "a file, tensor or name does not exist")                                                 \
    X(ALREADY_EXISTS, 6, "the name is taken")                                                                \
    X(PERMISSION_DENIED, 7, "not allowed, by the system or by a safety rule")                                \
    X(RESOURCE_EXHAUSTED, 8, "memory, disk or a stated budget is used up")                                   \
    X(FAILED_PRECONDITION, 9, "not possible in this state")                                                  \
    X(ABORTED, 10, "given up because of something concurrent")                                               \
    X(OUT_OF_RANGE, 11, "a value is outside what is supported")                                              \
    X(UNIMPLEMENTED, 12, "this callee does not do that")                                                     \
    X(INTERNAL, 13, "a rule inside the callee was broken: a bug")                                            \
    X(UNAVAILABLE, 14, "a device or library is not there now")                                               \
    X(DATA_LOSS, 15, "a file is truncated or corrupt")                                                       \
    X(UNAUTHENTICATED, 16, "a hash or signature does not match")

typedef int32_t attune_code;
enum {
#define ATTUNE_CODE_ENUM(name, number, text) ATTUNE_##name = number,
    ATTUNE_CODES(ATTUNE_CODE_ENUM)
#undef ATTUNE_CODE_ENUM
};

/* [any] The code's name, such as "NOT_FOUND"; "UNKNOWN" for a number that is none of the table. Static text.
 */
static inline const char *attune_code_name(attune_code code) {
    switch (code) {
#define ATTUNE_CODE_NAME(name, number, text)                                                                 \
    case number:                                                                                             \
        return #name;
        ATTUNE_CODES(ATTUNE_CODE_NAME)
#undef ATTUNE_CODE_NAME
    }
    return "UNKNOWN";
}

/*
 * Caller-owned, fixed size: nothing is freed across heaps, it works when memory is out, and it outlives the
 * plugin that filled it. `domain` is the plugin's or library's id, `where` the file, tensor or function,
 * `message` one line without a newline, `hint` what the user can do about it (may be empty), `native_code`
 * the number of the library below (errno, dnnl_status_t, cudaError_t) or 0.
 */
typedef struct attune_error {
    int32_t code;
    int32_t native_code;
    char domain[32];
    char where[120];
    char message[512];
    char hint[160];
} attune_error;
ATTUNE_STATIC_ASSERT(sizeof(attune_error) == 832, "attune_error is part of the ABI");

/* [any] Control characters become '?': text of a file or a user that is quoted stays one line and cannot
 * drive a terminal. */
static inline void attune_printable(char *text) {
    for (; *text; ++text)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

/* [any] Fill `error` (if not NULL) and return `code`, so that a failure is `return attune_fail(...)`. Text
 * that does not fit is cut. */
__attribute__((format(printf, 5, 6))) static inline attune_code
attune_fail(attune_error *error, attune_code code, const char *domain, const char *where, const char *format,
            ...) {
    if (error) {
        memset(error, 0, sizeof *error);
        error->code = code;
        (void)snprintf(error->domain, sizeof error->domain, "%s", domain ? domain : "");
        (void)snprintf(error->where, sizeof error->where, "%s", where ? where : "");
        va_list list;
        va_start(list, format);
        (void)vsnprintf(error->message, sizeof error->message, format, list);
        va_end(list);
        attune_printable(error->where);
        attune_printable(error->message);
    }
    return code;
}

/* [any] Add what the user can do to an error that attune_fail has filled. */
__attribute__((format(printf, 2, 3))) static inline void attune_hint(attune_error *error, const char *format,
                                                                     ...) {
    if (!error)
        return;
    va_list list;
    va_start(list, format);
    (void)vsnprintf(error->hint, sizeof error->hint, format, list);
    va_end(list);
    attune_printable(error->hint);
}

/* Determinism classes, weakest first: each promises all that the ones before it promise (docs/arithmetic.md).
 */
enum {
    ATTUNE_DETERMINISM_NONE = 0,       /* nothing is promised */
    ATTUNE_DETERMINISM_REPEATABLE = 1, /* same device, build, thread count: same bits, run after run */
    ATTUNE_DETERMINISM_INVARIANT = 2,  /* also at any thread count, batch size and place, budget, hot swap */
    ATTUNE_DETERMINISM_PORTABLE = 3    /* also on any CPU, ISA and vendor: the bits of kernels/reference */
};

/* [any] The class's name, or NULL for a number that is none. Static text. */
static inline const char *attune_determinism_name(int32_t determinism) {
    static const char *const names[] = {"none", "repeatable", "invariant", "portable"};
    return determinism < 0 || determinism > 3 ? NULL : names[determinism];
}

#ifdef __cplusplus
}
#endif
#endif
