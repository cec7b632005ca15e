/* probe.c: a library's constructors in a child process, so that one that crashes takes nothing with it. */
#include "probe.h"
#include "attune/plugin.h"
#include "structs.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child says on its pipe when it has come through. */
#define LIVED 'L'

/* The child. What goes wrong in an orderly way is left for the real load to report. */
_Noreturn static void try_library(const char *path, int pipe_end) {
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGTERM};
    const struct rlimit no_core = {0, 0};
    union {
        void *object;
        attune_plugin_entry_function function;
    } entry;
    sigset_t all;
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; ++i)
        (void)signal(deadly[i], SIG_DFL);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_UNBLOCK, &all, NULL);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    entry.object = handle ? dlsym(handle, ATTUNE_PLUGIN_ENTRY) : NULL;
    if (entry.object) {
        const attune_plugin *plugin;
        uint32_t abi = ATTUNE_ABI_VERSION;
        (void)entry.function(&abi, &plugin);
    }
    if (handle)
        (void)dlclose(handle);
    _exit(write(pipe_end, &(char){LIVED}, 1) == 1 ? 0 : 1);
}

/* One child. *signal_number = what ended it, 0 = it lived, −1 = it had to be killed. */
static attune_code run_child(const char *path, const char *file, int *signal_number, attune_error *error) {
    int ends[2], status = 0;
    char said = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, file, "no pipe for a probe: %s",
                           strerror(errno));
    pid_t child = fork();
    if (child == 0)
        try_library(path, ends[1]);
    (void)close(ends[1]);
    if (child < 0) {
        (void)close(ends[0]);
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, file,
                           "no process for a probe: %s", strerror(errno));
    }
    struct pollfd end = {.fd = ends[0], .events = POLLIN};
    int ready;
    do
        ready = poll(&end, 1, ATTUNE_PROBE_SECONDS * 1000);
    while (ready < 0 && errno == EINTR);
    if (ready > 0 && read(ends[0], &said, 1) != 1)
        said = 0;
    if (ready == 0)
        (void)kill(child, SIGKILL);
    (void)close(ends[0]);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    /* An application that reaps every child may have been faster: then the signal is not known. */
    *signal_number = said == LIVED ? 0 : ready == 0 ? -1 : WIFSIGNALED(status) ? WTERMSIG(status) : SIGABRT;
    return ATTUNE_OK;
}

static attune_code died(int signal_number, const char *file, attune_error *error) {
    (void)attune_fail(error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, file,
                      "ends the process that loads it (%s), as a probe in a child process showed",
                      strsignal(signal_number));
    attune_hint(error, "look at its constructors; gdb with ATTUNE_PLUGIN_COPY=file shows where");
    return ATTUNE_FAILED_PRECONDITION;
}

attune_code attune_probe(attune_probes *probes, const uint8_t sha256[32], const char *path, const char *file,
                         attune_error *error) {
    int number = 0;
    for (uint32_t i = 0; i < ATTUNE_PROBES; ++i)
        if (probes->verdict[i].known && memcmp(probes->verdict[i].sha256, sha256, 32) == 0)
            return probes->verdict[i].signal ? died(probes->verdict[i].signal, file, error) : ATTUNE_OK;
    attune_code code = run_child(path, file, &number, error);
    if (!code && number > 0)
        code = run_child(path, file, &number, error);
    if (code)
        return code;
    if (number < 0)
        return attune_fail(error, ATTUNE_DEADLINE_EXCEEDED, ATTUNE_DOMAIN, file,
                           "did not finish loading within %d s, as a probe in a child process showed",
                           ATTUNE_PROBE_SECONDS);
    uint32_t at = probes->next++ % ATTUNE_PROBES;
    memcpy(probes->verdict[at].sha256, sha256, 32);
    probes->verdict[at].known = 1;
    probes->verdict[at].signal = number;
    return number ? died(number, file, error) : ATTUNE_OK;
}
