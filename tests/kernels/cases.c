/* tests/kernels/cases.c: see cases.h. */
#include "tests/kernels/cases.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/storage.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MARGIN = 32, GUARD = 256 };
static const uint32_t pattern = 0x4a5b6c7du; /* a finite float that no test computes */
static const uint16_t untouched = 0x4a5b;    /* the same in 16 bits */

/* xorshift64* (Vigna 2016). */
uint64_t random_next(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

float random_float(uint64_t *state) {
    return (float)(int32_t)(random_next(state) >> 40) * 0x1p-23f - 1.0f;
}

int64_t random_int(uint64_t *state, int64_t low, int64_t high) {
    return low + (int64_t)((random_next(state) >> 33) % (uint64_t)(high - low + 1));
}

static int64_t random_extent(uint64_t *state, const int64_t *usual, int64_t count, int64_t most) {
    return random_int(state, 0, 2) ? usual[random_int(state, 0, count - 1)] : random_int(state, 1, most);
}

attention_case random_case(uint64_t seed) {
    static const int64_t queries[] = {1, 7, 8, 15, 16, 17, 24, 25, 48, 64, 65, 77, 100, 130};
    static const int64_t keys[] = {1, 16, 64, 77, 127, 128, 129, 200, 257};
    static const int64_t sizes[] = {1, 4, 8, 12, 16, 24, 28, 40, 64, 80, 97, 128, 160};
    static const float amplitudes[] = {0.01f, 0.04f, 0.4f, 1.0f, 4.0f, 40.0f, 100.0f};
    static const float scales[] = {0.0f, 0.0f, 0.25f, 1.0f, -0.5f};
    uint64_t s = seed * 0x9e3779b97f4a7c15ull + 1;
    attention_case c = {.seed = seed + 1};
    c.batch = random_int(&s, 1, 2);
    c.heads_kv = random_int(&s, 1, 2);
    c.heads_q = c.heads_kv * random_int(&s, 1, 2);
    c.n_q = random_extent(&s, queries, 14, 140);
    c.n_k = random_extent(&s, keys, 9, 300);
    c.d_qk = random_extent(&s, sizes, 13, 60);
    c.d_v = random_int(&s, 0, 2) ? c.d_qk : random_extent(&s, sizes, 13, 60);
    c.layout = (int)random_int(&s, 0, LAYOUTS - 1);
    c.mask_kind = (int)random_int(&s, 0, 2);
    c.mask_axes = (unsigned)random_int(&s, 0, 15);
    c.causal = random_int(&s, 0, 3) == 0;
    c.scale = scales[random_int(&s, 0, 4)];
    c.amplitude = amplitudes[random_int(&s, 0, 6)];
    return c;
}

/* Strides (batch, head, token, channel) for one array and its size in elements. */
static size_t lay_out(int layout, int64_t batch, int64_t heads, int64_t tokens, int64_t channels,
                      int64_t stride[4]) {
    const int64_t row = layout == LAYOUT_PADDED   ? channels + 3
                        : layout == LAYOUT_PACKED ? 3 * heads * channels
                                                  : channels;
    stride[3] = 1;
    if (layout == LAYOUT_BHND || layout == LAYOUT_PADDED) {
        stride[2] = row;
        stride[1] = tokens * row + (layout == LAYOUT_PADDED ? 11 : 0);
        stride[0] = heads * stride[1];
    } else {
        stride[1] = channels;
        stride[2] = layout == LAYOUT_PACKED ? row : heads * channels;
        stride[0] = tokens * stride[2];
    }
    return (size_t)(batch * stride[0]);
}

static float *make_floats(size_t count, float amplitude, uint64_t *state) {
    float *made = malloc((count + 1) * sizeof *made);
    ck_assert_ptr_nonnull(made);
    for (size_t i = 0; i < count; ++i)
        made[i] = random_float(state) * amplitude;
    return made;
}

static void sow(float *into, size_t count, float value, uint64_t *state) {
    for (int i = 0; i < 3; ++i)
        into[random_int(state, 0, (int64_t)count - 1)] = value;
}

static void sow_all(attention_arrays *a, const size_t counts[3], unsigned kinds, uint64_t *state) {
    float *const arrays[3] = {a->q, a->k, a->v};
    for (int i = 0; i < 3; ++i) {
        if (kinds & ((unsigned)SOW_NAN_Q << i))
            sow(arrays[i], counts[i], NAN, state);
        if (kinds & ((unsigned)SOW_INF_Q << i))
            sow(arrays[i], counts[i], random_int(state, 0, 1) ? INFINITY : -INFINITY, state);
        for (size_t j = 0; j < counts[i]; ++j) {
            if ((kinds & SOW_MINUS_ZERO) && random_int(state, 0, 1))
                arrays[i][j] = -0.0f;
            if (kinds & SOW_SUBNORMAL) /* small enough that sums of values end at +-0 */
                arrays[i][j] *= i == 0 ? 0x1p-130f : i == 1 ? 1.0f : j % 2 ? 0x1p-130f : 0x1p-148f;
            if ((kinds & SOW_HUGE) && random_int(state, 0, 15) == 0)
                arrays[i][j] *= 1e30f;
        }
    }
}

static void make_mask(attention_arrays *a, const attention_case *c, uint64_t *state) {
    static const float special[] = {-INFINITY, -FLT_MAX, -3e38f, -2.4e38f, INFINITY,
                                    NAN,       FLT_MAX,  -0.0f,  1e-42f};
    const int64_t shape[4] = {c->batch, c->heads_q, c->n_q, c->n_k};
    int64_t count = 1;
    for (int i = 3; i >= 0; --i) {
        const int varies = (c->mask_axes >> i) & 1;
        a->args.stride_mask[i] = varies ? count : 0;
        count *= varies ? shape[i] : 1;
    }
    const int is_float = c->mask_kind == ATTUNE_KERNEL_MASK_FLOAT;
    float *floats = malloc((size_t)count * sizeof *floats);
    uint8_t *bytes = malloc((size_t)count);
    ck_assert(floats && bytes);
    for (int64_t i = 0; i < count; ++i) {
        const int row_masked = (c->sow & SOW_MASKED_ROWS) && (i / (c->mask_axes & 8 ? c->n_k : 1)) % 3 == 0;
        floats[i] = random_float(state) * 4.0f;
        if (random_int(state, 0, 3) == 0 || row_masked)
            floats[i] = -INFINITY;
        if ((c->sow & SOW_MASK) && random_int(state, 0, 40) == 0)
            floats[i] = special[random_int(state, 0, 8)];
        bytes[i] =
            row_masked ? 0 : (uint8_t)(random_int(state, 0, 2) * 127); /* 0, 127, 254: not only 1 is true */
    }
    a->mask = is_float ? (void *)floats : (void *)bytes;
    free(is_float ? (void *)bytes : (void *)floats);
}

static uint16_t narrow(int storage, float x) {
    return storage == ATTUNE_KERNEL_F16 ? attune_narrow_f16(x) : attune_narrow_bf16(x);
}

static float widen(int storage, uint16_t x) {
    return storage == ATTUNE_KERNEL_F16 ? attune_widen_f16(x) : attune_widen_bf16(x);
}

/* One array in 16 bits, and the same values as floats in its place. */
static uint16_t *narrow_array(int storage, float *values, const int64_t stride[4], int64_t batch,
                              int64_t heads, int64_t tokens, int64_t channels) {
    const size_t count =
        (size_t)((batch - 1) * stride[0] + (heads - 1) * stride[1] + (tokens - 1) * stride[2] + channels);
    uint16_t *stored = malloc((count + 1) * sizeof *stored);
    ck_assert_ptr_nonnull(stored);
    for (size_t i = 0; i < count; ++i) {
        stored[i] = narrow(storage, values[i]);
        values[i] = widen(storage, stored[i]);
    }
    return stored;
}

/* The same case in 16 bits. */
static void narrow_arrays(attention_arrays *a, int storage) {
    attune_attention_f32 *p = &a->args;
    a->stored[0] = narrow_array(storage, a->q, p->stride_q, p->batch, p->heads_q, p->n_q, p->d_qk);
    a->stored[1] = narrow_array(storage, a->k, p->stride_k, p->batch, p->heads_kv, p->n_k, p->d_qk);
    a->stored[2] = narrow_array(storage, a->v, p->stride_v, p->batch, p->heads_kv, p->n_k, p->d_v);
    a->stored_out_base = malloc((a->out_floats + 2 * MARGIN) * sizeof *a->stored_out_base);
    ck_assert_ptr_nonnull(a->stored_out_base);
    p->storage = storage;
    p->q = a->stored[0], p->k = a->stored[1], p->v = a->stored[2], p->out = a->stored_out_base + MARGIN;
}

attention_arrays arrays_make(const attention_case *c) {
    attention_arrays a;
    uint64_t state = c->seed * 0x9e3779b97f4a7c15ull + 99;
    memset(&a, 0, sizeof a);
    attune_attention_f32 *p = &a.args;
    p->batch = c->batch, p->heads_q = c->heads_q, p->heads_kv = c->heads_kv;
    p->n_q = c->n_q, p->n_k = c->n_k, p->d_qk = c->d_qk, p->d_v = c->d_v;
    p->mask_kind = c->mask_kind, p->causal = c->causal, p->scale = c->scale;
    p->chunk_q = c->chunk_q ? c->chunk_q : 64, p->chunk_k = c->chunk_k ? c->chunk_k : 24;
    const size_t counts[3] = {lay_out(c->layout, c->batch, c->heads_q, c->n_q, c->d_qk, p->stride_q),
                              lay_out(c->layout, c->batch, c->heads_kv, c->n_k, c->d_qk, p->stride_k),
                              lay_out(c->layout, c->batch, c->heads_kv, c->n_k, c->d_v, p->stride_v)};
    a.out_floats = lay_out(c->layout, c->batch, c->heads_q, c->n_q, c->d_v, p->stride_out);
    a.q = make_floats(counts[0], c->amplitude, &state);
    a.k = make_floats(counts[1], 1.0f, &state);
    a.v = make_floats(counts[2], 1.0f, &state);
    sow_all(&a, counts, c->sow, &state);
    if (c->mask_kind != ATTUNE_KERNEL_MASK_NONE)
        make_mask(&a, c, &state);
    a.out_base = malloc((a.out_floats + 2 * MARGIN) * sizeof(float));
    ck_assert_ptr_nonnull(a.out_base);
    a.out = a.out_base + MARGIN;
    p->q = a.q, p->k = a.k, p->v = a.v, p->mask = a.mask, p->out = a.out;
    a.wide = *p;
    if (c->storage != ATTUNE_KERNEL_F32)
        narrow_arrays(&a, c->storage);
    arrays_reset_out(&a);
    return a;
}

void arrays_reset_out(attention_arrays *a) {
    for (size_t i = 0; i < a->out_floats + 2 * MARGIN; ++i)
        memcpy(a->out_base + i, &pattern, sizeof pattern);
    for (size_t i = 0; a->stored_out_base && i < a->out_floats + 2 * MARGIN; ++i)
        a->stored_out_base[i] = untouched;
}

void arrays_free(attention_arrays *a) {
    free(a->q);
    free(a->k);
    free(a->v);
    free(a->mask);
    free(a->out_base);
    for (int i = 0; i < 3; ++i)
        free(a->stored[i]);
    free(a->stored_out_base);
}

/* Memory full of NaN between guard bytes: what a kernel does not write it must not read. */
static unsigned char *guarded(uint64_t bytes) {
    ck_assert_uint_eq(bytes % 64, 0);
    unsigned char *memory = aligned_alloc(64, bytes + 2 * GUARD);
    ck_assert_ptr_nonnull(memory);
    memset(memory, 0xff, bytes + 2 * GUARD);
    return memory;
}

static void check_guards(unsigned char *memory, uint64_t bytes, const char *isa) {
    for (int i = 0; i < GUARD; ++i)
        if (memory[i] != 0xff || memory[GUARD + bytes + (uint64_t)i] != 0xff)
            ck_abort_msg("%s writes outside of its workspace", isa);
    free(memory);
}

void run_kernel(const attune_attention_f32_kernel *kernel, const attune_attention_f32 *args) {
    attune_attention_f32 a = *args;
    const uint64_t bytes = kernel->workspace(args), shared = kernel->shared(args),
                   tasks = kernel->tasks(args);
    ck_assert_uint_ge(tasks, 1);
    unsigned char *memory = guarded(bytes), *matrix = guarded(shared);
    a.matrix = shared ? matrix + GUARD : NULL;
    for (a.pass = 0; a.pass < kernel->passes; ++a.pass)
        for (uint64_t task = tasks; task-- > 0;)
            kernel->run(&a, task, memory + GUARD);
    check_guards(memory, bytes, kernel->isa);
    check_guards(matrix, shared, kernel->isa);
}

const attune_attention_f32_kernel *kernel_at(int isa) {
    attune_cpu_kernels kernels;
    if (isa > (int)attune_cpu_detect())
        return NULL;
    attune_cpu_dispatch((attune_cpu_isa)isa, &kernels);
    return kernels.attention_f32;
}

void run_reference(int algorithm, const attune_attention_f32 *args) {
    static void (*const references[ATTUNE_ATTENTION_ALGORITHMS])(const attune_attention_f32 *) = {
        attune_attention_f32_reference, attune_attention_f32_reference, attune_attention_f32_full_reference,
        attune_attention_f32_full_reference, attune_attention_f32_chunked_reference};
    references[algorithm](args);
}

void *arrays_want(attention_arrays *a, int algorithm) {
    const size_t count = a->out_floats + 2 * MARGIN;
    float *want = malloc(count * sizeof *want);
    uint16_t *stored = malloc(count * sizeof *stored);
    ck_assert(want && stored);
    arrays_reset_out(a);
    run_reference(algorithm, &a->wide);
    memcpy(want, a->out_base, count * sizeof *want);
    arrays_reset_out(a);
    if (!a->stored_out_base) {
        free(stored);
        return want;
    }
    for (size_t i = 0; i < count; ++i)
        stored[i] =
            memcmp(want + i, &pattern, sizeof pattern) == 0 ? untouched : narrow(a->args.storage, want[i]);
    free(want);
    return stored;
}

void arrays_expect(const attention_arrays *a, const void *want, const attention_case *c, const char *who) {
    const size_t size = a->stored_out_base ? sizeof(uint16_t) : sizeof(float);
    const char *const got = a->stored_out_base ? (const void *)a->stored_out_base : a->out_base;
    for (size_t i = 0; i < a->out_floats + 2 * MARGIN; ++i) {
        if (memcmp((const char *)want + i * size, got + i * size, size) == 0)
            continue;
        uint32_t bits[2] = {0, 0};
        memcpy(&bits[0], got + i * size, size);
        memcpy(&bits[1], (const char *)want + i * size, size);
        ck_abort_msg(
            "%s differs at element %ld of out: %x, the reference has %x (B %ld Hq %ld Hkv %ld Nq %ld "
            "Nk %ld D %ld Dv %ld layout %d mask %d axes %x causal %d scale %g amplitude %g sow %x "
            "storage %d chunks %ld %ld seed %lu)",
            who, (long)i - MARGIN, bits[0], bits[1], (long)c->batch, (long)c->heads_q, (long)c->heads_kv,
            (long)c->n_q, (long)c->n_k, (long)c->d_qk, (long)c->d_v, c->layout, c->mask_kind, c->mask_axes,
            c->causal, (double)c->scale, (double)c->amplitude, c->sow, c->storage, (long)c->chunk_q,
            (long)c->chunk_k, (unsigned long)c->seed);
    }
}

void compare_algorithm(const attention_case *c, int algorithm) {
    attention_arrays a = arrays_make(c);
    void *want = arrays_want(&a, algorithm);
    const attune_attention_f32_kernel *kernel;
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && (kernel = kernel_at(isa)) != NULL; ++isa) {
        char who[64];
        (void)snprintf(who, sizeof who, "%s, algorithm %d,", kernel->isa, algorithm);
        arrays_reset_out(&a);
        run_kernel(kernel + algorithm, &a.args);
        arrays_expect(&a, want, c, who);
    }
    free(want);
    arrays_free(&a);
}

void compare_case(const attention_case *c) {
    compare_algorithm(c, ATTUNE_ATTENTION_PANELS);
}
