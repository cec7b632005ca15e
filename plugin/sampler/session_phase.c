/* session_phase.c: the phases of a session: whose weights are packed, whose memory is there. */
#include "plugin/sampler/session.h"

enum { LAYERS_AT_A_TIME = 64 };

static const uint64_t BYTES_AT_A_TIME = 32 << 20;

static int is_of(const session *s, uint64_t layer, int32_t phase) {
    return s->layers[layer] != LAYER_UNUSED && (s->layers[layer] & LAYER_PHASE) == phase;
}

/* Some layers at a time, letting go of the file's pages that were read for them, so that a model is never in
 * memory twice. */
attune_code session_pack(session *s, int32_t phase, attune_error *error) {
    model *m = s->m;
    device_weights *some[LAYERS_AT_A_TIME];
    uint64_t count = 0, bytes = 0;
    for (uint64_t i = 0; i < m->pool.count; ++i) {
        device_weights *layer = m->pool.layers[i];
        if (is_of(s, i, phase) && s->layers[i] & LAYER_PACKED && !m->ops->packed(layer)) {
            some[count++] = layer;
            bytes += m->ops->packed_bytes(layer);
        }
        if (count == 0 || (i + 1 < m->pool.count && count < LAYERS_AT_A_TIME && bytes < BYTES_AT_A_TIME))
            continue;
        PASS_TRY(pass_check(&s->pass, error));
        PASS_TRY(m->ops->pack(m->dev, s->pass.run.stream, some, count, error));
        count = bytes = 0;
        for (int k = 0; k < MODEL_FILES; ++k)
            safetensors_release(&m->files[k]);
    }
    return ATTUNE_OK;
}

/* The packed weights of a phase that no session is in; those of the text encoder are never kept, since an
 * image needs them once. */
static void unpack(session *s, int32_t phase) {
    model *m = s->m;
    if (m->users[phase] > 0 || (s->keep && phase != PHASE_TEXT))
        return;
    for (uint64_t i = 0; i < m->pool.count; ++i)
        if (is_of(s, i, phase))
            m->ops->unpack(m->dev, m->pool.layers[i]);
}

static attune_code enter_locked(session *s, int32_t phase, attune_error *error) {
    for (int32_t other = 0; other < PHASES; ++other)
        if (other != phase)
            unpack(s, other);
    PASS_TRY(session_pack(s, phase, error));
    PASS_TRY(pass_enter(&s->pass, phase, error));
    s->m->users[phase]++;
    return ATTUNE_OK;
}

attune_code session_enter(session *s, int32_t phase, attune_error *error) {
    if (s->pass.phase == phase)
        return ATTUNE_OK;
    session_leave(s);
    (void)pthread_mutex_lock(&s->m->preparing);
    attune_code code = enter_locked(s, phase, error);
    (void)pthread_mutex_unlock(&s->m->preparing);
    return code;
}

void session_leave(session *s) {
    const int32_t phase = s->pass.phase;
    if (!s->pass.ops || s->pass.run.planning || phase == PHASE_NONE) /* nothing runs */
        return;
    (void)pthread_mutex_lock(&s->m->preparing);
    s->m->users[phase]--;
    pass_leave(&s->pass);
    unpack(s, phase);
    (void)pthread_mutex_unlock(&s->m->preparing);
}
