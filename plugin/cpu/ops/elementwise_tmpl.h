/*
 * elementwise_tmpl.h: the loops of elementwise.h, written so that a compiler vectorises them over channels.
 * Included once per instruction set; the includer defines ELEMENTWISE_TABLE and ELEMENTWISE_ISA.
 *
 * exp: x = n·ln 2 + r with n = rint(x / ln 2), e^r by Taylor to r^7 (|r| ≤ 0.347: remainder below 6e-9 of the
 * value), 2^n by the exponent field. erf: Abramowitz and Stegun, Handbook of Mathematical Functions
 * (1964), 7.1.26, absolute error below 1.5e-7.
 */
#include "plugin/cpu/ops/elementwise.h"

#include <math.h>
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

/* e^x; x is held to [−87, 88], where the result is a normal number. NaN stays NaN. */
static inline float exp_f32(float x) {
    float low = x < -87.0f ? -87.0f : x;
    float held = low > 88.0f ? 88.0f : low;
    float magic = held * 1.44269504f + 12582912.0f; /* 1.5 · 2^23: the sum is rounded to an integer */
    float n = magic - 12582912.0f;
    float r = held - n * 0.693145752f; /* ln 2 in two pieces, the first with few bits: n times it is exact */
    r = r - n * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * float_of((bits_of(magic) << 23) + 0x3f800000u);
}

static inline float sigmoid_f32(float x) {
    return 1.0f / (1.0f + exp_f32(-x));
}

static inline float gelu_f32(float x) {
    float a = fabsf(x) * 0.707106781f;
    float t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float tail = 0.5f * p * t * exp_f32(-a * a); /* (1 − erf(|x| / √2)) / 2 */
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

static void sum(const float *x, int64_t rows, int64_t channels, float *sums) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *a = x + r * channels, *b = a + channels, *c = b + channels, *d = c + channels;
        for (int64_t i = 0; i < channels; ++i)
            sums[i] += (a[i] + b[i]) + (c[i] + d[i]);
    }
    for (; r < rows; ++r)
        for (int64_t i = 0; i < channels; ++i)
            sums[i] += x[r * channels + i];
}

static void sum_squares(const float *x, int64_t rows, int64_t channels, const float *mean, float *sums) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *row = x + r * channels;
        for (int64_t i = 0; i < channels; ++i) {
            float a = row[i] - mean[i], b = row[channels + i] - mean[i];
            float c = row[2 * channels + i] - mean[i], d = row[3 * channels + i] - mean[i];
            sums[i] += (a * a + b * b) + (c * c + d * d);
        }
    }
    for (; r < rows; ++r)
        for (int64_t i = 0; i < channels; ++i) {
            float d = x[r * channels + i] - mean[i];
            sums[i] += d * d;
        }
}

static void scale_shift(const float *x, int64_t rows, int64_t channels, const float *scale,
                        const float *shift, int silu_too, float *out) {
    for (int64_t r = 0; r < rows; ++r, x += channels, out += channels) {
        if (silu_too)
            for (int64_t i = 0; i < channels; ++i) {
                float y = x[i] * scale[i] + shift[i];
                out[i] = y * sigmoid_f32(y);
            }
        else
            for (int64_t i = 0; i < channels; ++i)
                out[i] = x[i] * scale[i] + shift[i];
    }
}

enum { LANES = 16 };

static inline float lanes_total(const float lanes[LANES]) {
    float total = 0.0f;
    for (int i = 0; i < LANES; ++i)
        total += lanes[i];
    return total;
}

static float row_mean(const float *x, int64_t channels) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= channels; i += LANES)
        for (int j = 0; j < LANES; ++j)
            lanes[j] += x[i + j];
    for (int j = 0; i < channels; ++i, ++j)
        lanes[j] += x[i];
    return lanes_total(lanes) / (float)channels;
}

static float row_variance(const float *x, int64_t channels, float mean) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= channels; i += LANES)
        for (int j = 0; j < LANES; ++j) {
            float d = x[i + j] - mean;
            lanes[j] += d * d;
        }
    for (int j = 0; i < channels; ++i, ++j) {
        float d = x[i] - mean;
        lanes[j] += d * d;
    }
    return lanes_total(lanes) / (float)channels;
}

static void layer_norm(const float *x, int64_t rows, int64_t channels, float eps, const float *scale,
                       const float *shift, float *out) {
    for (int64_t r = 0; r < rows; ++r, x += channels, out += channels) {
        float mean = row_mean(x, channels);
        float inverse = 1.0f / sqrtf(row_variance(x, channels, mean) + eps);
        for (int64_t i = 0; i < channels; ++i)
            out[i] = (x[i] - mean) * inverse * scale[i] + shift[i];
    }
}

static void silu(const float *x, int64_t n, float *out) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = x[i] * sigmoid_f32(x[i]);
}

static void gelu(const float *x, int64_t n, float *out) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = gelu_f32(x[i]);
}

static void quick_gelu(const float *x, int64_t n, float *out) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = x[i] * sigmoid_f32(1.702f * x[i]);
}

static void geglu(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t rows,
                  int64_t channels, float *out, int64_t out_stride) {
    for (int64_t r = 0; r < rows; ++r, a += a_stride, b += b_stride, out += out_stride)
        for (int64_t i = 0; i < channels; ++i)
            out[i] = a[i] * gelu_f32(b[i]);
}

static void add(const float *a, const float *b, int64_t n, float *out) {
    for (int64_t i = 0; i < n; ++i)
        out[i] = a[i] + b[i];
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
    .sum = sum,
    .sum_squares = sum_squares,
    .scale_shift = scale_shift,
    .layer_norm = layer_norm,
    .silu = silu,
    .gelu = gelu,
    .quick_gelu = quick_gelu,
    .geglu = geglu,
    .add = add,
    .finite_f32 = finite_f32,
    .finite_16 = finite_16,
    .from_f16 = from_f16,
    .from_bf16 = from_bf16,
};
