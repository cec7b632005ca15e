/* model_hash.c: SHA-256 (nettle) of the weights file in a thread of its own. */
#include "model_hash.h"

#include <fcntl.h>
#include <nettle/sha2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Takes no memory, so that only a file that cannot be read leaves the hash out. */
static void *work(void *context) {
    model_hash *hash = context;
    struct sha256_ctx sha;
    uint8_t digest[SHA256_DIGEST_SIZE], buffer[1 << 16];
    int file = open(hash->path, O_RDONLY | O_CLOEXEC);
    ssize_t got;
    sha256_init(&sha);
    while ((got = read(file, buffer, sizeof buffer)) > 0)
        sha256_update(&sha, (size_t)got, buffer);
    sha256_digest(&sha, sizeof digest, digest);
    for (size_t i = 0; got == 0 && i < 5; ++i)
        (void)snprintf(hash->text + 2 * i, 3, "%02x", digest[i]);
    if (file >= 0)
        close(file);
    return NULL;
}

/* Where a processor has nothing else to do: the first step does not wait for a hash. Where the system refuses
 * that, the hash competes. */
static void *work_idly(void *context) {
    (void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}); /* 0: this thread, on Linux */
    return work(context);
}

void model_hash_start(model_hash *hash, const char *model, const char *file) {
    struct stat info;
    memset(hash, 0, sizeof *hash);
    if (stat(model, &info) == 0 && S_ISREG(info.st_mode))
        (void)snprintf(hash->path, sizeof hash->path, "%s", model);
    else
        (void)snprintf(hash->path, sizeof hash->path, "%s/%s", model, file);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's */
    hash->running = pthread_create(&hash->thread, NULL, work_idly, hash) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!hash->running)
        work(hash);
}

void model_hash_finish(model_hash *hash) {
    if (hash->running) {
        (void)pthread_setschedparam(hash->thread, SCHED_OTHER,
                                    &(struct sched_param){0}); /* it is waited for */
        pthread_join(hash->thread, NULL);
    }
    hash->running = 0;
}
