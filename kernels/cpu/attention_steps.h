/*
 * kernels/cpu/attention_steps.h: scores, weights and weighted values as steps of their own, for the
 * algorithms that hold the scores of many keys: a tile's are rows of its lanes, a row per key. Part of
 * attention_tile.h.
 */

static int64_t keys_seen(const tile *t, const block *b) {
    return t->seen - b->first < b->keys ? t->seen - b->first : b->keys;
}

static uint64_t round_up(uint64_t rows, uint64_t to) {
    return divide_up(rows, to) * to;
}

/* The scores of the block's keys; t->m rises to their maximum. */
static void score_step(const tile *t, const block *b, float *scores) {
    const int64_t keys = keys_seen(t, b), lanes = tile_lanes(t);
    if (keys <= 0)
        return;
    const int vectors = (int)(lanes / WIDTH), biased = is_biased(t, b->first, keys);
    tile here = *t;
    here.scores = scores;
    if (biased)
        make_bias(&here, b->first, keys, lanes);
    score_block(&here, b, keys, vectors);
    if (biased)
        (void)add_bias(&here, keys, lanes);
    raise_tile[vectors - 1](&here, keys);
}

/* Scores become weights, whose sum goes to t->l. */
static void weigh_step(const tile *t, float *scores, int64_t keys) {
    tile here = *t;
    here.scores = scores;
    if (keys > 0)
        weigh_tile[tile_lanes(t) / WIDTH - 1](&here, keys);
}

/* The block's weighted values, added to t->sums or, where they do not `resume`, in their place. */
static void value_step(const tile *t, const block *b, float *weights, int resume) {
    const int64_t keys = keys_seen(t, b), lanes = tile_lanes(t);
    if (keys <= 0)
        return;
    tile here = *t;
    here.scores = weights;
    if (is_biased(t, b->first, keys) && has_not_finite(b->v, b->stride_v, keys, t->args->d_v)) {
        make_bias(&here, b->first, keys, lanes);
        value_block_masked(&here, b, keys, resume, lanes);
    } else {
        value_block(&here, b, keys, 0, resume, (int)(lanes / WIDTH));
    }
}
