/* kernels/reference/stored.h: rules 6 and 7 of docs/arithmetic.md: no -0 and only one NaN leave a kernel. */
#ifndef ATTUNE_KERNELS_REFERENCE_STORED_H
#define ATTUNE_KERNELS_REFERENCE_STORED_H

#include "kernels/arithmetic.h"

#include <string.h>

static inline float stored(float x) {
    const uint32_t nan_bits = ATTUNE_NAN_BITS;
    x = x + 0.0f;
    if (x != x)
        memcpy(&x, &nan_bits, sizeof x);
    return x;
}

#endif
