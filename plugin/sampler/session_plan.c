/* session_plan.c: what happens before the first step: the request is checked, attention bound, memory
 * planned. */
#include "plugin/sampler/attention.h"
#include "plugin/sampler/session.h"

#include <math.h>

enum { MAX_STEPS = 1000, MAX_SIDE = 32768, MAX_BATCH = 4096 };

static attune_code check_side(const char *name, uint32_t value, uint32_t multiple, attune_error *error) {
    if (value % multiple == 0 && value >= multiple && value <= MAX_SIDE)
        return ATTUNE_OK;
    uint32_t low = value / multiple * multiple, high = low + multiple;
    if (value > MAX_SIDE)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, name, "%s %u is above %d", name,
                           value, MAX_SIDE);
    if (low == 0)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, name,
                           "%s %u is not a multiple of %u; the nearest is %u", name, value, multiple,
                           multiple);
    return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, name,
                       "%s %u is not a multiple of %u; the nearest are %u and %u", name, value, multiple, low,
                       high);
}

static attune_code check_numbers(const attune_request *request, attune_error *error) {
    if (request->struct_size < sizeof *request || request->reserved2 != 0 || !request->prompt)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "request",
                           "the request is too short, has a reserved field that is not 0, or no prompt");
    if (!attune_determinism_name(request->determinism))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "determinism",
                           "determinism class %d is unknown", request->determinism);
    if (request->steps < 1 || request->steps > MAX_STEPS)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "steps",
                           "steps is %u; 1 to %d are possible", request->steps, MAX_STEPS);
    if (request->batch_size < 1 || request->batch_size > MAX_BATCH)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "batch_size",
                           "batch size is %u; 1 to %d are possible", request->batch_size, MAX_BATCH);
    if (!isfinite(request->cfg_scale))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "cfg_scale",
                           "the CFG scale is not a number");
    if (request->memory > ATTUNE_MEMORY_LEAST)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "memory",
                           "memory %u is unknown: 0 is keep, 1 is phases, 2 is least", request->memory);
    if (request->randn_source > ATTUNE_RANDN_NV)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "randn_source",
                           "randn_source %u is unknown: 0 is CPU, 1 is NV", request->randn_source);
    if (!(request->subseed_strength >= 0 && request->subseed_strength <= 1))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "subseed_strength",
                           "the variation strength is %g; 0 to 1 are possible",
                           (double)request->subseed_strength);
    return ATTUNE_OK;
}

static attune_code check_clip_skip(const model *m, const attune_request *request, attune_error *error) {
    if (request->clip_skip <= (uint64_t)m->text.config.num_hidden_layers)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "clip_skip",
                       "clip skip is %u; this model's text encoder has %lld layers", request->clip_skip,
                       (long long)m->text.config.num_hidden_layers);
}

static attune_code check_class(const model *m, const attune_request *request, attune_error *error) {
    if (request->determinism <= m->ops->determinism)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_FAILED_PRECONDITION, SAMPLER_DOMAIN, "determinism",
                       "determinism class %s is asked for; this sampler keeps %s, limited by %s",
                       attune_determinism_name(request->determinism),
                       attune_determinism_name(m->ops->determinism), m->ops->limited_by);
}

static attune_code read_size(session *s, const attune_request *request, attune_error *error) {
    attune_model_info info;
    model_describe(s->m, &info);
    uint32_t width = request->width ? request->width : info.width;
    uint32_t height = request->height ? request->height : info.height;
    attune_code code = check_side("width", width, info.size_multiple, error);
    if (code == ATTUNE_OK)
        code = check_side("height", height, info.size_multiple, error);
    s->images = request->batch_size;
    s->cfg_scale = request->cfg_scale;
    s->width = width / info.size_multiple;
    s->height = height / info.size_multiple;
    return code;
}

/* What lies beside the arena on the host: staged latents, guidance, timesteps, one decoded image, the pixels.
 */
typedef struct host_bytes {
    uint64_t staged;
    uint64_t uncond;
    uint64_t timesteps;
    uint64_t decoded;
    uint64_t pixels;
    uint64_t latent;
    uint64_t embeddings; /* where prompt weights are multiplied */
    uint64_t prompt;     /* ids and weights */
} host_bytes;

static host_bytes count_host(const session *s, const latent_setup *setup) {
    uint64_t batch = (uint64_t)(s->prompt.texts * s->images), images = (uint64_t)s->images;
    uint64_t scale = (uint64_t)vae_scale(&s->m->config.vae);
    uint64_t values = (uint64_t)(s->height * s->width) * scale * scale * 3; /* at most 2^32 by MAX_SIDE */
    host_bytes bytes;
    bytes.staged = batch * setup->elements * sizeof(float);
    bytes.uncond = s->prompt.texts == 2 ? images * setup->elements * sizeof(float) : 0;
    bytes.timesteps = batch * sizeof(float);
    bytes.decoded = values * sizeof(float);
    bytes.pixels = images * values;
    bytes.latent = latent_bytes(setup);
    bytes.prompt = (uint64_t)prompt_tokens_all(&s->prompt) * (sizeof(int32_t) + sizeof(float));
    bytes.embeddings = s->prompt.weights ? (uint64_t)prompt_tokens_all(&s->prompt) *
                                               (uint64_t)s->m->text.config.hidden_size * sizeof(float)
                                         : 0;
    return bytes;
}

static uint64_t saturating_add(uint64_t a, uint64_t b) {
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t total_host(const host_bytes *bytes) {
    uint64_t sum = bytes->staged + bytes->uncond + bytes->timesteps + bytes->decoded + bytes->pixels +
                   bytes->embeddings + bytes->prompt;
    return saturating_add(sum, bytes->latent);
}

/* The image's class: the sampler's own, or that of its weakest attention. */
static void name_class(const session *s, uint32_t weakest, attune_session_plan *plan) {
    const attune_attention_problem *problem = &s->pass.attention[weakest].problem;
    if (s->m->ops->determinism <= plan->determinism) {
        plan->determinism = s->m->ops->determinism;
        (void)snprintf(plan->limited_by, sizeof plan->limited_by, "%s", s->m->ops->limited_by);
        return;
    }
    (void)snprintf(plan->limited_by, sizeof plan->limited_by,
                   "attention of %lld queries, %lld keys, head size %lld by the backend bound to it",
                   (long long)problem->n_q, (long long)problem->n_k, (long long)problem->d_qk);
}

static void fill_plan(const session *s, const attune_request *request, attune_session_plan *plan) {
    uint32_t scale = (uint32_t)vae_scale(&s->m->config.vae);
    plan->struct_size = sizeof *plan;
    plan->width = (uint32_t)s->width * scale;
    plan->height = (uint32_t)s->height * scale;
    plan->images = (uint32_t)s->images;
    plan->units = 1 + s->steps + (uint32_t)s->images;
    plan->seed = request->seed;
}

static attune_code take_host(session *s, void *out, uint64_t bytes, const char *what, attune_error *error) {
    const attune_memory_service *memory = s->m->host.memory;
    void *taken = memory->alloc(memory->context, bytes, "session");
    memcpy(out, &taken, sizeof taken);
    return taken ? ATTUNE_OK : services_no_memory(what, bytes, error);
}

static attune_code allocate(session *s, const host_bytes *bytes, const latent_setup *setup,
                            attune_error *error) {
    PASS_TRY(pass_start(&s->pass, error));
    PASS_TRY(take_host(s, &s->staged, bytes->staged, "latents", error));
    PASS_TRY(take_host(s, &s->timesteps, bytes->timesteps, "timesteps", error));
    PASS_TRY(take_host(s, &s->decoded, bytes->decoded, "the decoded image", error));
    PASS_TRY(take_host(s, &s->pixels, bytes->pixels, "pixels", error));
    if (bytes->uncond)
        PASS_TRY(take_host(s, &s->uncond, bytes->uncond, "guidance", error));
    if (bytes->embeddings)
        PASS_TRY(take_host(s, &s->embeddings, bytes->embeddings, "embeddings", error));
    return latent_begin(s->m->host.memory, setup, &s->latent, error);
}

/* Under the model's lock: plan and bind; where weights stay packed, pack them. */
static attune_code plan_locked(session *s, const attune_request *request, const attune_binder *binder,
                               const attune_stream *stream, const latent_setup *setup,
                               attune_session_plan *plan, attune_error *error) {
    uint32_t weakest = 0;
    host_bytes bytes = count_host(s, setup);
    PASS_TRY(session_fit(s, request, binder, stream, total_host(&bytes), plan, &weakest, error));
    name_class(s, weakest, plan);
    fill_plan(s, request, plan);
    if (plan->determinism < request->determinism)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, SAMPLER_DOMAIN, "determinism",
                           "determinism class %s is asked for; the image keeps %s, limited by %s",
                           attune_determinism_name(request->determinism),
                           attune_determinism_name(plan->determinism), plan->limited_by);
    for (int32_t phase = 0; s->keep && phase < PHASES; ++phase)
        PASS_TRY(session_pack(s, phase, error));
    return allocate(s, &bytes, setup, error);
}

/* What the walks fill: the text's keys and values, and what becomes of each layer. */
static attune_code make_lists(session *s, attune_error *error) {
    const model *m = s->m;
    s->context.texts = s->prompt.texts;
    s->context.tokens = s->prompt.chunks * TOKENIZER_CHUNK;
    s->context.kv =
        services_clear_alloc(&m->host, (uint64_t)m->unet.contexts, sizeof *s->context.kv, "session");
    s->layers = services_clear_alloc(&m->host, m->pool.count, sizeof *s->layers, "session");
    if (s->context.kv && s->layers)
        return ATTUNE_OK;
    return services_no_memory("session", (uint64_t)m->unet.contexts * sizeof *s->context.kv + m->pool.count,
                              error);
}

static attune_code prepare_with(session *s, const attune_request *request, const attune_binder *binder,
                                const attune_stream *stream, const latent_sampler *sampler,
                                const float *sigmas, attune_session_plan *plan, attune_error *error) {
    int64_t channels = s->m->config.unet.in_channels;
    latent_setup setup = {.sampler = sampler,
                          .sigmas = sigmas,
                          .steps = s->steps,
                          .images = (uint32_t)s->images,
                          .elements = (uint64_t)(channels * s->height * s->width),
                          .seed = request->seed,
                          .source = request->randn_source == ATTUNE_RANDN_NV ? NOISE_NV : NOISE_CPU,
                          .variation = request->subseed_strength,
                          .subseed = request->subseed,
                          .rows = (uint64_t)s->height,
                          .columns = (uint64_t)s->width};
    PASS_TRY(make_lists(s, error));
    (void)pthread_mutex_lock(&s->m->preparing);
    attune_code code = plan_locked(s, request, binder, stream, &setup, plan, error);
    (void)pthread_mutex_unlock(&s->m->preparing);
    return code;
}

/* The labels of what was asked for: an alias becomes its label, a joined name its two parts. */
static void name_request(const attune_request *request, const latent_sampler *sampler,
                         const sigma_scheduler *scheduler, attune_session_plan *plan) {
    const sigma_scheduler *asked = scheduler;
    int joined =
        request->sampler && !names_find(&latent_samplers, request->sampler, strlen(request->sampler));
    if (!joined)
        (void)sigma_scheduler_find(request->scheduler, &asked, NULL);
    (void)snprintf(plan->sampler, sizeof plan->sampler, "%s", sampler->names[0]);
    (void)snprintf(plan->scheduler, sizeof plan->scheduler, "%s", asked->names[0]);
}

/* How many steps there are: with timesteps not always those asked for, as in the web UI. */
static attune_code count_steps(session *s, const attune_request *request, const latent_sampler *sampler,
                               attune_error *error) {
    s->steps = request->steps;
    if (!sampler->timesteps)
        return ATTUNE_OK;
    s->steps =
        request->steps <= s->m->sigmas.count ? sigma_timesteps(&s->m->sigmas, request->steps, NULL) : 0;
    if (s->steps > 0)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_INVALID_ARGUMENT, SAMPLER_DOMAIN, "steps",
                       "steps is %u; %s works between timesteps and needs 2 to %u", request->steps,
                       sampler->names[0], s->m->sigmas.count);
}

attune_code session_prepare(session *s, const attune_request *request, const attune_binder *binder,
                            const attune_stream *stream, attune_session_plan *plan, attune_error *error) {
    const latent_sampler *sampler;
    const sigma_scheduler *scheduler;
    const char *negative = request->negative_prompt ? request->negative_prompt : "";
    *plan = (attune_session_plan){.struct_size = sizeof *plan};
    PASS_TRY(check_numbers(request, error));
    PASS_TRY(check_class(s->m, request, error));
    PASS_TRY(read_size(s, request, error));
    PASS_TRY(latent_choose(request->sampler, request->scheduler, &sampler, &scheduler, error));
    name_request(request, sampler, scheduler, plan);
    PASS_TRY(count_steps(s, request, sampler, error));
    PASS_TRY(check_clip_skip(s->m, request, error));
    s->clip_skip = request->clip_skip > 1 ? request->clip_skip : 1;
    PASS_TRY(prompt_read(&s->m->host, s->m->tokens, request->prompt,
                         request->cfg_scale == 1.0f ? NULL : negative, &s->prompt, error));
    uint64_t bytes = ((uint64_t)s->steps + 1) * sizeof(float);
    float *sigmas = s->m->host.memory->alloc(s->m->host.memory->context, bytes, "session");
    if (!sigmas)
        return services_no_memory("sigmas", bytes, error);
    attune_code code = ATTUNE_OK;
    if (sampler->timesteps)
        (void)sigma_timesteps(&s->m->sigmas, request->steps, sigmas);
    else
        code = sigma_schedule(scheduler, &s->m->sigmas, s->steps, sigmas, error);
    if (code == ATTUNE_OK)
        code = prepare_with(s, request, binder, stream, sampler, sigmas, plan, error);
    services_free(&s->m->host, sigmas);
    return code;
}
