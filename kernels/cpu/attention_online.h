/*
 * kernels/cpu/attention_online.h: arithmetic id `attune-f32-1`, the online softmax: one pass over the keys,
 * for panels of several tiles (ATTUNE_ATTENTION_PANELS) or one tile at a time (ATTUNE_ATTENTION_ROW_BLOCKS).
 * Part of attention_tile.h.
 */

/* Tiles per panel: at most PANEL_TILES, their arrays at most PANEL_BYTES (the second-level cache), and few
 * enough for PANELS_SHARED panels where a problem has that many tiles. */
#define PANEL_TILES   8
#define PANEL_BYTES   (768 * 1024)
#define PANELS_SHARED 16

/* Values whose rows lie apart fall on few sets of the first-level cache, where each tile of a panel meets
 * them again, some columns at a time: for panels of at least this many tiles each block of them is copied
 * together first. */
#define COPY_TILES 4
#define COPY_BYTES (PANEL_BYTES / 4)

/* l and the sums of vector v move from the maximum m to a larger one. Factors of 1 are skipped: exact. */
INLINE void rescale(const tile *t, int v, vec larger, vec *l, const int vectors) {
    vec factor = v_sub(v_load(t->m + v * WIDTH), larger);
    exp2_each(&factor, 1, 1);
    if (!v_any_not_equal(factor, v_set1(1.0f)))
        return;
    *l = v_mul(*l, factor);
    for (int64_t c = 0; c < t->args->d_v; ++c) {
        float *o = t->sums + (c * vectors + v) * WIDTH;
        v_store(o, v_mul(v_load(o), factor));
    }
}

/*
 * Scores become weights; m, l and the sums move to the new maximum. v_max drops NaN, which the reference's
 * maximum keeps; both make the row NaN, because the NaN's own weight is NaN and goes into l.
 */
INLINE void softmax_block(const tile *t, int64_t first, int64_t keys, const int vectors) {
    vec larger[4], least[4], sum[4];
    int far = 0;
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        larger[v] = v_load(t->m + v * WIDTH);
        least[v] = v_set1(INFINITY);
    }
    for (int64_t j = 0; j < keys; ++j) {
        UNROLL
        for (int v = 0; v < vectors; ++v) {
            const vec s = v_load(t->scores + (j * vectors + v) * WIDTH);
            larger[v] = v_max(s, larger[v]);
            least[v] = v_min(s, least[v]);
        }
    }
    UNROLL
    for (int v = 0; v < vectors; ++v) {
        const vec span = v_sub(least[v], larger[v]);
        far |= v_any_not_equal(v_max(v_set1(ATTUNE_EXP2_MIN), span), span);
        sum[v] = v_load(t->l + v * WIDTH);
        if (first > 0)
            rescale(t, v, larger[v], &sum[v], vectors);
        v_store(t->m + v * WIDTH, larger[v]);
    }
    if (far)
        weigh(t->scores, keys, larger, sum, vectors, 1);
    else
        weigh(t->scores, keys, larger, sum, vectors, 0);
    UNROLL
    for (int v = 0; v < vectors; ++v)
        v_store(t->l + v * WIDTH, sum[v]);
}

/* ---- one block of keys for one tile ---- */

/* The tile's scores of the block become weights. Returns whether values must be looked at before a weight of
 * 0 multiplies them: a key is masked and not all values are finite. */
INLINE int weigh_block(const tile *t, const block *b, int64_t keys, const int vectors) {
    const int64_t lanes = vectors * WIDTH;
    const int biased = is_biased(t, b->first, keys);
    int masked = 0;
    if (biased)
        make_bias(t, b->first, keys, lanes);
    score_block(t, b, keys, vectors);
    if (biased)
        masked = add_bias(t, keys, lanes);
    softmax_block(t, b->first, keys, vectors);
    return masked && has_not_finite(b->v, b->stride_v, keys, t->args->d_v);
}

/* `to`: the tile's rows of the output, if they may be stored without passing through t->sums, else NULL.
 * Returns whether they were. */
INLINE int attend_block(const tile *t, const block *b, float *to, const int vectors) {
    const int64_t left = t->seen - b->first, keys = left < KEYS ? left : KEYS;
    if (weigh_block(t, b, keys, vectors)) {
        value_block_masked(t, b, keys, b->first > 0, vectors * WIDTH);
        return 0;
    }
    if (to)
        store_rows_of_block(t, b, keys, to, t->args->stride_out[2]);
    else
        value_block(t, b, keys, 0, b->first > 0, vectors);
    return to != NULL;
}

__attribute__((noinline)) static int attend_1(const tile *t, const block *b, float *to) {
    return attend_block(t, b, to, 1);
}
__attribute__((noinline)) static int attend_2(const tile *t, const block *b, float *to) {
    return attend_block(t, b, to, 2);
}
__attribute__((noinline)) static int attend_3(const tile *t, const block *b, float *to) {
    return attend_block(t, b, to, 3);
}
#if TILE_VECTORS > 3
__attribute__((noinline)) static int attend_4(const tile *t, const block *b, float *to) {
    return attend_block(t, b, to, 4);
}
#endif

static int (*const attend[TILE_VECTORS])(const tile *, const block *, float *) = {attend_1, attend_2,
                                                                                  attend_3,
#if TILE_VECTORS > 3
                                                                                  attend_4
#endif
};

/* ---- panels ---- */

/* Floats of the copy of a block's values: none where rows lie together, are widened anyway, or meet few
 * tiles. */
static uint64_t copy_floats(const attune_attention_f32 *a) {
    const uint64_t floats = times((uint64_t)a->d_v, KEYS);
    return a->stride_v[2] == a->d_v || a->storage != ATTUNE_KERNEL_F32 || a->n_k <= KEYS ||
                   a->n_q < COPY_TILES * TILE_LANES || floats > COPY_BYTES / sizeof(float)
               ? 0
               : floats;
}

static uint64_t panel_tiles(const attune_attention_f32 *a) {
    if (a->n_k <= KEYS)
        return 1; /* no block is met again */
    const uint64_t per_head = divide_up((uint64_t)a->n_q, TILE_LANES);
    const uint64_t shared = per_head * (uint64_t)a->batch * (uint64_t)a->heads_q / PANELS_SHARED;
    const uint64_t floats = PANEL_BYTES / sizeof(float), rows = block_floats(a) + copy_floats(a);
    uint64_t tiles = floats > rows ? (floats - rows) / tile_floats(a) : 0;
    if (tiles > shared)
        tiles = shared;
    if (tiles > PANEL_TILES)
        tiles = PANEL_TILES;
    return tiles > 1 ? divide_up(per_head, divide_up(per_head, tiles)) : 1; /* panels of one size */
}

static uint64_t panel_rows(const attune_attention_f32 *a) {
    return panel_tiles(a) * TILE_LANES;
}

static uint64_t panels_tasks(const attune_attention_f32 *a) {
    return count_tasks(a, panel_rows(a));
}

static uint64_t panels_workspace(const attune_attention_f32 *a) {
    return bytes_of(plus(plus(common_floats(a), copy_floats(a)), times(panel_tiles(a), tile_floats(a))));
}

static void copy_values(block *b, int64_t columns, float *to) {
    for (int64_t r = 0; r < b->keys; ++r)
        memcpy(to + r * columns, b->v + r * b->stride_v, (size_t)columns * sizeof *to);
    b->v = to;
    b->stride_v = columns;
}

/* Asks for what comes after the block of keys at `first`: the panel's next block or, at its end, the first of
 * the panel after it, its queries and its part of the output. */
static void look_ahead(ahead *next, const panel *p, int64_t first, int64_t end, int tiles, int at_once) {
    const attune_attention_f32 *a = p->args;
    const int last = first + KEYS >= end;
    const panel *const to = last ? p->next : p;
    if (!to || a->storage != ATTUNE_KERNEL_F32)
        return;
    if (last) {
        prefetch_queries(next, to);
        prefetch_output(next, to);
    }
    const int64_t at = last ? 0 : first + KEYS, keys = a->n_k - at < KEYS ? a->n_k - at : KEYS;
    if (!at_once || to->k != p->k) /* else the head's only block is at hand */
        prefetch_keys(next, to, at, keys);
    const int64_t met = end - first < KEYS ? end - first : KEYS;
    const int64_t rows = p->rows < TILE_LANES ? p->rows : TILE_LANES;
    const int vectors = (int)((rows + WIDTH - 1) / WIDTH);
    const int64_t calls = at_once ? rows_calls(a, met, rows) : value_calls(a->d_v, met, vectors);
    spread_ahead(next, (score_calls(a, met, vectors) + calls) * tiles);
}

/* All of a panel; `arrays` of its tiles. `copy`, where not NULL, takes copy_floats. */
static void attend_tiles(const panel *p, float *copy, float *arrays) {
    const attune_attention_f32 *a = p->args;
    const int at_once = fits_rows(a);
    tile tiles[PANEL_TILES];
    int count = 0;
    for (int64_t offset = 0; offset < p->rows; offset += TILE_LANES, ++count) {
        tiles[count] = place_tile(p, offset, arrays + count * (int64_t)tile_floats(a));
        start_softmax(&tiles[count]);
        load_tile(&tiles[count], p);
    }
    const int64_t end = tiles[count - 1].seen; /* the last tile sees the most */
    int stored = 0;
    for (int64_t first = 0; first < end; first += KEYS) {
        ahead next = {.count = 0};
        block b = find_keys(p, first, end - first < KEYS ? end - first : KEYS);
        find_values(p, &b);
        if (copy)
            copy_values(&b, a->d_v, copy);
        look_ahead(&next, p, first, end, count, at_once);
        for (int i = 0; i < count; ++i)
            if (first < tiles[i].seen) {
                tiles[i].ahead = next.count ? &next : NULL;
                stored = attend[(tiles[i].rows - 1) / WIDTH](&tiles[i], &b,
                                                             at_once ? tile_rows(&tiles[i], p) : NULL);
            }
    }
    for (int i = 0; i < count && !stored; ++i)
        store_tile(&tiles[i], p);
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_panel(const panel *p) {
    const uint64_t floats = copy_floats(p->args);
    attend_tiles(p, floats ? p->arrays : NULL, p->arrays + floats);
}

static void panels_run(const attune_attention_f32 *a, uint64_t task, void *memory) {
    if (!run_few(a, task, memory))
        run_panels(a, task, panel_rows(a), attend_panel, memory);
}

/* ---- row blocks ---- */

static uint64_t row_blocks_tasks(const attune_attention_f32 *a) {
    return count_tasks(a, TILE_LANES);
}

static uint64_t row_blocks_workspace(const attune_attention_f32 *a) {
    return bytes_of(plus(common_floats(a), tile_floats(a)));
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_row_block(const panel *p) {
    attend_tiles(p, NULL, p->arrays);
}

static void row_blocks_run(const attune_attention_f32 *a, uint64_t task, void *memory) {
    if (!run_few(a, task, memory))
        run_panels(a, task, TILE_LANES, attend_row_block, memory);
}
