/* png_file.h: write a picture as PNG (libpng) with its infotext. */
#ifndef ATTUNE_PNG_FILE_H
#define ATTUNE_PNG_FILE_H

#include "attune/sampler.h"

/* Write 8-bit RGB to `path` by way of a temporary file; `parameters` becomes the text chunk of that name
 * (tEXt, or iTXt where it is not Latin-1). With `keep` an existing file is left alone: ALREADY_EXISTS.
 * Errors: as output.h's. */
attune_code png_write(const char *path, const attune_image *image, const char *parameters, int keep,
                      attune_error *error);

#endif
