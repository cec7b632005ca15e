/*
 * check_ops.c: the device's operations one by one against plain loops in double.
 *
 * Products: inputs are small multiples of 1/64, so that stored halves are exact; sums of up to n terms of
 * size about 1 in float are off by at most about n · 2^-24 of their magnitude, which the bound 1e-6 · n ·
 * largest term covers.
 */
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"

#include "plugin/cpu/ops/elementwise.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

/* A deterministic value in −1 … 1, a multiple of 1/64. */
static float value_at(uint64_t seed, uint64_t i) {
    uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15u + i * 0xbf58476d1ce4e5b9u;
    x ^= x >> 31;
    x *= 0x94d049bb133111ebu;
    x ^= x >> 29;
    return (float)((int64_t)(x % 129) - 64) / 64.0f;
}

static float *values(uint64_t seed, int64_t n) {
    float *out = malloc((size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; ++i)
        out[i] = value_at(seed, (uint64_t)i);
    return out;
}

/* The same values as stored: 32 bits, or the upper 16 of a bfloat, or a half. Multiples of 1/64 up to 1 fit
 * all. */
static void *stored_values(const float *from, int64_t n, attune_dtype dtype) {
    uint16_t *halves = malloc((size_t)n * sizeof *halves);
    if (attune_dtype_equal(dtype, ATTUNE_F32)) {
        free(halves);
        float *copy = malloc((size_t)n * sizeof *copy);
        return memcpy(copy, from, (size_t)n * sizeof *copy);
    }
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits;
        memcpy(&bits, &from[i], sizeof bits);
        uint32_t exponent = bits >> 23 & 0xff, half = (bits >> 13 & 0x3ff) | (exponent - 112) << 10;
        halves[i] = dtype.code == ATTUNE_TYPE_BFLOAT ? (uint16_t)(bits >> 16)
                    : exponent                       ? (uint16_t)((bits >> 16 & 0x8000) | half)
                                                     : 0;
    }
    return halves;
}

typedef struct bench {
    rig r;
    const device_ops *ops;
    device *dev;
    device_pass pass;
    void *scratch;
    uint64_t bytes; /* of it */
} bench;

static void bench_open(bench *b, uint32_t workers) {
    attune_error error = {0};
    rig_open(&b->r, workers);
    b->ops = device_ops_get();
    ck_assert_int_eq(b->ops->create(&b->r.services, &b->dev, &error), ATTUNE_OK);
    memset(&b->pass, 0, sizeof b->pass);
}

static void bench_close(bench *b) {
    b->ops->destroy(b->dev);
    rig_close(&b->r);
}

static void plan(bench *b) {
    b->pass.stream = &b->r.stream;
    b->pass.planning = 1;
    b->ops->plan(b->dev, &b->pass);
}

enum { GUARD = 4096 }; /* bytes behind the scratch memory that nobody may touch */

/* Pack, and room for scratch memory: exactly what was planned. */
static void ready(bench *b, device_weights *weights) {
    attune_error error = {0};
    attune_code code = weights ? b->ops->pack(b->dev, &b->r.stream, &weights, 1, &error) : ATTUNE_OK;
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    b->bytes =
        (b->pass.shared_bytes + 63) / 64 * 64 + b->r.stream.workers * ((b->pass.worker_bytes + 63) / 64 * 64);
    ck_assert_int_eq(b->ops->alloc(b->dev, b->bytes + GUARD, "scratch", &b->scratch, &error), ATTUNE_OK);
    memset((char *)b->scratch + b->bytes, 0x5a, GUARD);
    b->pass.scratch = b->scratch;
    b->pass.planning = 0;
}

static void done(bench *b, device_weights *weights) {
    for (int i = 0; i < GUARD; ++i)
        ck_assert_int_eq(((char *)b->scratch)[b->bytes + (uint64_t)i], 0x5a);
    b->ops->free(b->dev, b->scratch);
    if (weights)
        b->ops->weights_free(b->dev, weights);
}

static double activation_of(device_activation activation, double x) {
    if (activation == DEVICE_SILU)
        return x / (1.0 + exp(-x));
    if (activation == DEVICE_GELU || activation == DEVICE_GEGLU)
        return 0.5 * x * (1.0 + erf(x / sqrt(2.0)));
    return activation == DEVICE_QUICK_GELU ? x / (1.0 + exp(-1.702 * x)) : x;
}

/* ---- linear ---- */

typedef struct linear_case {
    int64_t rows, in, out; /* out of each part */
    int32_t parts;
    attune_dtype dtype;
    device_activation activation;
    int32_t bias, residual; /* residual 2: in place */
} linear_case;

static double product_at(const linear_case *c, const float *x, float *const *weights, float *const *bias,
                         int64_t row, int64_t column) {
    int64_t part = column / c->out, k = column % c->out;
    double sum = c->bias ? bias[part][k] : 0.0;
    for (int64_t i = 0; i < c->in; ++i)
        sum += (double)x[row * c->in + i] * (double)weights[part][k * c->in + i];
    return sum;
}

static void check_linear(const linear_case *c, uint32_t workers) {
    bench b;
    attune_error error = {0};
    int64_t all = c->out * c->parts, outputs = c->activation == DEVICE_GEGLU ? all / 2 : all;
    float *weights[3] = {0}, *bias[3] = {0};
    device_layer layer = {.name = {"test"}, .kernel = 1, .stride = 1, .in = c->in, .parts = c->parts};
    layer.geglu = c->activation == DEVICE_GEGLU;
    void *kept[6] = {0};
    bench_open(&b, workers);
    for (int32_t i = 0; i < c->parts; ++i) {
        weights[i] = values(10 + (uint64_t)i, c->out * c->in);
        bias[i] = values(20 + (uint64_t)i, c->out);
        layer.out[i] = c->out;
        layer.weight[i] =
            (device_stored){kept[i] = stored_values(weights[i], c->out * c->in, c->dtype), c->dtype};
        if (c->bias)
            layer.bias[i] = (device_stored){kept[3 + i] = stored_values(bias[i], c->out, c->dtype), c->dtype};
    }
    float *x = values(1, c->rows * c->in), *residual = values(2, c->rows * outputs),
          *kept_residual = values(2, c->rows * outputs);
    float *out = c->residual == 2 ? residual : values(3, c->rows * outputs);
    device_weights *w;
    device_linear args = {x, c->rows, out, c->residual ? residual : NULL, c->activation};
    ck_assert_int_eq(b.ops->weights(b.dev, &layer, &w, &error), ATTUNE_OK);
    plan(&b);
    ck_assert_int_eq(b.ops->linear(b.dev, &b.pass, w, &args, &error), ATTUNE_OK);
    ready(&b, w);
    ck_assert_int_eq(b.ops->linear(b.dev, &b.pass, w, &args, &error), ATTUNE_OK);
    double bound = 1e-6 * (double)c->in + 2e-6;
    for (int64_t r = 0; r<c->rows; r += c->rows> 40 ? 7 : 1)
        for (int64_t k = 0; k < outputs; ++k) {
            double wanted = product_at(c, x, weights, bias, r, k);
            wanted += c->residual ? kept_residual[r * outputs + k] : 0.0;
            if (c->activation == DEVICE_GEGLU)
                wanted *= activation_of(DEVICE_GELU, product_at(c, x, weights, bias, r, outputs + k));
            else
                wanted = activation_of(c->activation, wanted);
            double distance = fabs(wanted - out[r * outputs + k]);
            ck_assert_msg(distance <= bound * fmax(1.0, fabs(wanted)),
                          "%lldx%lldx%lld at %lld,%lld: %g, not %g", (long long)c->rows, (long long)c->in,
                          (long long)all, (long long)r, (long long)k, (double)out[r * outputs + k], wanted);
        }
    done(&b, w);
    for (int i = 0; i < 3; ++i) {
        free(weights[i]);
        free(bias[i]);
        free(kept[i]);
        free(kept[3 + i]);
    }
    free(x);
    free(kept_residual);
    if (out != residual)
        free(residual);
    free(out);
    bench_close(&b);
}

START_TEST(linear_is_a_product) {
    static const linear_case cases[] = {
        {1, 1, 1, 1, {ATTUNE_TYPE_FLOAT, 32, 1}, DEVICE_IDENTITY, 1, 0},
        {2, 48, 192, 1, {ATTUNE_TYPE_FLOAT, 16, 1}, DEVICE_SILU, 1, 0},
        {77, 24, 24, 3, {ATTUNE_TYPE_BFLOAT, 16, 1}, DEVICE_IDENTITY, 1, 0},
        {63, 20, 20, 3, {ATTUNE_TYPE_FLOAT, 16, 1}, DEVICE_IDENTITY, 0, 0},
        {154, 64, 256, 1, {ATTUNE_TYPE_FLOAT, 16, 1}, DEVICE_QUICK_GELU, 1, 0},
        {154, 60, 24, 1, {ATTUNE_TYPE_FLOAT, 32, 1}, DEVICE_IDENTITY, 1, 2},
        {512, 48, 384, 1, {ATTUNE_TYPE_FLOAT, 16, 1}, DEVICE_GEGLU, 1, 0},
        {300, 36, 288, 1, {ATTUNE_TYPE_FLOAT, 32, 1}, DEVICE_GEGLU, 1, 0},
        {65, 512, 1024, 1, {ATTUNE_TYPE_FLOAT, 16, 1}, DEVICE_GEGLU, 1, 0},
        {64, 512, 1000, 1, {ATTUNE_TYPE_FLOAT, 16, 1}, DEVICE_GELU, 1, 0},
        {33, 700, 512, 2, {ATTUNE_TYPE_BFLOAT, 16, 1}, DEVICE_IDENTITY, 0, 2}, /* chunks over two parts, in
                                                                                  place */
        {1000, 320, 96, 1, {ATTUNE_TYPE_FLOAT, 32, 1}, DEVICE_IDENTITY, 1, 1}, /* rows, residual elsewhere */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i)
        for (uint32_t workers = 1; workers <= 3; workers += 2)
            check_linear(&cases[i], workers);
}
END_TEST

/* ---- convolution ---- */

typedef struct convolution_case {
    int64_t batch, height, width, in, out, stride;
    int32_t residual, shift;
} convolution_case;

static double tap_sum(const convolution_case *c, const float *x, const float *weights, int64_t image,
                      int64_t y, int64_t xx, int64_t k) {
    double sum = 0.0;
    for (int64_t ky = 0; ky < 3; ++ky)
        for (int64_t kx = 0; kx < 3; ++kx) {
            int64_t sy = y * c->stride + ky - 1, sx = xx * c->stride + kx - 1;
            if (sy < 0 || sx < 0 || sy >= c->height || sx >= c->width)
                continue;
            for (int64_t i = 0; i < c->in; ++i)
                sum += (double)x[((image * c->height + sy) * c->width + sx) * c->in + i] *
                       (double)weights[((k * c->in + i) * 3 + ky) * 3 + kx];
        }
    return sum;
}

static void check_convolution(const convolution_case *c, uint32_t workers) {
    bench b;
    attune_error error = {0};
    int64_t oh = (c->height + c->stride - 1) / c->stride, ow = (c->width + c->stride - 1) / c->stride;
    int64_t count = c->batch * oh * ow * c->out;
    float *weights = values(1, 9 * c->in * c->out), *bias = values(2, c->out);
    float *x = values(3, c->batch * c->height * c->width * c->in), *shift = values(4, c->batch * c->out);
    float *residual = values(5, count), *kept = values(5, count),
          *out = c->residual == 2 ? residual : values(6, count);
    device_layer layer = {
        .name = {"test"}, .kernel = 3, .stride = (int32_t)c->stride, .in = c->in, .parts = 1};
    layer.out[0] = c->out;
    layer.weight[0] = (device_stored){weights, ATTUNE_F32};
    layer.bias[0] = (device_stored){bias, ATTUNE_F32};
    device_weights *w;
    device_convolution args = {.x = x,
                               .batch = c->batch,
                               .height = c->height,
                               .width = c->width,
                               .out = out,
                               .residual = c->residual ? residual : NULL,
                               .shift = c->shift ? shift : NULL};
    bench_open(&b, workers);
    ck_assert_int_eq(b.ops->weights(b.dev, &layer, &w, &error), ATTUNE_OK);
    plan(&b);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, w, &args, &error), ATTUNE_OK);
    ready(&b, w);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, w, &args, &error), ATTUNE_OK);
    double bound = 1e-6 * 9.0 * (double)c->in + 2e-6;
    for (int64_t i = 0, step = count > 20000 ? 17 : 1; i < count; i += step) {
        int64_t k = i % c->out, xx = i / c->out % ow, y = i / c->out / ow % oh, image = i / c->out / ow / oh;
        double wanted = tap_sum(c, x, weights, image, y, xx, k) + (double)bias[k];
        wanted += c->shift ? (double)shift[image * c->out + k] : 0.0;
        wanted += c->residual ? (double)kept[i] : 0.0;
        ck_assert_msg(fabs(wanted - out[i]) <= bound, "%lldx%lld %lld->%lld at %lld,%lld,%lld: %g, not %g",
                      (long long)c->height, (long long)c->width, (long long)c->in, (long long)c->out,
                      (long long)y, (long long)xx, (long long)k, (double)out[i], wanted);
    }
    done(&b, w);
    free(weights);
    free(bias);
    free(x);
    free(shift);
    free(kept);
    if (out != residual)
        free(residual);
    free(out);
    bench_close(&b);
}

START_TEST(convolution_is_a_sum_over_taps) {
    static const convolution_case cases[] = {
        {1, 1, 1, 4, 8, 1, 0, 0},       {2, 1, 1, 8, 8, 2, 0, 0},     {1, 2, 3, 4, 20, 1, 0, 1},
        {2, 16, 16, 48, 48, 1, 1, 1},   {1, 13, 17, 48, 96, 2, 0, 0}, {1, 9, 7, 20, 36, 1, 2, 0},
        {2, 16, 16, 48, 4, 1, 0, 0},    {1, 33, 130, 16, 3, 1, 0, 0}, {2, 17, 64, 32, 32, 1, 2, 1},
        {1, 16, 16, 32, 64, 2, 0, 0},   {2, 8, 8, 256, 256, 1, 1, 1}, /* chunks of channels, whole image */
        {1, 7, 9, 200, 216, 1, 2, 0},                                 /* the last chunk short, in place */
        {1, 15, 16, 192, 160, 2, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i)
        for (uint32_t workers = 1; workers <= 3; workers += 2)
            check_convolution(&cases[i], workers);
}
END_TEST

/* ---- norms ---- */

static void check_group_norm(int64_t batch, int64_t pixels, int64_t channels, int64_t groups, float offset,
                             int silu) {
    bench b;
    attune_error error = {0};
    int64_t count = batch * pixels * channels, per_group = channels / groups;
    float *x = values(7, count), *scale = values(8, channels), *shift = values(9, channels),
          *out = values(10, count);
    for (int64_t i = 0; i < count; ++i)
        x[i] += offset;
    device_group_norm args = {
        x,   batch, pixels, channels, groups, 1e-5f, scale, shift, silu ? DEVICE_SILU : DEVICE_IDENTITY,
        out, "test"};
    bench_open(&b, 2);
    plan(&b);
    ck_assert_int_eq(b.ops->group_norm(b.dev, &b.pass, &args, &error), ATTUNE_OK);
    ready(&b, NULL);
    ck_assert_int_eq(b.ops->group_norm(b.dev, &b.pass, &args, &error), ATTUNE_OK);
    for (int64_t n = 0; n < batch; ++n)
        for (int64_t g = 0; g < groups; ++g) {
            const float *from = x + n * pixels * channels + g * per_group;
            double sum = 0.0, squares = 0.0, size = (double)(pixels * per_group);
            for (int64_t p = 0; p < pixels * per_group; ++p)
                sum += (double)from[p / per_group * channels + p % per_group];
            for (int64_t p = 0; p < pixels * per_group; ++p)
                squares += pow((double)from[p / per_group * channels + p % per_group] - sum / size, 2.0);
            for (int64_t p = 0; p < pixels * per_group; ++p) {
                int64_t at = p / per_group * channels + p % per_group, c = g * per_group + p % per_group;
                double wanted =
                    ((double)from[at] - sum / size) / sqrt(squares / size + 1e-5) * (double)scale[c] +
                    (double)shift[c];
                wanted = activation_of(silu ? DEVICE_SILU : DEVICE_IDENTITY, wanted);
                double got = out[n * pixels * channels + g * per_group + at];
                /* The mean is rounded to float once, and so is x · scale: with a large offset each is off by
                 * 2^-24 of it, which the division by the deviation (about 0.6) and the scale (≤ 1) keep so.
                 */
                double bound = 2e-6 + 4e-7 * fabs((double)offset);
                ck_assert_msg(fabs(wanted - got) <= bound, "%lldx%lld: %g, not %g", (long long)pixels,
                              (long long)channels, got, wanted);
            }
        }
    done(&b, NULL);
    free(x);
    free(scale);
    free(shift);
    free(out);
    bench_close(&b);
}

START_TEST(group_norm_has_mean_and_variance) {
    check_group_norm(1, 1, 4, 2, 0.0f, 0);
    check_group_norm(2, 63, 20, 4, 0.0f, 1);
    check_group_norm(2, 256, 48, 16, 3.0f, 1);
    check_group_norm(1, 1024, 96, 32, -1.0f, 0); /* large: cut into blocks */
    check_group_norm(2, 5000, 16, 8, 100.0f, 1);
}
END_TEST

START_TEST(layer_norm_has_mean_and_variance) {
    static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {154, 24}, {77, 64}, {100, 320}, {40, 1283}};
    bench b;
    attune_error error = {0};
    bench_open(&b, 2);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; ++s) {
        int64_t rows = shapes[s][0], n = shapes[s][1];
        float *x = values(1, rows * n), *scale = values(2, n), *shift = values(3, n),
              *out = values(4, rows * n);
        device_layer_norm args = {x, rows, n, 1e-5f, scale, shift, out, "test"};
        plan(&b);
        ck_assert_int_eq(b.ops->layer_norm(b.dev, &b.pass, &args, &error), ATTUNE_OK);
        ready(&b, NULL);
        ck_assert_int_eq(b.ops->layer_norm(b.dev, &b.pass, &args, &error), ATTUNE_OK);
        for (int64_t r = 0; r < rows; ++r) {
            double mean = 0.0, square = 0.0;
            for (int64_t i = 0; i < n; ++i)
                mean += (double)x[r * n + i] / (double)n;
            for (int64_t i = 0; i < n; ++i)
                square += pow((double)x[r * n + i] - mean, 2.0) / (double)n;
            for (int64_t i = 0; i < n; ++i) {
                double wanted =
                    ((double)x[r * n + i] - mean) / sqrt(square + 1e-5) * (double)scale[i] + (double)shift[i];
                ck_assert_msg(fabs(wanted - out[r * n + i]) <= 3e-6, "%lld: %g, not %g", (long long)n,
                              (double)out[r * n + i], wanted);
            }
        }
        done(&b, NULL);
        free(x);
        free(scale);
        free(shift);
        free(out);
    }
    bench_close(&b);
}
END_TEST

/* ---- moving values ---- */

static void check_upsample(int64_t batch, int64_t h, int64_t w, int64_t c, int64_t oh, int64_t ow) {
    bench b;
    attune_error error = {0};
    float *x = values(1, batch * h * w * c), *out = values(2, batch * oh * ow * c);
    float *weights = calloc((size_t)(9 * c * c), sizeof *weights); /* of a convolution that changes nothing */
    for (int64_t i = 0; i < c; ++i)
        weights[(i * c + i) * 9 + 4] = 1.0f;
    device_layer layer = {.name = {"test"}, .kernel = 3, .stride = 1, .in = c, .parts = 1};
    layer.out[0] = c;
    layer.weight[0] = (device_stored){weights, ATTUNE_F32};
    device_weights *made;
    device_convolution args = {
        .x = x, .batch = batch, .height = h, .width = w, .out = out, .up_height = oh, .up_width = ow};
    bench_open(&b, 2);
    ck_assert_int_eq(b.ops->weights(b.dev, &layer, &made, &error), ATTUNE_OK);
    plan(&b);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made, &args, &error), ATTUNE_OK);
    ready(&b, made);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made, &args, &error), ATTUNE_OK);
    for (int64_t i = 0; i < batch * oh * ow * c; ++i) {
        int64_t y = i / c / ow % oh, xx = i / c % ow;
        /* exact: floor(target · in / out); torch's float product agrees for all sizes here */
        float wanted = x[((i / c / ow / oh * h + y * h / oh) * w + xx * w / ow) * c + i % c];
        if (out[i] != wanted) /* an assertion writes to a file: not in a loop of millions */
            ck_abort_msg("element %ld is %a, not %a", (long)i, (double)out[i], (double)wanted);
    }
    done(&b, made);
    free(weights);
    free(x);
    free(out);
    bench_close(&b);
}

START_TEST(upsample_takes_the_nearest) {
    check_upsample(2, 4, 5, 3, 8, 10);
    check_upsample(1, 4, 5, 7, 7, 9);
    check_upsample(1, 7, 9, 4, 13, 17);
    check_upsample(1, 1, 1, 16, 1, 2);
    check_upsample(1, 64, 64, 20, 128, 128);
    check_upsample(2, 120, 200, 44, 240, 400); /* in strips */
}
END_TEST

/* A convolution that normalises its input gives the bits of the norm and the convolution one after the other;
 * large inputs go in strips. */
static void check_normed(int64_t batch, int64_t h, int64_t w, int64_t in, int64_t out, int32_t stride) {
    bench b;
    attune_error error = {0};
    int64_t oh = (h + stride - 1) / stride, ow = (w + stride - 1) / stride, pixels = batch * h * w;
    float *x = values(1, pixels * in), *normed = values(2, pixels * in), *scale = values(3, in),
          *add = values(4, in), *weights = values(5, 9 * in * out), *shift = values(6, batch * out);
    float *apart = values(7, batch * oh * ow * out), *fused = values(8, batch * oh * ow * out);
    device_layer layer = {.name = {"test"}, .kernel = 3, .stride = stride, .in = in, .parts = 1};
    layer.out[0] = out;
    layer.weight[0] = (device_stored){weights, ATTUNE_F32};
    device_weights *made;
    int32_t finite = 1;
    device_group_norm norm = {.x = x,
                              .batch = batch,
                              .pixels = h * w,
                              .channels = in,
                              .groups = 4,
                              .eps = 1e-5f,
                              .scale = scale,
                              .shift = add,
                              .activation = DEVICE_SILU,
                              .out = normed,
                              .name = "norm"};
    device_convolution then = {.x = normed, .batch = batch, .height = h, .width = w, .out = apart};
    then.shift = shift;
    device_convolution both = then;
    both.x = x, both.out = fused, both.norm = &norm, both.finite = &finite;
    bench_open(&b, 2);
    ck_assert_int_eq(b.ops->weights(b.dev, &layer, &made, &error), ATTUNE_OK);
    plan(&b);
    ck_assert_int_eq(b.ops->group_norm(b.dev, &b.pass, &norm, &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made, &then, &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made, &both, &error), ATTUNE_OK);
    ready(&b, made);
    ck_assert_int_eq(b.ops->group_norm(b.dev, &b.pass, &norm, &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made, &then, &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made, &both, &error), ATTUNE_OK);
    ck_assert_mem_eq(fused, apart, (size_t)(batch * oh * ow * out) * sizeof *fused);
    ck_assert_int_eq(finite, 1);
    x[pixels * in - 1] = NAN;
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made, &both, &error), ATTUNE_OK);
    ck_assert_int_eq(finite, 0);
    done(&b, made);
    float *all[] = {x, normed, scale, add, weights, shift, apart, fused};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i)
        free(all[i]);
    bench_close(&b);
}

START_TEST(a_convolution_normalises_its_input) {
    check_normed(2, 9, 7, 20, 12, 1);
    check_normed(2, 300, 301, 48, 5, 1);
    check_normed(2, 300, 301, 48, 5, 2);
    check_normed(1, 5, 40000, 44, 3, 1);
}
END_TEST

/* A residual through a shortcut, the result in the residual's place: the bits of one after the other. Packed,
 * or both layers packed for the call into exactly the room that was planned. */
static void check_shortcut(int64_t batch, int64_t h, int64_t w, int64_t in, int64_t out, int32_t packed) {
    bench b;
    attune_error error = {0};
    int64_t pixels = batch * h * w;
    float *x = values(1, pixels * in), *hidden = values(2, pixels * out), *scale = values(3, out),
          *add = values(4, out), *weights = values(5, 9 * out * out), *narrow = values(6, in * out);
    float *apart = values(7, pixels * out), *added = values(8, pixels * out);
    device_layer layer = {.name = {"test"}, .kernel = 3, .stride = 1, .in = out, .parts = 1, .out = {out}};
    device_layer shortcut = {
        .name = {"shortcut"}, .kernel = 1, .stride = 1, .in = in, .parts = 1, .out = {out}};
    layer.weight[0] = (device_stored){weights, ATTUNE_F32};
    shortcut.weight[0] = (device_stored){narrow, ATTUNE_F32};
    device_weights *made[2];
    int32_t finite = 1, shortcut_finite = 1;
    device_group_norm norm = {hidden, batch, h * w, out, 4, 1e-5f, scale, add, DEVICE_SILU, NULL, "norm"};
    device_linear first = {.x = x, .rows = pixels, .out = added};
    device_convolution then = {.x = hidden, .batch = batch, .height = h, .width = w, .norm = &norm};
    device_convolution both = then;
    then.out = apart, then.residual = added;
    both.out = x, both.residual = x, both.finite = &finite, both.shortcut_finite = &shortcut_finite;
    bench_open(&b, 2);
    ck_assert_int_eq(b.ops->weights(b.dev, &layer, &made[0], &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->weights(b.dev, &shortcut, &made[1], &error), ATTUNE_OK);
    both.shortcut = made[1];
    plan(&b);
    ck_assert_int_eq(b.ops->linear(b.dev, &b.pass, made[1], &first, &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made[0], &both, &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->wanted(made[1], b.pass.serial), 1);
    ready(&b, NULL);
    float *room = values(9, (int64_t)(b.pass.room_bytes / sizeof *room));
    b.pass.room = room;
    if (packed)
        ck_assert_int_eq(b.ops->pack(b.dev, &b.r.stream, made, 2, &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->linear(b.dev, &b.pass, made[1], &first, &error), ATTUNE_OK);
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made[0], &then, &error), ATTUNE_OK);
    x[pixels * in - 1] = packed ? NAN : x[pixels * in - 1];
    ck_assert_int_eq(b.ops->convolution(b.dev, &b.pass, made[0], &both, &error), ATTUNE_OK);
    const int64_t sound = packed ? pixels - 1 : pixels; /* the last pixel's shortcut is no number */
    ck_assert_mem_eq(x, apart, (size_t)(sound * out) * sizeof *x);
    ck_assert_int_eq(finite, 1);
    ck_assert_int_eq(shortcut_finite, !packed);
    b.ops->weights_free(b.dev, made[1]);
    done(&b, made[0]);
    float *all[] = {x, hidden, scale, add, weights, narrow, apart, added, room};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i)
        free(all[i]);
    bench_close(&b);
}

START_TEST(a_result_takes_the_place_of_its_shortcut) {
    for (int32_t packed = 0; packed < 2; ++packed) {
        check_shortcut(2, 9, 7, 20, 12, packed);
        check_shortcut(2, 300, 301, 60, 48, packed);
        check_shortcut(1, 301, 302, 97, 96, packed);
    }
}
END_TEST

START_TEST(concat_and_embed) {
    enum { ROWS = 1000, A = 20, B = 36, WORDS = 50, TOKENS = 77 };
    bench b;
    attune_error error = {0};
    float *a = values(1, ROWS * A), *c = values(2, ROWS * B), *out = values(3, ROWS * (A + B));
    device_concat args = {a, c, ROWS, A, B, out};
    bench_open(&b, 3);
    plan(&b);
    ready(&b, NULL);
    ck_assert_int_eq(b.ops->concat(b.dev, &b.pass, &args, &error), ATTUNE_OK);
    for (int64_t r = 0; r < ROWS; ++r) {
        ck_assert_mem_eq(out + r * (A + B), a + r * A, A * sizeof *a);
        ck_assert_mem_eq(out + r * (A + B) + A, c + r * B, B * sizeof *c);
    }
    int32_t ids[2 * TOKENS];
    for (int i = 0; i < 2 * TOKENS; ++i)
        ids[i] = i * 7 % WORDS;
    float *table = values(4, WORDS * A), *positions = values(5, TOKENS * A);
    static const attune_dtype dtypes[] = {
        {ATTUNE_TYPE_FLOAT, 32, 1}, {ATTUNE_TYPE_FLOAT, 16, 1}, {ATTUNE_TYPE_BFLOAT, 16, 1}};
    for (int d = 0; d < 3; ++d) {
        void *stored = stored_values(table, WORDS * A, dtypes[d]);
        device_embed embed = {ids, 2 * TOKENS, TOKENS, A, {stored, dtypes[d]}, positions, out};
        ck_assert_int_eq(b.ops->embed(b.dev, &b.pass, &embed, &error), ATTUNE_OK);
        for (int64_t i = 0; i < 2 * TOKENS * A; ++i)
            ck_assert_float_eq(out[i], table[ids[i / A] * A + i % A] + positions[i / A % TOKENS * A + i % A]);
        free(stored);
    }
    done(&b, NULL);
    free(a);
    free(c);
    free(out);
    free(table);
    free(positions);
    bench_close(&b);
}
END_TEST

/* ---- elementwise kernels, each instruction set that this machine has ---- */

static int tables(elementwise_kernels out[3]) {
    const attune_cpu_isa most = attune_cpu_detect();
    for (int isa = 0; isa <= (int)most; ++isa) {
        attune_cpu_kernels kernels;
        attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
        elementwise_choose((attune_cpu_isa)isa, kernels.activation_f32, &out[isa]);
    }
    return (int)most + 1;
}

/* 1.5e-7 of max(1, |y|) is what tests/kernels/check_norms.c holds the reference to, whose bits these
 * are. */
START_TEST(activations_are_accurate) {
    enum { N = 40001 };
    elementwise_kernels table[3];
    float *x = malloc(N * sizeof *x), *out = malloc(N * sizeof *out);
    for (int i = 0; i < N; ++i)
        x[i] = (float)(i - N / 2) * 0.005f;
    for (int t = tables(table); t-- > 0;) {
        void (*functions[])(const float *, int64_t, float *) = {table[t].silu, table[t].gelu,
                                                                table[t].quick_gelu};
        static const device_activation names[] = {DEVICE_SILU, DEVICE_GELU, DEVICE_QUICK_GELU};
        for (int f = 0; f < 3; ++f) {
            functions[f](x, N, out);
            for (int i = 0; i < N; ++i) {
                double wanted = activation_of(names[f], (double)x[i]);
                double bound = 1.5e-7 * fmax(1.0, fabs(wanted));
                ck_assert_msg(fabs(wanted - out[i]) <= bound, "%s %d(%g): %g, not %g", table[t].isa, f,
                              (double)x[i], (double)out[i], wanted);
            }
        }
        float odd[3] = {NAN, INFINITY, -INFINITY}, got[3];
        table[t].silu(odd, 3, got);
        ck_assert(isnan(got[0]) && isinf(got[1]));
    }
    free(x);
    free(out);
}
END_TEST

/* All 65,536 halves and bfloats, from an address that is not aligned. */
START_TEST(stored_values_widen_exactly) {
    enum { N = 65536 };
    elementwise_kernels table[3];
    unsigned char *bytes = malloc(2 * N + 1);
    float *out = malloc(N * sizeof *out);
    for (uint32_t i = 0; i < N; ++i) {
        uint16_t half = (uint16_t)i;
        memcpy(bytes + 1 + 2 * i, &half, sizeof half);
    }
    for (int t = tables(table); t-- > 0;) {
        table[t].from_f16(bytes + 1, N, out);
        for (uint32_t i = 0; i < N; ++i) {
            int exponent = (int)(i >> 10 & 31), mantissa = (int)(i & 1023);
            double wanted = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
            if (exponent < 31)
                ck_assert_double_eq((double)out[i], i & 0x8000 ? -wanted : wanted);
            ck_assert_int_eq(table[t].finite_16(bytes + 1 + 2 * i, 1, 0x7c00), exponent < 31);
            ck_assert_int_eq(table[t].finite_16(bytes + 1 + 2 * i, 1, 0x7f80), (i >> 7 & 255) < 255);
        }
        table[t].from_bf16(bytes + 1, N, out);
        for (uint32_t i = 0; i < N; ++i) {
            uint32_t bits;
            memcpy(&bits, &out[i], sizeof bits);
            ck_assert_uint_eq(bits, i << 16);
        }
        float numbers[70] = {0};
        ck_assert_int_eq(table[t].finite_f32(numbers, 70), 1);
        for (int i = 0; i < 70; ++i) {
            numbers[i] = i % 2 ? INFINITY : NAN;
            ck_assert_int_eq(table[t].finite_f32(numbers, 70), 0);
            numbers[i] = 1.0f;
        }
    }
    free(bytes);
    free(out);
}
END_TEST

TCase *ops_cases(void) {
    TCase *cases = tcase_create("ops");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, linear_is_a_product);
    tcase_add_test(cases, convolution_is_a_sum_over_taps);
    tcase_add_test(cases, group_norm_has_mean_and_variance);
    tcase_add_test(cases, layer_norm_has_mean_and_variance);
    tcase_add_test(cases, upsample_takes_the_nearest);
    tcase_add_test(cases, a_convolution_normalises_its_input);
    tcase_add_test(cases, a_result_takes_the_place_of_its_shortcut);
    tcase_add_test(cases, concat_and_embed);
    tcase_add_test(cases, activations_are_accurate);
    tcase_add_test(cases, stored_values_widen_exactly);
    return cases;
}
