/* pictures.h: where pictures go. `-o` names the one image; of several, STEM-0001.EXT …; without -o
 * ./attune-SEED.png, which never overwrites. */
#ifndef ATTUNE_PICTURES_H
#define ATTUNE_PICTURES_H

#include "attune/sampler.h"

/* Before any work: the folder exists and may be written, the name ends as PNG does. `output` may be NULL
 * (current folder). Errors: NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT for a name of another format. */
attune_code pictures_check(const char *output, attune_error *error);

/* Write image `index` (from 0) of `total`; the path taken goes to `path` (4,400 bytes). */
attune_code pictures_write(const char *output, uint64_t index, uint64_t total, uint64_t seed,
                           const attune_image *image, const char *parameters, char *path,
                           attune_error *error);

#endif
