/* trajectory.c: see trajectory.h. A picture's 8 bits hide a wrong last bit of a sum; latents do not. */
#include "tests/sampler/trajectory.h"
#include "tests/sampler/rig.h"

#include <check.h>
#include <nettle/sha2.h>
#include <stdlib.h>

enum { STEPS = 3, IMAGES = 2, WIDTH = 72, HEIGHT = 56, LATENT = 4 * (WIDTH / 8) * (HEIGHT / 8) };

/* SHA-256 of both latents after each step of Euler a, as little-endian floats, then of the pixels. They
 * change with the tiny model and the arithmetic id, and with nothing else. */
static const char *const pinned[STEPS + 1] = {
    "fe9d268ded2205365cc7ed2aff97f2094672d3a441045a9cfc9715d2933da9cd",
    "343c428368741aa4962abf4a869a25e02f11d180eba9fd1e5cd1b248d068b276",
    "f1e3b98c76f0317521bdfc514670580df0aaae72b2b1a144456d3d0530146f6f",
    "1be72bb64953c4938c9fc24c706f9bca92b1c6a3533cdb2e6f34ea6245137d49"};

static void expect(const char *isa, uint32_t index, const void *bytes, size_t size) {
    struct sha256_ctx hash;
    uint8_t digest[SHA256_DIGEST_SIZE];
    char text[2 * SHA256_DIGEST_SIZE + 1];
    sha256_init(&hash);
    sha256_update(&hash, size, bytes);
    sha256_digest(&hash, sizeof digest, digest);
    for (int i = 0; i < SHA256_DIGEST_SIZE; ++i)
        (void)snprintf(text + 2 * i, 3, "%02x", digest[i]);
    ck_assert_msg(strcmp(text, pinned[index]) == 0, "%s kernels: %s %u has other bits, SHA-256 %s",
                  *isa ? isa : "the best", index < STEPS ? "the latents after step" : "the pixels,",
                  index + 1, text);
}

static void expect_latents(const char *isa, const session *s, uint32_t step) {
    float both[IMAGES][LATENT];
    for (uint32_t i = 0; i < IMAGES; ++i)
        memcpy(both[i], latent_x(s->latent, i), sizeof both[i]);
    expect(isa, step, both, sizeof both);
}

static void expect_pixels(const char *isa, rig *r, session *s) {
    enum { SIZE = WIDTH * HEIGHT * 3 };
    attune_error error = {0};
    uint8_t *both = malloc((size_t)IMAGES * SIZE);
    ck_assert_ptr_nonnull(both);
    for (uint32_t i = 0; i < IMAGES; ++i) {
        attune_image image = {sizeof image, WIDTH, HEIGHT, WIDTH * 3, both + (size_t)i * SIZE};
        ck_assert_int_eq(r->sampler->session_image(s, i, &image, &error), ATTUNE_OK);
    }
    expect(isa, STEPS, both, (size_t)IMAGES * SIZE);
    free(both);
}

void check_trajectory(const char *isa, uint32_t workers) {
    const attune_request request = {.struct_size = sizeof request,
                                    .prompt = "red apple",
                                    .negative_prompt = "blue",
                                    .sampler = "Euler a",
                                    .scheduler = "Automatic",
                                    .seed = 5,
                                    .memory_limit = UINT64_MAX,
                                    .steps = STEPS,
                                    .width = WIDTH,
                                    .height = HEIGHT,
                                    .batch_size = IMAGES,
                                    .cfg_scale = 7.0f};
    rig r;
    attune_error error = {0};
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_progress progress = {.struct_size = sizeof progress};
    void *made = NULL;
    uint32_t steps = 0;
    ck_assert_int_eq(setenv("ATTUNE_CPU_MASK", isa, 1), 0);
    rig_open(&r, workers);
    model *m = rig_model(&r, "tiny");
    ck_assert_int_eq(r.sampler->session_begin(m, &request, &r.binder, &r.stream, NULL, &made, &plan, &error),
                     ATTUNE_OK);
    while (!progress.done) {
        ck_assert_int_eq(r.sampler->session_step(made, NULL, &progress, &error), ATTUNE_OK);
        if (progress.phase == ATTUNE_PHASE_SAMPLE)
            expect_latents(isa, made, steps++);
    }
    ck_assert_int_eq(steps, STEPS);
    expect_pixels(isa, &r, made);
    r.sampler->session_close(made);
    r.sampler->model_close(m);
    rig_close(&r);
    ck_assert_int_eq(unsetenv("ATTUNE_CPU_MASK"), 0);
}
