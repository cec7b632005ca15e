/* model_name.h: what the infotext calls a model. */
#ifndef ATTUNE_MODEL_NAME_H
#define ATTUNE_MODEL_NAME_H

#include <stddef.h>

/* The last part of a path, without ".safetensors", as the web UI names its checkpoints. */
void model_name(const char *path, char *name, size_t size);

#endif
