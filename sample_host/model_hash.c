/* model_hash.c: SHA-256 (nettle) of the weights file in a thread of its own. */
#include "model_hash.h"

#include <nettle/sha2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK = 1 << 20 };

static void *work(void *context) {
    model_hash *hash = context;
    struct sha256_ctx sha;
    uint8_t digest[SHA256_DIGEST_SIZE], *buffer = malloc(CHUNK);
    FILE *file = buffer ? fopen(hash->path, "rbe") : NULL;
    sha256_init(&sha);
    size_t got = 0;
    while (file && (got = fread(buffer, 1, CHUNK, file)) > 0)
        sha256_update(&sha, got, buffer);
    if (file && !ferror(file)) {
        sha256_digest(&sha, sizeof digest, digest);
        for (size_t i = 0; i < 5; ++i)
            (void)snprintf(hash->text + 2 * i, 3, "%02x", digest[i]);
    }
    if (file)
        fclose(file);
    free(buffer);
    return NULL;
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
    hash->running = pthread_create(&hash->thread, NULL, work, hash) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!hash->running)
        work(hash);
}

void model_hash_finish(model_hash *hash) {
    if (hash->running)
        pthread_join(hash->thread, NULL);
    hash->running = 0;
}
