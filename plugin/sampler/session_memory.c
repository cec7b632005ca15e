/*
 * session_memory.c: a session's memory, planned before anything runs.
 *
 * The networks run one after another, so the most that is needed is the largest of the phases' sums: what is
 * kept, activations and scratch memory, attention's workspace, packed weights. Where all of it is allowed,
 * the weights of UNet and VAE stay packed. Else those of a phase are there while it lasts, and of those that
 * do not fit some are packed for each call, into a room as large as the layers of one call need. Where even
 * that is too much, the UNet takes fewer latents at once. None of it changes a bit of the image (rule 43 of
 * docs/arithmetic.md).
 */
#include "plugin/sampler/attention.h"
#include "plugin/sampler/session.h"

/* Bytes of one phase's weights. */
typedef struct phase_weights {
    uint64_t all;
    uint64_t room; /* that the layers of one call take at most */
} phase_weights;

typedef struct fit {
    session *s;
    const attune_request *request;
    const attune_binder *binder;
    uint64_t host;   /* bytes that are there in every phase */
    uint64_t needed; /* the least that will do besides attention's workspace */
    phase_weights weights[PHASES];
} fit;

static uint64_t saturating_add(uint64_t a, uint64_t b) {
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* Walk through one network for its memory, its layers and its attention problems. */
static attune_code walk_phase(fit *f, int32_t phase, attune_error *error) {
    session *s = f->s;
    model *m = s->m;
    pass_plan_phase(&s->pass, phase);
    PASS_TRY(phase == PHASE_TEXT   ? session_read_text(s, error)
             : phase == PHASE_UNET ? session_predict(s, NULL, 1.0, NULL, error)
                                   : session_decode(s, NULL, NULL, error));
    const uint32_t serial = s->pass.run.serial;
    const uint64_t room = s->pass.run.room_bytes;
    pass_plan_end(&s->pass);
    f->weights[phase] = (phase_weights){0, room};
    for (uint64_t i = 0; i < m->pool.count; ++i) {
        if (!m->ops->wanted(m->pool.layers[i], serial))
            continue;
        const uint64_t bytes = m->ops->packed_bytes(m->pool.layers[i]);
        s->layers[i] = (uint8_t)(LAYER_PACKED | phase);
        f->weights[phase].all += bytes;
    }
    return ATTUNE_OK;
}

static attune_code walk(fit *f, const attune_stream *stream, attune_error *error) {
    session *s = f->s;
    pass_plan(&s->pass, &s->m->host, s->m->ops, s->m->dev, stream, f->request->determinism);
    memset(s->layers, LAYER_UNUSED, s->m->pool.count);
    for (int32_t phase = 0; phase < PHASES; ++phase)
        PASS_TRY(walk_phase(f, phase, error));
    return ATTUNE_OK;
}

/* What a phase takes besides its weights. */
static uint64_t without_weights(const fit *f, int32_t phase) {
    return saturating_add(saturating_add(f->host, pass_kept_bytes(&f->s->pass)),
                          pass_phase_bytes(&f->s->pass, phase));
}

/* The least that will do: every layer packed for each call. */
static uint64_t least(const fit *f) {
    uint64_t bytes = 0;
    for (int32_t phase = 0; phase < PHASES; ++phase)
        bytes = larger(bytes, saturating_add(without_weights(f, phase), f->weights[phase].room));
    return bytes;
}

/* With the weights of UNet and VAE kept, and those of the text encoder beside them while it runs. */
static uint64_t most(const fit *f) {
    const uint64_t kept = f->weights[PHASE_UNET].all + f->weights[PHASE_VAE].all;
    const uint64_t text = saturating_add(without_weights(f, PHASE_TEXT), f->weights[PHASE_TEXT].all);
    return saturating_add(
        kept, larger(text, larger(without_weights(f, PHASE_UNET), without_weights(f, PHASE_VAE))));
}

/* Keep as many of a phase's layers packed as `budget` bytes hold beside the room. */
static void choose_layers(fit *f, int32_t phase, uint64_t budget) {
    session *s = f->s;
    for (uint64_t i = 0; i < s->m->pool.count; ++i) {
        if (s->layers[i] != (LAYER_PACKED | phase))
            continue;
        const uint64_t bytes = s->m->ops->packed_bytes(s->m->pool.layers[i]);
        if (bytes <= budget)
            budget -= bytes;
        else
            s->layers[i] = (uint8_t)(LAYER_STREAMED | phase);
    }
}

static uint64_t packed_of(const fit *f, int32_t phase) {
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < f->s->m->pool.count; ++i)
        if (f->s->layers[i] == (LAYER_PACKED | phase))
            bytes += f->s->m->ops->packed_bytes(f->s->m->pool.layers[i]);
    return bytes;
}

/* Fill the plan's bytes with those of the moment that takes the most. */
static void note(attune_session_plan *plan, const fit *f, int32_t phase, uint64_t weights) {
    const uint64_t workspace = f->s->pass.needs[phase].workspace;
    const uint64_t rest = without_weights(f, phase) - workspace;
    if (plan->weights + plan->activations + plan->workspace >= weights + rest + workspace)
        return;
    plan->weights = weights;
    plan->activations = rest;
    plan->workspace = workspace;
}

static void choose_weights(fit *f, attune_session_plan *plan) {
    const uint64_t limit = f->request->memory_limit;
    session *s = f->s;
    plan->weights = plan->activations = plan->workspace = 0;
    s->keep = f->request->memory == ATTUNE_MEMORY_KEEP && most(f) <= limit;
    for (int32_t phase = 0; phase < PHASES; ++phase) {
        const phase_weights *weights = &f->weights[phase];
        const uint64_t rest = without_weights(f, phase);
        const int all = saturating_add(rest, weights->all) <= limit &&
                        !(phase == PHASE_UNET && f->request->memory == ATTUNE_MEMORY_LEAST);
        if (!s->keep && !all) {
            s->pass.needs[phase].room = weights->room;
            choose_layers(f, phase,
                          f->request->memory == ATTUNE_MEMORY_LEAST ? 0 : limit - rest - weights->room);
        }
        const uint64_t text = phase == PHASE_TEXT ? f->weights[PHASE_TEXT].all : 0;
        note(plan, f, phase,
             s->keep ? f->weights[PHASE_UNET].all + f->weights[PHASE_VAE].all + text : packed_of(f, phase));
    }
}

/* How many latents the UNet takes at once: all, those of one text, one. 0: there is nothing smaller. */
static int64_t next_chunk(const session *s) {
    return s->chunk > s->images ? s->images : s->chunk > 1 ? 1 : 0;
}

/* Bind attention with at most `budget` bytes of workspace, beside what is needed. OUT_OF_RANGE where the
 * bindings want more. */
static attune_code bind(fit *f, uint64_t budget, attune_session_plan *plan, uint32_t *weakest,
                        attune_error *error) {
    PASS_TRY(attention_bind(&f->s->pass, f->binder, budget, &plan->determinism, weakest, error));
    return least(f) <= saturating_add(f->needed, budget) ? ATTUNE_OK : ATTUNE_OUT_OF_RANGE;
}

/* Nothing fits: say what would, the smallest workspace that attention can be bound with included. */
static attune_code refuse(fit *f, attune_session_plan *plan, uint32_t *weakest, attune_error *error) {
    PASS_TRY(bind(f, UINT64_MAX, plan, weakest, error));
    uint64_t low = 0, high = least(f) - f->needed;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (bind(f, middle, plan, weakest, NULL) == ATTUNE_OK)
            high = middle;
        else
            low = middle + 1;
    }
    attune_code code = attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, SAMPLER_DOMAIN, "memory_limit",
                                   "the memory limit is %llu bytes; this request needs %llu",
                                   (unsigned long long)f->request->memory_limit,
                                   (unsigned long long)saturating_add(f->needed, high));
    attune_hint(error, "raise the limit, or ask for a smaller size or batch");
    return code;
}

attune_code session_fit(session *s, const attune_request *request, const attune_binder *binder,
                        const attune_stream *stream, uint64_t host, attune_session_plan *plan,
                        uint32_t *weakest, attune_error *error) {
    const uint64_t limit = request->memory_limit;
    fit f = {.s = s, .request = request, .binder = binder, .host = host};
    attune_code code = ATTUNE_OUT_OF_RANGE;
    for (s->chunk = s->prompt.texts * s->images;; s->chunk = next_chunk(s)) {
        PASS_TRY(walk(&f, stream, error));
        f.needed = least(&f);
        if (f.needed <= limit)
            code = bind(&f, limit == UINT64_MAX ? limit : limit - f.needed, plan, weakest, error);
        if (code == ATTUNE_OK)
            break;
        if (limit == UINT64_MAX) /* no other cut helps */
            return code;
        if (next_chunk(s) == 0)
            return refuse(&f, plan, weakest, error);
    }
    choose_weights(&f, plan);
    return ATTUNE_OK;
}
