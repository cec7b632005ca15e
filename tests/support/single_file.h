/*
 * single_file.h: the repository's two models as checkpoints in one file, with latent diffusion's names from a
 * table of their blocks that is written out by hand (the sampler computes its own), and edits of their
 * headers.
 */
#ifndef ATTUNE_TEST_SINGLE_FILE_H
#define ATTUNE_TEST_SINGLE_FILE_H

#include <jansson.h>

/* Write PATH from "tiny" or "emoji". */
void single_file_write(const char *model, const char *path);
/* What the shapes of that model do not tell, in the form of --model-config. Static text. */
const char *single_file_config(const char *model);
/* Write a text file. */
void single_file_text(const char *path, const char *text);

/* The header of a .safetensors file; the caller decrefs. */
json_t *single_file_header(const char *path);
/* Put another before the same data. */
void single_file_put(const char *path, const json_t *header);

/* Make a tensor's first 4 bytes ones: no number in any format. */
void single_file_poison(const char *path, const char *name);

/* Make a tensor's first value `value`, rounded towards 0 to bfloat16: float32 tensors stay that, others
 * become bfloat16 with their bits. */
void single_file_set(const char *path, const char *name, float value);

/* A file of one-element tensors with these names (NULL ends them) and, where `shape` is given, that shape of
 * the first. */
void single_file_names(const char *path, const char *const *names, const char *shape);

#endif
