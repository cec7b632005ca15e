/* pictures.h: where pictures go. `-o` names the one image; of several, STEM-0001.EXT …; without -o
 * ./attune-SEED.png, which never overwrites. */
#ifndef ATTUNE_PICTURES_H
#define ATTUNE_PICTURES_H

#include "attune/sampler.h"

/* Before any work: the name ends as PNG does, and the first of `total` pictures can be written, by
 * output_check. `output` may be NULL (current folder). Errors: output_check's; INVALID_ARGUMENT for a name of
 * another format. */
attune_code pictures_check(const char *output, uint64_t total, attune_error *error);

/* Write image `index` (from 0) of `total`; the path taken goes to `path` (4,400 bytes). */
attune_code pictures_write(const char *output, uint64_t index, uint64_t total, uint64_t seed,
                           const attune_image *image, const char *parameters, char *path,
                           attune_error *error);

#endif
