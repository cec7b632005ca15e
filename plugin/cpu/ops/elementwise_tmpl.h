/*
 * elementwise_tmpl.h: the loops of elementwise.h over stored weights, written so that a compiler vectorises
 * them: they are exact, so that nothing but speed depends on how. Included once per instruction set; the
 * includer defines ELEMENTWISE_TABLE and ELEMENTWISE_ISA.
 */
#include "plugin/cpu/ops/elementwise.h"

#include <string.h>

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Stored values lie in a file as they lie: no alignment is promised. */
static inline uint32_t stored_32(const unsigned char *bytes) {
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline uint16_t stored_16(const unsigned char *bytes) {
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static int finite_f32(const void *stored, uint64_t n) {
    const unsigned char *bytes = stored;
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; ++i)
        bad |= (stored_32(bytes + 4 * i) & 0x7f800000u) == 0x7f800000u;
    return !bad;
}

static int finite_16(const void *stored, uint64_t n, uint16_t exponent) {
    const unsigned char *bytes = stored;
    uint16_t bad = 0;
    for (uint64_t i = 0; i < n; ++i)
        bad |= (stored_16(bytes + 2 * i) & exponent) == exponent;
    return !bad;
}

/* A half's exponent and mantissa, shifted into a float's place, are 2^112 times too small; that holds for its
 * subnormal numbers too. */
static void from_f16(const void *stored, uint64_t n, float *out) {
    const unsigned char *bytes = stored;
    for (uint64_t i = 0; i < n; ++i) {
        uint32_t half = stored_16(bytes + 2 * i);
        uint32_t sign = (half & 0x8000u) << 16;
        out[i] = float_of(bits_of(float_of((half & 0x7fffu) << 13) * 0x1p112f) | sign);
    }
}

static void from_bf16(const void *stored, uint64_t n, float *out) {
    const unsigned char *bytes = stored;
    for (uint64_t i = 0; i < n; ++i)
        out[i] = float_of((uint32_t)stored_16(bytes + 2 * i) << 16);
}

const elementwise_kernels ELEMENTWISE_TABLE = {
    .isa = ELEMENTWISE_ISA,
    .finite_f32 = finite_f32,
    .finite_16 = finite_16,
    .from_f16 = from_f16,
    .from_bf16 = from_bf16,
};
