/*
 * ops.h: the operations that a vendor's device offers the sampler. plugin/sampler is written once against
 * this table; each vendor supplies one (plugin/cpu/ops for the CPU).
 *
 * Activations are float32 in device memory: images as (batch, height, width, channel), tokens as (batch,
 * token, channel), always dense. A pointer called `device` memory here is never dereferenced by the core.
 * Weights are described where they lie in the mapped file; the device makes its own packed form of them when
 * a pass is prepared.
 *
 * A pass runs twice through the same code: first `planning`, when an operation looks at shapes only, makes
 * ready what it needs (kernels, the layout of packed weights) and raises the pass's needs; then for real.
 *
 * Threads: everything is [any]; a device_pass belongs to one session. All calls fill `error` on failure;
 * besides what is noted, RESOURCE_EXHAUSTED and INTERNAL (with the vendor library's number as native_code)
 * come from anywhere.
 */
#ifndef ATTUNE_SAMPLER_OPS_H
#define ATTUNE_SAMPLER_OPS_H

#include "attune/sampler.h"
#include "plugin/sampler/services.h"

typedef struct device device;                 /* one instance's device: made by create */
typedef struct device_weights device_weights; /* one layer's weights */

/* What an operation applies to its result. GEGLU (Shazeer 2020): the first half of the channels times gelu of
 * the second; its output has half the channels. GELU is the exact one (erf), quick GELU is x · sigmoid(1.702
 * x). */
typedef enum device_activation {
    DEVICE_IDENTITY,
    DEVICE_SILU,
    DEVICE_GELU,
    DEVICE_QUICK_GELU,
    DEVICE_GEGLU
} device_activation;

/* Stored values: a range of a mapped file, F32, F16 or BF16. */
typedef struct device_stored {
    const void *data; /* NULL: there are none (a layer without bias) */
    attune_dtype dtype;
} device_stored;

enum { DEVICE_MAX_PARTS = 3, DEVICE_NAME = 112 };

/* A layer's weights: `parts` matrices (out, in) of one input stacked along out (query, key and value in one
 * product), or one 3×3 convolution (out, in, 3, 3). The stored values must outlive the device_weights. */
typedef struct device_layer {
    char name[DEVICE_MAX_PARTS][DEVICE_NAME]; /* of each part, for errors: its tensor's without ".weight" */
    int32_t kernel; /* 1: linear or 1×1 convolution; 3: 3×3 convolution with padding 1 */
    int32_t stride; /* of the 3×3 convolution: 1 or 2 */
    int64_t in;
    int32_t parts;
    int32_t geglu; /* 1: its products end in GEGLU, always */
    int64_t out[DEVICE_MAX_PARTS];
    device_stored weight[DEVICE_MAX_PARTS];
    device_stored bias[DEVICE_MAX_PARTS];
} device_layer;

static inline uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* One session's context of a pass. The core fills stream and planning; the needs are raised while planning.
 */
typedef struct device_pass {
    const attune_stream *stream;
    int32_t planning;
    uint32_t serial; /* of the planning pass, unique per device, not 0: which packed weights it asked for */
    uint64_t shared_bytes; /* need: scratch memory used by all workers together */
    uint64_t worker_bytes; /* need: scratch memory per worker */
    void *scratch;         /* when running: shared_bytes + workers · worker_bytes of device memory */
    void *room; /* when running: device memory where layers that are not packed are packed for one call */
    uint64_t room_bytes; /* need: what the layers of a call take there, if none of them is packed */
} device_pass;

typedef struct device_linear {
    const float *x; /* (rows, in) */
    int64_t rows;
    float *out;            /* (rows, out), or (rows, out / 2) for GEGLU; overlaps x nowhere */
    const float *residual; /* (rows, out) added to the product, may be `out` itself; NULL = none; not with an
                              activation */
    device_activation activation;
} device_linear;

typedef struct device_group_norm {
    const float *x; /* (batch, pixels, channels) */
    int64_t batch;
    int64_t pixels;
    int64_t channels;
    int64_t groups; /* divides channels */
    float eps;
    const float *scale;           /* (channels) */
    const float *shift;           /* (channels) */
    device_activation activation; /* IDENTITY or SILU */
    float *out;                   /* may be x */
    const char *name;             /* for errors */
} device_group_norm;

/* A convolution of x, or of x made ready: normalised, or enlarged by nearest neighbour (source index =
 * min(floor(target · (in / out) in float), in − 1), as torch's interpolate), never in memory as a whole where
 * it is large. */
typedef struct device_convolution {
    const float *x; /* (batch, height, width, in) */
    int64_t batch;
    int64_t height;
    int64_t width;
    float *out; /* (batch, ceil(h / stride), ceil(w / stride), out), h × w being x made ready; overlaps x
                   nowhere */
    const float *residual;    /* same shape, added; may be `out` itself; NULL = none */
    device_weights *shortcut; /* a 1×1 convolution that `residual`, of its input channels, goes through before
                                 it is added; `out` may be `residual` itself where it has no more channels,
                                 and is then dense from there on. NULL = none */
    const float *shift;       /* (batch, out) added to each pixel (time embedding); NULL = none */
    const device_group_norm *norm; /* of x, its `out` is not looked at; NULL = none */
    int64_t up_height;             /* 0 = x's own size; not with a norm */
    int64_t up_width;
    int32_t *finite; /* with a norm: 0 where what it gives is not all finite, else as it was; NULL = not
                        looked at */
    int32_t *shortcut_finite; /* the same of what the shortcut gives */
} device_convolution;

typedef struct device_layer_norm {
    const float *x; /* (rows, channels) */
    int64_t rows;
    int64_t channels;
    float eps;
    const float *scale;
    const float *shift;
    float *out;       /* may be x */
    const char *name; /* for errors */
} device_layer_norm;

typedef struct device_concat {
    const float *a; /* (rows, a_channels) */
    const float *b; /* (rows, b_channels) */
    int64_t rows;
    int64_t a_channels;
    int64_t b_channels;
    float *out; /* (rows, a_channels + b_channels) */
} device_concat;

typedef struct device_embed {
    const int32_t *ids; /* host memory, (rows), each < the table's rows (checked by the caller) */
    int64_t rows;
    int64_t positions; /* row r has position r mod positions */
    int64_t channels;
    device_stored tokens;    /* (vocabulary, channels) as stored */
    const float *positional; /* device memory, (positions, channels) */
    float *out;              /* (rows, channels): token + position */
} device_embed;

typedef struct device_ops {
    const char *arithmetic; /* arithmetic id of all operations below */
    int32_t determinism;    /* class that they keep */
    const char *limited_by; /* what sets it, in words; "" for the highest */

    /* Make the device of an instance. `services` must outlive it. Errors: UNAVAILABLE. */
    attune_code (*create)(const services *host, device **out, attune_error *error);
    void (*destroy)(device *dev);
    /* Which device, and its maker. */
    void (*describe)(device *dev, attune_device_id *id, char vendor[32]);

    /* Device memory, aligned to 64, not cleared. */
    attune_code (*alloc)(device *dev, uint64_t bytes, const char *tag, void **out, attune_error *error);
    void (*free)(device *dev, void *memory);
    /* Copies between host and device memory; done on return. */
    attune_code (*upload)(device *dev, const attune_stream *stream, float *to, const float *from,
                          uint64_t count, attune_error *error);
    attune_code (*download)(device *dev, const attune_stream *stream, float *to, const float *from,
                            uint64_t count, attune_error *error);

    /* Stored values as float32 in new device memory (norms, positions). Errors: DATA_LOSS (a value is not
     * finite). */
    attune_code (*vector)(device *dev, const char *name, device_stored stored, uint64_t count, float **out,
                          attune_error *error);
    /* DATA_LOSS where one of `count` stored values is not finite; for tables that are used as stored. */
    attune_code (*check)(device *dev, const char *name, device_stored stored, uint64_t count,
                         attune_error *error);
    /* A layer; nothing is packed yet. */
    attune_code (*weights)(device *dev, const device_layer *layer, device_weights **out, attune_error *error);
    void (*weights_free)(device *dev, device_weights *weights);
    /* What the layer was made from. */
    const device_layer *(*layer)(const device_weights *weights);

    /* Start a planning pass: serial is given, needs are 0. */
    void (*plan)(device *dev, device_pass *pass);
    /* Whether the planning pass `serial` asked for these weights; how many bytes they take when packed, and
     * whether they are. */
    int32_t (*wanted)(const device_weights *weights, uint32_t serial);
    uint64_t (*packed_bytes)(const device_weights *weights);
    int32_t (*packed)(const device_weights *weights);
    /* Pack those that are not packed; give the memory of packed ones back. One caller at a time per model,
     * and no pass runs that uses them. Errors: DATA_LOSS (a value is not finite). */
    attune_code (*pack)(device *dev, const attune_stream *stream, device_weights *const *weights,
                        uint64_t count, attune_error *error);
    void (*unpack)(device *dev, device_weights *weights);

    attune_code (*linear)(device *dev, device_pass *pass, device_weights *weights, const device_linear *args,
                          attune_error *error);
    attune_code (*convolution)(device *dev, device_pass *pass, device_weights *weights,
                               const device_convolution *args, attune_error *error);
    attune_code (*group_norm)(device *dev, device_pass *pass, const device_group_norm *args,
                              attune_error *error);
    attune_code (*layer_norm)(device *dev, device_pass *pass, const device_layer_norm *args,
                              attune_error *error);
    attune_code (*concat)(device *dev, device_pass *pass, const device_concat *args, attune_error *error);
    attune_code (*embed)(device *dev, device_pass *pass, const device_embed *args, attune_error *error);
    /* out = activation(x), count elements; out may be x. Not GEGLU. */
    attune_code (*activate)(device *dev, device_pass *pass, device_activation activation, const float *x,
                            uint64_t count, float *out, attune_error *error);
    /* *out: 1 where all values of `rows` rows of `channels` floats, `stride` floats apart, are finite
     * numbers, else 0. Not while planning. */
    attune_code (*finite)(device *dev, device_pass *pass, const float *x, int64_t rows, int64_t channels,
                          int64_t stride, int32_t *out, attune_error *error);
} device_ops;

/* The vendor that this plugin was linked with: its operations, and the plugin's identity. Static data. */
const device_ops *device_ops_get(void);
extern const char device_plugin_id[]; /* "attune-sampler-cpu" */
extern const char device_plugin_vendor[];

#endif
