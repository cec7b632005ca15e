/*
 * noise.h: the normal noise of torch's generators, so that a seed gives the picture that it gives elsewhere.
 *
 * CPU: mt19937 (Matsumoto & Nishimura 1998) seeded with the low 32 bits of the seed, as at::mt19937; 24-bit
 * uniforms and Box-Muller (1958) in blocks of 16 for draws of 16 and more, 53-bit uniforms and one kept value
 * below. The logarithm, sine and cosine are our own (kernels/reference/math_f64.h): the noise is a pure
 * function of the seed and of the lengths drawn before, the same bits on every machine, and within 1e-6 of
 * what torch gives on x86-64 with AVX2 or AVX-512.
 *
 * NV: what torch gives on a CUDA device, as the web UI computes it without one (modules/rng_philox.py):
 * Philox 4x32-10 (Salmon et al., SC 2011) with the seed as key, counter[0] = how many draws came before,
 * counter[2] = the element, and the first value of each Box-Muller pair.
 */
#ifndef ATTUNE_SAMPLER_NOISE_H
#define ATTUNE_SAMPLER_NOISE_H

#include <stddef.h>
#include <stdint.h>

/* Whose noise; the numbers are those of attune_request.randn_source. */
typedef enum noise_source { NOISE_CPU = 0, NOISE_NV = 1 } noise_source;

/* One image's stream of noise. Owned by the caller, may be copied; one thread at a time. */
typedef struct noise_generator {
    noise_source source;
    uint32_t draws; /* NV: so far */
    uint64_t key;   /* NV: the seed */
    uint32_t state[624];
    uint32_t next;     /* index into state; 624 = twist first */
    uint32_t has_kept; /* draws below 16: the second value of the last pair is waiting */
    double kept;
} noise_generator;

/* Start the stream of `seed`: the CPU looks at its low 32 bits, NV at all 64. */
void noise_seed(noise_generator *generator, noise_source source, uint64_t seed);

/* The next n standard normal values: torch.randn(n, generator=g). A draw of n is not two draws of
 * n / 2. n ≤ 2^32. */
void noise_normal(noise_generator *generator, float *out, size_t n);

#endif
