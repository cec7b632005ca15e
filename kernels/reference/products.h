/* kernels/reference/products.h: what the references of matmul and convolution share. */
#ifndef ATTUNE_KERNELS_REFERENCE_PRODUCTS_H
#define ATTUNE_KERNELS_REFERENCE_PRODUCTS_H

#include "kernels/arithmetic.h"
#include "kernels/storage.h"

/* Element `i` of stored weights. */
static inline float weight_at(const void *stored, int32_t storage, int64_t i) {
    if (storage == ATTUNE_KERNEL_F32)
        return ((const float *)stored)[i];
    const uint16_t bits = ((const uint16_t *)stored)[i];
    return storage == ATTUNE_KERNEL_F16 ? attune_widen_f16(bits) : attune_widen_bf16(bits);
}

/* The end of a chain: plus the residual where there is one, no -0, one NaN. */
static inline float product_end(float sum, const float *residual) {
    if (residual)
        sum = sum + *residual;
    sum = sum + 0.0f;
    return sum != sum ? attune_float_of(ATTUNE_NAN_BITS) : sum;
}

#endif
