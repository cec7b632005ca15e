/*
 * kernels/cpu/attention_full.h: arithmetic id `attune-f32-full-1`, the softmax over all keys of a row at
 * once: for a slice of the queries, whose scores the worker holds (ATTUNE_ATTENTION_SLICES), or for the whole
 * problem in three passes, with the matrix of all scores between them (ATTUNE_ATTENTION_MATRIX). Part of
 * attention_tile.h.
 */

/* ---- slices ---- */

/* Queries per slice: whole tiles, or part of one where chunk_q asks for less. */
static uint64_t slice_rows(const attune_attention_f32 *a) {
    const uint64_t most = (uint64_t)a->chunk_q, all = round_up((uint64_t)a->n_q, WIDTH);
    if (most >= all)
        return all;
    return most > TILE_LANES ? most / TILE_LANES * TILE_LANES : round_up(most, WIDTH);
}

static uint64_t slices_tasks(const attune_attention_f32 *a) {
    return count_tasks(a, slice_rows(a));
}

static uint64_t slices_workspace(const attune_attention_f32 *a) {
    const uint64_t rows = slice_rows(a);
    const uint64_t tiles = times(divide_up(rows, TILE_LANES), tile_floats(a));
    return bytes_of(plus(plus(common_floats(a), tiles), times(rows, (uint64_t)a->n_k)));
}

/* The slice's tile from row `offset`, and where its scores are. */
static tile slice_tile(const panel *p, int64_t offset, float **scores) {
    const int64_t floats = (int64_t)tile_floats(p->args), all = (p->rows + TILE_LANES - 1) / TILE_LANES;
    *scores = p->arrays + all * floats + offset * p->args->n_k;
    return place_tile(p, offset, p->arrays + offset / TILE_LANES * floats);
}

static void score_slice(const panel *p) {
    float *scores;
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
        const tile t = slice_tile(p, offset, &scores);
        start_softmax(&t);
        load_tile(&t, p);
    }
    for (int64_t first = 0; first < p->args->n_k; first += KEYS) {
        const int64_t left = p->args->n_k - first;
        const block b = find_keys(p, first, left < KEYS ? left : KEYS);
        for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
            const tile t = slice_tile(p, offset, &scores);
            score_step(&t, &b, scores + first * tile_lanes(&t));
        }
    }
}

static void value_slice(const panel *p) {
    float *scores;
    for (int64_t first = 0; first < p->args->n_k; first += KEYS) {
        const int64_t left = p->args->n_k - first;
        block b = {.first = first, .keys = left < KEYS ? left : KEYS};
        find_values(p, &b);
        for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
            const tile t = slice_tile(p, offset, &scores);
            value_step(&t, &b, scores + first * tile_lanes(&t), first > 0);
        }
    }
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_slice(const panel *p) {
    float *scores;
    score_slice(p);
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
        const tile t = slice_tile(p, offset, &scores);
        weigh_step(&t, scores, t.seen);
    }
    value_slice(p);
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES) {
        const tile t = slice_tile(p, offset, &scores);
        store_tile(&t, p);
    }
}

static void slices_run(const attune_attention_f32 *a, uint64_t task, void *memory) {
    run_panels(a, task, slice_rows(a), attend_slice, memory);
}

/* ---- the matrix: per head and tile a row of m, one of l, then the scores ---- */

enum { MATRIX_SCORES, MATRIX_WEIGHTS, MATRIX_VALUES, MATRIX_PASSES };

static uint64_t matrix_head_floats(const attune_attention_f32 *a) {
    return times(round_up((uint64_t)a->n_q, WIDTH), plus((uint64_t)a->n_k, 2));
}

static uint64_t matrix_shared(const attune_attention_f32 *a) {
    return bytes_of(times(times((uint64_t)a->batch, (uint64_t)a->heads_q), matrix_head_floats(a)));
}

static uint64_t matrix_tasks(const attune_attention_f32 *a) {
    return count_tasks(a, TILE_LANES);
}

static uint64_t matrix_workspace(const attune_attention_f32 *a) {
    return bytes_of(plus(common_floats(a), tile_floats(a)));
}

static tile matrix_tile(const panel *p, float **scores) {
    const attune_attention_f32 *a = p->args;
    const int64_t head = p->batch * a->heads_q + p->head;
    tile t = place_tile(p, 0, p->arrays);
    t.m = (float *)a->matrix + head * (int64_t)matrix_head_floats(a) + p->query * (a->n_k + 2);
    t.l = t.m + tile_lanes(&t);
    *scores = t.l + tile_lanes(&t);
    return t;
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void score_matrix(const panel *p) {
    float *scores;
    const tile t = matrix_tile(p, &scores);
    start_softmax(&t);
    load_tile(&t, p);
    for (int64_t first = 0; first < t.seen; first += KEYS) {
        const block b = find_keys(p, first, t.seen - first < KEYS ? t.seen - first : KEYS);
        score_step(&t, &b, scores + first * tile_lanes(&t));
    }
}

__attribute__((noinline)) static void weigh_matrix(const panel *p) {
    float *scores;
    const tile t = matrix_tile(p, &scores);
    weigh_step(&t, scores, t.seen);
}

__attribute__((noinline)) static void value_matrix(const panel *p) {
    float *scores;
    const tile t = matrix_tile(p, &scores);
    for (int64_t first = 0; first < t.seen; first += KEYS) {
        block b = {.first = first, .keys = t.seen - first < KEYS ? t.seen - first : KEYS};
        find_values(p, &b);
        value_step(&t, &b, scores + first * tile_lanes(&t), first > 0);
    }
    store_tile(&t, p);
}

static void matrix_run(const attune_attention_f32 *a, uint64_t task, void *memory) {
    static panel_function *const passes[MATRIX_PASSES] = {score_matrix, weigh_matrix, value_matrix};
    run_panels(a, task, TILE_LANES, passes[a->pass], memory);
}
