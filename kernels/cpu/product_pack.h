/*
 * kernels/cpu/product_pack.h: the packed weights of product_tile.h, [panel][k][lane], from stored ones,
 * (channel, k): a transposition of each panel, in which convolutions also turn k = (input channel, tap) into
 * (tap, input channel). Both types of element are moved as they are.
 *
 * Part of product_tile.h.
 */

static inline int64_t storage_bytes(int32_t storage) {
    return storage == ATTUNE_KERNEL_F32 ? 4 : 2;
}

/* In pairs, a panel has WIDTH channels of the first half, then those of the second that go with them. */
static inline int64_t count_panels(int64_t out, int pairs) {
    return pairs ? divide_up(out / 2, WIDTH) : divide_up(out, PANEL);
}

/* The lane of channel `o`, and its panel. */
static inline int64_t lane_of(const attune_weights_f32 *w, int64_t o, int64_t *panel) {
    const int64_t half = w->out / 2, second = w->pairs && o >= half, lanes = w->pairs ? WIDTH : PANEL;
    const int64_t at = second ? o - half : o;
    *panel = at / lanes;
    return at % lanes + second * WIDTH;
}

static uint64_t packed_bytes(const attune_weights_f32 *w) {
    return (uint64_t)(count_panels(w->out, w->pairs) * PANEL * w->in * w->taps * storage_bytes(w->storage));
}

#define PACK_LANES 4 /* written together */
#define PACK_STEPS                                                                                           \
    64 /* of all lanes of a panel, before the next: what is written stays in the cache so long */
#define STEP_BYTES 16 /* of a stored row, read together */

typedef uint16_t pack_16 __attribute__((vector_size(STEP_BYTES)));
typedef uint32_t pack_32 __attribute__((vector_size(STEP_BYTES)));

/* Four rows of four elements, transposed. */
INLINE void transpose_32(pack_32 x[PACK_LANES]) {
    const pack_32 a = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5),
                  b = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
    const pack_32 c = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7),
                  d = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
    x[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    x[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    x[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    x[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

/* Four rows of eight elements; of the result, each vector has two of eight rows of four. */
INLINE void transpose_16(pack_32 x[PACK_LANES]) {
    pack_16 y[PACK_LANES];
    for (int i = 0; i < PACK_LANES; ++i)
        y[i] = (pack_16)x[i];
    for (int i = 0; i < PACK_LANES; i += 2) { /* pairs of lanes, step by step */
        x[i] = (pack_32)__builtin_shufflevector(y[i], y[i + 1], 0, 8, 1, 9, 2, 10, 3, 11);
        x[i + 1] = (pack_32)__builtin_shufflevector(y[i], y[i + 1], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    const pack_32 a = x[0], b = x[1], c = x[2], d = x[3];
    x[0] = __builtin_shufflevector(a, c, 0, 4, 1, 5);
    x[1] = __builtin_shufflevector(a, c, 2, 6, 3, 7);
    x[2] = __builtin_shufflevector(b, d, 0, 4, 1, 5);
    x[3] = __builtin_shufflevector(b, d, 2, 6, 3, 7);
}

/* Where stored step n of a panel goes. */
static inline int64_t packed_step(const attune_weights_f32 *w, int64_t n) {
    return n % w->taps * w->in + n / w->taps;
}

/* Steps first ... end - 1 of one lane; `stored` NULL: zeros. */
static void pack_lane(const attune_weights_f32 *w, int64_t first, int64_t end, const char *stored, char *to) {
    static const char zeros[4];
    const int64_t bytes = storage_bytes(w->storage);
    for (int64_t n = first; n < end; ++n) {
        const char *const from = stored ? stored + n * bytes : zeros;
        char *const at = to + packed_step(w, n) * PANEL * bytes;
        if (bytes == 4)
            memcpy(at, from, 4);
        else
            memcpy(at, from, 2);
    }
}

/* Steps first ... end - 1 of PACK_LANES neighbouring lanes, whose rows are `row` bytes long. */
INLINE void pack_four(const attune_weights_f32 *w, int64_t first, int64_t end, const char *stored,
                      int64_t row, char *to, const int bytes) {
    const int64_t taps = w->taps, plane = w->in * PANEL * bytes, line = PANEL * bytes,
                  back = taps * plane - line;
    const int some = STEP_BYTES / bytes;
    int64_t n = first, tap = first % taps;
    char *at = to + packed_step(w, first) * line;
    for (; n + some <= end; n += some) {
        pack_32 x[PACK_LANES];
        UNROLL
        for (int i = 0; i < PACK_LANES; ++i)
            memcpy(&x[i], stored + i * row + n * bytes, STEP_BYTES);
        if (bytes == 4)
            transpose_32(x);
        else
            transpose_16(x);
        UNROLL
        for (int i = 0; i < some; ++i) {
            memcpy(at, (const char *)x + i * PACK_LANES * bytes, PACK_LANES * bytes);
            at += plane;
            if (++tap == taps)
                tap = 0, at -= back;
        }
    }
    for (int i = 0; i < PACK_LANES; ++i)
        pack_lane(w, n, end, stored + i * row, to + i * bytes);
}

static void pack_lanes(const attune_weights_f32 *w, int64_t first, int64_t end, const char *stored,
                       int64_t row, char *to) {
    if (w->storage == ATTUNE_KERNEL_F32)
        pack_four(w, first, end, stored, row, to, 4);
    else
        pack_four(w, first, end, stored, row, to, 2);
}

/* Output channels from `first` on, of which `most` are stored, as far as they lie side by side in one panel;
 * how many they are. */
static int64_t pack_panel(const attune_weights_f32 *w, int64_t first, int64_t most, const char *stored,
                          void *packed) {
    const int64_t steps = w->in * w->taps, bytes = storage_bytes(w->storage), row = steps * bytes;
    const int64_t half = w->out / 2, lanes = w->pairs ? WIDTH : PANEL;
    int64_t panel;
    const int64_t lane = lane_of(w, first, &panel), side = w->pairs && first < half ? half - first : most;
    const int64_t count = at_most(lanes - lane % lanes, at_most(side, most));
    char *const to = (char *)packed + (panel * steps * PANEL + lane) * bytes;
    for (int64_t n = 0; n < steps; n += PACK_STEPS) {
        const int64_t end = at_most(n + PACK_STEPS, steps);
        int64_t i = 0;
        for (; i + PACK_LANES <= count; i += PACK_LANES)
            pack_lanes(w, n, end, stored + i * row, row, to + i * bytes);
        for (; i < count; ++i)
            pack_lane(w, n, end, stored + i * row, to + i * bytes);
    }
    return count;
}

static void pack(const attune_weights_f32 *w, int64_t first, int64_t count, const void *stored,
                 void *packed) {
    const int64_t steps = w->in * w->taps, bytes = storage_bytes(w->storage), half = w->out / 2;
    for (int64_t i = 0; i < count;)
        i += pack_panel(w, first + i, count - i, (const char *)stored + i * steps * bytes, packed);
    for (int part = 0; part < (w->pairs ? 2 : 1) && first + count == w->out; ++part) { /* what is left over */
        const int64_t end = w->pairs ? WIDTH * (part + 1) : PANEL;
        int64_t panel, lane = lane_of(w, w->pairs && !part ? half - 1 : w->out - 1, &panel);
        while (++lane < end)
            pack_lane(w, 0, steps, NULL, (char *)packed + (panel * steps * PANEL + lane) * bytes);
    }
}
