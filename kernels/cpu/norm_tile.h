/*
 * kernels/cpu/norm_tile.h: the norms of kernels/norm.h, written once over a vector type. Each norm_ISA.c
 * includes a vector_ISA.h, then this file. Channels lie in the lanes for group norm; for layer norm the
 * lanes are the arithmetic's own partial sums.
 */
#include "kernels/arithmetic.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/norm.h"

#include <math.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    BLOCK = ATTUNE_NORM_BLOCK,
    LANES = ATTUNE_NORM_LANES,
    TASK_FLOATS = 65536, /* about what a task reads */
    TILE = 8,            /* vectors of channels that are summed together */
    PARTS = LANES / WIDTH,
    ROWS = 4 /* rows of layer norm at once: one chain of sums would wait for itself */
};

_Static_assert(LANES % WIDTH == 0, "a row's partial sums are whole vectors");

static int64_t at_least_one(int64_t n) {
    return n < 1 ? 1 : n;
}

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

INLINE vec load(const float *p, int n) {
    return n >= WIDTH ? v_load(p) : v_load_part(p, n);
}

INLINE void store(float *p, vec x, int n) {
    if (n >= WIDTH)
        v_store(p, x);
    else
        v_store_part(p, x, n);
}

/* ---- group norm: where things lie ---- */

typedef struct group_job {
    const attune_group_norm_f32 *args;
    int64_t image, blocks;
    const float *x; /* of the image, as all below */
    float *factor, *addend;
    float *sums, *squares; /* (blocks, channels) */
    float *level;          /* (blocks of blocks, channels) */
} group_job;

static group_job find_job(const attune_group_norm_f32 *a, int64_t image, float *workspace) {
    const int64_t row = a->batch * a->channels, blocks = divide_up(a->pixels, BLOCK);
    group_job j = {.args = a, .image = image, .blocks = blocks};
    j.x = a->x + image * a->pixels * a->channels;
    j.factor = workspace + image * a->channels;
    j.addend = j.factor + row;
    j.sums = workspace + 2 * row + image * blocks * a->channels;
    j.squares = j.sums + blocks * row;
    j.level = workspace + (2 + 2 * blocks) * row + image * divide_up(blocks, BLOCK) * a->channels;
    return j;
}

static int64_t block_pixels(const group_job *j, int64_t block) {
    const int64_t left = j->args->pixels - block * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

/* How many blocks, groups and pixels a task of each phase takes. */
static int64_t per_task(const attune_group_norm_f32 *a, int phase) {
    if (phase == ATTUNE_NORM_SUMS)
        return at_least_one(TASK_FLOATS / BLOCK / a->channels);
    if (phase == ATTUNE_NORM_FACTORS)
        return divide_up(TILE * LANES, a->channels / a->groups);
    return at_least_one(TASK_FLOATS / a->channels);
}

static int64_t all_of(const attune_group_norm_f32 *a, int phase) {
    return phase == ATTUNE_NORM_SUMS      ? divide_up(a->pixels, BLOCK)
           : phase == ATTUNE_NORM_FACTORS ? a->groups
                                          : a->pixels;
}

static uint64_t group_tasks(const attune_group_norm_f32 *a, int phase) {
    return (uint64_t)divide_up(all_of(a, phase), per_task(a, phase));
}

/* ---- sums of one block ---- */

/* Of `vectors` vectors of channels, the last of `part` lanes: the sums, then the squared differences from
 * the block's own mean, while the block is in the cache. */
INLINE void sum_columns(const float *x, int64_t stride, int64_t pixels, const int vectors, const int part,
                        float *sums, float *squares) {
    vec total[TILE], mean[TILE];
    for (int v = 0; v < vectors; ++v)
        total[v] = v_zero();
    for (int64_t p = 0; p < pixels; ++p)
        for (int v = 0; v < vectors; ++v)
            total[v] = v_add(total[v], load(x + p * stride + v * WIDTH, part));
    for (int v = 0; v < vectors; ++v) {
        store(sums + v * WIDTH, total[v], part);
        mean[v] = v_div(total[v], v_set1((float)pixels));
        total[v] = v_zero();
    }
    for (int64_t p = 0; p < pixels; ++p)
        for (int v = 0; v < vectors; ++v) {
            const vec d = v_sub(load(x + p * stride + v * WIDTH, part), mean[v]);
            total[v] = v_fma(d, d, total[v]);
        }
    for (int v = 0; v < vectors; ++v)
        store(squares + v * WIDTH, total[v], part);
}

static void sum_block(const group_job *j, int64_t block) {
    const int64_t channels = j->args->channels, pixels = block_pixels(j, block);
    const float *x = j->x + block * BLOCK * channels;
    float *sums = j->sums + block * channels, *squares = j->squares + block * channels;
    int64_t c = 0;
    for (; c + TILE * WIDTH <= channels; c += TILE * WIDTH)
        sum_columns(x + c, channels, pixels, TILE, WIDTH, sums + c, squares + c);
    for (; c + WIDTH <= channels; c += WIDTH)
        sum_columns(x + c, channels, pixels, 1, WIDTH, sums + c, squares + c);
    if (c < channels)
        sum_columns(x + c, channels, pixels, 1, (int)(channels - c), sums + c, squares + c);
}

/* ---- from blocks to factors ---- */

/* Block `b` of up to WIDTH channels from c on: its sum, or its squared differences from `mean`. */
INLINE vec block_value(const group_job *j, int64_t b, int64_t c, int n, const vec *mean) {
    const vec sum = load(j->sums + b * j->args->channels + c, n);
    if (!mean)
        return sum;
    const vec pixels = v_set1((float)block_pixels(j, b)), apart = v_sub(v_div(sum, pixels), *mean);
    return v_fma(v_mul(pixels, apart), apart, load(j->squares + b * j->args->channels + c, n));
}

/* Blocks in chains of BLOCK, those in chains of BLOCK, and so on. */
INLINE vec tree(const group_job *j, int64_t c, int n, const vec *mean) {
    const int64_t channels = j->args->channels;
    float *level = j->level + c;
    int64_t count = divide_up(j->blocks, BLOCK);
    for (int64_t i = 0; i < count; ++i) {
        vec sum = v_zero();
        for (int64_t b = i * BLOCK; b < (i + 1) * BLOCK && b < j->blocks; ++b)
            sum = v_add(sum, block_value(j, b, c, n, mean));
        store(level + i * channels, sum, n);
    }
    for (int64_t below = count; below > 1; below = count) {
        count = divide_up(below, BLOCK);
        for (int64_t i = 0; i < count; ++i) {
            vec sum = v_zero();
            for (int64_t b = i * BLOCK; b < (i + 1) * BLOCK && b < below; ++b)
                sum = v_add(sum, load(level + b * channels, n));
            store(level + i * channels, sum, n);
        }
    }
    return load(level, n);
}

/* factor = each channel's total: of its values, or of its squared differences from the addend. */
static void total_channels(const group_job *j, int64_t first, int64_t last, int squares) {
    for (int64_t c = first; c < last; c += WIDTH) {
        const int n = last - c < WIDTH ? (int)(last - c) : WIDTH;
        const vec mean = load(j->addend + c, n);
        store(j->factor + c, squares ? tree(j, c, n, &mean) : tree(j, c, n, NULL), n);
    }
}

static float group_mean(const group_job *j, int64_t group) {
    const int64_t channels = j->args->channels / j->args->groups;
    float total = 0.0f;
    for (int64_t c = group * channels; c < (group + 1) * channels; ++c)
        total = total + j->factor[c];
    return total / (float)(j->args->pixels * channels);
}

static void make_factors(const group_job *j, int64_t first, int64_t last) {
    const attune_group_norm_f32 *a = j->args;
    const int64_t channels = a->channels / a->groups;
    total_channels(j, first * channels, last * channels, 0);
    for (int64_t g = first; g < last; ++g) {
        const float mean = group_mean(j, g);
        for (int64_t c = g * channels; c < (g + 1) * channels; ++c)
            j->addend[c] = mean;
    }
    total_channels(j, first * channels, last * channels, 1);
    for (int64_t g = first; g < last; ++g) {
        const float inverse = 1.0f / sqrtf(group_mean(j, g) + a->eps);
        for (int64_t c = g * channels; c < (g + 1) * channels; ++c) {
            j->factor[c] = inverse * a->scale[c];
            j->addend[c] = fmaf(-j->addend[c], j->factor[c], a->shift[c]);
        }
    }
}

/* ---- the normalised values ---- */

INLINE void apply_vector(const group_job *j, const float *x, float *out, int64_t c, int n, const int silu) {
    const vec y = v_fma(load(x + c, n), load(j->factor + c, n), load(j->addend + c, n));
    store(out + c, v_stored(silu ? v_silu(y) : y), n);
}

INLINE void apply_row(const group_job *j, int64_t pixel, const int silu) {
    const int64_t channels = j->args->channels;
    const float *x = j->x + pixel * channels;
    float *out = j->args->out + (j->image * j->args->pixels + pixel) * channels;
    int64_t c = 0;
    for (; c + WIDTH <= channels; c += WIDTH)
        apply_vector(j, x, out, c, WIDTH, silu);
    if (c < channels)
        apply_vector(j, x, out, c, (int)(channels - c), silu);
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void group_range(const group_job *j, int phase, int64_t first,
                                                  int64_t last) {
    if (phase == ATTUNE_NORM_FACTORS)
        make_factors(j, first, last);
    else if (phase == ATTUNE_NORM_SUMS)
        for (int64_t b = first; b < last; ++b)
            sum_block(j, b);
    else if (j->args->silu)
        for (int64_t p = first; p < last; ++p)
            apply_row(j, p, 1);
    else
        for (int64_t p = first; p < last; ++p)
            apply_row(j, p, 0);
}

static void group_run(const attune_group_norm_f32 *a, int phase, uint64_t task, float *workspace) {
    const uint64_t environment = attune_fp_enter();
    const int64_t tasks = (int64_t)group_tasks(a, phase), all = all_of(a, phase), size = per_task(a, phase);
    const group_job j = find_job(a, (int64_t)task / tasks, workspace);
    const int64_t first = (int64_t)task % tasks * size;
    group_range(&j, phase, first, first + size < all ? first + size : all);
    attune_fp_leave(environment);
}

/* ---- layer norm ---- */

/* Halves added to halves. */
INLINE float lanes_total(const vec part[PARTS]) {
    float lane[LANES];
    for (int i = 0; i < PARTS; ++i)
        v_store(lane + i * WIDTH, part[i]);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i)
            lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

/* sum += value, or its squared difference from the mean, of up to WIDTH channels; absent ones add +0. */
INLINE vec add_part(vec sum, const float *x, int n, const float *mean) {
    const vec value = load(x, n);
    if (!mean)
        return v_add(sum, value);
    const vec d = v_sub(value, load(mean, n));
    return v_fma(d, d, sum);
}

/* The totals of `rows` rows; `mean` has WIDTH copies of each row's, or is NULL. */
INLINE void rows_total(const float *x, int64_t channels, const int rows, const float (*mean)[WIDTH],
                       float *total) {
    vec sum[ROWS][PARTS];
    int64_t c = 0;
    for (int r = 0; r < rows; ++r)
        for (int i = 0; i < PARTS; ++i)
            sum[r][i] = v_zero();
    for (; c + LANES <= channels; c += LANES)
        for (int r = 0; r < rows; ++r)
            for (int i = 0; i < PARTS; ++i)
                sum[r][i] =
                    add_part(sum[r][i], x + r * channels + c + i * WIDTH, WIDTH, mean ? mean[r] : NULL);
    for (int r = 0; r < rows; ++r)
        for (int i = 0; i < PARTS && c + i * WIDTH < channels; ++i) {
            const int64_t left = channels - c - i * WIDTH;
            sum[r][i] = add_part(sum[r][i], x + r * channels + c + i * WIDTH,
                                 left < WIDTH ? (int)left : WIDTH, mean ? mean[r] : NULL);
        }
    for (int r = 0; r < rows; ++r)
        total[r] = lanes_total(sum[r]);
}

INLINE void norm_part(const attune_layer_norm_f32 *a, int64_t at, int64_t c, int n, vec mean, vec inverse) {
    const vec d = v_mul(v_sub(load(a->x + at + c, n), mean), inverse);
    store(a->out + at + c, v_stored(v_fma(d, load(a->scale + c, n), load(a->shift + c, n))), n);
}

INLINE void norm_rows(const attune_layer_norm_f32 *a, int64_t first, const int rows) {
    const int64_t channels = a->channels;
    const float *x = a->x + first * channels;
    float mean[ROWS][WIDTH], total[ROWS];
    rows_total(x, channels, rows, NULL, total);
    for (int r = 0; r < rows; ++r)
        v_store(mean[r], v_set1(total[r] / (float)channels));
    rows_total(x, channels, rows, (const float(*)[WIDTH])mean, total);
    for (int r = 0; r < rows; ++r) {
        const vec inverse = v_set1(1.0f / sqrtf(total[r] / (float)channels + a->eps));
        const vec middle = v_load(mean[r]);
        int64_t c = 0;
        for (; c + WIDTH <= channels; c += WIDTH)
            norm_part(a, (first + r) * channels, c, WIDTH, middle, inverse);
        if (c < channels)
            norm_part(a, (first + r) * channels, c, (int)(channels - c), middle, inverse);
    }
}

__attribute__((noinline)) static void layer_range(const attune_layer_norm_f32 *a, int64_t first,
                                                  int64_t last) {
    for (; first + ROWS <= last; first += ROWS)
        norm_rows(a, first, ROWS);
    for (; first < last; ++first)
        norm_rows(a, first, 1);
}

static int64_t rows_per_task(const attune_layer_norm_f32 *a) {
    return at_least_one(TASK_FLOATS / 4 / a->channels);
}

static uint64_t layer_tasks(const attune_layer_norm_f32 *a) {
    return (uint64_t)divide_up(a->rows, rows_per_task(a));
}

static void layer_run(const attune_layer_norm_f32 *a, uint64_t task) {
    const uint64_t environment = attune_fp_enter();
    const int64_t size = rows_per_task(a), first = (int64_t)task * size;
    layer_range(a, first, first + size < a->rows ? first + size : a->rows);
    attune_fp_leave(environment);
}

/* The table of a norm_ISA.c. */
#define NORMS(name)                                                                                          \
    {                                                                                                        \
        .isa = name, .group_tasks = group_tasks, .group_run = group_run, .layer_tasks = layer_tasks,         \
        .layer_run = layer_run                                                                               \
    }
