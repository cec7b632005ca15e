/*
 * check_session.c: whole images through the plugin's own tables: against k-diffusion's samplers driving
 * diffusers (tests/golden, cases.json), at any number of threads, cancelled, short of memory, several at
 * once.
 */
#include "tests/sampler/goldens.h"
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"
#include "tests/support/run.h"

#include <check.h>
#include <immintrin.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

static attune_request request_of(const char *prompt, uint32_t steps, uint32_t side) {
    attune_request request = {.struct_size = sizeof request,
                              .prompt = prompt,
                              .negative_prompt = "",
                              .sampler = "Euler a",
                              .scheduler = "Automatic",
                              .seed = 5,
                              .memory_limit = UINT64_MAX,
                              .steps = steps,
                              .width = side,
                              .height = side,
                              .batch_size = 1,
                              .cfg_scale = 7.0f};
    return request;
}

static void *begin(rig *r, void *m, const attune_request *request, attune_session_plan *plan) {
    attune_error error = {0};
    void *made = NULL;
    attune_code code =
        r->sampler->session_begin(m, request, &r->binder, &r->stream, NULL, &made, plan, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    return made;
}

static void run_all(rig *r, void *made, const attune_session_plan *plan) {
    attune_progress progress = {.struct_size = sizeof progress};
    attune_error error = {0};
    uint32_t units = 0;
    while (!progress.done) {
        attune_code code = r->sampler->session_step(made, NULL, &progress, &error);
        ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
        units++;
    }
    ck_assert_uint_eq(units, plan->units);
    ck_assert_int_eq(r->sampler->session_step(made, NULL, &progress, &error), ATTUNE_FAILED_PRECONDITION);
}

static uint8_t *image_of(rig *r, void *made, const attune_session_plan *plan, uint32_t index) {
    attune_error error = {0};
    uint8_t *pixels = malloc((size_t)plan->width * plan->height * 3);
    attune_image image = {sizeof image, plan->width, plan->height, plan->width * 3, pixels};
    attune_code code = r->sampler->session_image(made, index, &image, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s", error.message);
    return pixels;
}

/* All images of a request, one after another; the caller frees. */
static uint8_t *draw(rig *r, void *m, const attune_request *request, size_t *size) {
    attune_session_plan plan = {.struct_size = sizeof plan};
    void *made = begin(r, m, request, &plan);
    run_all(r, made, &plan);
    size_t one = (size_t)plan.width * plan.height * 3;
    uint8_t *all = malloc(one * plan.images);
    for (uint32_t i = 0; i < plan.images; ++i) {
        uint8_t *pixels = image_of(r, made, &plan, i);
        memcpy(all + i * one, pixels, one);
        free(pixels);
    }
    r->sampler->session_close(made);
    *size = one * plan.images;
    return all;
}

/* ---- goldens ---- */

static const char *text_of(const json_t *entry, const char *key) {
    const char *text = json_string_value(json_object_get(entry, key));
    ck_assert_ptr_nonnull(text);
    return text;
}

static int64_t number_of(const json_t *entry, const char *key) {
    ck_assert(json_is_integer(json_object_get(entry, key)));
    return json_integer_value(json_object_get(entry, key));
}

/* Latents: torch's float32 and double runs of these trajectories differ by up to 1.6e-5 of latents up to 13
 * (emoji) and 1.6e-4 of 78 (tiny, precision.json); guidance multiplies each step's rounding by the CFG scale.
 * Relative to the largest value that is 2e-6; 2e-5 leaves room for our own sums and noise (within 1e-6 of
 * torch's). */
static void check_latents(const session *s, const char *stem) {
    npy_array wanted = golden_read(ATTUNE_F32, 4, "%s_latents", stem);
    size_t count = golden_count(&wanted);
    const float *values = wanted.tensor.data;
    double largest = 0.0;
    for (size_t i = 0; i < count; ++i)
        largest = fmax(largest, fabs((double)values[i]));
    double distance = rig_distance(latent_x(s->latent, 0), values, count);
    ck_assert_msg(distance <= 2e-5 * largest, "%s: latents off by %g of %g", stem, distance, largest);
    npy_free(&wanted);
}

/* At most 1 of 255 off, in 99.9 % of the values not at all or by 1: a value that lies on the edge between two
 * levels falls to either side. */
static void check_images(rig *r, void *s, const attune_session_plan *plan, const char *stem) {
    npy_array wanted = golden_read((attune_dtype){ATTUNE_TYPE_UINT, 8, 1}, 4, "%s_images", stem);
    size_t one = (size_t)plan->width * plan->height * 3, far = 0, differing = 0;
    const uint8_t *values = wanted.tensor.data;
    ck_assert_uint_eq(golden_count(&wanted), one * plan->images);
    for (uint32_t i = 0; i < plan->images; ++i) {
        uint8_t *pixels = image_of(r, s, plan, i);
        for (size_t j = 0; j < one; ++j) {
            int distance = abs(pixels[j] - values[i * one + j]);
            far += distance > 1;
            differing += distance > 0;
        }
        free(pixels);
    }
    ck_assert_msg(far * 1000 <= one * plan->images, "%s: %zu of %zu values off by more than 1", stem, far,
                  one * plan->images);
    /* Values on an edge are rare: about 2e-5 · 128 of them. More means that the rule of rounding is another.
     */
    ck_assert_msg(differing * 100 <= one * plan->images, "%s: %zu of %zu values differ", stem, differing,
                  one * plan->images);
    npy_free(&wanted);
}

static void check_case(const json_t *entry) {
    rig r;
    attune_session_plan plan = {.struct_size = sizeof plan};
    rig_open(&r, 2);
    model *m = rig_model(&r, text_of(entry, "model"));
    attune_request request = request_of(text_of(entry, "prompt"), (uint32_t)number_of(entry, "steps"), 0);
    request.negative_prompt = text_of(entry, "negative");
    request.sampler = text_of(entry, "sampler");
    request.scheduler = text_of(entry, "schedule");
    request.seed = (uint64_t)number_of(entry, "seed");
    request.width = (uint32_t)number_of(entry, "width");
    request.height = (uint32_t)number_of(entry, "height");
    request.batch_size = (uint32_t)number_of(entry, "batch");
    request.cfg_scale = (float)json_number_value(json_object_get(entry, "cfg"));
    const char *source = json_string_value(json_object_get(entry, "randn_source")); /* these: in some cases */
    request.randn_source = source && strcmp(source, "NV") == 0 ? ATTUNE_RANDN_NV : ATTUNE_RANDN_CPU;
    request.clip_skip = (uint32_t)json_integer_value(json_object_get(entry, "clip_skip"));
    request.subseed = (uint64_t)json_integer_value(json_object_get(entry, "subseed"));
    request.subseed_strength = (float)json_number_value(json_object_get(entry, "subseed_strength"));
    void *made = begin(&r, m, &request, &plan);
    run_all(&r, made, &plan);
    check_latents(made, text_of(entry, "stem"));
    check_images(&r, made, &plan, text_of(entry, "stem"));
    r.sampler->session_close(made);
    r.sampler->model_close(m);
    rig_close(&r);
}

START_TEST(trajectories_match) {
    char path[4352];
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/cases.json", run_source());
    json_t *cases = json_load_file(path, 0, NULL);
    ck_assert_uint_ge(json_array_size(cases), 6);
    for (size_t i = 0; i < json_array_size(cases); ++i)
        check_case(json_array_get(cases, i));
    json_decref(cases);
}
END_TEST

/* ---- determinism ---- */

START_TEST(threads_do_not_matter) {
    static const struct {
        const char *model;
        uint32_t width, height, batch;
    } cases[] = {{"emoji", 128, 128, 2}, {"tiny", 72, 56, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        uint8_t *first = NULL;
        for (uint32_t workers = 1; workers <= 3; ++workers) {
            rig r;
            size_t size;
            rig_open(&r, workers);
            model *m = rig_model(&r, cases[i].model);
            attune_request request = request_of("red apple", 3, 0);
            request.width = cases[i].width;
            request.height = cases[i].height;
            request.batch_size = cases[i].batch;
            uint8_t *pixels = draw(&r, m, &request, &size);
            if (first)
                ck_assert_mem_eq(pixels, first, size);
            if (workers == 1)
                first = pixels;
            else
                free(pixels);
            r.sampler->model_close(m);
            rig_close(&r);
        }
        free(first);
    }
}
END_TEST

/* An application that flushes denormals and rounds upwards gets the same bits, and its settings back. */
START_TEST(the_callers_floating_point_settings_do_not_matter) {
    enum { FLUSH_AND_ROUND_UP = 0xdfc0 };
    rig r;
    size_t size;
    attune_request request = request_of("red apple", 3, 0);
    rig_open(&r, 2);
    model *m = rig_model(&r, "tiny");
    uint8_t *plain = draw(&r, m, &request, &size);
    uint32_t before = _mm_getcsr();
    _mm_setcsr(FLUSH_AND_ROUND_UP);
    model *other = rig_model(&r, "tiny");
    uint8_t *pixels = draw(&r, other, &request, &size);
    uint32_t after = _mm_getcsr() & ~0x3fu; /* without the sticky flags */
    _mm_setcsr(before);
    ck_assert_uint_eq(after, FLUSH_AND_ROUND_UP);
    ck_assert_mem_eq(pixels, plain, size);
    free(plain);
    free(pixels);
    r.sampler->model_close(other);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

START_TEST(image_i_has_seed_plus_i) {
    rig r;
    size_t size;
    rig_open(&r, 2);
    model *m = rig_model(&r, "emoji");
    attune_request request = request_of("blue star", 3, 64);
    request.batch_size = 3;
    uint8_t *batch = draw(&r, m, &request, &size);
    request.batch_size = 1;
    request.seed += 2;
    size_t one = size / 3;
    uint8_t *alone = draw(&r, m, &request, &size);
    ck_assert_uint_eq(size, one);
    ck_assert_mem_eq(alone, batch + 2 * one, one);
    ck_assert_mem_ne(alone, batch, one);
    free(batch);
    free(alone);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* With a CFG scale of 1 the negative prompt is not even computed. */
START_TEST(scale_one_is_the_prompt_alone) {
    rig r;
    size_t size;
    rig_open(&r, 2);
    model *m = rig_model(&r, "emoji");
    attune_request request = request_of("red apple", 2, 64);
    request.cfg_scale = 1.0f;
    uint8_t *without = draw(&r, m, &request, &size);
    uint64_t calls = atomic_load(&r.attends);
    request.negative_prompt = "blue";
    uint8_t *with = draw(&r, m, &request, &size);
    ck_assert_uint_eq(atomic_load(&r.attends), 2 * calls);
    ck_assert_mem_eq(with, without, size);
    request.cfg_scale = 1.0001f; /* nearly the same picture, by way of both texts */
    uint8_t *guided = draw(&r, m, &request, &size);
    size_t near = 0;
    for (size_t i = 0; i < size; ++i)
        near += abs(guided[i] - with[i]) <= 2;
    ck_assert_uint_ge(near * 100, size * 99);
    free(without);
    free(with);
    free(guided);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* ---- requests ---- */

static void refuse(rig *r, void *m, const attune_request *request, attune_code wanted, const char *part) {
    attune_error error = {0};
    attune_session_plan plan = {.struct_size = sizeof plan};
    void *made = NULL;
    attune_code code =
        r->sampler->session_begin(m, request, &r->binder, &r->stream, NULL, &made, &plan, &error);
    ck_assert_msg(code == wanted && code == error.code, "%d for: %s", code, error.message);
    ck_assert_msg(strstr(error.message, part) != NULL, "'%s' is not in: %s", part, error.message);
    ck_assert_ptr_null(made);
}

START_TEST(bad_requests_are_refused) {
    rig r;
    rig_open(&r, 1);
    model *m = rig_model(&r, "emoji");
    const attune_request good = request_of("red apple", 2, 64);
    attune_request bad = good;
    bad.width = 100;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT,
           "width 100 is not a multiple of 8; the nearest are 96 and 104");
    bad = good;
    bad.height = 4;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "height 4 is not a multiple of 8; the nearest is 8");
    bad = good;
    bad.height = 40000;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "height 40000 is above 32768");
    bad = good;
    bad.steps = 0;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "steps is 0");
    bad.steps = 1001;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "1 to 1000");
    bad = good;
    bad.batch_size = 0;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "batch size is 0");
    bad = good;
    bad.cfg_scale = NAN;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "CFG scale");
    bad = good;
    bad.memory = 3;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "memory");
    bad = good;
    bad.reserved2 = 1;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "reserved");
    bad = good;
    bad.randn_source = 2;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "randn_source 2 is unknown");
    bad = good;
    bad.subseed_strength = 1.5f;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "variation strength is 1.5");
    bad.subseed_strength = NAN;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "variation strength");
    bad = good;
    bad.clip_skip = 100;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "clip skip is 100; this model's text encoder has");
    bad = good;
    bad.sampler = "DDIM";
    bad.steps = 1;
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "needs 2 to 1000");
    bad = good;
    bad.prompt = "(red:1.2.3)";
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "the weight 1.2.3 at byte offset 5 is no number");
    bad = good;
    bad.sampler = "Euller";
    refuse(&r, m, &bad, ATTUNE_NOT_FOUND, "DPM++ 2M");
    bad = good;
    bad.scheduler = "Karas";
    refuse(&r, m, &bad, ATTUNE_NOT_FOUND, "Karras");
    bad = good;
    bad.prompt = "\xff";
    refuse(&r, m, &bad, ATTUNE_INVALID_ARGUMENT, "UTF-8");
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

START_TEST(the_weakest_part_sets_the_class) {
    rig r;
    attune_session_plan plan = {.struct_size = sizeof plan};
    rig_open(&r, 1);
    model *m = rig_model(&r, "emoji");
    attune_request request = request_of("red apple", 2, 64);
    void *made = begin(&r, m, &request, &plan);
    ck_assert_int_eq(plan.determinism, ATTUNE_DETERMINISM_PORTABLE);
    ck_assert_str_eq(plan.limited_by, "");
    r.sampler->session_close(made);
    r.determinism = ATTUNE_DETERMINISM_NONE;
    made = begin(&r, m, &request, &plan);
    ck_assert_int_eq(plan.determinism, ATTUNE_DETERMINISM_NONE);
    ck_assert_ptr_nonnull(strstr(plan.limited_by, "attention"));
    r.sampler->session_close(made);
    request.determinism = ATTUNE_DETERMINISM_REPEATABLE;
    refuse(&r, m, &request, ATTUNE_FAILED_PRECONDITION, "attention");
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

START_TEST(zero_means_the_models_own_size) {
    rig r;
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_model_info info = {.struct_size = sizeof info};
    attune_error error;
    rig_open(&r, 1);
    model *m = rig_model(&r, "emoji");
    ck_assert_int_eq(r.sampler->model_describe(m, &info, &error), ATTUNE_OK);
    ck_assert_uint_eq(info.width, 128);
    ck_assert_uint_eq(info.size_multiple, 8);
    ck_assert_str_eq(info.dtype, "float16");
    ck_assert_str_eq(info.weights_file, "unet/diffusion_pytorch_model.safetensors");
    attune_request request = request_of("red apple", 2, 0);
    void *made = begin(&r, m, &request, &plan);
    ck_assert_uint_eq(plan.width, 128);
    ck_assert_uint_eq(plan.height, 128);
    ck_assert_uint_eq(plan.units, 1 + 2 + 1);
    r.sampler->session_close(made);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* ---- memory ---- */

START_TEST(the_memory_plan_is_an_upper_bound) {
    rig r;
    attune_session_plan plan = {.struct_size = sizeof plan};
    rig_open(&r, 2);
    attune_request request = request_of("red apple", 2, 128);
    r.workspace = 12345;
    for (uint32_t memory = ATTUNE_MEMORY_KEEP; memory <= ATTUNE_MEMORY_LEAST; ++memory) {
        request.memory = memory;
        model *fresh = rig_model(&r, "emoji");
        int64_t before = atomic_load(&r.bytes);
        atomic_store(&r.peak, before);
        void *made = begin(&r, fresh, &request, &plan);
        ck_assert_uint_eq(plan.workspace, 12345);
        ck_assert_uint_gt(plan.weights + memory, 0);
        run_all(&r, made, &plan);
        uint64_t taken = (uint64_t)(atomic_load(&r.peak) - before);
        uint64_t planned = plan.weights + plan.activations + plan.workspace;
        uint64_t small = 65536; /* the session's own struct and lists */
        ck_assert_msg(taken <= planned + small && taken * 100 >= planned * 95, "%u: %llu taken, %llu planned",
                      memory, (unsigned long long)taken, (unsigned long long)planned);
        r.sampler->session_close(made);
        r.sampler->model_close(fresh);
    }
    rig_close(&r);
}
END_TEST

/* Weights take memory of their own, and each chunk more keys and values: all of it is in the plan. */
START_TEST(long_weighted_prompts_are_planned) {
    rig r;
    attune_session_plan shorter = {.struct_size = sizeof shorter}, plan = shorter;
    rig_open(&r, 2);
    model *m = rig_model(&r, "emoji");
    char text[4096] = "(red:1.3)";
    for (int i = 0; i < 400; ++i)
        strcat(text, " apple");
    attune_request request = request_of("red", 2, 64);
    r.sampler->session_close(begin(&r, m, &request, &shorter));
    request.prompt = text;
    r.sampler->session_close(begin(&r, m, &request, &plan)); /* makes what the model keeps for these shapes */
    int64_t before = atomic_load(&r.bytes);
    atomic_store(&r.peak, before);
    void *made = begin(&r, m, &request, &plan);
    run_all(&r, made, &plan);
    uint64_t taken = (uint64_t)(atomic_load(&r.peak) - before);
    ck_assert_uint_gt(plan.activations, shorter.activations);
    uint64_t planned = plan.weights + plan.activations + plan.workspace;
    ck_assert_msg(taken <= planned + 65536, "%llu taken, %llu planned", (unsigned long long)taken,
                  (unsigned long long)planned);
    r.sampler->session_close(made);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* A prompt of weight 1 has the bits of the prompt alone; another weight, and another order of chunks, show.
 */
START_TEST(weights_show_in_the_picture) {
    static const char *const prompts[] = {"red apple", "(red apple:1.0)", "(red:1.4) apple",
                                          "red BREAK apple"};
    rig r;
    size_t size;
    uint8_t *first = NULL;
    rig_open(&r, 2);
    model *m = rig_model(&r, "emoji");
    for (int i = 0; i < 4; ++i) {
        attune_request request = request_of(prompts[i], 2, 64);
        uint8_t *pixels = draw(&r, m, &request, &size);
        if (first)
            ck_assert((memcmp(pixels, first, size) == 0) == (i == 1));
        if (i == 0)
            first = pixels;
        else
            free(pixels);
    }
    free(first);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

START_TEST(a_memory_limit_holds_and_says_what_would_do) {
    rig r;
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_error error = {0};
    void *made = NULL;
    rig_open(&r, 1);
    model *m = rig_model(&r, "emoji");
    attune_request request = request_of("red apple", 1, 64);
    r.workspace = 1000000;
    request.memory_limit = 4096;
    ck_assert_int_eq(r.sampler->session_begin(m, &request, &r.binder, &r.stream, NULL, &made, &plan, &error),
                     ATTUNE_RESOURCE_EXHAUSTED);
    const char *needs = strstr(error.message, "needs ");
    ck_assert_ptr_nonnull(needs);
    request.memory_limit = strtoull(needs + strlen("needs "), NULL, 10);
    made = begin(&r, m, &request, &plan);
    ck_assert_uint_eq(plan.weights + plan.activations + plan.workspace, request.memory_limit);
    run_all(&r, made, &plan);
    r.sampler->session_close(made);
    request.memory_limit--;
    refuse(&r, m, &request, ATTUNE_RESOURCE_EXHAUSTED, "needs");
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* The n-th allocation fails: an error, nothing leaked (rig_close looks), and the model still works. */
START_TEST(allocation_failures_are_survived) {
    attune_request request = request_of("(red:1.2) BREAK apple", 1, 64);
    int opened = 0, drawn = 0;
    for (uint64_t n = 1; !drawn; n += n < 40 ? 1 : n / 16) {
        rig r;
        attune_error error = {0};
        attune_session_plan plan = {.struct_size = sizeof plan};
        attune_progress progress = {.struct_size = sizeof progress};
        void *m = NULL, *made = NULL;
        rig_open(&r, 1);
        r.fail_at = atomic_load(&r.allocs) + n;
        attune_code code =
            r.sampler->model_open(r.instance, rig_model_path("tiny"), NULL, &r.stream, NULL, &m, &error);
        opened += code == ATTUNE_OK;
        if (code == ATTUNE_OK)
            code = r.sampler->session_begin(m, &request, &r.binder, &r.stream, NULL, &made, &plan, &error);
        while (code == ATTUNE_OK && !progress.done)
            code = r.sampler->session_step(made, NULL, &progress, &error);
        drawn = code == ATTUNE_OK;
        ck_assert_msg(drawn || code == ATTUNE_RESOURCE_EXHAUSTED, "allocation %llu: %d %s",
                      (unsigned long long)n, code, error.message);
        if (made)
            r.sampler->session_close(made);
        r.fail_at = 0;
        if (m) {
            size_t size;
            free(draw(&r, m, &request, &size));
            r.sampler->model_close(m);
        }
        rig_close(&r);
    }
    ck_assert_int_gt(opened, 3);
}
END_TEST

/* ---- cancel, deadline, preview ---- */

static int32_t cancel_at(void *context) {
    int *left = context;
    return --*left < 0;
}

/* A begin that is cancelled while weights are packed leaves a model that still works. */
START_TEST(a_begin_can_be_cancelled) {
    attune_request request = request_of("red apple", 1, 64);
    int cancelled = 0;
    for (int after = 0, begun = 0; !begun; ++after) {
        rig r;
        size_t size;
        int left = after;
        attune_control control = {.struct_size = sizeof control, .context = &left, .cancelled = cancel_at};
        attune_session_plan plan = {.struct_size = sizeof plan};
        attune_error error = {0};
        void *made = NULL;
        rig_open(&r, 2);
        model *m = rig_model(&r, "tiny");
        attune_code code =
            r.sampler->session_begin(m, &request, &r.binder, &r.stream, &control, &made, &plan, &error);
        begun = code == ATTUNE_OK;
        cancelled += code == ATTUNE_CANCELLED;
        ck_assert(begun || code == ATTUNE_CANCELLED);
        if (begun)
            r.sampler->session_close(made);
        free(draw(&r, m, &request, &size));
        r.sampler->model_close(m);
        rig_close(&r);
        after += after / 4;
    }
    ck_assert_int_ge(cancelled, 3);
}
END_TEST

START_TEST(cancel_ends_within_a_step) {
    rig r;
    attune_session_plan plan = {.struct_size = sizeof plan};
    rig_open(&r, 2);
    model *m = rig_model(&r, "emoji");
    attune_request request = request_of("red apple", 2, 128);
    for (int after = 0; after < 400; after = after * 3 + 7) {
        int left = after;
        attune_control control = {.struct_size = sizeof control, .context = &left, .cancelled = cancel_at};
        attune_progress progress = {.struct_size = sizeof progress};
        attune_error error = {0};
        void *made = begin(&r, m, &request, &plan);
        attune_code code = ATTUNE_OK;
        while (code == ATTUNE_OK && !progress.done)
            code = r.sampler->session_step(made, &control, &progress, &error);
        ck_assert_int_eq(code, ATTUNE_CANCELLED);
        ck_assert_int_eq(left, -1); /* not another look after the first yes */
        ck_assert_int_eq(r.sampler->session_step(made, NULL, &progress, &error), ATTUNE_FAILED_PRECONDITION);
        r.sampler->session_close(made);
    }
    attune_control late = {.struct_size = sizeof late, .deadline = 1};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_error error;
    void *made = begin(&r, m, &request, &plan);
    ck_assert_int_eq(r.sampler->session_step(made, &late, &progress, &error), ATTUNE_DEADLINE_EXCEEDED);
    r.sampler->session_close(made);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* A preview, even a cancelled one, changes nothing of the image. */
START_TEST(previews_leave_the_image_alone) {
    rig r;
    attune_session_plan plan = {.struct_size = sizeof plan};
    attune_progress progress = {.struct_size = sizeof progress};
    attune_error error = {0};
    size_t size;
    rig_open(&r, 2);
    model *m = rig_model(&r, "emoji");
    attune_request request = request_of("red apple", 3, 64);
    uint8_t *wanted = draw(&r, m, &request, &size), *pixels = malloc(size);
    attune_image image = {sizeof image, 64, 64, 192, pixels};
    void *made = begin(&r, m, &request, &plan);
    ck_assert_int_eq(r.sampler->session_step(made, NULL, &progress, &error), ATTUNE_OK);
    ck_assert_int_eq(r.sampler->session_preview(made, 0, NULL, &image, &error), ATTUNE_FAILED_PRECONDITION);
    ck_assert_int_eq(r.sampler->session_step(made, NULL, &progress, &error), ATTUNE_OK);
    ck_assert_int_eq(progress.phase, ATTUNE_PHASE_SAMPLE);
    ck_assert_float_gt(progress.sigma, 0.0f);
    ck_assert_int_eq(r.sampler->session_preview(made, 0, NULL, &image, &error), ATTUNE_OK);
    for (int after = 0; after < 20; after += 3) {
        int left = after;
        attune_control control = {.struct_size = sizeof control, .context = &left, .cancelled = cancel_at};
        ck_assert_int_eq(r.sampler->session_preview(made, 0, &control, &image, &error), ATTUNE_CANCELLED);
    }
    ck_assert_int_eq(r.sampler->session_preview(made, 1, NULL, &image, &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_int_eq(r.sampler->session_image(made, 0, &image, &error), ATTUNE_FAILED_PRECONDITION);
    do
        ck_assert_int_eq(r.sampler->session_step(made, NULL, &progress, &error), ATTUNE_OK);
    while (!progress.done);
    ck_assert_int_eq(r.sampler->session_image(made, 0, &image, &error), ATTUNE_OK);
    ck_assert_mem_eq(pixels, wanted, size);
    free(pixels);
    free(wanted);
    r.sampler->session_close(made);
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* ---- several at once ---- */

typedef struct painter {
    rig *r;
    model *m;
    attune_request request;
    uint8_t *pixels;
    size_t size;
} painter;

static void *paint(void *context) {
    painter *p = context;
    p->pixels = draw(p->r, p->m, &p->request, &p->size);
    return NULL;
}

START_TEST(sessions_run_side_by_side) {
    static const char *const prompts[] = {"red apple", "blue star", "cat", "rocket"};
    enum { PAINTERS = 4 };
    rig r;
    painter painters[PAINTERS];
    pthread_t threads[PAINTERS];
    rig_open(&r, 2);
    model *m = rig_model(&r, "emoji");
    for (int i = 0; i < PAINTERS; ++i) {
        painters[i] = (painter){&r, m, request_of(prompts[i], 3, i % 2 ? 64 : 128), NULL, 0};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, paint, &painters[i]), 0);
    }
    for (int i = 0; i < PAINTERS; ++i)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < PAINTERS; ++i) {
        size_t size;
        uint8_t *alone = draw(&r, m, &painters[i].request, &size);
        ck_assert_uint_eq(size, painters[i].size);
        ck_assert_mem_eq(alone, painters[i].pixels, size);
        free(alone);
        free(painters[i].pixels);
    }
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* ---- the tables ---- */

START_TEST(the_plugin_is_what_its_manifest_says) {
    rig r;
    attune_sampler_info info = {.struct_size = sizeof info};
    attune_error error;
    char name[64], path[4352];
    rig_open(&r, 1);
    ck_assert_int_eq(r.sampler->describe(r.instance, &info, &error), ATTUNE_OK);
    (void)snprintf(path, sizeof path, "%s/manifest.json", run_source());
    json_t *manifest = json_load_file(path, 0, NULL), *library = NULL, *entry, *sampler;
    size_t i;
    json_array_foreach(json_object_get(manifest, "libraries"), i, entry) {
        if (strcmp(text_of(entry, "id"), r.plugin->id) == 0)
            library = entry;
    }
    sampler = json_array_get(json_object_get(library, "samplers"), 0);
    ck_assert_str_eq(r.plugin->version, text_of(library, "version"));
    ck_assert_str_eq(info.name, text_of(sampler, "id"));
    ck_assert_str_eq(info.arithmetic, text_of(sampler, "arithmetic"));
    ck_assert_str_eq(attune_determinism_name(info.determinism), text_of(sampler, "determinism"));
    json_decref(manifest);
    ck_assert_int_eq(r.sampler->list(r.instance, ATTUNE_LIST_SAMPLERS, 0, name), ATTUNE_OK);
    ck_assert_str_eq(name, "Euler a");
    ck_assert_int_eq(r.sampler->list(r.instance, ATTUNE_LIST_SCHEDULERS, 0, name), ATTUNE_OK);
    ck_assert_str_eq(name, "Automatic");
    ck_assert_int_eq(r.sampler->list(r.instance, ATTUNE_LIST_SCHEDULERS, 99, name), ATTUNE_OUT_OF_RANGE);
    ck_assert_ptr_null(r.plugin->get_interface(r.instance, "attune.device/1"));
    info.struct_size = 8;
    ck_assert_int_eq(r.sampler->describe(r.instance, &info, &error), ATTUNE_INVALID_ARGUMENT);
    rig_close(&r);
}
END_TEST

TCase *session_cases(void) {
    TCase *cases = tcase_create("session");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, trajectories_match);
    tcase_add_test(cases, threads_do_not_matter);
    tcase_add_test(cases, the_callers_floating_point_settings_do_not_matter);
    tcase_add_test(cases, image_i_has_seed_plus_i);
    tcase_add_test(cases, scale_one_is_the_prompt_alone);
    tcase_add_test(cases, bad_requests_are_refused);
    tcase_add_test(cases, the_weakest_part_sets_the_class);
    tcase_add_test(cases, zero_means_the_models_own_size);
    tcase_add_test(cases, the_memory_plan_is_an_upper_bound);
    tcase_add_test(cases, long_weighted_prompts_are_planned);
    tcase_add_test(cases, weights_show_in_the_picture);
    tcase_add_test(cases, a_memory_limit_holds_and_says_what_would_do);
    tcase_add_test(cases, allocation_failures_are_survived);
    tcase_add_test(cases, a_begin_can_be_cancelled);
    tcase_add_test(cases, cancel_ends_within_a_step);
    tcase_add_test(cases, previews_leave_the_image_alone);
    tcase_add_test(cases, sessions_run_side_by_side);
    tcase_add_test(cases, the_plugin_is_what_its_manifest_says);
    return cases;
}
