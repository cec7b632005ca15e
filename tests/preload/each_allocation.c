/*
 * each_allocation.c: a library for LD_PRELOAD that stops sample_host at each of its allocations and forks:
 * the child meets a misfortune there and runs to its end; the parent judges how it ended, then goes on
 * without. So one run of the program visits every n-th allocation. ATTUNE_TEST_EACH names the misfortune:
 * "once" (this allocation fails), "lasting" (so do all that follow), "signal" (SIGTERM), "twice" (two of
 * them).
 *
 * Counted are the allocations, and mappings, that our code asks for, itself or through libc and the C
 * libraries in `ours`. Not those of libstdc++ and ld.so, which end the process by design, as
 * popt does where it copies words. Of the passes through one and the same call stack the 1st, 4th, 16th … are
 * visited; with "every" in ATTUNE_TEST_EACH each. Threads are refused (EAGAIN), since only the thread that
 * forks lives on in the child.
 *
 * jansson 2.14's lexer does not look whether its buffer could grow (lex_save) and would then assert or write
 * past its end: sample_host has a last resort for it.
 *
 * A child must end by exit 1 to 3 and one "sample_host: error:" line, or by 0 where it could do without; by
 * 130 after a signal. It must give back what it allocated, print a whole JSON object or none, and leave
 * nothing but a whole out/file, its results those of expected.out and expected.file where the test made them.
 * What is wrong goes to standard error with the call stack; the last line is "N visited, M wrong".
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <jansson.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unwind.h>

#define EXPORT __attribute__((visibility("default")))
enum { INTERRUPTED = 130, LIVE = 1 << 15, PATHS = 1 << 14, STACK = 32, MAPS = 64, FILES = 64 };

/* "" is the program itself, /proc/self/fd/ a plugin. */
static const char *const ours[] = {"",        "/proc/self/fd/", "libjansson.so", "libpng16.so",
                                   "libz.so", "libnettle.so",   "libutf8proc.so"};
static const char *const passed_over[] = {"/libc.so", "/libasan.so", "/libubsan.so"};

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    void *(*aligned_alloc)(size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*mmap)(void *, size_t, int, int, int, off_t);
} next;

static struct {
    const void *block;
    uintptr_t at; /* who asked, as an offset in its file */
} live[LIVE];
static size_t held;

static int busy = 1; /* inside this library, or not begun: nothing is counted */
static int lasting, every, signals;
static int struck; /* this is a child past its misfortune */
static unsigned long visits, wrong;
static int output[2]; /* standard output and error of the children */
static char *expected_file, *expected_output;
static size_t expected_size;
static const struct link_map *self;

static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vdprintf(STDERR_FILENO, format, list);
    va_end(list);
}

/* ---- who asks ---- */

enum { NOT_COUNTED, COUNTED, PASSED_OVER };

typedef struct caller {
    int kind;
    uintptr_t at;  /* offset in its file */
    uint64_t path; /* hash of the stack's return addresses */
} caller;

static int listed(const char *name, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; ++i)
        if (list[i][0] ? strstr(name, list[i]) != NULL : !name[0])
            return 1;
    return 0;
}

/* The first frame outside this library and libc decides. */
static int decide(uintptr_t at, caller *who) {
    static struct {
        const struct link_map *map;
        const void *dynamic; /* of a library that was unmapped another may have the map */
        int kind;
    } known[MAPS];
    struct dl_find_object found;
    who->kind = NOT_COUNTED;
    if (_dl_find_object((void *)(at - 1), &found) != 0)
        return 1; /* code made at run time */
    const struct link_map *map = found.dlfo_link_map;
    size_t i = 0;
    while (known[i].map && (known[i].map != map || known[i].dynamic != map->l_ld))
        if (++i == MAPS)
            abort();
    if (!known[i].map) {
        known[i].map = map;
        known[i].dynamic = map->l_ld;
        known[i].kind =
            map == self || listed(map->l_name, passed_over, sizeof passed_over / sizeof *passed_over)
                ? PASSED_OVER
                : listed(map->l_name, ours, sizeof ours / sizeof *ours);
    }
    who->kind = known[i].kind;
    who->at = at - map->l_addr;
    return who->kind != PASSED_OVER;
}

static _Unwind_Reason_Code decide_frame(struct _Unwind_Context *context, void *who) {
    return decide(_Unwind_GetIP(context), who) ? _URC_END_OF_STACK : _URC_NO_REASON;
}

static _Unwind_Reason_Code hash_frame(struct _Unwind_Context *context, void *out) {
    caller *who = out;
    who->path = (who->path ^ _Unwind_GetIP(context)) * 0x100000001b3u; /* FNV-1a */
    return _URC_NO_REASON;
}

/* Whether the way here is gone for the 1st, 4th, 16th, … time. */
static int is_due(caller *who) {
    static struct { uint64_t path, times; } met[PATHS];
    _Unwind_Backtrace(hash_frame, who);
    size_t i = who->path % PATHS;
    while (met[i].times && met[i].path != who->path)
        i = (i + 1) % PATHS;
    met[i].path = who->path;
    uint64_t times = ++met[i].times;
    return every || ((times & (times - 1)) == 0 && __builtin_ctzl(times) % 2 == 0);
}

/* ---- what is live: a hash table with linear probing ---- */

static size_t home(const void *block) {
    return ((uintptr_t)block >> 4) * 0x9e3779b97f4a7c15u >> 49;
}

static size_t slot(const void *block) {
    size_t i = home(block);
    while (live[i].block && live[i].block != block)
        i = (i + 1) % LIVE;
    return i;
}

static void *keep(void *block, uintptr_t at) {
    size_t i = slot(block);
    if (++held == LIVE / 2)
        abort(); /* LIVE is too small for this test */
    live[i].block = block;
    live[i].at = at;
    return block;
}

/* Knuth, The Art of Computer Programming, volume 3, 6.4, algorithm R. */
static void drop(const void *block) {
    size_t i = slot(block);
    held -= live[i].block != NULL;
    for (size_t k = (i + 1) % LIVE; live[i].block && live[k].block; k = (k + 1) % LIVE)
        if ((k - home(live[k].block)) % LIVE >= (k - i) % LIVE) {
            live[i] = live[k];
            i = k;
        }
    live[i].block = NULL;
}

/* ---- how a child ended ---- */

static char *read_all(int file, size_t *size) {
    off_t length = lseek(file, 0, SEEK_END);
    char *text = length < 0 ? NULL : malloc((size_t)length + 1);
    if (!text || pread(file, text, (size_t)length, 0) != length)
        abort();
    text[length] = 0;
    *size = (size_t)length;
    return text;
}

static char *read_file(const char *path, size_t *size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    char *text = file < 0 ? NULL : read_all(file, size);
    if (file >= 0)
        close(file);
    return text;
}

/* The object that --json prints without what differs from run to run; NULL = it is not whole. */
static json_t *parse(const char *text) {
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_object_del(object, "seconds");
    json_object_del(object, "peak_bytes");
    json_object_del(object, "counted_bytes");
    json_object_del(object, "warnings"); /* of what it did without */
    return object;
}

static const char *check_output(int status, const char *out, const char *err) {
    const char *prefix = status == INTERRUPTED ? "sample_host: interrupted" : "sample_host: error: ";
    const char *end = strchr(err, '\n');
    if (signals > 1 && status == INTERRUPTED)
        return *out || *err ? "output after the second signal" : NULL;
    if (status == 0 && (*err || !*out))
        return "status 0 with a line on standard error, or without output";
    if (status && (strncmp(err, prefix, strlen(prefix)) != 0 || !end || end[1]))
        return "not one error line";
    if (out[0] != '{')
        return status == 0 && expected_output && strcmp(out, expected_output) != 0 ? "another output" : NULL;
    json_t *got = parse(out), *expected = expected_output ? parse(expected_output) : NULL;
    int whole = status ? json_is_object(json_object_get(got, "error"))
                       : got && (!expected || json_equal(got, expected));
    json_decref(got);
    json_decref(expected);
    return whole ? NULL : "another or no whole JSON object";
}

/* The child gets a folder out/ of its own with the same files in it; the parent's is put aside. */
static void put_aside(void) {
    if (rename("out", "aside") || mkdir("out", 0777))
        abort();
    int from = open("aside", O_RDONLY | O_DIRECTORY), to = open("out", O_RDONLY | O_DIRECTORY);
    DIR *folder = fdopendir(from);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_type == DT_REG && linkat(from, entry->d_name, to, entry->d_name, 0))
            abort();
    closedir(folder);
    close(to);
}

/* Whether nothing but the expected file lies in out/, and that after a success. Then the parent's folder is
 * back. */
static const char *check_files(int status) {
    const char *fault = NULL;
    size_t size;
    char *file = read_file("out/file", &size);
    if (file ? size != expected_size || memcmp(file, expected_file, size) != 0 : status == 0 && expected_file)
        fault = "not the whole file";
    free(file);
    unlink("out/file");
    if (rmdir("out")) {
        fault = "something is left";
        if (system("ls -A out >&2; rm -r out"))
            abort();
    }
    if (rename("aside", "out"))
        abort();
    return fault;
}

/* A file's position is shared with the child. */
static void positions(off_t *at, int restore) {
    for (int file = 0; file < FILES; ++file)
        if (!restore)
            at[file] = lseek(file, 0, SEEK_CUR);
        else if (at[file] >= 0)
            lseek(file, at[file], SEEK_SET);
}

static void judge(int status) {
    size_t size;
    char *out = read_all(output[0], &size), *err = read_all(output[1], &size);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    const char *fault = code < 0 || (code > 3 && !(signals && code == INTERRUPTED))
                            ? "ended by a signal or a strange status"
                            : NULL;
    const char *files = check_files(code);
    if (!fault)
        fault = files ? files : check_output(code, out, err);
    if (fault) {
        void *stack[STACK];
        say("visit %lu: %s (wait status %#x)\n%s%s", visits, fault, (unsigned)status, out, err);
        backtrace_symbols_fd(stack, backtrace(stack, STACK), STDERR_FILENO);
        ++wrong;
    }
    free(out);
    free(err);
}

/* ---- the visits ---- */

/* Whether this allocation fails: in the child that is made for it. */
static int fails(caller *who, const void *from) {
    *who = (caller){0};
    if (busy)
        return 0;
    busy = 1;
    if (!decide((uintptr_t)from, who))
        _Unwind_Backtrace(decide_frame, who);
    int counted = who->kind == COUNTED, now = counted && struck && lasting;
    if (counted && !struck && is_due(who)) {
        ++visits;
        int status;
        off_t at[FILES];
        if (ftruncate(output[0], 0) || ftruncate(output[1], 0))
            abort();
        positions(at, 0);
        put_aside();
        pid_t child = fork();
        if (child < 0)
            abort();
        if (child == 0) {
            dup2(output[0], STDOUT_FILENO);
            dup2(output[1], STDERR_FILENO);
            struck = 1;
            now = !signals;
            for (int i = 0; i < signals; ++i)
                raise(SIGTERM);
        } else {
            while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                continue;
            positions(at, 1);
            judge(status);
        }
    }
    busy = 0;
    if (now)
        errno = ENOMEM;
    return now;
}

static void resolve(void) {
    *(void **)&next.calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&next.realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&next.free = dlsym(RTLD_NEXT, "free");
    *(void **)&next.aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    *(void **)&next.posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    *(void **)&next.mmap = dlsym(RTLD_NEXT, "mmap");
    *(void **)&next.malloc = dlsym(RTLD_NEXT, "malloc");
}

static void *made(void *block, const caller *who) {
    return block && who->kind == COUNTED ? keep(block, who->at) : block;
}

EXPORT void *malloc(size_t bytes) {
    caller who;
    if (!next.malloc)
        resolve();
    return fails(&who, __builtin_return_address(0)) ? NULL : made(next.malloc(bytes), &who);
}

EXPORT void *calloc(size_t count, size_t bytes) {
    caller who;
    if (!next.malloc)
        resolve();
    return fails(&who, __builtin_return_address(0)) ? NULL : made(next.calloc(count, bytes), &who);
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes) {
    caller who;
    return fails(&who, __builtin_return_address(0)) ? NULL : made(next.aligned_alloc(alignment, bytes), &who);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t bytes) {
    caller who;
    if (fails(&who, __builtin_return_address(0)))
        return ENOMEM;
    int failure = next.posix_memalign(out, alignment, bytes);
    if (!failure)
        (void)made(*out, &who);
    return failure;
}

EXPORT void *realloc(void *block, size_t bytes) {
    caller who;
    if (!next.malloc)
        resolve();
    if (fails(&who, __builtin_return_address(0)))
        return NULL;
    void *moved = next.realloc(block, bytes);
    if (moved && block)
        drop(block);
    return made(moved, &who);
}

EXPORT void free(void *block) {
    if (!next.malloc)
        resolve();
    if (block)
        drop(block);
    next.free(block);
}

EXPORT void *mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
    caller who;
    if (!next.malloc)
        resolve();
    return fails(&who, __builtin_return_address(0))
               ? MAP_FAILED
               : next.mmap(address, bytes, protection, flags, file, offset);
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                          void *argument) {
    (void)thread;
    (void)attributes;
    (void)start;
    (void)argument;
    return EAGAIN;
}

__attribute__((constructor)) static void begin(void) {
    static char buffer[BUFSIZ];
    struct dl_find_object found;
    const char *mode = getenv("ATTUNE_TEST_EACH");
    size_t size;
    if (!mode || _dl_find_object((void *)(uintptr_t)begin, &found) != 0)
        return;
    self = found.dlfo_link_map;
    lasting = strstr(mode, "lasting") != NULL;
    every = strstr(mode, "every") != NULL;
    signals = strstr(mode, "twice") ? 2 : strstr(mode, "signal") != NULL;
    expected_file = read_file("expected.file", &expected_size);
    expected_output = read_file("expected.out", &size);
    output[0] = memfd_create("stdout", MFD_CLOEXEC);
    output[1] = memfd_create("stderr", MFD_CLOEXEC);
    if (output[1] < 0)
        abort();
    for (int i = 0; i < 2; ++i)
        fcntl(output[i], F_SETFL, O_APPEND);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer); /* which libc would allocate and keep */
    void *stack[1];
    (void)backtrace(stack, 1); /* loads what it needs */
    busy = 0;
}

/* A block that is live at the end is said on the child's standard error, which fails its judgement. */
__attribute__((destructor)) static void end(void) {
    busy = 1;
    size_t blocks = 0;
    for (size_t i = 0; i < LIVE; ++i)
        if (live[i].block && ++blocks <= 3)
            say("never freed: a block from +%#lx\n", (unsigned long)live[i].at);
    if (blocks > 3)
        say("never freed: %zu blocks\n", blocks);
    wrong += blocks > 0;
    if (!struck && output[1])
        say("%lu visited, %lu wrong\n", visits, wrong);
}
