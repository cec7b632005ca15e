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

/* Keys and values whose rows lie apart fall on few sets of the first-level cache, where the tiles of a panel
 * meet them again: for panels of at least this many tiles each block of them is copied together first. */
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

INLINE void attend_block(const tile *t, const block *b, const int vectors) {
    const attune_attention_f32 *a = t->args;
    const int64_t left = t->seen - b->first, keys = left < KEYS ? left : KEYS, lanes = vectors * WIDTH;
    const int biased = is_biased(t, b->first, keys);
    int masked = 0;
    if (biased)
        make_bias(t, b->first, keys, lanes);
    score_block(t, b, keys, vectors);
    if (biased)
        masked = add_bias(t, keys, lanes);
    softmax_block(t, b->first, keys, vectors);
    if (masked && has_not_finite(b->v, b->stride_v, keys, a->d_v))
        value_block_masked(t, b, keys, b->first > 0, lanes);
    else
        value_block(t, b, keys, b->first > 0, vectors);
}

__attribute__((noinline)) static void attend_1(const tile *t, const block *b) {
    attend_block(t, b, 1);
}
__attribute__((noinline)) static void attend_2(const tile *t, const block *b) {
    attend_block(t, b, 2);
}
__attribute__((noinline)) static void attend_3(const tile *t, const block *b) {
    attend_block(t, b, 3);
}
#if TILE_VECTORS > 3
__attribute__((noinline)) static void attend_4(const tile *t, const block *b) {
    attend_block(t, b, 4);
}
#endif

static void (*const attend[TILE_VECTORS])(const tile *, const block *) = {attend_1, attend_2, attend_3,
#if TILE_VECTORS > 3
                                                                          attend_4
#endif
};

/* ---- panels ---- */

/* Floats of the copy of a block: none where rows lie together, are widened anyway, or meet few tiles. */
static uint64_t copy_floats(const attune_attention_f32 *a) {
    const int together = a->stride_k[2] == a->d_qk && a->stride_v[2] == a->d_v;
    const uint64_t floats = times(plus((uint64_t)a->d_qk, (uint64_t)a->d_v), KEYS);
    return together || a->storage != ATTUNE_KERNEL_F32 || a->n_q < COPY_TILES * TILE_LANES ||
                   floats > COPY_BYTES / sizeof(float)
               ? 0
               : floats;
}

static uint64_t panel_tiles(const attune_attention_f32 *a) {
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

static void start_tile(const tile *t, const panel *p, float factor) {
    start_softmax(t);
    load_tile(t, p, factor);
}

static const float *copy_rows(const float *from, int64_t stride, int64_t rows, int64_t columns, float *to) {
    for (int64_t r = 0; r < rows; ++r)
        memcpy(to + r * columns, from + r * stride, (size_t)columns * sizeof *to);
    return to;
}

static void copy_block(block *b, const attune_attention_f32 *a, float *to) {
    b->k = copy_rows(b->k, b->stride_k, b->keys, a->d_qk, to);
    b->v = copy_rows(b->v, b->stride_v, b->keys, a->d_v, to + KEYS * a->d_qk);
    b->stride_k = a->d_qk;
    b->stride_v = a->d_v;
}

static void attend_panel(const attune_attention_f32 *a, uint64_t index, ahead *next, float factor,
                         float *memory) {
    const panel p = find_panel(a, index, (int64_t)panel_rows(a), memory);
    tile tiles[PANEL_TILES];
    int count = 0;
    for (int64_t offset = 0; offset < p.rows; offset += TILE_LANES, ++count) {
        tiles[count] = place_tile(&p, offset, p.arrays + count * (int64_t)tile_floats(a));
        tiles[count].ahead = next;
        start_tile(&tiles[count], &p, factor);
    }
    const int64_t end = tiles[count - 1].seen; /* the last tile sees the most */
    float *const copy = copy_floats(a) ? p.arrays + (int64_t)(panel_tiles(a) * tile_floats(a)) : NULL;
    for (int64_t first = 0; first < end; first += KEYS) {
        block b = find_keys(&p, first, end - first < KEYS ? end - first : KEYS);
        find_values(&p, &b);
        if (copy)
            copy_block(&b, a, copy);
        for (int i = 0; i < count; ++i)
            if (first < tiles[i].seen)
                attend[(tiles[i].rows - 1) / WIDTH](&tiles[i], &b);
    }
    for (int i = 0; i < count; ++i)
        store_tile(&tiles[i], &p);
}

/* The panel, and meanwhile the rows of the next one where they are small enough to be asked for. Not inlined:
 * see attune_fp_enter. */
__attribute__((noinline)) static void attend_ahead(const attune_attention_f32 *a, uint64_t index,
                                                   float factor, float *memory) {
    const uint64_t most = panel_rows(a), per_task = panels_per_task(a, most);
    ahead next = {.array = 0};
    const int small = per_task > 1 && a->n_k <= KEYS && (index + 1) % per_task != 0 &&
                      index + 1 < all_panels(a, most) && a->storage == ATTUNE_KERNEL_F32;
    if (small) {
        const panel p = find_panel(a, index + 1, (int64_t)most, memory);
        prefetch_array(&next, 0, (const float *)(const void *)p.q, a->stride_q[2], p.rows, a->d_qk);
        prefetch_array(&next, 1, (const float *)(const void *)p.k, a->stride_k[2], a->n_k, a->d_qk);
        prefetch_array(&next, 2, (const float *)(const void *)p.v, a->stride_v[2], a->n_k, a->d_v);
        prefetch_array(&next, 3, (const float *)(const void *)p.out, a->stride_out[2], p.rows, a->d_v);
    }
    attend_panel(a, index, small ? &next : NULL, factor, memory);
}

static void panels_run(const attune_attention_f32 *a, uint64_t task, void *memory) {
    run_panels(a, task, panel_rows(a), attend_ahead, memory);
}

/* ---- row blocks ---- */

static uint64_t row_blocks_tasks(const attune_attention_f32 *a) {
    return count_tasks(a, TILE_LANES);
}

static uint64_t row_blocks_workspace(const attune_attention_f32 *a) {
    return bytes_of(plus(common_floats(a), tile_floats(a)));
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void attend_row_block(const attune_attention_f32 *a, uint64_t index,
                                                       float factor, float *memory) {
    const panel p = find_panel(a, index, TILE_LANES, memory);
    const tile t = place_tile(&p, 0, p.arrays);
    start_tile(&t, &p, factor);
    for (int64_t first = 0; first < t.seen; first += KEYS) {
        block b = find_keys(&p, first, t.seen - first < KEYS ? t.seen - first : KEYS);
        find_values(&p, &b);
        attend[(t.rows - 1) / WIDTH](&t, &b);
    }
    store_tile(&t, &p);
}

static void row_blocks_run(const attune_attention_f32 *a, uint64_t task, void *memory) {
    run_panels(a, task, TILE_LANES, attend_row_block, memory);
}
