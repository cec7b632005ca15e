/*
 * kernels/reference/norm.c: docs/arithmetic.md in plain C: group norm and layer norm of arithmetic id
 * `attune-f32-1`. Loops to be checked by reading, never optimised: sums are taken again where they are
 * needed.
 */
#include "kernels/norm.h"

#include "kernels/activation.h"
#include "kernels/arithmetic.h"
#include "kernels/reference/stored.h"

#include <math.h>

enum { BLOCK = ATTUNE_NORM_BLOCK, LANES = ATTUNE_NORM_LANES };

/* One channel of one image. */
typedef struct channel {
    const float *x; /* its value of the first pixel */
    int64_t stride, pixels;
    const float *mean; /* of the group; NULL while that is summed */
} channel;

static int64_t blocks_of(const channel *c) {
    return (c->pixels + BLOCK - 1) / BLOCK;
}

/* What a block of pixels gives: its sum, or its squared differences from the group's mean. */
static float block_value(const channel *c, int64_t block) {
    const int64_t left = c->pixels - block * BLOCK, n = left < BLOCK ? left : BLOCK;
    const float *x = c->x + block * BLOCK * c->stride;
    float sum = 0.0f, squares = 0.0f;
    for (int64_t p = 0; p < n; ++p)
        sum = sum + x[p * c->stride];
    if (!c->mean)
        return sum;
    const float mean = sum / (float)n;
    for (int64_t p = 0; p < n; ++p) {
        const float d = x[p * c->stride] - mean;
        squares = fmaf(d, d, squares);
    }
    const float apart = mean - *c->mean;
    return fmaf((float)n * apart, apart, squares);
}

/* Entry `index` of a level: a block, or the chain over BLOCK entries of the level below, `size` blocks each.
 */
static float tree(const channel *c, int64_t index, int64_t size) {
    if (size == 1)
        return block_value(c, index);
    float sum = 0.0f;
    const int64_t below = size / BLOCK;
    for (int64_t i = index * BLOCK; i < (index + 1) * BLOCK && i * below < blocks_of(c); ++i)
        sum = sum + tree(c, i, below);
    return sum;
}

/* All of a group's values, by channel. */
static float group_total(const attune_group_norm_f32 *a, const float *x, const float *mean) {
    float total = 0.0f;
    for (int64_t i = 0; i < a->channels / a->groups; ++i) {
        const channel c = {x + i, a->channels, a->pixels, mean};
        int64_t size = 1;
        while (size < blocks_of(&c))
            size *= BLOCK;
        total = total + tree(&c, 0, size);
    }
    return total;
}

/* Of one group of one image: its mean and 1 / its deviation. */
typedef struct moments {
    float mean, inverse;
} moments;

/* Not inlined, as below: see attune_fp_enter. */
__attribute__((noinline)) static moments group_moments(const attune_group_norm_f32 *a, int64_t image,
                                                       int64_t group) {
    const int64_t channels = a->channels / a->groups;
    const float *x = a->x + image * a->pixels * a->channels + group * channels;
    const float count = (float)(a->pixels * channels);
    const float mean = group_total(a, x, NULL) / count;
    const float variance = group_total(a, x, &mean) / count;
    return (moments){mean, 1.0f / sqrtf(variance + a->eps)};
}

static float factor_of(const attune_group_norm_f32 *a, moments m, int64_t c) {
    return m.inverse * a->scale[c];
}

static float addend_of(const attune_group_norm_f32 *a, moments m, int64_t c) {
    return fmaf(-m.mean, factor_of(a, m, c), a->shift[c]);
}

static float applied(const attune_group_norm_f32 *a, float x, float factor, float addend) {
    const float y = fmaf(x, factor, addend);
    return stored(a->silu ? attune_silu_f32_reference(y) : y);
}

__attribute__((noinline)) static void group_apply(const attune_group_norm_f32 *a, int64_t image,
                                                  int64_t group, moments m) {
    const int64_t channels = a->channels / a->groups;
    for (int64_t p = 0; p < a->pixels; ++p)
        for (int64_t c = group * channels; c < (group + 1) * channels; ++c) {
            const int64_t at = (image * a->pixels + p) * a->channels + c;
            a->out[at] = applied(a, a->x[at], factor_of(a, m, c), addend_of(a, m, c));
        }
}

void attune_group_norm_f32_reference(const attune_group_norm_f32 *args) {
    const uint64_t environment = attune_fp_enter();
    for (int64_t i = 0; i < args->batch * args->groups; ++i) {
        const int64_t image = i / args->groups, group = i % args->groups;
        group_apply(args, image, group, group_moments(args, image, group));
    }
    attune_fp_leave(environment);
}

/* The sum of a row's values, or of their squared differences from the mean: lane j takes channels j, j + 16
 * and so on, then halves are added to halves. */
static float row_total(const float *x, int64_t channels, const float *mean) {
    float lane[LANES] = {0};
    for (int64_t c = 0; c < channels; ++c) {
        const float d = mean ? x[c] - *mean : x[c];
        lane[c % LANES] = mean ? fmaf(d, d, lane[c % LANES]) : lane[c % LANES] + d;
    }
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; ++j)
            lane[j] = lane[j] + lane[j + half];
    return lane[0];
}

__attribute__((noinline)) static void norm_row(const attune_layer_norm_f32 *a, int64_t row) {
    const float *x = a->x + row * a->channels;
    const float mean = row_total(x, a->channels, NULL) / (float)a->channels;
    const float variance = row_total(x, a->channels, &mean) / (float)a->channels;
    const float inverse = 1.0f / sqrtf(variance + a->eps);
    for (int64_t c = 0; c < a->channels; ++c)
        a->out[row * a->channels + c] = stored(fmaf((x[c] - mean) * inverse, a->scale[c], a->shift[c]));
}

void attune_layer_norm_f32_reference(const attune_layer_norm_f32 *args) {
    const uint64_t environment = attune_fp_enter();
    for (int64_t row = 0; row < args->rows; ++row)
        norm_row(args, row);
    attune_fp_leave(environment);
}

uint64_t attune_group_norm_f32_workspace(const attune_group_norm_f32 *args) {
    const uint64_t row = (uint64_t)args->batch * (uint64_t)args->channels;
    const uint64_t blocks = ((uint64_t)args->pixels + BLOCK - 1) / BLOCK;
    return row * (2 + 2 * blocks + (blocks + BLOCK - 1) / BLOCK);
}
