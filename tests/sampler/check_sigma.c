/* check_sigma.c: sigmas and timesteps against k-diffusion's formulas in double (tests/golden), names and
 * errors. */
#include "plugin/sampler/sigma.h"
#include "tests/sampler/goldens.h"
#include "tests/sampler/suite.h"
#include "tests/support/test_memory.h"

#include <math.h>
#include <stdlib.h>

static const attune_dtype f64 = {ATTUNE_TYPE_FLOAT, 64, 1};
static const sigma_config stable_diffusion = {0.00085, 0.012, 1000, SIGMA_BETAS_SCALED_LINEAR};

static test_memory memory;
static sigma_model model;

static void setup(void) {
    test_memory_init(&memory, 0);
    ck_assert_int_eq(sigma_model_open(&memory.service, &stable_diffusion, &model, NULL), ATTUNE_OK);
}

static void teardown(void) {
    sigma_model_close(&model);
    ck_assert_int_eq(memory.live, 0);
}

static void near(double got, double want, double relative, double absolute, const char *what, size_t i) {
    ck_assert_msg(fabs(got - want) <= relative * fabs(want) + absolute, "%s %zu: %.17g, golden %.17g", what,
                  i, got, want);
}

START_TEST(model_sigmas_are_diffusers) {
    npy_array golden = golden_read(f64, 1, "model_sigmas_f64");
    const double *want = golden.tensor.data;
    ck_assert_uint_eq(golden_count(&golden), model.count);
    for (size_t i = 0; i < model.count;
         i++) /* the cumulative product is rounded to float before: then a few ulps */
        near(model.sigmas[i], want[i], 1e-15, 0, "model sigma", i);
    npy_free(&golden);
}
END_TEST

/* Both logarithms and the division by their difference (0.003 at the least) amplify an ulp: t to 1e-10. */
START_TEST(timesteps_and_sigmas_map_both_ways) {
    npy_array sigmas = golden_read(ATTUNE_F32, 1, "sigma_to_t_in_f32"),
              ts = golden_read(f64, 1, "sigma_to_t_out_f64");
    for (size_t i = 0; i < golden_count(&ts); i++)
        near(sigma_to_t(&model, ((const float *)sigmas.tensor.data)[i]), ((const double *)ts.tensor.data)[i],
             0, 1e-10, "t", i);
    npy_free(&sigmas);
    npy_free(&ts);
    ts = golden_read(ATTUNE_F32, 1, "t_to_sigma_in_f32");
    sigmas = golden_read(f64, 1, "t_to_sigma_out_f64");
    for (size_t i = 0; i < golden_count(&ts); i++)
        near(sigma_of_t(&model, ((const float *)ts.tensor.data)[i]), ((const double *)sigmas.tensor.data)[i],
             2e-15, 0, "sigma", i);
    npy_free(&sigmas);
    npy_free(&ts);
    for (uint32_t t = 0; t < model.count; t++)
        ck_assert(sigma_to_t(&model, model.sigmas[t]) == t);
    ck_assert(sigma_to_t(&model, 0) == 0 && sigma_to_t(&model, 1e9) == 999 && sigma_to_t(&model, NAN) == 0);
    ck_assert(sigma_of_t(&model, -5) == model.sigmas[0] && sigma_of_t(&model, 5000) == model.sigmas[999]);
}
END_TEST

static void compare_schedule(const char *name, const char *stem, uint32_t steps) {
    const sigma_scheduler *scheduler;
    ck_assert_int_eq(sigma_scheduler_find(name, &scheduler, NULL), ATTUNE_OK);
    float got[40];
    got[steps + 1] = -1;
    ck_assert_int_eq(sigma_schedule(scheduler, &model, steps, got, NULL), ATTUNE_OK);
    ck_assert(got[steps + 1] == -1);
    npy_array exact = golden_read(f64, 1, "sigmas_%s_%u_steps_f64", stem, steps);
    npy_array torch = golden_read(ATTUNE_F32, 1, "sigmas_%s_%u_steps_f32", stem, steps);
    ck_assert_uint_eq(golden_count(&exact), steps + 1);
    for (uint32_t i = 0; i <= steps; i++) {
        double want = ((const double *)exact.tensor.data)[i];
        near(got[i], want, 0x1.000001p-24, 0, stem, i); /* rounded to float once: half an ulp */
        /* k-diffusion computes in float, with seven roundings in Karras' power: 6.1e-7 there */
        near(got[i], (double)((const float *)torch.tensor.data)[i], 1e-6, 0, stem, i);
    }
    npy_free(&exact);
    npy_free(&torch);
}

START_TEST(schedules_are_k_diffusions) {
    static const uint32_t steps[] = {1, 2, 3, 10, 20, 31};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        compare_schedule("Uniform", "automatic", steps[i]);
        compare_schedule("Normal", "normal", steps[i]);
        compare_schedule("Karras", "karras", steps[i]);
        compare_schedule("Exponential", "exponential", steps[i]);
        compare_schedule("SGM Uniform", "sgm_uniform", steps[i]);
    }
}
END_TEST

/* Every length keeps what latent_begin asks for. */
START_TEST(schedules_fall_from_max_to_zero) {
    for (size_t s = 1; s < sigma_schedulers.count; s++) {
        const sigma_scheduler *scheduler;
        ck_assert_int_eq(sigma_scheduler_find(names_label(&sigma_schedulers, s), &scheduler, NULL),
                         ATTUNE_OK);
        float *sigmas = malloc(1001 * sizeof *sigmas);
        for (uint32_t steps = 1; steps <= 1000; steps++) {
            ck_assert_int_eq(sigma_schedule(scheduler, &model, steps, sigmas, NULL), ATTUNE_OK);
            near(sigmas[0], model.sigmas[999], 1e-7, 0, "first", steps); /* Karras: a root and a power */
            ck_assert(sigmas[steps] == 0);
            for (uint32_t i = 0; i < steps; i++)
                if (!(sigmas[i] > sigmas[i + 1])) /* an assertion writes to a file */
                    ck_abort_msg("%u steps: sigma %u is not above the next", steps, i);
        }
        free(sigmas);
    }
}
END_TEST

/* The web UI's: a step less where the steps divide 1,000, more where they do not. */
START_TEST(timesteps_are_the_web_uis) {
    static const struct {
        uint32_t asked, steps, first, second;
    } cases[] = {{1, 0, 1, 0},       {2, 1, 501, 1},       {3, 3, 999, 667},     {10, 9, 901, 801},
                 {20, 19, 951, 901}, {501, 999, 999, 999}, {1000, 999, 999, 999}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float sigmas[1001];
        uint32_t steps = sigma_timesteps(&model, cases[i].asked, sigmas);
        ck_assert_uint_eq(steps, cases[i].steps);
        ck_assert_uint_eq(sigma_timesteps(&model, cases[i].asked, NULL), steps);
        ck_assert(sigmas[0] == (float)model.sigmas[cases[i].first]);
        if (steps)
            ck_assert(sigmas[1] == (float)model.sigmas[cases[i].second]);
        ck_assert(sigmas[steps] == (float)model.sigmas[1]);
    }
}
END_TEST

START_TEST(linear_betas) {
    sigma_config config = {0.0001, 0.02, 10, SIGMA_BETAS_LINEAR};
    sigma_model linear;
    ck_assert_int_eq(sigma_model_open(&memory.service, &config, &linear, NULL), ATTUNE_OK);
    double kept = 1;
    for (int t = 0; t < 10; t++) {
        kept *= 1 - (0.0001 + t * (0.02 - 0.0001) / 9);
        near(linear.sigmas[t], sqrt((1 - kept) / kept), 1e-3, 0, "sigma",
             (size_t)t); /* 1 − ā keeps 3 digits in float */
    }
    sigma_model_close(&linear);
    sigma_model_close(&linear); /* closed twice: nothing happens */
}
END_TEST

START_TEST(bad_betas_are_refused) {
    static const sigma_config bad[] = {
        {0, 0.012, 1000, SIGMA_BETAS_SCALED_LINEAR},
        {-0.1, 0.012, 1000, SIGMA_BETAS_LINEAR},
        {0.02, 0.01, 1000, SIGMA_BETAS_LINEAR},
        {0.1, 1, 1000, SIGMA_BETAS_LINEAR},
        {NAN, 0.01, 1000, SIGMA_BETAS_LINEAR},
        {0.01, NAN, 1000, SIGMA_BETAS_LINEAR},
        {0.00085, 0.012, 1, SIGMA_BETAS_SCALED_LINEAR},
        {0.00085, 0.012, 65537, SIGMA_BETAS_SCALED_LINEAR},
        {0.00085, 0.012, 1000, (sigma_betas)7},
        {0.9, 0.99, 65536, SIGMA_BETAS_LINEAR},          /* ā reaches 0 */
        {1e-12, 1e-12, 1000, SIGMA_BETAS_SCALED_LINEAR}, /* ā stays 1 in float */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sigma_model refused;
        attune_error error = {0};
        ck_assert_int_eq(sigma_model_open(&memory.service, &bad[i], &refused, &error),
                         ATTUNE_INVALID_ARGUMENT);
        ck_assert_str_eq(error.where, "scheduler_config.json");
        ck_assert_ptr_null(refused.sigmas);
    }
}
END_TEST

START_TEST(memory_runs_out) {
    test_memory none;
    sigma_model refused;
    test_memory_init(&none, 1);
    ck_assert_int_eq(sigma_model_open(&none.service, &stable_diffusion, &refused, NULL),
                     ATTUNE_RESOURCE_EXHAUSTED);
    float sigmas[11];
    const sigma_scheduler *scheduler;
    ck_assert_int_eq(sigma_scheduler_find("karras", &scheduler, NULL), ATTUNE_OK);
    memory.fail_at = memory.calls + 1;
    ck_assert_int_eq(sigma_schedule(scheduler, &model, 10, sigmas, NULL), ATTUNE_RESOURCE_EXHAUSTED);
    memory.fail_at = 0;
    ck_assert_int_eq(sigma_schedule(scheduler, &model, 0, sigmas, NULL), ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(sigma_scheduler_find(NULL, &scheduler, NULL), ATTUNE_OK);
    ck_assert_int_eq(sigma_schedule(scheduler, &model, 10, sigmas, NULL),
                     ATTUNE_INVALID_ARGUMENT); /* Automatic */
}
END_TEST

START_TEST(names_of_schedulers) {
    static const char *const labels[] = {"Automatic",   "Uniform",     "Karras",
                                         "Exponential", "SGM Uniform", "Normal"};
    ck_assert_uint_eq(sigma_schedulers.count, sizeof labels / sizeof labels[0]);
    for (size_t i = 0; i < sigma_schedulers.count; i++)
        ck_assert_str_eq(names_label(&sigma_schedulers, i), labels[i]);
    ck_assert_ptr_null(names_label(&sigma_schedulers, sigma_schedulers.count));
    const sigma_scheduler *found;
    ck_assert_int_eq(sigma_scheduler_find("KARRAS", &found, NULL), ATTUNE_OK);
    ck_assert_str_eq(found->names[0], "Karras");
    attune_error error = {0};
    ck_assert_int_eq(sigma_scheduler_find("Karas", &found, &error), ATTUNE_NOT_FOUND);
    ck_assert_str_eq(error.message, "unknown scheduler 'Karas'; known: Automatic, Uniform, Karras, "
                                    "Exponential, SGM Uniform, Normal");
    ck_assert_str_eq(error.hint, "did you mean 'Karras'?");
    ck_assert_int_eq(sigma_scheduler_find("", &found, &error), ATTUNE_NOT_FOUND);
    ck_assert_str_eq(error.hint, "use one of the known names");
    ck_assert_int_eq(sigma_scheduler_find("two\nlines", &found, &error), ATTUNE_NOT_FOUND);
    ck_assert_ptr_null(strchr(error.message, '\n'));
    char longest[4096];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    ck_assert_int_eq(sigma_scheduler_find(longest, &found, &error), ATTUNE_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(error.message, "known: Automatic"));
}
END_TEST

TCase *sigma_cases(void) {
    TCase *cases = tcase_create("sigma");
    tcase_set_timeout(cases, 0);
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, model_sigmas_are_diffusers);
    tcase_add_test(cases, timesteps_and_sigmas_map_both_ways);
    tcase_add_test(cases, schedules_are_k_diffusions);
    tcase_add_test(cases, schedules_fall_from_max_to_zero);
    tcase_add_test(cases, timesteps_are_the_web_uis);
    tcase_add_test(cases, linear_betas);
    tcase_add_test(cases, bad_betas_are_refused);
    tcase_add_test(cases, memory_runs_out);
    tcase_add_test(cases, names_of_schedulers);
    return cases;
}
