/*
 * check_latent.c: the samplers with a denoiser whose answer is known. For images whose values are N(0, 1) the
 * best denoiser is D(x; sigma) = x / (1 + sigma²), the probability flow is x(sigma) ∝ sqrt(1 + sigma²), and
 * ancestral sampling ends in N(0, 1).
 */
#include "plugin/sampler/latent.h"
#include "tests/sampler/goldens.h"
#include "tests/sampler/suite.h"
#include "tests/support/test_memory.h"

#include <math.h>
#include <stdlib.h>

enum { IMAGES = 3, ELEMENTS = 4 * 9 * 7, STEPS = 12 };

static test_memory memory;

/* What the denoiser saw, and when it shall fail. */
typedef struct analytic {
    uint64_t count; /* values per call */
    uint32_t calls;
    uint32_t fail_at; /* from 1; 0 = never */
    double sigma[64];
} analytic;

static attune_code denoise(void *context, const float *x, double sigma, float *denoised,
                           attune_error *error) {
    analytic *self = context;
    if (self->calls < 64)
        self->sigma[self->calls] = sigma;
    if (++self->calls == self->fail_at)
        return attune_fail(error, ATTUNE_UNAVAILABLE, "test", "denoise", "as asked");
    for (uint64_t i = 0; i < self->count; i++)
        denoised[i] = (float)(x[i] / (1 + sigma * sigma));
    return ATTUNE_OK;
}

/* Sigmas of a schedule of the ordinary betas. */
static void make_sigmas(const char *name, uint32_t steps, float *sigmas) {
    static const sigma_config config = {0.00085, 0.012, 1000, SIGMA_BETAS_SCALED_LINEAR};
    sigma_model model;
    const sigma_scheduler *scheduler;
    ck_assert_int_eq(sigma_model_open(&memory.service, &config, &model, NULL), ATTUNE_OK);
    ck_assert_int_eq(sigma_scheduler_find(name, &scheduler, NULL), ATTUNE_OK);
    ck_assert_int_eq(sigma_schedule(scheduler, &model, steps, sigmas, NULL), ATTUNE_OK);
    sigma_model_close(&model);
}

static const latent_sampler *sampler_called(const char *name) {
    const latent_sampler *sampler;
    const sigma_scheduler *scheduler;
    ck_assert_int_eq(latent_choose(name, NULL, &sampler, &scheduler, NULL), ATTUNE_OK);
    return sampler;
}

/* The latents after all steps, in memory of the caller's. */
static float *run_all(const char *name, const float *sigmas, uint32_t steps, uint32_t images,
                      uint64_t elements, uint64_t seed) {
    latent_setup setup = {.sampler = sampler_called(name),
                          .sigmas = sigmas,
                          .steps = steps,
                          .images = images,
                          .elements = elements,
                          .seed = seed};
    latent_state *state;
    ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_OK);
    analytic model = {.count = images * elements};
    latent_denoiser denoiser = {denoise, &model};
    for (uint32_t i = 0; i < steps; i++)
        ck_assert_int_eq(latent_step(state, &denoiser, NULL), ATTUNE_OK);
    float *out = malloc(images * elements * sizeof *out);
    for (uint32_t i = 0; i < images; i++)
        memcpy(out + i * elements, latent_x(state, i), elements * sizeof *out);
    latent_close(state);
    return out;
}

/* ---- k-diffusion's loops, written down again in double with libm, in their own form (derivatives, t = −log
 * sigma) ---- */

typedef struct transcription {
    double x[ELEMENTS];
    double old[ELEMENTS];
    noise_generator generator;
} transcription;

static void transcribed_step(transcription *t, const char *name, const float *sigmas, uint32_t i) {
    double s = sigmas[i], next = sigmas[i + 1];
    float noise[ELEMENTS] = {0};
    double up = 0, down = next;
    if (strcmp(name, "Euler a") == 0 && next > 0) {
        up = fmin(next, pow(next * next * (s * s - next * next) / (s * s), 0.5));
        down = pow(next * next - up * up, 0.5);
        noise_normal(&t->generator, noise, ELEMENTS);
    }
    for (int k = 0; k < ELEMENTS; k++) {
        double denoised = t->x[k] / (1 + s * s);
        if (strcmp(name, "DPM++ 2M") == 0) {
            double h = -log(next) + log(s), d = denoised;
            if (i > 0 && next > 0) {
                double r = (-log(s) + log((double)sigmas[i - 1])) / h;
                d = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * t->old[k];
            }
            t->x[k] = next / s * t->x[k] - expm1(-h) * d;
        } else
            t->x[k] += (t->x[k] - denoised) / s * (down - s) + noise[k] * up;
        t->old[k] = denoised;
    }
}

/* Step by step. Float keeps 24 bits and a step rounds a handful of times: 12 steps stay within 64 half ulps
 * of the largest value. */
static void follow(const char *name, const char *schedule) {
    float sigmas[STEPS + 1];
    make_sigmas(schedule, STEPS, sigmas);
    latent_setup setup = {.sampler = sampler_called(name),
                          .sigmas = sigmas,
                          .steps = STEPS,
                          .images = IMAGES,
                          .elements = ELEMENTS,
                          .seed = 1234};
    latent_state *state;
    ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_OK);
    transcription *rows = calloc(IMAGES, sizeof *rows);
    for (int image = 0; image < IMAGES; image++) {
        float noise[ELEMENTS];
        noise_seed(&rows[image].generator, NOISE_CPU, 1234 + (uint64_t)image);
        noise_normal(&rows[image].generator, noise, ELEMENTS);
        for (int k = 0; k < ELEMENTS; k++)
            rows[image].x[k] = (double)noise[k] * (double)sigmas[0];
    }
    analytic model = {.count = IMAGES * ELEMENTS};
    latent_denoiser denoiser = {denoise, &model};
    for (uint32_t i = 0; i <= STEPS; i++) {
        double largest = 0;
        for (int k = 0; k < IMAGES * ELEMENTS; k++)
            largest = fmax(largest, fabs(rows[k / ELEMENTS].x[k % ELEMENTS]));
        for (int k = 0; k < IMAGES * ELEMENTS; k++) {
            double got = latent_x(state, (uint32_t)(k / ELEMENTS))[k % ELEMENTS];
            double want = rows[k / ELEMENTS].x[k % ELEMENTS];
            ck_assert_msg(fabs(got - want) <= 64 * 0x1p-24 * largest,
                          "%s, step %u, element %d: %.9g, want %.9g", name, i, k, got, want);
        }
        ck_assert_uint_eq(latent_steps_done(state), i);
        ck_assert(latent_sigma(state) == sigmas[i]);
        if (i == STEPS)
            break;
        ck_assert_int_eq(latent_step(state, &denoiser, NULL), ATTUNE_OK);
        ck_assert(model.calls == i + 1 && model.sigma[i] == (double)sigmas[i]);
        for (int image = 0; image < IMAGES; image++)
            transcribed_step(&rows[image], name, sigmas, i);
    }
    free(rows);
    latent_close(state);
}

START_TEST(steps_are_k_diffusions) {
    follow("Euler a", "Uniform");
    follow("Euler", "Normal");
    follow("DPM++ 2M", "Karras");
    follow("DPM++ 2M", "Uniform");
}
END_TEST

/* The flow's own solution, which no transcription can get wrong: x(0) = x(s) / sqrt(1 + s²). */
static double flow_error(const char *name, uint32_t steps) {
    float *sigmas = malloc((steps + 1) * sizeof *sigmas), first[ELEMENTS];
    make_sigmas("Karras", steps, sigmas);
    float *last = run_all(name, sigmas, steps, 1, ELEMENTS, 99);
    noise_generator generator;
    noise_seed(&generator, NOISE_CPU, 99);
    noise_normal(&generator, first, ELEMENTS);
    double worst = 0, s = sigmas[0];
    for (int k = 0; k < ELEMENTS; k++)
        worst = fmax(worst, fabs((double)last[k] - (double)first[k] * s / sqrt(1 + s * s)));
    free(last);
    free(sigmas);
    return worst;
}

START_TEST(deterministic_samplers_follow_the_flow) {
    double euler = flow_error("Euler", 50), euler_fine = flow_error("Euler", 200);
    double multistep = flow_error("DPM++ 2M", 50);
    ck_assert_msg(euler < 0.2 && euler_fine < euler / 3, "Euler: %g, %g", euler,
                  euler_fine);                                                         /* first order: /4 */
    ck_assert_msg(multistep < euler / 5, "DPM++ 2M: %g, Euler: %g", multistep, euler); /* second order */
}
END_TEST

/* 65,536 values: the standard error of the variance is 0.6 %; what 400 steps leave of the step error is about
 * 1 %. */
START_TEST(ancestral_steps_keep_the_variance) {
    enum { COUNT = 65536, FINE = 400 };
    float *sigmas = malloc((FINE + 1) * sizeof *sigmas);
    make_sigmas("Karras", FINE, sigmas);
    float *last = run_all("Euler a", sigmas, FINE, 1, COUNT, 5);
    double sum = 0, squares = 0;
    for (int k = 0; k < COUNT; k++) {
        sum += (double)last[k];
        squares += (double)last[k] * (double)last[k];
    }
    ck_assert_msg(fabs(sum / COUNT) < 0.02 && fabs(squares / COUNT - 1) < 0.04, "mean %g, variance %g",
                  sum / COUNT, squares / COUNT);
    free(last);
    free(sigmas);
}
END_TEST

START_TEST(first_noise_is_the_goldens) {
    static const struct {
        const char *stem;
        uint64_t seed;
    } cases[] = {
        {"case_emoji_euler_a", 1234}, {"case_emoji_euler", 123456789012345}, {"case_tiny_euler_a", 3}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        npy_array golden = golden_read(ATTUNE_F32, 4, "%s_noise", cases[c].stem);
        uint32_t images = (uint32_t)golden.tensor.shape[0];
        uint64_t elements = golden_count(&golden) / images;
        float sigmas[] = {1, 0};
        latent_setup setup = {.sampler = sampler_called(NULL),
                              .sigmas = sigmas,
                              .steps = 1,
                              .images = images,
                              .elements = elements,
                              .seed = cases[c].seed};
        latent_state *state;
        ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_OK);
        for (uint64_t k = 0; k < images * elements; k++) {
            double got = latent_x(state, (uint32_t)(k / elements))[k % elements];
            ck_assert(fabs(got - (double)((const float *)golden.tensor.data)[k]) <=
                      1e-6); /* as check_noise */
        }
        latent_close(state);
        npy_free(&golden);
    }
}
END_TEST

/* The web UI's slerp is in torch's float32: acos near 0.9 and a sine below divide by 0.4 and more, 16 half
 * ulps of values up to 4; the first noises are within 1e-6 (check_noise). */
START_TEST(variations_are_the_goldens) {
    static const struct {
        const char *stem;
        noise_source source;
        float variation;
        uint64_t subseed;
    } cases[] = {{"cpu", NOISE_CPU, 0.3f, 22}, {"nv", NOISE_NV, 0.3f, 22}, {"same", NOISE_CPU, 0.25f, 11}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        npy_array golden = golden_read(ATTUNE_F32, 4, "noise_variation_%s", cases[c].stem);
        uint32_t images = (uint32_t)golden.tensor.shape[0];
        uint64_t elements = golden_count(&golden) / images;
        float sigmas[] = {1, 0};
        latent_setup setup = {.sampler = sampler_called(NULL),
                              .sigmas = sigmas,
                              .steps = 1,
                              .images = images,
                              .elements = elements,
                              .seed = 11,
                              .source = cases[c].source,
                              .variation = cases[c].variation,
                              .subseed = cases[c].subseed,
                              .rows = 5,
                              .columns = 7};
        latent_state *state;
        ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_OK);
        for (uint64_t k = 0; k < images * elements; k++) {
            double got = latent_x(state, (uint32_t)(k / elements))[k % elements];
            double want = (double)((const float *)golden.tensor.data)[k];
            ck_assert_msg(fabs(got - want) <= 5e-6, "%s %llu: %.9g, golden %.9g", cases[c].stem,
                          (unsigned long long)k, got, want);
        }
        latent_close(state);
        npy_free(&golden);
    }
}
END_TEST

/* Latents of one row have no angles: the web UI's slerp is NaN there, a straight mix is taken. */
START_TEST(variations_of_one_row_are_numbers) {
    float sigmas[] = {1, 0};
    latent_setup setup = {.sampler = sampler_called(NULL),
                          .sigmas = sigmas,
                          .steps = 1,
                          .images = 1,
                          .elements = 32,
                          .variation = 0.5f,
                          .subseed = 1,
                          .rows = 1,
                          .columns = 8};
    latent_state *state;
    float first[32], second[32];
    noise_generator generator;
    noise_seed(&generator, NOISE_CPU, 0);
    noise_normal(&generator, first, 32);
    noise_seed(&generator, NOISE_CPU, 1);
    noise_normal(&generator, second, 32);
    ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_OK);
    for (int k = 0; k < 32; k++)
        if (first[k] > 0 && second[k] > 0)
            ck_assert(fabsf(latent_x(state, 0)[k] - (first[k] + second[k]) / 2) <= 1e-6f);
        else
            ck_assert(isfinite(latent_x(state, 0)[k]));
    latent_close(state);
    setup.rows = 5;
    ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_INVALID_ARGUMENT);
}
END_TEST

/* An image has the same bits alone and in a batch. */
START_TEST(batch_does_not_show) {
    float sigmas[STEPS + 1];
    make_sigmas("Uniform", STEPS, sigmas);
    for (size_t s = 0; s < latent_samplers.count; s++) {
        const char *name = names_label(&latent_samplers, s);
        float *batch = run_all(name, sigmas, STEPS, IMAGES, ELEMENTS, UINT64_MAX - 1); /* seed + i wraps */
        for (uint32_t i = 0; i < IMAGES; i++) {
            float *alone = run_all(name, sigmas, STEPS, 1, ELEMENTS, UINT64_MAX - 1 + i);
            ck_assert(memcmp(batch + i * ELEMENTS, alone, ELEMENTS * sizeof *alone) == 0);
            free(alone);
        }
        for (int k = 0; k < IMAGES * ELEMENTS; k++)
            ck_assert(batch[k] != 0 || !signbit(batch[k]));
        free(batch);
    }
}
END_TEST

START_TEST(state_between_steps) {
    float sigmas[] = {4, 2, 1, 0};
    latent_setup setup = {.sampler = sampler_called("DPM++ 2M"),
                          .sigmas = sigmas,
                          .steps = 3,
                          .images = IMAGES,
                          .elements = ELEMENTS,
                          .seed = 7};
    latent_state *state;
    ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_OK);
    ck_assert_uint_eq(memory.last, latent_bytes(&setup));
    ck_assert_ptr_null(latent_denoised(state, 0));
    analytic model = {.count = IMAGES * ELEMENTS};
    latent_denoiser denoiser = {denoise, &model};
    for (int i = 0; i < 3; i++) {
        float before = latent_x(state, 2)[5];
        ck_assert_int_eq(latent_step(state, &denoiser, NULL), ATTUNE_OK);
        ck_assert(latent_denoised(state, 2)[5] ==
                  (float)((double)before / (1 + (double)sigmas[i] * (double)sigmas[i])));
    }
    /* to sigma 0 the latent is the estimate itself */
    ck_assert(memcmp(latent_x(state, 1), latent_denoised(state, 1), ELEMENTS * sizeof(float)) == 0);
    attune_error error = {0};
    ck_assert_int_eq(latent_step(state, &denoiser, &error), ATTUNE_FAILED_PRECONDITION);
    ck_assert_int_eq(error.code, ATTUNE_FAILED_PRECONDITION);
    ck_assert_uint_eq(model.calls, 3);
    latent_close(state);
    latent_close(NULL);
}
END_TEST

START_TEST(denoiser_errors_are_passed_on) {
    float sigmas[] = {4, 2, 1, 0};
    for (size_t s = 0; s < latent_samplers.count; s++) {
        latent_setup setup = {.sampler = sampler_called(names_label(&latent_samplers, s)),
                              .sigmas = sigmas,
                              .steps = 3,
                              .images = 1,
                              .elements = ELEMENTS,
                              .seed = 7};
        latent_state *state;
        attune_error error = {0};
        ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_OK);
        analytic model = {.count = ELEMENTS, .fail_at = 2};
        latent_denoiser denoiser = {denoise, &model};
        ck_assert_int_eq(latent_step(state, &denoiser, &error), ATTUNE_OK);
        ck_assert_int_eq(latent_step(state, &denoiser, &error), ATTUNE_UNAVAILABLE);
        ck_assert_str_eq(error.message, "as asked");
        ck_assert_uint_eq(latent_steps_done(state), 1);
        latent_close(state);
    }
}
END_TEST

START_TEST(bad_setups_are_refused) {
    static const float rising[] = {1, 2, 0}, flat[] = {2, 2, 0}, early[] = {1, 0, 0},
                       negative[] = {1, 0.5f, -1};
    const float nan[] = {1, NAN, 0}, infinite[] = {INFINITY, 1, 0};
    const float *bad[] = {rising, flat, early, negative, nan, infinite};
    static const float good[] = {2, 1, 0};
    latent_setup setup = {.sampler = sampler_called("Euler"),
                          .sigmas = good,
                          .steps = 2,
                          .images = 1,
                          .elements = 16,
                          .seed = 0};
    latent_state *state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setup.sigmas = bad[i];
        ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_INVALID_ARGUMENT);
        ck_assert_ptr_null(state);
    }
    setup.sigmas = good;
    uint32_t *counts[] = {&setup.steps, &setup.images};
    for (int i = 0; i < 2; i++) {
        uint32_t kept = *counts[i];
        *counts[i] = 0;
        ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_INVALID_ARGUMENT);
        *counts[i] = kept;
    }
    setup.elements = 0;
    ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_INVALID_ARGUMENT);
    for (int shift = 50; shift < 64; shift++) { /* no product or sum wraps to something small */
        setup.elements = (uint64_t)1 << shift;
        setup.images = 65536;
        ck_assert_uint_eq(latent_bytes(&setup), UINT64_MAX);
        ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_RESOURCE_EXHAUSTED);
    }
    setup.elements = 16;
    memory.fail_at = memory.calls + 1;
    ck_assert_int_eq(latent_begin(&memory.service, &setup, &state, NULL), ATTUNE_RESOURCE_EXHAUSTED);
}
END_TEST

START_TEST(names_of_samplers) {
    static const struct {
        const char *sampler, *scheduler, *label, *schedule;
    } known[] = {
        {NULL, NULL, "Euler a", "Uniform"},
        {"euler A", "Automatic", "Euler a", "Uniform"},
        {"k_euler_ancestral", "uniform", "Euler a", "Uniform"},
        {"Euler", "Karras", "Euler", "Karras"},
        {"DPM++ 2M", NULL, "DPM++ 2M", "Karras"},
        {"dpmpp_2m", "normal", "DPM++ 2M", "Normal"},
        {"DPM++ 2M Karras", NULL, "DPM++ 2M", "Karras"},
        {"DPM++ 2M Karras", "Normal", "DPM++ 2M", "Karras"},
        {"Euler a karras", NULL, "Euler a", "Karras"},
        {"Euler Automatic", "Normal", "Euler", "Uniform"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const latent_sampler *sampler;
        const sigma_scheduler *scheduler;
        ck_assert_int_eq(latent_choose(known[i].sampler, known[i].scheduler, &sampler, &scheduler, NULL),
                         ATTUNE_OK);
        ck_assert_str_eq(sampler->names[0], known[i].label);
        ck_assert_str_eq(scheduler->names[0], known[i].schedule);
    }
    static const char *const unknown[] = {"", "Eulers", "Karras", "DPM++ 2M  Karras", "Euler a Karras Karras",
                                          " "};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        const latent_sampler *sampler;
        const sigma_scheduler *scheduler;
        attune_error error = {0};
        ck_assert_int_eq(latent_choose(unknown[i], NULL, &sampler, &scheduler, &error), ATTUNE_NOT_FOUND);
        ck_assert_ptr_nonnull(strstr(error.message, "known: Euler a, Euler, DPM++ 2M"));
        if (i == 1)
            ck_assert_str_eq(error.hint, "did you mean 'Euler'?");
        ck_assert_int_eq(latent_choose("Euler", "no such", &sampler, &scheduler, &error), ATTUNE_NOT_FOUND);
    }
    for (size_t i = 0; i < latent_samplers.count; i++) { /* each one's default is a schedule */
        const sigma_scheduler *scheduler;
        const latent_sampler *sampler = sampler_called(names_label(&latent_samplers, i));
        ck_assert_int_eq(sigma_scheduler_find(sampler->scheduler, &scheduler, NULL), ATTUNE_OK);
        ck_assert_ptr_nonnull((void *)(uintptr_t)scheduler->fill);
    }
}
END_TEST

START_TEST(guidance) {
    float cond[] = {1, -2, 0.5f, 3}, uncond[] = {0.5f, 1, 0.5f, -3}, out[4];
    static const float want[] = {4, -20, 0.5f, 39};
    latent_guide(cond, uncond, 7, out, 4);
    ck_assert(memcmp(out, want, sizeof out) == 0);
    latent_guide(cond, uncond, 1, out, 4);
    ck_assert(memcmp(out, cond, sizeof out) == 0);
    latent_guide(cond, uncond, 7, cond, 4); /* in place */
    ck_assert(memcmp(cond, want, sizeof out) == 0);
}
END_TEST

static void setup_memory(void) {
    test_memory_init(&memory, 0);
}

static void check_memory(void) {
    ck_assert_int_eq(memory.live, 0);
}

TCase *latent_cases(void) {
    TCase *cases = tcase_create("latent");
    tcase_set_timeout(cases, 0);
    tcase_add_checked_fixture(cases, setup_memory, check_memory);
    tcase_add_test(cases, steps_are_k_diffusions);
    tcase_add_test(cases, deterministic_samplers_follow_the_flow);
    tcase_add_test(cases, ancestral_steps_keep_the_variance);
    tcase_add_test(cases, first_noise_is_the_goldens);
    tcase_add_test(cases, variations_are_the_goldens);
    tcase_add_test(cases, variations_of_one_row_are_numbers);
    tcase_add_test(cases, batch_does_not_show);
    tcase_add_test(cases, state_between_steps);
    tcase_add_test(cases, denoiser_errors_are_passed_on);
    tcase_add_test(cases, bad_setups_are_refused);
    tcase_add_test(cases, names_of_samplers);
    tcase_add_test(cases, guidance);
    return cases;
}
