/*
 * sigma.c: noise levels of a model and of a schedule.
 *
 * Sources: Ho et al. 2020 (betas and their cumulative product); Rombach et al. 2022 (betas linear in their
 * square root); Karras et al. 2022, eq. 5 (rho schedule). The log-linear map between sigma and timestep is
 * k-diffusion's DiscreteSchedule, the list of schedules the web UI's.
 */
#include "plugin/sampler/sigma.h"

#include "kernels/reference/math_f64.h"
#include "plugin/sampler/domain.h"

#include <float.h>
#include <math.h>

enum { TIMESTEPS_MAX = 65536 };

/* Value i of n evenly spaced ones, counted from the nearer end as torch does, so that both ends are exact.
 * One value is `first`. */
static double linspace(double first, double last, uint32_t n, uint32_t i) {
    if (n == 1)
        return first;
    double step = (last - first) / (double)(n - 1);
    return i < n / 2 ? first + step * (double)i : last - step * (double)(n - 1 - i);
}

static double beta(const sigma_config *config, uint32_t t) {
    if (config->beta_schedule == SIGMA_BETAS_LINEAR)
        return linspace(config->beta_start, config->beta_end, config->num_train_timesteps, t);
    double root = linspace(sqrt(config->beta_start), sqrt(config->beta_end), config->num_train_timesteps, t);
    return root * root;
}

static attune_code check_config(const sigma_config *config, attune_error *error) {
    const char *where = "scheduler_config.json";
    if (config->num_train_timesteps < 2 || config->num_train_timesteps > TIMESTEPS_MAX)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, where,
                           "num_train_timesteps is %u, must be 2 to %d", config->num_train_timesteps,
                           TIMESTEPS_MAX);
    if (config->beta_schedule != SIGMA_BETAS_LINEAR && config->beta_schedule != SIGMA_BETAS_SCALED_LINEAR)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, where,
                           "beta_schedule %d is unknown", (int)config->beta_schedule);
    if (!(config->beta_start > 0 && config->beta_start <= config->beta_end && config->beta_end < 1))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, where,
                           "beta_start %g and beta_end %g must satisfy 0 < start <= end < 1",
                           config->beta_start, config->beta_end);
    return ATTUNE_OK;
}

attune_code sigma_model_open(const attune_memory_service *memory, const sigma_config *config,
                             sigma_model *model, attune_error *error) {
    *model = (sigma_model){0};
    attune_code code = check_config(config, error);
    if (code)
        return code;
    uint32_t n = config->num_train_timesteps;
    double *values = memory->alloc(memory->context, (uint64_t)n * 2 * sizeof(double), "schedule");
    if (!values)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, "sigma_model_open",
                           "no memory for %u sigmas", n);
    *model = (sigma_model){n, values, values + n, memory};
    double product = 1;
    for (uint32_t t = 0; t < n; t++) {
        product *= 1 - beta(config, t);
        double kept = (float)product; /* ā as Stable Diffusion holds it; it shows while ā is near 1 */
        model->sigmas[t] = sqrt((1 - kept) / kept);
        model->log_sigmas[t] = attune_log_f64(model->sigmas[t]);
        if (!(model->sigmas[t] <= FLT_MAX && (t == 0 || model->log_sigmas[t] > model->log_sigmas[t - 1]))) {
            sigma_model_close(model);
            return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "scheduler_config.json",
                               "the betas give no finite, rising sigma at timestep %u", t);
        }
    }
    return ATTUNE_OK;
}

void sigma_model_close(sigma_model *model) {
    if (model->memory)
        model->memory->free(model->memory->context, model->sigmas);
    *model = (sigma_model){0};
}

double sigma_of_t(const sigma_model *model, double t) {
    double last = model->count - 1;
    t = t > 0 ? (t < last ? t : last) : 0;
    uint32_t low = (uint32_t)floor(t), high = (uint32_t)ceil(t);
    double w = t - floor(t);
    if (w == 0)
        return model->sigmas[low]; /* exp(log sigma) would move it by an ulp */
    return attune_exp_f64((1 - w) * model->log_sigmas[low] + w * model->log_sigmas[high]);
}

double sigma_to_t(const sigma_model *model, double sigma) {
    if (!(sigma > model->sigmas[0]))
        return 0;
    if (sigma >= model->sigmas[model->count - 1])
        return model->count - 1;
    uint32_t low = 0, high = model->count - 1; /* sigmas[low] <= sigma < sigmas[high] */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (sigma >= model->sigmas[middle])
            low = middle;
        else
            high = middle;
    }
    double below = model->log_sigmas[low], above = model->log_sigmas[high];
    double w = (below - attune_log_f64(sigma)) / (below - above);
    w = w > 0 ? (w < 1 ? w : 1) : 0;
    return low + w;
}

/* sigma(t) for t from the last timestep to 0. */
static void fill_uniform(const sigma_model *model, uint32_t steps, double *sigmas) {
    for (uint32_t i = 0; i < steps; i++)
        sigmas[i] = sigma_of_t(model, linspace(model->count - 1, 0, steps, i));
    sigmas[steps] = 0;
}

/* Even steps in sigma^(1/rho), rho 7, between the model's ends. */
static void fill_karras(const sigma_model *model, uint32_t steps, double *sigmas) {
    const double rho = 7;
    double low = attune_pow_f64(model->sigmas[0], 1 / rho);
    double high = attune_pow_f64(model->sigmas[model->count - 1], 1 / rho);
    for (uint32_t i = 0; i < steps; i++)
        sigmas[i] = attune_pow_f64(high + linspace(0, 1, steps, i) * (low - high), rho);
    sigmas[steps] = 0;
}

/* Even steps in log sigma between the model's ends. */
static void fill_exponential(const sigma_model *model, uint32_t steps, double *sigmas) {
    double high = model->log_sigmas[model->count - 1], low = model->log_sigmas[0];
    for (uint32_t i = 0; i < steps; i++)
        sigmas[i] = attune_exp_f64(linspace(high, low, steps, i));
    sigmas[steps] = 0;
}

/* sigma(t) for the first `steps` of `values` even t between the timesteps of the model's ends. */
static void fill_between(const sigma_model *model, uint32_t steps, uint32_t values, double *sigmas) {
    double first = sigma_to_t(model, model->sigmas[model->count - 1]),
           last = sigma_to_t(model, model->sigmas[0]);
    for (uint32_t i = 0; i < steps; i++)
        sigmas[i] = sigma_of_t(model, linspace(first, last, values, i));
    sigmas[steps] = 0;
}

static void fill_normal(const sigma_model *model, uint32_t steps, double *sigmas) {
    fill_between(model, steps, steps, sigmas);
}

/* Where Normal would stop at the smallest sigma before 0, this one leaves that out. */
static void fill_sgm_uniform(const sigma_model *model, uint32_t steps, double *sigmas) {
    fill_between(model, steps, steps + 1, sigmas);
}

static const sigma_scheduler schedulers[] = {
    {{"Automatic"}, NULL},
    {{"Uniform"}, fill_uniform},
    {{"Karras"}, fill_karras},
    {{"Exponential"}, fill_exponential},
    {{"SGM Uniform", "sgm_uniform"}, fill_sgm_uniform},
    {{"Normal"}, fill_normal},
};

const names_table sigma_schedulers = {schedulers, sizeof schedulers[0],
                                      sizeof schedulers / sizeof schedulers[0], "scheduler"};

attune_code sigma_scheduler_find(const char *name, const sigma_scheduler **out, attune_error *error) {
    *out = name ? names_find(&sigma_schedulers, name, strlen(name)) : schedulers;
    return *out ? ATTUNE_OK : names_unknown(&sigma_schedulers, name, error);
}

attune_code sigma_schedule(const sigma_scheduler *scheduler, const sigma_model *model, uint32_t steps,
                           float *sigmas, attune_error *error) {
    if (!scheduler->fill || steps == 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "sigma_schedule",
                           "a schedule needs at least one step and a scheduler other than Automatic");
    const attune_memory_service *memory = model->memory;
    double *exact = memory->alloc(memory->context, ((uint64_t)steps + 1) * sizeof(double), "schedule");
    if (!exact)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, "sigma_schedule",
                           "no memory for %u sigmas", steps);
    scheduler->fill(model, steps, exact);
    for (uint64_t i = 0; i <= steps; i++)
        sigmas[i] = (float)exact[i];
    memory->free(memory->context, exact);
    return ATTUNE_OK;
}

uint32_t sigma_timesteps(const sigma_model *model, uint32_t steps, float *sigmas) {
    uint32_t stride = model->count / steps, last = (model->count - 1) / stride;
    for (uint32_t k = 0; sigmas && k <= last; k++) {
        uint32_t t = k * stride + 1 < model->count ? k * stride + 1 : model->count - 1;
        sigmas[last - k] = (float)model->sigmas[t];
    }
    return last;
}
