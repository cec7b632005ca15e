/*
 * sigma.h: noise levels. The model's sigmas from its betas, the map between sigma and timestep, and the
 * schedules that choose the sigmas of n steps (k-diffusion, Karras et al. 2022, names as in the web UI).
 *
 * Everything is computed in double with kernels/reference/math_f64.h and rounded to float once, at the end.
 */
#ifndef ATTUNE_SAMPLER_SIGMA_H
#define ATTUNE_SAMPLER_SIGMA_H

#include "attune/plugin.h"
#include "plugin/sampler/names.h"

/* How a diffusers scheduler_config.json describes its betas. */
typedef enum sigma_betas { SIGMA_BETAS_LINEAR, SIGMA_BETAS_SCALED_LINEAR } sigma_betas;

typedef struct sigma_config {
    double beta_start;
    double beta_end;
    uint32_t num_train_timesteps; /* 2 … 65536 */
    sigma_betas beta_schedule;    /* "linear" or "scaled_linear" */
} sigma_config;

/* A model's sigmas, ascending by timestep. Immutable after sigma_model_open: any thread may read it. */
typedef struct sigma_model {
    uint32_t count; /* num_train_timesteps */
    double *sigmas; /* sqrt((1 − ā) / ā), ā = cumulative product of 1 − beta, rounded to float as SD does */
    double *log_sigmas;
    const attune_memory_service *memory;
} sigma_model;

/* [any] Fill `model`; free it with sigma_model_close. Errors: INVALID_ARGUMENT (betas that are not
 * 0 < start ≤ end < 1, too few or many timesteps), RESOURCE_EXHAUSTED. */
attune_code sigma_model_open(const attune_memory_service *memory, const sigma_config *config,
                             sigma_model *model, attune_error *error);
/* Free what it owns and clear it; a cleared model is allowed. */
void sigma_model_close(sigma_model *model);

/* [any] The sigma of a fractional timestep, log-linear between neighbours; t outside 0 … count − 1 is
 * clamped. */
double sigma_of_t(const sigma_model *model, double t);

/* [any] The fractional timestep of a sigma (k-diffusion's sigma_to_t with quantize=False), clamped to
 * 0 … count − 1. The UNet gets it rounded to float. */
double sigma_to_t(const sigma_model *model, double sigma);

/* A schedule. `fill` writes steps + 1 values, the last of them 0 for the schedules so far. */
typedef struct sigma_scheduler {
    names_list names;
    void (*fill)(const sigma_model *model, uint32_t steps,
                 double *sigmas); /* NULL: Automatic, the sampler's own */
} sigma_scheduler;

/* The table: "Automatic" first, then in the web UI's order. */
extern const names_table sigma_schedulers;

/* [any] By name, NULL = Automatic. Error: NOT_FOUND, with the known names and the nearest. */
attune_code sigma_scheduler_find(const char *name, const sigma_scheduler **out, attune_error *error);

/* [any] The steps + 1 sigmas of `scheduler` (not Automatic: see latent_choose), steps ≥ 1, rounded to float.
 * Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED. */
attune_code sigma_schedule(const sigma_scheduler *scheduler, const sigma_model *model, uint32_t steps,
                           float *sigmas, attune_error *error);

/*
 * [any] The web UI's timesteps for `steps` asked for (1 … count): t = min(k · s + 1, count − 1) for k = 0, 1,
 * 2 … while k · s < count, s = count div steps, as their sigmas, descending (the first two are equal where s
 * is 1). Writes one value more than it returns, which is the number of steps between them: mostly not
 * `steps`, less by one where s divides count, and up to 2 · steps − 1; 0 for 1. With `sigmas` NULL it only
 * counts.
 */
uint32_t sigma_timesteps(const sigma_model *model, uint32_t steps, float *sigmas);

#endif
