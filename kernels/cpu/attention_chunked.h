/*
 * kernels/cpu/attention_chunked.h: arithmetic id `attune-f32-chunked-1` (ATTUNE_ATTENTION_CHUNKS): a chunk of
 * queries meets one chunk of keys after the other; each gives a softmax of its own, and these are joined as
 * they come (Rabe & Staats 2021). The worker holds the scores of one chunk by one chunk. Part of
 * attention_tile.h.
 */

static uint64_t chunk_rows(const attune_attention_f32 *a) {
    return (uint64_t)(a->chunk_q < a->n_q ? a->chunk_q : a->n_q);
}

/* A tile's own arrays, and what it has joined so far: d_v rows of o, one of m, one of l. */
static uint64_t chunk_tile_floats(const attune_attention_f32 *a) {
    return plus(tile_floats(a), times(plus((uint64_t)a->d_v, 2), TILE_LANES));
}

static uint64_t chunks_tasks(const attune_attention_f32 *a) {
    return count_tasks(a, chunk_rows(a));
}

static uint64_t chunks_workspace(const attune_attention_f32 *a) {
    const uint64_t tiles = times(divide_up(chunk_rows(a), TILE_LANES), chunk_tile_floats(a));
    const uint64_t scores = times(round_up(chunk_rows(a), WIDTH), (uint64_t)a->chunk_k);
    return bytes_of(plus(plus(common_floats(a), tiles), scores));
}

/* The chunk's tile from row `offset`, and where its scores are. */
static tile chunk_tile(const panel *p, int64_t offset, float **scores) {
    const int64_t floats = (int64_t)chunk_tile_floats(p->args);
    const int64_t all = (p->rows + TILE_LANES - 1) / TILE_LANES;
    *scores = p->arrays + all * floats + offset * p->args->chunk_k;
    return place_tile(p, offset, p->arrays + offset / TILE_LANES * floats);
}

/* The same tile with what was joined in the place of its own o, m and l. */
static tile joined_tile(const tile *t) {
    tile joined = *t;
    joined.sums = t->l + TILE_LANES;
    joined.m = joined.sums + t->args->d_v * TILE_LANES;
    joined.l = joined.m + TILE_LANES;
    return joined;
}

static void join_tile(const tile *t) {
    const tile joined = joined_tile(t);
    const int64_t lanes = tile_lanes(t);
    for (int64_t lane = 0; lane < lanes; lane += WIDTH) {
        const vec own = v_load(t->m + lane), before = v_load(joined.m + lane), larger = v_max(own, before);
        vec power_of[2] = {v_sub(before, larger), v_sub(own, larger)};
        exp2_each(power_of, 2, 1);
        const vec l = v_mul(v_load(joined.l + lane), power_of[0]);
        v_store(joined.l + lane, v_fma(v_load(t->l + lane), power_of[1], l));
        v_store(joined.m + lane, larger);
        for (int64_t c = lane; c < t->args->d_v * lanes; c += lanes) {
            const vec o = v_mul(v_load(joined.sums + c), power_of[0]);
            v_store(joined.sums + c, v_fma(v_load(t->sums + c), power_of[1], o));
        }
    }
}

/* One chunk of keys, those from `first` to `end`. */
static void attend_keys(const panel *p, int64_t first, int64_t end) {
    float *scores;
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
        const tile t = chunk_tile(p, offset, &scores);
        start_softmax(&t);
    }
    for (int64_t at = first; at < end; at += KEYS) {
        const block b = find_keys(p, at, end - at < KEYS ? end - at : KEYS);
        for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
            const tile t = chunk_tile(p, offset, &scores);
            score_step(&t, &b, scores + (at - first) * tile_lanes(&t));
        }
    }
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
        const tile t = chunk_tile(p, offset, &scores);
        weigh_step(&t, scores, (t.seen < end ? t.seen : end) - first);
    }
    for (int64_t at = first; at < end; at += KEYS) {
        block b = {.first = at, .keys = end - at < KEYS ? end - at : KEYS};
        find_values(p, &b);
        for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
            const tile t = chunk_tile(p, offset, &scores);
            value_step(&t, &b, scores + (at - first) * tile_lanes(&t), at > first);
        }
    }
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
        const tile t = chunk_tile(p, offset, &scores);
        if (t.seen > first) /* else it has no sums, and joining nothing changes nothing */
            join_tile(&t);
    }
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_chunk(const panel *p) {
    float *scores;
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
        const tile t = chunk_tile(p, offset, &scores), joined = joined_tile(&t);
        start_softmax(&joined);
        memset(joined.sums, 0, (size_t)(p->args->d_v * tile_lanes(&t)) * sizeof(float));
        load_tile(&t, p);
    }
    for (int64_t first = 0, keys; first < p->args->n_k; first += keys) {
        keys = p->args->n_k - first < p->args->chunk_k ? p->args->n_k - first : p->args->chunk_k;
        attend_keys(p, first, first + keys);
    }
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
        const tile t = chunk_tile(p, offset, &scores), joined = joined_tile(&t);
        store_tile(&joined, p);
    }
}

static void chunks_run(const attune_attention_f32 *a, uint64_t task, void *memory) {
    run_panels(a, task, chunk_rows(a), attend_chunk, memory);
}
