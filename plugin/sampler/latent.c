/*
 * latent.c: the samplers' steps and the state between them.
 *
 * Sources: Karras et al. 2022, algorithm 1 (Euler); the ancestral split of a step into a deterministic part
 * and fresh noise as in k-diffusion's get_ancestral_step, after Song et al. 2020, eq. 16; Lu et al. 2022,
 * "DPM-Solver++", algorithm 2 (2M), with t = −log sigma; Song et al. 2020, eq. 12 (DDIM, eta 0). Variation
 * seeds as in the web UI's modules/rng.py.
 *
 * Coefficients are computed in double from the float sigmas and rounded once; each element is then a fixed
 * sequence of float products and sums, and what is stored is never −0.
 */
#include "plugin/sampler/latent.h"

#include "kernels/reference/math_f64.h"
#include "plugin/sampler/domain.h"

#include <math.h>

enum { HISTORY_MAX = 3, ALIGNMENT = 64 };

struct latent_state {
    const attune_memory_service *memory;
    const latent_sampler *sampler;
    uint32_t images;
    uint32_t steps;
    uint32_t done;
    uint64_t elements;
    float *sigmas;               /* steps + 1 */
    float *x;                    /* images × elements */
    float *denoised;             /* images × elements: the latest estimate */
    float *history[HISTORY_MAX]; /* images × elements each, as many as the sampler asks for */
    float *noise;                /* elements: one image's draw */
    noise_generator *generators; /* images */
};

/* Where the parts of a state lie in its one block of memory. */
typedef struct layout {
    uint64_t sigmas;
    uint64_t x;
    uint64_t denoised;
    uint64_t history;
    uint64_t noise;
    uint64_t generators;
    uint64_t batch; /* bytes from one [images][elements] buffer to the next */
    uint64_t total;
} layout;

/* *at is where `count` things of `size` bytes go, *total behind them; 0 on overflow. */
static int place(uint64_t *total, uint64_t *at, uint64_t count, uint64_t size) {
    uint64_t bytes, end;
    *at = *total;
    if (__builtin_mul_overflow(count, size, &bytes) || __builtin_add_overflow(bytes, *total, &end) ||
        __builtin_add_overflow(end, (uint64_t)ALIGNMENT - 1, &end))
        return 0;
    *total = end / ALIGNMENT * ALIGNMENT;
    return 1;
}

static int plan(const latent_setup *setup, layout *out) {
    uint64_t batch, buffers = 2 + (uint64_t)setup->sampler->history, end = 0;
    *out = (layout){.total = (sizeof(latent_state) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT};
    if (__builtin_mul_overflow(setup->elements, (uint64_t)setup->images, &batch))
        return 0;
    if (!place(&out->batch, &end, batch, sizeof(float)))
        return 0;
    if (!place(&out->total, &out->sigmas, (uint64_t)setup->steps + 1, sizeof(float)) ||
        !place(&out->total, &out->x, buffers, out->batch) ||
        !place(&out->total, &out->noise, setup->elements, sizeof(float)) ||
        !place(&out->total, &out->generators, setup->images, sizeof(noise_generator)))
        return 0;
    out->denoised = out->x + out->batch;
    out->history = out->denoised + out->batch;
    return out->total <= SIZE_MAX;
}

uint64_t latent_bytes(const latent_setup *setup) {
    layout where;
    return plan(setup, &where) ? where.total : UINT64_MAX;
}

static attune_code check_setup(const latent_setup *setup, attune_error *error) {
    const char *where = "latent_begin";
    if (setup->steps == 0 || setup->images == 0 || setup->elements == 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, where,
                           "steps, images and elements must be at least 1");
    if (setup->variation != 0 &&
        (setup->rows == 0 || setup->columns == 0 || setup->elements % (setup->rows * setup->columns)))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, where,
                           "elements are no whole number of rows and columns");
    for (uint32_t i = 0; i <= setup->steps; i++) {
        float sigma = setup->sigmas[i];
        int falls = isfinite(sigma) && (i == 0 || sigma < setup->sigmas[i - 1] ||
                                        (setup->sampler->timesteps && sigma == setup->sigmas[i - 1]));
        if (!falls || !(i == setup->steps ? sigma >= 0 : sigma > 0))
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, where,
                               "sigma %u is %g: sigmas must be finite, positive and fall", i, (double)sigma);
    }
    return ATTUNE_OK;
}

/* x += the image's next noise · scale, image by image. */
static void add_noise(latent_state *state, float scale) {
    for (uint32_t image = 0; image < state->images; image++) {
        float *x = state->x + image * state->elements;
        noise_normal(&state->generators[image], state->noise, state->elements);
        for (uint64_t i = 0; i < state->elements; i++)
            x[i] = (x[i] + state->noise[i] * scale) + 0.0f;
    }
}

/* The angle of a cosine and its sine >= 0, by steps of third order from a guess: each leaves error³ / 6. */
static double angle_of(double cosine, double sine) {
    double angle = (1 - cosine) * (M_PI / 2);
    for (int i = 0; i < 6; i++)
        angle += sine * attune_cos_f64(angle) - cosine * attune_sin_f64(angle);
    return angle;
}

/* The cosine between two columns, `stride` floats from row to row. */
static double cosine_of(const float *a, const float *b, uint64_t rows, uint64_t stride) {
    double aa = 0, bb = 0, ab = 0;
    for (uint64_t r = 0; r < rows; r++) {
        double x = a[r * stride], y = b[r * stride];
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    double cosine = ab / sqrt(aa * bb);
    return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
}

/* noise[] of one column from `first` towards `second`. Where they are parallel (latents of one row) there is
 * no angle to part, and the web UI's division gives NaN: there a straight mix is taken. */
static void slerp_column(const latent_setup *setup, float *first, const float *second) {
    double cosine = cosine_of(first, second, setup->rows, setup->columns);
    double sine = sqrt((1 - cosine) * (1 + cosine)), part = setup->variation, low = 1 - part, high = part;
    if (sine > 0) {
        double angle = angle_of(cosine, sine);
        low = attune_sin_f64((1 - part) * angle) / sine;
        high = attune_sin_f64(part * angle) / sine;
    }
    for (uint64_t at = 0; at < setup->rows * setup->columns; at += setup->columns)
        first[at] = (float)(low * (double)first[at] + high * (double)second[at]) + 0.0f;
}

/*
 * The web UI's slerp: the vectors are the columns of each channel (its norms run along dimension 1 of
 * channels × rows × columns). Where they are parallel on average (0.9995) it mixes with the shares the other
 * way round, which is kept: that happens only where both noises are the same.
 */
static void vary(const latent_setup *setup, float *first, const float *second) {
    uint64_t columns = setup->elements / setup->rows, plane = setup->rows * setup->columns;
    double sum = 0;
    for (uint64_t c = 0; c < columns; c++) {
        uint64_t at = c / setup->columns * plane + c % setup->columns;
        sum += cosine_of(first + at, second + at, setup->rows, setup->columns);
    }
    if (sum / (double)columns > 0.9995) {
        double part = setup->variation;
        for (uint64_t i = 0; i < setup->elements; i++)
            first[i] = (float)((double)first[i] * part + (double)second[i] * (1 - part)) + 0.0f;
        return;
    }
    for (uint64_t c = 0; c < columns; c++) {
        uint64_t at = c / setup->columns * plane + c % setup->columns;
        slerp_column(setup, first + at, second + at);
    }
}

/* Each image's stream and its first noise · scale in x. */
static void draw_first(latent_state *state, const latent_setup *setup, float scale) {
    for (uint32_t image = 0; image < setup->images; image++) {
        float *x = state->x + image * state->elements;
        uint32_t further = setup->variation != 0 ? 0 : image;
        noise_seed(&state->generators[image], setup->source, setup->seed + further);
        noise_normal(&state->generators[image], x, state->elements);
        if (setup->variation != 0) {
            noise_generator other;
            noise_seed(&other, setup->source, setup->subseed + image);
            noise_normal(&other, state->noise, state->elements);
            vary(setup, x, state->noise);
        }
        for (uint64_t i = 0; i < state->elements; i++)
            x[i] = x[i] * scale + 0.0f;
    }
}

attune_code latent_begin(const attune_memory_service *memory, const latent_setup *setup, latent_state **out,
                         attune_error *error) {
    *out = NULL;
    attune_code code = check_setup(setup, error);
    if (code)
        return code;
    layout where;
    char *block = plan(setup, &where) ? memory->alloc(memory->context, where.total, "latents") : NULL;
    if (!block)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, "latent_begin",
                           "no memory for the latents of %u images", setup->images);
    latent_state *state = (latent_state *)(void *)block;
    *state = (latent_state){.memory = memory,
                            .sampler = setup->sampler,
                            .images = setup->images,
                            .steps = setup->steps,
                            .elements = setup->elements,
                            .sigmas = (float *)(void *)(block + where.sigmas),
                            .x = (float *)(void *)(block + where.x),
                            .denoised = (float *)(void *)(block + where.denoised),
                            .noise = (float *)(void *)(block + where.noise),
                            .generators = (noise_generator *)(void *)(block + where.generators)};
    for (uint32_t h = 0; h < setup->sampler->history; h++)
        state->history[h] = (float *)(void *)(block + where.history + h * where.batch);
    memcpy(state->sigmas, setup->sigmas, ((size_t)setup->steps + 1) * sizeof(float));
    draw_first(state, setup, setup->sampler->timesteps ? 1.0f : state->sigmas[0]);
    *out = state;
    return ATTUNE_OK;
}

void latent_close(latent_state *state) {
    if (state)
        state->memory->free(state->memory->context, state);
}

attune_code latent_step(latent_state *state, const latent_denoiser *denoiser, attune_error *error) {
    if (state->done == state->steps)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, SAMPLER_DOMAIN, "latent_step",
                           "all %u steps are done", state->steps);
    attune_code code = state->sampler->step(state, denoiser, error);
    if (code == ATTUNE_OK)
        state->done++;
    return code;
}

uint32_t latent_steps_done(const latent_state *state) {
    return state->done;
}

float latent_sigma(const latent_state *state) {
    return state->sigmas[state->done];
}

const float *latent_x(const latent_state *state, uint32_t index) {
    return state->x + index * state->elements;
}

const float *latent_denoised(const latent_state *state, uint32_t index) {
    return state->done ? state->denoised + index * state->elements : NULL;
}

void latent_guide(const float *cond, const float *uncond, float scale, float *out, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        out[i] = (uncond[i] + (cond[i] - uncond[i]) * scale) + 0.0f;
}

/* ---- steps ---- */

/* The denoiser's estimate for x at the step's sigma. */
static attune_code estimate(latent_state *state, const latent_denoiser *denoiser, attune_error *error) {
    return denoiser->denoise(denoiser->context, state->x, state->sigmas[state->done], state->denoised, error);
}

/* Along the derivative (x − denoised) / sigma from sigma to `to`. */
static void euler_move(latent_state *state, double to) {
    double sigma = state->sigmas[state->done];
    float ratio = (float)((to - sigma) / sigma);
    uint64_t count = state->images * state->elements;
    for (uint64_t i = 0; i < count; i++)
        state->x[i] = (state->x[i] + (state->x[i] - state->denoised[i]) * ratio) + 0.0f;
}

static attune_code step_euler(latent_state *state, const latent_denoiser *denoiser, attune_error *error) {
    attune_code code = estimate(state, denoiser, error);
    if (code == ATTUNE_OK)
        euler_move(state, state->sigmas[state->done + 1]);
    return code;
}

/* eta = s_noise = 1: down to where the variance of `up` of fresh noise leads back to the next sigma. */
static attune_code step_euler_ancestral(latent_state *state, const latent_denoiser *denoiser,
                                        attune_error *error) {
    attune_code code = estimate(state, denoiser, error);
    if (code)
        return code;
    double from = state->sigmas[state->done], to = state->sigmas[state->done + 1];
    double up = sqrt(to * to * (from * from - to * to) / (from * from));
    up = up < to ? up : to;
    euler_move(state, sqrt(to * to - up * up));
    if (to > 0)
        add_noise(state, (float)up);
    return ATTUNE_OK;
}

/* history[0] is the estimate of the step before. The first step and the last (to 0) are of first order. */
static attune_code step_dpmpp_2m(latent_state *state, const latent_denoiser *denoiser, attune_error *error) {
    float *older = state->denoised;
    state->denoised = state->history[0];
    state->history[0] = older;
    attune_code code = estimate(state, denoiser, error);
    if (code)
        return code;
    double sigma = state->sigmas[state->done], next = state->sigmas[state->done + 1];
    double move = 1 - next / sigma; /* −expm1(−h), h = log(sigma / next) */
    double slope = 0;               /* of the estimate: move / (2 r), r = h before / h */
    if (state->done > 0 && next > 0) {
        double log_sigma = attune_log_f64(sigma);
        double h = log_sigma - attune_log_f64(next);
        double before = attune_log_f64(state->sigmas[state->done - 1]) - log_sigma;
        slope = move * h / (2 * before);
    }
    float keep = (float)(next / sigma), newer_part = (float)(move + slope), older_part = (float)slope;
    uint64_t count = state->images * state->elements;
    if (older_part == 0) /* `older` holds nothing before the second step */
        for (uint64_t i = 0; i < count; i++)
            state->x[i] = (state->x[i] * keep + state->denoised[i] * newer_part) + 0.0f;
    else
        for (uint64_t i = 0; i < count; i++)
            state->x[i] =
                ((state->x[i] * keep + state->denoised[i] * newer_part) - older[i] * older_part) + 0.0f;
    return ATTUNE_OK;
}

/*
 * x is unit noise times sqrt(1 − ā) plus the image times sqrt(ā), sigma = sqrt((1 − ā) / ā), so that x ·
 * sqrt(1 + sigma²) is what the denoiser takes. With e = (that − D) / sigma, eq. 12 for eta 0 is x' = (D +
 * sigma' e) / sqrt(1 + sigma'²). history[0] is the denoiser's input.
 */
static attune_code step_ddim(latent_state *state, const latent_denoiser *denoiser, attune_error *error) {
    double sigma = state->sigmas[state->done], next = state->sigmas[state->done + 1];
    float widen = (float)sqrt(1 + sigma * sigma), *wide = state->history[0];
    uint64_t count = state->images * state->elements;
    for (uint64_t i = 0; i < count; i++)
        wide[i] = state->x[i] * widen;
    attune_code code = denoiser->denoise(denoiser->context, wide, sigma, state->denoised, error);
    if (code)
        return code;
    double narrow = 1 / sqrt(1 + next * next);
    float keep = (float)(next / sigma * narrow), move = (float)((1 - next / sigma) * narrow);
    for (uint64_t i = 0; i < count; i++)
        state->x[i] = (wide[i] * keep + state->denoised[i] * move) + 0.0f;
    return ATTUNE_OK;
}

static const latent_sampler samplers[] = {
    {{"Euler a", "k_euler_a", "k_euler_ancestral", "euler_a", "euler_ancestral"},
     "Uniform",
     0,
     1,
     0,
     step_euler_ancestral},
    {{"Euler", "k_euler"}, "Uniform", 0, 1, 0, step_euler},
    {{"DPM++ 2M", "k_dpmpp_2m", "dpmpp_2m"}, "Karras", 1, 1, 0, step_dpmpp_2m},
    {{"DDIM"}, "Uniform", 1, 1, 1, step_ddim},
};

const names_table latent_samplers = {samplers, sizeof samplers[0], sizeof samplers / sizeof samplers[0],
                                     "sampler"};

/* "DPM++ 2M Karras": a sampler, a space and a schedule. */
static int split_joined(const char *name, const latent_sampler **sampler, const sigma_scheduler **scheduler) {
    for (const char *space = strchr(name, ' '); space; space = strchr(space + 1, ' ')) {
        const latent_sampler *first = names_find(&latent_samplers, name, (size_t)(space - name));
        const sigma_scheduler *second = names_find(&sigma_schedulers, space + 1, strlen(space + 1));
        if (first && second) {
            *sampler = first;
            *scheduler = second;
            return 1;
        }
    }
    return 0;
}

attune_code latent_choose(const char *sampler, const char *scheduler, const latent_sampler **out_sampler,
                          const sigma_scheduler **out_scheduler, attune_error *error) {
    attune_code code = sigma_scheduler_find(scheduler, out_scheduler, error);
    if (code)
        return code;
    *out_sampler = sampler ? names_find(&latent_samplers, sampler, strlen(sampler)) : samplers;
    if (!*out_sampler && !split_joined(sampler, out_sampler, out_scheduler))
        return names_unknown(&latent_samplers, sampler, error);
    if (!(*out_scheduler)->fill)
        return sigma_scheduler_find((*out_sampler)->scheduler, out_scheduler, error);
    return ATTUNE_OK;
}
