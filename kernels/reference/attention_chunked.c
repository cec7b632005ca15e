/*
 * kernels/reference/attention_chunked.c: docs/arithmetic.md in plain C: attention of arithmetic id
 * `attune-f32-chunked-1`, a softmax per chunk of keys, joined chunk by chunk (Rabe & Staats 2021, section 2
 * and figure 1, with the chunks' order fixed). Scores are computed anew where they are needed.
 */
#include "kernels/reference/attention_row.h"

enum { CHANNELS = 64 }; /* whose sums over one chunk are held at a time */

typedef struct chunk {
    int64_t first, end; /* keys */
    float m, l;
} chunk;

static chunk weigh_chunk(const row *r, int64_t first, int64_t end) {
    chunk c = {.first = first, .end = end, .m = ATTUNE_ATTENTION_MAX_START};
    float s;
    for (int64_t j = first; j < end; ++j)
        if (score(r, j, &s) && (s > c.m || s != s))
            c.m = s;
    for (int64_t j = first; j < end; ++j)
        if (score(r, j, &s))
            c.l = c.l + attune_exp2_f32_reference(s - c.m);
    return c;
}

/* `out` itself holds the joined sums: out = fma(the chunk's own sum, fresh, out * before). */
static void join_values(const row *r, const chunk *c, float before, float fresh) {
    const attune_attention_f32 *a = r->args;
    for (int64_t from = 0; from < a->d_v; from += CHANNELS) {
        const int64_t channels = a->d_v - from < CHANNELS ? a->d_v - from : CHANNELS;
        float o[CHANNELS] = {0}, s;
        for (int64_t j = c->first; j < c->end; ++j) {
            if (!score(r, j, &s))
                continue;
            const float p = attune_exp2_f32_reference(s - c->m);
            for (int64_t d = 0; d < channels; ++d)
                o[d] = fmaf(r->v[j * a->stride_v[2] + (from + d) * a->stride_v[3]], p, o[d]);
        }
        for (int64_t d = 0; d < channels; ++d) {
            float *out = r->out + (from + d) * a->stride_out[3];
            *out = fmaf(o[d], fresh, *out * before);
        }
    }
}

static void attend_row(const row *r) {
    const attune_attention_f32 *a = r->args;
    const int64_t step = a->stride_out[3];
    float m = ATTUNE_ATTENTION_MAX_START, l = 0.0f;
    for (int64_t d = 0; d < a->d_v; ++d)
        r->out[d * step] = 0.0f;
    for (int64_t first = 0; first < a->n_k; first += a->chunk_k) {
        const int64_t end = a->n_k - first < a->chunk_k ? a->n_k : first + a->chunk_k;
        const chunk c = weigh_chunk(r, first, end);
        const float larger = c.m > m || c.m != c.m ? c.m : m;
        const float before = attune_exp2_f32_reference(m - larger);
        const float fresh = attune_exp2_f32_reference(c.m - larger);
        l = fmaf(c.l, fresh, l * before);
        join_values(r, &c, before, fresh);
        m = larger;
    }
    const float reciprocal = 1.0f / l;
    for (int64_t d = 0; d < a->d_v; ++d)
        r->out[d * step] = l == 0.0f ? 0.0f : stored(r->out[d * step] * reciprocal);
}

void attune_attention_f32_chunked_reference(const attune_attention_f32 *args) {
    attune_reference_rows(args, attend_row);
}
