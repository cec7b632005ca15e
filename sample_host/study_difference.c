/* study_difference.c: how much two pictures differ. */
#include "study_difference.h"

#include <stdlib.h>

difference difference_of(const uint8_t *a, const uint8_t *b, size_t pixels, uint8_t *absolute) {
    difference d = {0};
    uint64_t sum = 0;
    for (size_t i = 0; i < pixels; ++i) {
        uint32_t most = 0;
        for (size_t k = 3 * i; k < 3 * i + 3; ++k) {
            absolute[k] = (uint8_t)abs(a[k] - b[k]);
            most = absolute[k] > most ? absolute[k] : most;
            sum += absolute[k];
        }
        d.pixels += most > 0;
        d.largest = most > d.largest ? most : d.largest;
    }
    d.mean = (double)sum / (double)(3 * pixels);
    return d;
}

uint32_t difference_scale(uint32_t largest) {
    return largest ? 255 / largest : 1;
}
