/* trajectory.h: the latents of a small request, which are the same on every machine, by their hashes. */
#ifndef ATTUNE_TESTS_SAMPLER_TRAJECTORY_H
#define ATTUNE_TESTS_SAMPLER_TRAJECTORY_H

#include <stdint.h>

/* Draw two pictures of the tiny model with `isa`'s kernels ("" = the best that there are) and `workers`
 * threads. The test fails, by the step, where a bit of a latent or pixel is not the pinned one. */
void check_trajectory(const char *isa, uint32_t workers);

#endif
