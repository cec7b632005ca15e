/*
 * kernels/cpu/attention_panels.h: how work is cut, and a panel's rows on their way to and from the lanes.
 * Part of attention_tile.h.
 *
 * A panel is some queries of one head: what an algorithm takes together, `most` rows of it. A task is a
 * panel, or several small ones. All of it follows from the args alone.
 */

/* A task is this many multiplications at least, and eight times as many where TASKS_SHARED tasks are left. */
#define TASK_COST    0x1p20
#define TASKS_SHARED 32

static uint64_t divide_up(uint64_t a, uint64_t b) {
    return a / b + (a % b != 0);
}

/* Products and sums of sizes that stay UINT64_MAX once they overflow. */
static uint64_t times(uint64_t a, uint64_t b) {
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}
static uint64_t plus(uint64_t a, uint64_t b) {
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* Whole cache lines; UINT64_MAX stays. */
static uint64_t bytes_of(uint64_t floats) {
    const uint64_t bytes = times(floats, sizeof(float));
    return bytes > UINT64_MAX - 64 ? UINT64_MAX : divide_up(bytes, 64) * 64;
}

static uint64_t panels_per_head(const attune_attention_f32 *a, uint64_t most) {
    return divide_up((uint64_t)a->n_q, most);
}

static uint64_t all_panels(const attune_attention_f32 *a, uint64_t most) {
    return (uint64_t)a->batch * (uint64_t)a->heads_q * panels_per_head(a, most);
}

/* The multiplications of a panel. */
static double panel_cost(const attune_attention_f32 *a, uint64_t most) {
    const double rows = (double)a->n_q < (double)most ? (double)a->n_q : (double)most;
    return rows * (double)a->n_k * ((double)a->d_qk + (double)a->d_v);
}

/* Panels of about `cost` multiplications together. */
static uint64_t panels_of_cost(const attune_attention_f32 *a, uint64_t most, double cost) {
    const double one = panel_cost(a, most);
    return one >= cost ? 1 : (uint64_t)(cost / one);
}

/* Panels per task: small ones are taken together, so that a task is worth handing out, and more of them where
 * enough tasks are left to share; an even number, if not 1. */
static uint64_t panels_per_task(const attune_attention_f32 *a, uint64_t most) {
    const uint64_t least = panels_of_cost(a, most, TASK_COST),
                   better = panels_of_cost(a, most, 8 * TASK_COST);
    const uint64_t shared = all_panels(a, most) / TASKS_SHARED, more = shared < better ? shared : better;
    const uint64_t panels = more > least ? more : least;
    return panels > 1 ? panels + panels % 2 : 1;
}

static uint64_t count_tasks(const attune_attention_f32 *a, uint64_t most) {
    return divide_up(all_panels(a, most), panels_per_task(a, most));
}

/* ---- what a worker holds ---- */

static int has_bias(const attune_attention_f32 *a) {
    return a->mask_kind != ATTUNE_KERNEL_MASK_NONE || a->causal;
}

/* Floats of a block's keys and values, widened: none where they are floats already. */
static uint64_t block_floats(const attune_attention_f32 *a) {
    return a->storage == ATTUNE_KERNEL_F32 ? 0 : times(plus((uint64_t)a->d_qk, (uint64_t)a->d_v), KEYS);
}

/* Floats of one tile's own arrays. */
static uint64_t tile_floats(const attune_attention_f32 *a) {
    return times(plus(plus((uint64_t)a->d_qk, (uint64_t)a->d_v), 2), TILE_LANES);
}

/* What all tiles of a worker use in turn: the start of its workspace. */
static uint64_t common_floats(const attune_attention_f32 *a) {
    return plus((uint64_t)(has_bias(a) ? 2 : 1) * KEYS * TILE_LANES, block_floats(a));
}

/* ---- a panel ---- */

typedef struct panel {
    const attune_attention_f32 *args;
    float factor; /* of the queries */
    int64_t batch, head, query, rows;
    const char *q, *k, *v; /* the first query's row, the head's first key and value */
    char *out;
    float *scratch, *bias, *widened; /* the worker's common arrays */
    float *arrays;                   /* behind them */
    const struct panel *next; /* the one after this, or NULL; another worker's where the task ends here */
} panel;

static int64_t element(const attune_attention_f32 *a) {
    return a->storage == ATTUNE_KERNEL_F32 ? 4 : 2;
}

/* The panel of at most `most` rows at p's batch, head and query. */
static void place_panel(panel *p, int64_t most) {
    const attune_attention_f32 *a = p->args;
    const int64_t kv = a->heads_q == a->heads_kv ? p->head : p->head / (a->heads_q / a->heads_kv);
    p->rows = a->n_q - p->query < most ? a->n_q - p->query : most;
    p->q = (const char *)a->q +
           element(a) * (p->batch * a->stride_q[0] + p->head * a->stride_q[1] + p->query * a->stride_q[2]);
    p->k = (const char *)a->k + element(a) * (p->batch * a->stride_k[0] + kv * a->stride_k[1]);
    p->v = (const char *)a->v + element(a) * (p->batch * a->stride_v[0] + kv * a->stride_v[1]);
    p->out = (char *)a->out + element(a) * (p->batch * a->stride_out[0] + p->head * a->stride_out[1] +
                                            p->query * a->stride_out[2]);
}

static panel find_panel(const attune_attention_f32 *a, uint64_t index, int64_t most, float *memory) {
    const uint64_t per_head = panels_per_head(a, (uint64_t)most), heads = (uint64_t)a->heads_q;
    panel p = {.args = a, .factor = attune_attention_f32_factor(a->scale, a->d_qk)};
    p.query = (int64_t)(index % per_head) * most;
    p.head = (int64_t)(index / per_head % heads);
    p.batch = (int64_t)(index / per_head / heads);
    p.scratch = memory;
    p.bias = p.scratch + KEYS * TILE_LANES;
    p.widened = has_bias(a) ? p.bias + KEYS * TILE_LANES : p.bias;
    p.arrays = p.widened + block_floats(a);
    place_panel(&p, most);
    return p;
}

/* The panel after p. */
static panel next_panel(const panel *p, int64_t most) {
    panel next = *p;
    next.query += most;
    if (next.query >= p->args->n_q) {
        next.query = 0;
        if (++next.head == p->args->heads_q) {
            next.head = 0;
            ++next.batch;
        }
    }
    place_panel(&next, most);
    return next;
}

static int64_t tile_lanes(const tile *t) {
    return (t->rows + WIDTH - 1) / WIDTH * WIDTH;
}

/* 16-bit rows pass through the scratch (KEYS columns at a time) on their way to and from the lanes. */
static void load_queries(const tile *t, const char *rows, float factor) {
    const attune_attention_f32 *a = t->args;
    const int64_t lanes = tile_lanes(t);
    if (a->storage == ATTUNE_KERNEL_F32) {
        rows_to_lanes((const float *)(const void *)rows, a->stride_q[2], t->rows, a->d_qk, factor, t->queries,
                      lanes);
        return;
    }
    for (int64_t c = 0; c < a->d_qk; c += KEYS) {
        const int64_t columns = a->d_qk - c < KEYS ? a->d_qk - c : KEYS;
        widen_rows(a->storage, rows + 2 * c, a->stride_q[2], t->rows, columns, t->scratch, KEYS);
        rows_to_lanes(t->scratch, KEYS, t->rows, columns, factor, t->queries + c * lanes, lanes);
    }
}

static void store_rows(const tile *t, char *rows) {
    const attune_attention_f32 *a = t->args;
    const int64_t lanes = tile_lanes(t);
    if (a->storage == ATTUNE_KERNEL_F32) {
        lanes_to_rows(t->sums, lanes, t->l, (float *)(void *)rows, a->stride_out[2], t->rows, a->d_v);
        return;
    }
    for (int64_t c = 0; c < a->d_v; c += KEYS) {
        const int64_t columns = a->d_v - c < KEYS ? a->d_v - c : KEYS;
        lanes_to_rows(t->sums + c * lanes, lanes, t->l, t->scratch, KEYS, t->rows, columns);
        narrow_rows(a->storage, t->scratch, KEYS, t->rows, columns, rows + 2 * c, a->stride_out[2]);
    }
}

/* The tile of the panel's rows from `offset`, its arrays in `memory` (tile_floats). */
static tile place_tile(const panel *p, int64_t offset, float *memory) {
    const attune_attention_f32 *a = p->args;
    tile t = {.args = a, .batch = p->batch, .head = p->head, .query = p->query + offset};
    t.rows = p->rows - offset < TILE_LANES ? p->rows - offset : TILE_LANES;
    const int64_t seen = a->causal ? t.query + t.rows + (a->n_k - a->n_q) : a->n_k;
    t.seen = seen < a->n_k ? seen : a->n_k;
    t.scores = t.scratch = p->scratch;
    t.bias = p->bias;
    t.queries = memory;
    t.sums = t.queries + a->d_qk * TILE_LANES;
    t.m = t.sums + a->d_v * TILE_LANES;
    t.l = t.m + TILE_LANES;
    return t;
}

static void start_softmax(const tile *t) {
    for (int64_t lane = 0; lane < tile_lanes(t); lane += WIDTH) {
        v_store(t->m + lane, v_set1(ATTUNE_ATTENTION_MAX_START));
        v_store(t->l + lane, v_zero());
    }
}

static void load_tile(const tile *t, const panel *p) {
    load_queries(t, p->q + element(p->args) * (t->query - p->query) * p->args->stride_q[2], p->factor);
}

/* Where the tile's float32 rows are stored. */
static float *tile_rows(const tile *t, const panel *p) {
    return (float *)(void *)p->out + (t->query - p->query) * p->args->stride_out[2];
}

/* Where a row saw no key its l is 0, and its sums, which nobody wrote, do not count. */
static void store_tile(const tile *t, const panel *p) {
    store_rows(t, p->out + element(p->args) * (t->query - p->query) * p->args->stride_out[2]);
}

/* ---- a block of keys ---- */

static const float *find_rows(const attune_attention_f32 *a, const char *from, int64_t stride, int64_t first,
                              int64_t keys, int64_t columns, float *widened) {
    const char *const rows = from + element(a) * first * stride;
    if (a->storage == ATTUNE_KERNEL_F32)
        return (const float *)(const void *)rows;
    widen_rows(a->storage, rows, stride, keys, columns, widened, columns);
    return widened;
}

/* Adds the keys, and then the values, of the `keys` keys from `first` to a block. */
static block find_keys(const panel *p, int64_t first, int64_t keys) {
    const attune_attention_f32 *a = p->args;
    return (block){.first = first,
                   .keys = keys,
                   .k = find_rows(a, p->k, a->stride_k[2], first, keys, a->d_qk, p->widened),
                   .stride_k = a->storage == ATTUNE_KERNEL_F32 ? a->stride_k[2] : a->d_qk};
}

static void find_values(const panel *p, block *b) {
    const attune_attention_f32 *a = p->args;
    b->v = find_rows(a, p->v, a->stride_v[2], b->first, b->keys, a->d_v, p->widened + a->d_qk * KEYS);
    b->stride_v = a->storage == ATTUNE_KERNEL_F32 ? a->stride_v[2] : a->d_v;
}

/* ---- what is asked for ahead, of panels of floats ---- */

INLINE void prefetch_queries(ahead *next, const panel *p) {
    const attune_attention_f32 *a = p->args;
    const int64_t size = sizeof(float);
    prefetch_rows(next, p->q, size * a->stride_q[2], p->rows, size * a->d_qk);
}

INLINE void prefetch_output(ahead *next, const panel *p) {
    const attune_attention_f32 *a = p->args;
    const int64_t size = sizeof(float);
    prefetch_rows(next, p->out, size * a->stride_out[2], p->rows, size * a->d_v);
}

/* The `keys` keys from `first`, and their values. */
INLINE void prefetch_keys(ahead *next, const panel *p, int64_t first, int64_t keys) {
    const attune_attention_f32 *a = p->args;
    const int64_t size = sizeof(float);
    const int64_t row_k = size * a->stride_k[2], row_v = size * a->stride_v[2];
    prefetch_rows(next, p->k + first * row_k, row_k, keys, size * a->d_qk);
    prefetch_rows(next, p->v + first * row_v, row_v, keys, size * a->d_v);
}

/* ---- a task ---- */

typedef void panel_function(const panel *p);

static void run_panels(const attune_attention_f32 *a, uint64_t task, uint64_t most,
                       panel_function *attend_panel, float *memory) {
    const uint64_t environment = attune_fp_enter();
    const uint64_t per_task = panels_per_task(a, most), all = all_panels(a, most), first = task * per_task;
    const uint64_t end = all - first < per_task ? all : first + per_task;
    panel panels[2] = {find_panel(a, first, (int64_t)most, memory)};
    for (uint64_t i = first; i < end; ++i) {
        panel *const p = panels + (i - first) % 2, *const next = panels + (i - first + 1) % 2;
        if (i + 1 < all)
            *next = next_panel(p, (int64_t)most);
        p->next = i + 1 < all ? next : NULL;
        attend_panel(p);
    }
    attune_fp_leave(environment);
}
