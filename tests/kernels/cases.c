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

attention_case problem_at(uint64_t i) {
    static const int storages[] = {ATTUNE_KERNEL_F32, ATTUNE_KERNEL_F32, ATTUNE_KERNEL_F16,
                                   ATTUNE_KERNEL_BF16};
    attention_case c = random_case(100000 + i);
    uint64_t s = (i + 1) * 0xd1342543de82ef95ull;
    int64_t *const extents[] = {&c.n_q, &c.d_v, &c.n_k, &c.batch, &c.d_qk};
    c.storage = storages[random_int(&s, 0, 3)];
    c.shift = (int)random_int(&s, 0, 15);
    if (i % 8 == 5) { /* rare by chance, and kernels have ways of their own for them */
        c.n_q = random_int(&s, 1, 16), c.n_k = random_int(&s, 8, 16);
        c.mask_kind = ATTUNE_KERNEL_MASK_NONE, c.causal = 0;
    }
    const int64_t kind = random_int(&s, 0, 3);
    if (kind == 0)
        c.sow = (unsigned)random_int(&s, 1, (1 << SOW_BITS) - 1);
    else if (kind == 1)
        c.sow = 1u << random_int(&s, 0, SOW_BITS - 1);
    while (c.batch * c.heads_q * c.n_q * c.n_k * (c.d_qk + c.d_v) > 800000) {
        int64_t *const cut = extents[random_int(&s, 0, 4)];
        *cut = *cut * 2 / 3 + (*cut < 3);
    }
    return c;
}

static uint64_t number_of(const char *variable, uint64_t otherwise) {
    const char *text = getenv(variable);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

uint64_t check_count(uint64_t count) {
#if defined(__SANITIZE_ADDRESS__)
    count /= 8;
#endif
    return count * number_of("ATTUNE_CHECK_TIMES", 1);
}

uint64_t check_first(void) {
    return number_of("ATTUNE_CHECK_FIRST", 0);
}

void set_environment(int environment) {
#ifdef __aarch64__
    static const uint64_t states[ENVIRONMENTS] = {0, 1u << 24, 1u << 24 | 1u << 22, 1u << 22}; /* FZ, RMode */
    __asm__ volatile("msr fpcr, %0" : : "r"(states[environment]) : "memory");
#else
    static const uint32_t states[ENVIRONMENTS] = {0x1F80, 0x9F80, 0x1FC0, 0x5F80}; /* FTZ, DAZ, RC */
    __asm__ volatile("ldmxcsr %0" : : "m"(states[environment]) : "memory");
#endif
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
    float *made = aligned_alloc(64, (count + 31) / 16 * 64);
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
            if (kinds & SOW_TIES)
                arrays[i][j] = rintf(arrays[i][j] * 2.0f) * 0.5f;
            if ((kinds & SOW_LARGEST) && random_int(state, 0, 7) == 0)
                arrays[i][j] = random_int(state, 0, 1) ? 65504.0f : -65504.0f;
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

static size_t out_count(const attention_arrays *a) {
    return a->out_floats + 2 * MARGIN;
}

static void narrow_array(int storage, const float *from, size_t count, uint16_t *to) {
    for (size_t i = 0; i < count; ++i)
        to[i] = storage == ATTUNE_KERNEL_F16 ? attune_narrow_f16(from[i]) : attune_narrow_bf16(from[i]);
}

/* The inputs in 16 bits, and the same values as floats in their places. */
static void store_in_halves(attention_arrays *a, const attention_case *c, const size_t counts[3]) {
    float *const floats[3] = {a->q, a->k, a->v};
    a->stored.storage = c->storage;
    for (int i = 0; i < 4; ++i) {
        const size_t count = i < 3 ? counts[i] : out_count(a);
        a->halves[i] = malloc((count + (size_t)c->shift) * sizeof *a->halves[i]);
        ck_assert_ptr_nonnull(a->halves[i]);
        a->halves[i] += c->shift;
        if (i == 3)
            continue;
        narrow_array(c->storage, floats[i], count, a->halves[i]);
        for (size_t j = 0; j < count; ++j)
            floats[i][j] = c->storage == ATTUNE_KERNEL_F16 ? attune_widen_f16(a->halves[i][j])
                                                           : attune_widen_bf16(a->halves[i][j]);
    }
    a->stored.q = a->halves[0], a->stored.k = a->halves[1], a->stored.v = a->halves[2];
    a->stored.out = a->halves[3] + MARGIN;
}

attention_arrays arrays_make(const attention_case *c) {
    attention_arrays a;
    uint64_t state = c->seed * 0x9e3779b97f4a7c15ull + 99;
    memset(&a, 0, sizeof a);
    a.shift = c->shift;
    attune_attention_f32 *p = &a.args;
    p->batch = c->batch, p->heads_q = c->heads_q, p->heads_kv = c->heads_kv;
    p->n_q = c->n_q, p->n_k = c->n_k, p->d_qk = c->d_qk, p->d_v = c->d_v;
    p->mask_kind = c->mask_kind, p->causal = c->causal, p->scale = c->scale;
    p->chunk_q = c->chunk_q ? c->chunk_q : 64, p->chunk_k = c->chunk_k ? c->chunk_k : 24;
    const size_t counts[3] = {lay_out(c->layout, c->batch, c->heads_q, c->n_q, c->d_qk, p->stride_q),
                              lay_out(c->layout, c->batch, c->heads_kv, c->n_k, c->d_qk, p->stride_k),
                              lay_out(c->layout, c->batch, c->heads_kv, c->n_k, c->d_v, p->stride_v)};
    a.out_floats = lay_out(c->layout, c->batch, c->heads_q, c->n_q, c->d_v, p->stride_out);
    if (c->stride_out[0]) {
        memcpy(p->stride_out, c->stride_out, sizeof c->stride_out);
        a.out_floats = (size_t)(c->batch * c->stride_out[0]);
    }
    float **const arrays[3] = {&a.q, &a.k, &a.v};
    for (int i = 0; i < 3; ++i) {
        a.owned[i] = make_floats(counts[i] + (size_t)c->shift, i == 0 ? c->amplitude : 1.0f, &state);
        *arrays[i] = (float *)a.owned[i] + c->shift;
    }
    sow_all(&a, counts, c->sow, &state);
    if (c->mask_kind != ATTUNE_KERNEL_MASK_NONE)
        make_mask(&a, c, &state);
    a.out_base = aligned_alloc(64, (out_count(&a) + (size_t)c->shift + 15) / 16 * 64);
    ck_assert_ptr_nonnull(a.out_base);
    a.owned[3] = a.out_base;
    a.out_base += c->shift;
    a.out = a.out_base + MARGIN;
    p->q = a.q, p->k = a.k, p->v = a.v, p->mask = a.mask, p->out = a.out;
    a.stored = a.args;
    if (c->storage != ATTUNE_KERNEL_F32)
        store_in_halves(&a, c, counts);
    arrays_reset_out(&a);
    return a;
}

void arrays_reset_out(attention_arrays *a) {
    for (size_t i = 0; i < out_count(a); ++i)
        memcpy(a->out_base + i, &pattern, sizeof pattern);
    if (a->halves[3])
        narrow_array(a->stored.storage, a->out_base, out_count(a), a->halves[3]);
}

void arrays_free(attention_arrays *a) {
    for (int i = 0; i < 4; ++i) {
        free(a->owned[i]);
        free(a->halves[i] ? a->halves[i] - a->shift : NULL);
    }
    free(a->mask);
    free(a->want);
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

static void report(const attention_case *c, const char *name, size_t place) {
    ck_abort_msg(
        "%s differs at element %ld of out (B %ld Hq %ld Hkv %ld Nq %ld Nk %ld D %ld Dv %ld layout %d "
        "mask %d axes %x causal %d scale %g amplitude %g sow %x storage %d shift %d chunks %ld %ld seed %lu)",
        name, (long)place - MARGIN, (long)c->batch, (long)c->heads_q, (long)c->heads_kv, (long)c->n_q,
        (long)c->n_k, (long)c->d_qk, (long)c->d_v, c->layout, c->mask_kind, c->mask_axes, c->causal,
        (double)c->scale, (double)c->amplitude, c->sow, c->storage, c->shift, (long)c->chunk_q,
        (long)c->chunk_k, (unsigned long)c->seed);
}

/* The whole output as it is stored. */
static const char *stored_out(const attention_arrays *a, size_t *element) {
    *element = a->halves[3] ? sizeof(uint16_t) : sizeof(float);
    return a->halves[3] ? (const char *)a->halves[3] : (const char *)a->out_base;
}

attention_reference *reference_of(int algorithm) {
    static attention_reference *const references[ATTUNE_ATTENTION_ALGORITHMS] = {
        attune_attention_f32_reference, attune_attention_f32_reference, attune_attention_f32_full_reference,
        attune_attention_f32_full_reference, attune_attention_f32_chunked_reference};
    return references[algorithm];
}

void arrays_expect(attention_arrays *a, attention_reference *reference) {
    size_t element;
    arrays_reset_out(a);
    reference(&a->args);
    if (a->halves[3])
        narrow_array(a->stored.storage, a->out_base, out_count(a), a->halves[3]);
    const char *const out = stored_out(a, &element);
    free(a->want);
    a->want = malloc(out_count(a) * element);
    ck_assert_ptr_nonnull(a->want);
    memcpy(a->want, out, out_count(a) * element);
}

void arrays_check(const attention_arrays *a, const attention_case *c, const char *name) {
    size_t element, place = 0;
    const char *const out = stored_out(a, &element), *const want = a->want;
    if (memcmp(want, out, out_count(a) * element) == 0)
        return;
    while (memcmp(want + place * element, out + place * element, element) == 0)
        ++place;
    report(c, name, place);
}

void arrays_compare(attention_arrays *a, const attention_case *c, attention_runner *run, void *context,
                    const char *name) {
    arrays_reset_out(a);
    run(&a->stored, context);
    arrays_check(a, c, name);
}

void run_whole(const attune_attention_f32 *args, void *kernel) {
    run_kernel(kernel, args);
}

void run_split(const attune_attention_f32 *args, void *kernel) {
    const int64_t element = args->storage == ATTUNE_KERNEL_F32 ? 4 : 2,
                  mask = args->mask_kind == ATTUNE_KERNEL_MASK_FLOAT ? 4 : 1;
    attune_attention_f32 one = *args;
    one.batch = 1;
    for (int64_t b = 0; b < args->batch; ++b) {
        one.q = (const char *)args->q + b * args->stride_q[0] * element;
        one.k = (const char *)args->k + b * args->stride_k[0] * element;
        one.v = (const char *)args->v + b * args->stride_v[0] * element;
        one.out = (char *)args->out + b * args->stride_out[0] * element;
        if (args->mask)
            one.mask = (const char *)args->mask + b * args->stride_mask[0] * mask;
        run_kernel(kernel, &one);
    }
}

void compare_algorithm(const attention_case *c, int algorithm) {
    attention_arrays a = arrays_make(c);
    arrays_expect(&a, reference_of(algorithm));
    const attune_attention_f32_kernel *kernel;
    for (int isa = 0; isa < ATTUNE_CPU_ISAS && (kernel = kernel_at(isa)) != NULL; ++isa) {
        char who[64];
        (void)snprintf(who, sizeof who, "%s, algorithm %d,", kernel->isa, algorithm);
        arrays_compare(&a, c, run_whole, (void *)(uintptr_t)(kernel + algorithm), who);
    }
    arrays_free(&a);
}

void compare_case(const attention_case *c) {
    compare_algorithm(c, ATTUNE_ATTENTION_PANELS);
}
