/*
 * kernels/norm.h: group normalisation (Wu & He 2018) and layer normalisation (Ba et al. 2016) in float32
 * after arithmetic id `attune-f32-1`. All kernels give the same bits: those of the reference.
 *
 * Work is cut into tasks that never share an output, by the problem alone: the thread count is not an input.
 */
#ifndef ATTUNE_KERNELS_NORM_H
#define ATTUNE_KERNELS_NORM_H

#include <stdint.h>

/* Extents are >= 1, groups divides channels, arrays are dense. */
typedef struct attune_group_norm_f32 {
    const float *x; /* (batch, pixels, channels) */
    int64_t batch, pixels, channels, groups;
    float eps;
    const float *scale, *shift; /* (channels) */
    int32_t silu;               /* not 0: SiLU of the result */
    float *out;                 /* as x; may be x */
} attune_group_norm_f32;

typedef struct attune_layer_norm_f32 {
    const float *x; /* (rows, channels) */
    int64_t rows, channels;
    float eps;
    const float *scale, *shift; /* (channels) */
    float *out;                 /* as x; may be x */
} attune_layer_norm_f32;

/*
 * Group norm runs in three phases; all tasks of one end before the next begins, those of one image depend on
 * no other image. After FACTORS the workspace begins with two arrays (batch, channels): a factor f and an
 * addend a, and the normalised value is fma(x, f, a): what loads x next may do APPLY's work itself.
 */
enum { ATTUNE_NORM_SUMS, ATTUNE_NORM_FACTORS, ATTUNE_NORM_APPLY, ATTUNE_NORM_PHASES };

/* A kernel. [any] run functions set and restore the floating-point environment. */
typedef struct attune_norm_f32_kernel {
    const char *isa; /* "generic", "avx2", "avx512", "neon" */
    /* [any] How many tasks of a phase each image has, >= 1; image i has tasks i * n ... i * n + n - 1. */
    uint64_t (*group_tasks)(const attune_group_norm_f32 *args, int phase);
    void (*group_run)(const attune_group_norm_f32 *args, int phase, uint64_t task, float *workspace);
    uint64_t (*layer_tasks)(const attune_layer_norm_f32 *args);
    void (*layer_run)(const attune_layer_norm_f32 *args, uint64_t task);
} attune_norm_f32_kernel;

extern const attune_norm_f32_kernel attune_norm_f32_generic;
extern const attune_norm_f32_kernel attune_norm_f32_avx2;
extern const attune_norm_f32_kernel attune_norm_f32_avx512;
extern const attune_norm_f32_kernel attune_norm_f32_neon;

/* [any] Floats of workspace that all tasks of a problem share, whichever kernel runs them. */
uint64_t attune_group_norm_f32_workspace(const attune_group_norm_f32 *args);

/* ---- the reference (kernels/reference): no workspace, one thread ---- */

/* [any] Everything. Sets and restores the floating-point environment. */
void attune_group_norm_f32_reference(const attune_group_norm_f32 *args);
void attune_layer_norm_f32_reference(const attune_layer_norm_f32 *args);

#endif
