/* pixels.c: small conversions at both ends of the networks. */
#include "plugin/sampler/pixels.h"

void pixels_from_floats(const float *values, uint64_t count, uint8_t *out) {
    for (uint64_t i = 0; i < count; ++i) {
        float unit = (values[i] + 1.0f) / 2.0f;
        float held = unit > 0.0f ? unit : 0.0f; /* NaN compares false */
        out[i] = (uint8_t)(255.0f * (held < 1.0f ? held : 1.0f));
    }
}

void pixels_interleave(const float *planes, int64_t channels, int64_t pixels, float scale, float *out) {
    for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < channels; ++c)
            out[p * channels + c] = planes[c * pixels + p] * scale;
}

void pixels_separate(const float *values, int64_t channels, int64_t pixels, const float *base, float scale,
                     float *out) {
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t p = 0; p < pixels; ++p)
            out[c * pixels + p] = base[c * pixels + p] + scale * values[p * channels + c];
}
