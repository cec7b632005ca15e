/*
 * noise.c: torch's normal noise.
 *
 * Sources: Matsumoto & Nishimura, "Mersenne Twister", ACM TOMACS 8, 1998 (generator and seeding of 2002); Box
 * & Muller, Annals of Mathematical Statistics 29, 1958. How torch cuts a draw into blocks, which of the two
 * uniforms is the radius, and where it rounds to float are facts about ATen's CPU generator; the goldens
 * check them. Philox: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */
#include "plugin/sampler/noise.h"

#include "kernels/reference/math_f64.h"

#include <math.h>
#include <string.h>

enum { STATE = 624, MIDDLE = 397, BLOCK = 16 };

static const double two_pi = 0x1.921fb54442d18p+2;

void noise_seed(noise_generator *generator, noise_source source, uint64_t seed) {
    memset(generator, 0, sizeof *generator);
    generator->source = source;
    generator->key = seed;
    if (source == NOISE_NV)
        return;
    generator->state[0] = (uint32_t)seed; /* at::mt19937 drops the upper half */
    for (uint32_t i = 1; i < STATE; i++) {
        uint32_t before = generator->state[i - 1];
        generator->state[i] = 1812433253u * (before ^ (before >> 30)) + i;
    }
    generator->next = STATE;
}

/* The next 624 words: each from its neighbour's lower 31 bits and the word 397 further on. */
static void twist(uint32_t state[STATE]) {
    for (uint32_t i = 0; i < STATE; i++) {
        uint32_t mixed = (state[i] & 0x80000000u) | (state[(i + 1) % STATE] & 0x7fffffffu);
        state[i] = state[(i + MIDDLE) % STATE] ^ (mixed >> 1) ^ ((mixed & 1u) ? 0x9908b0dfu : 0u);
    }
}

static uint32_t next_word(noise_generator *generator) {
    if (generator->next == STATE) {
        twist(generator->state);
        generator->next = 0;
    }
    uint32_t y = generator->state[generator->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* [0, 1) in steps of 2^-24. */
static float uniform_float(noise_generator *generator) {
    return (float)(next_word(generator) & 0xffffffu) * 0x1p-24f;
}

/* [0, 1) in steps of 2^-53; the first word is the upper half. */
static double uniform_double(noise_generator *generator) {
    uint64_t high = next_word(generator), low = next_word(generator);
    return (double)(((high << 32) | low) & 0x1fffffffffffffu) * 0x1p-53;
}

/*
 * 16 uniforms → 16 normals: the first 8 give the radii, the last 8 the angles. Radius and angle are rounded
 * to float where torch does: an angle near 2 pi moves by up to 2^-22 there, which a radius of 5 would turn
 * into 1.2e-6.
 */
static void box_muller(float block[BLOCK]) {
    for (int j = 0; j < BLOCK / 2; j++) {
        float u = 1.0f - block[j]; /* (0, 1] */
        float radius = (float)sqrt(-2.0 * attune_log_f64(u));
        float angle = (float)two_pi * block[j + BLOCK / 2];
        block[j] = radius * (float)attune_cos_f64(angle) + 0.0f; /* never -0 */
        block[j + BLOCK / 2] = radius * (float)attune_sin_f64(angle) + 0.0f;
    }
}

/* All uniforms first, then blocks of 16; what is left over at the end is a fresh block over the last 16
 * places. */
static void draw_blocks(noise_generator *generator, float *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = uniform_float(generator);
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK)
        box_muller(out + i);
    if (n % BLOCK) {
        float *last = out + (n - BLOCK);
        for (int i = 0; i < BLOCK; i++)
            last[i] = uniform_float(generator);
        box_muller(last);
    }
}

/* One value in double; the other of the pair is kept for the next short draw, across long ones. */
static double draw_one(noise_generator *generator) {
    if (generator->has_kept) {
        generator->has_kept = 0;
        return generator->kept;
    }
    double angle = two_pi * uniform_double(generator);
    double radius = sqrt(-2.0 * attune_log1p_f64(-uniform_double(generator)));
    generator->kept = radius * attune_sin_f64(angle);
    generator->has_kept = 1;
    return radius * attune_cos_f64(angle);
}

/* Ten rounds of Philox on `counter`; the key moves on by its Weyl constants between them. */
static void philox(uint32_t counter[4], uint64_t seed) {
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t first = (uint64_t)counter[0] * 0xd2511f53u, second = (uint64_t)counter[2] * 0xcd9e8d57u;
        counter[0] = (uint32_t)(second >> 32) ^ counter[1] ^ key[0];
        counter[1] = (uint32_t)second;
        counter[2] = (uint32_t)(first >> 32) ^ counter[3] ^ key[1];
        counter[3] = (uint32_t)first;
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
}

/* Both uniforms lie in the middle of their steps: never 0. In double: the web UI's stated values come out;
 * CUDA's float differs in the last bits. */
static void draw_nv(noise_generator *generator, float *out, size_t n) {
    const double angle_step = two_pi * 0x1p-32;
    for (size_t i = 0; i < n; i++) {
        uint32_t counter[4] = {generator->draws, 0, (uint32_t)i, 0};
        philox(counter, generator->key);
        double u = (double)counter[0] * 0x1p-32 + 0x1p-33;
        double v = (double)counter[1] * angle_step + angle_step / 2;
        out[i] = (float)(sqrt(-2.0 * attune_log_f64(u)) * attune_sin_f64(v)) + 0.0f; /* never -0 */
    }
    generator->draws++;
}

void noise_normal(noise_generator *generator, float *out, size_t n) {
    if (generator->source == NOISE_NV) {
        draw_nv(generator, out, n);
        return;
    }
    if (n >= BLOCK) {
        draw_blocks(generator, out, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = (float)draw_one(generator);
}
