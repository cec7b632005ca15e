/* picture.h: read the pictures that a command wrote. */
#ifndef ATTUNE_TEST_PICTURE_H
#define ATTUNE_TEST_PICTURE_H

#include <stdint.h>

typedef struct picture {
    uint32_t width, height;
    uint8_t *pixels; /* RGB */
    char *parameters;
} picture;

/* A PNG beneath run_folder() with its text chunk "parameters"; free with free_picture. The test fails where
 * it is none. */
picture read_picture(const char *name);
void free_picture(picture *p);

#endif
