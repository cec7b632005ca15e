/* model_hash.h: the web UI's "Model hash", the first 10 hex digits of the weights file's SHA-256, read beside
 * the sampling. */
#ifndef ATTUNE_MODEL_HASH_H
#define ATTUNE_MODEL_HASH_H

#include <pthread.h>

typedef struct model_hash {
    pthread_t thread;
    int running;
    char path[4400];
    char text[11]; /* after model_hash_finish; "" where the file could not be read */
} model_hash;

/* Start hashing `model`, or where that is a folder `model`/`file`. */
void model_hash_start(model_hash *hash, const char *model, const char *file);
/* Wait for it. Harmless when called again. */
void model_hash_finish(model_hash *hash);

#endif
