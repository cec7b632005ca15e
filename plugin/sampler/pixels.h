/*
 * pixels.h: the decoder's floats → 8-bit pixels, and latents between the samplers' order and the networks'.
 */
#ifndef ATTUNE_SAMPLER_PIXELS_H
#define ATTUNE_SAMPLER_PIXELS_H

#include <stdint.h>

/* value/2 + 1/2, held to 0 … 1, times 255, cut off (as the web UI does: not rounded). NaN gives 0. */
void pixels_from_floats(const float *values, uint64_t count, uint8_t *out);

/* (channels, pixels), as torch draws noise, to (pixels, channels), as the networks take images, times
 * `scale`. */
void pixels_interleave(const float *planes, int64_t channels, int64_t pixels, float scale, float *out);

/* out (channels, pixels) = base + scale · values, values (pixels, channels). */
void pixels_separate(const float *values, int64_t channels, int64_t pixels, const float *base, float scale,
                     float *out);

#endif
