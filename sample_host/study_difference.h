/* study_difference.h: two pictures compared value by value, and their difference as a picture. */
#ifndef ATTUNE_STUDY_DIFFERENCE_H
#define ATTUNE_STUDY_DIFFERENCE_H

#include <stddef.h>
#include <stdint.h>

typedef struct difference {
    uint64_t pixels;  /* that differ in any channel */
    uint32_t largest; /* of one channel, in 1/255 */
    double mean;      /* over all channels of all pixels, in 1/255 */
} difference;

/* Compare two pictures of 8-bit RGB; |a − b| goes to `absolute`, 3 bytes per pixel as the pictures. */
difference difference_of(const uint8_t *a, const uint8_t *b, size_t pixels, uint8_t *absolute);

/* The largest whole factor that keeps `largest` within 255; 1 for 0. */
uint32_t difference_scale(uint32_t largest);

#endif
