/* self_test.c: known answers, asked of a backend before anybody else runs it. */
#include "self_test.h"
#include "self_test_place.h"
#include "structs.h"
#include <math.h>
#include <stdlib.h>

enum { Q, K, V, MASK, OUT, ARRAYS };

/* One array of a case: its bytes here, and where it lies for the backend. */
typedef struct array {
    uint64_t bytes; /* 0 = the case has none */
    void *there;
    attune_tensor view; /* of what is there */
    uint8_t here[ATTUNE_SELF_TEST_VALUES * sizeof(float)];
} array;

/* Everything that one case needs, allocated once. */
typedef struct bench {
    attune_generation *generation;
    attune_place place;
    array arrays[ARRAYS];
    void *workspace;
    float values[ATTUNE_SELF_TEST_VALUES];
} bench;

static int64_t outputs(const attune_self_test_case *one) {
    return one->batch * one->heads_q * one->n_q * one->d_v;
}

/* ---- storage ---- */

static attune_dtype dtype_of(int32_t storage) {
    return storage == ATTUNE_SELF_TEST_F16    ? ATTUNE_F16
           : storage == ATTUNE_SELF_TEST_BF16 ? ATTUNE_BF16
                                              : ATTUNE_F32;
}

/* A value of attune_self_test_fill with 8 bits, which both types hold as a normal number or 0. */
static uint16_t half_of(float value, int32_t storage) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (storage == ATTUNE_SELF_TEST_BF16 || !(bits << 1))
        return (uint16_t)(bits >> 16);
    return (uint16_t)((bits >> 16 & 0x8000u) | ((bits >> 13 & 0x3ffffu) - (112u << 10)));
}

/* Any stored value; an infinity of float16 is as wrong as a NaN. */
static float value_of(uint32_t bits, int32_t storage) {
    float value;
    uint32_t magnitude = bits & 0x7fffu, wide = bits;
    if (storage == ATTUNE_SELF_TEST_BF16)
        wide = bits << 16;
    if (storage == ATTUNE_SELF_TEST_F16)
        wide = magnitude << 13;
    memcpy(&value, &wide, sizeof value);
    if (storage != ATTUNE_SELF_TEST_F16)
        return value;
    return magnitude >= 0x7c00u ? NAN : value * (bits & 0x8000u ? -0x1p112f : 0x1p112f);
}

static uint32_t stored_at(const array *from, int64_t i, int32_t storage) {
    uint32_t wide;
    uint16_t half;
    if (storage == ATTUNE_SELF_TEST_F32) {
        memcpy(&wide, from->here + (size_t)i * sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&half, from->here + (size_t)i * sizeof half, sizeof half);
    return half;
}

/* ---- one case ---- */

static void fill_array(bench *on, int which, int64_t count, uint32_t number, int32_t storage) {
    const attune_self_test_case *c = &attune_self_tests[number];
    array *to = &on->arrays[which];
    attune_self_test_fill(on->values, count, 4 * number + 1 + (uint32_t)which,
                          storage == ATTUNE_SELF_TEST_F32 && which == MASK ? 24
                                                                           : attune_self_test_bits_of(c));
    for (int64_t i = 0; i < count; ++i) {
        const uint16_t half = half_of(on->values[i], storage);
        if (storage == ATTUNE_SELF_TEST_F32)
            memcpy(to->here + (size_t)i * sizeof(float), &on->values[i], sizeof(float));
        else
            memcpy(to->here + (size_t)i * sizeof half, &half, sizeof half);
    }
}

static void shape_array(bench *on, int which, attune_dtype dtype, const attune_device_id *device, int64_t a,
                        int64_t b, int64_t c, int64_t d) {
    const int64_t shape[4] = {a, b, c, d};
    array *to = &on->arrays[which];
    to->view = attune_tensor_view(NULL, dtype, *device, 4, shape);
    to->bytes = to->view.bytes;
}

/* The arrays here. What the output holds is a NaN in every storage, so that what is not written is wrong. */
static void make_case(bench *on, uint32_t number, const attune_device_id *device) {
    const attune_self_test_case *c = &attune_self_tests[number];
    const attune_dtype dtype = dtype_of(c->storage);
    on->arrays[MASK].bytes = 0;
    shape_array(on, Q, dtype, device, c->batch, c->heads_q, c->n_q, c->d_qk);
    shape_array(on, K, dtype, device, c->batch, c->heads_kv, c->n_k, c->d_qk);
    shape_array(on, V, dtype, device, c->batch, c->heads_kv, c->n_k, c->d_v);
    shape_array(on, OUT, dtype, device, c->batch, c->heads_q, c->n_q, c->d_v);
    fill_array(on, Q, c->batch * c->heads_q * c->n_q * c->d_qk, number, c->storage);
    fill_array(on, K, c->batch * c->heads_kv * c->n_k * c->d_qk, number, c->storage);
    fill_array(on, V, c->batch * c->heads_kv * c->n_k * c->d_v, number, c->storage);
    memset(on->arrays[OUT].here, 0xff, sizeof on->arrays[OUT].here);
    if (c->mask == ATTUNE_MASK_FLOAT) {
        shape_array(on, MASK, ATTUNE_F32, device, 1, 1, c->n_q, c->n_k);
        fill_array(on, MASK, c->n_q * c->n_k, number, ATTUNE_SELF_TEST_F32);
    } else if (c->mask == ATTUNE_MASK_BOOL) {
        shape_array(on, MASK, ATTUNE_BOOL, device, 1, 1, c->n_q, c->n_k);
        attune_self_test_mask(on->arrays[MASK].here, c->n_q, c->n_k, 4 * number + 1 + MASK);
    }
}

/* To where the backend runs. */
static attune_code bring(bench *on, attune_error *error) {
    attune_code code = ATTUNE_OK;
    for (int i = 0; i < ARRAYS && !code; ++i) {
        array *one = &on->arrays[i];
        if (!one->bytes)
            continue;
        code = attune_place_alloc(&on->place, one->bytes, &one->there, error);
        if (!code)
            code = attune_place_copy(&on->place, one->there, one->here, one->bytes, ATTUNE_COPY_TO_DEVICE,
                                     error);
        one->view.data = one->there;
    }
    return code;
}

/* The work under way may still use them, so it is waited for, whatever came of it. */
static void put_away(bench *on) {
    (void)attune_place_wait(&on->place, NULL);
    for (int i = 0; i < ARRAYS; ++i) {
        attune_place_free(&on->place, on->arrays[i].there);
        on->arrays[i].there = NULL;
    }
    attune_place_free(&on->place, on->workspace);
    on->workspace = NULL;
}

/* Run what was answered, in a workspace of its own, and fetch the output. */
static attune_code run_answered(bench *on, uint32_t index, const attune_attention_problem *problem,
                                const attune_attention_answer *answer, attune_error *error) {
    attune_generation *generation = on->generation;
    const attune_control control = {.struct_size = sizeof control};
    attune_error reason = {.code = ATTUNE_OK};
    attune_tensor mask =
        on->arrays[MASK].view; /* as the host's calls hand it over: broadcast by strides of 0 */
    const int64_t full[4] = {problem->batch, problem->heads_q, problem->n_q, problem->n_k};
    memcpy(mask.shape, full, sizeof full);
    memcpy(mask.stride, problem->stride_mask, sizeof problem->stride_mask);
    attune_code code = answer->workspace
                           ? attune_place_alloc(&on->place, answer->workspace, &on->workspace, error)
                           : ATTUNE_OK;
    if (code)
        return code;
    const attune_attention_args args = {.struct_size = sizeof args,
                                        .q = &on->arrays[Q].view,
                                        .k = &on->arrays[K].view,
                                        .v = &on->arrays[V].view,
                                        .mask = on->arrays[MASK].bytes ? &mask : NULL,
                                        .out = &on->arrays[OUT].view,
                                        .workspace = on->workspace,
                                        .workspace_bytes = answer->workspace};
    ++attune_inside;
    code = generation->attention->run(generation->instance, index, problem, answer->plan, &args,
                                      &on->place.stream, &control, &reason);
    --attune_inside;
    if (code)
        return attune_plugin_said(code, generation->id, "run", &reason, error);
    code = attune_place_wait(&on->place, error);
    if (!code)
        code = attune_place_copy(&on->place, on->arrays[OUT].here, on->arrays[OUT].there,
                                 on->arrays[OUT].bytes, ATTUNE_COPY_FROM_DEVICE, error);
    return code ? code : attune_place_wait(&on->place, error);
}

static attune_code compare(const bench *on, const attune_attention_info *info, int32_t kept, uint32_t number,
                           const uint32_t *bits, attune_error *error) {
    const int32_t storage = attune_self_tests[number].storage;
    bool exact =
        strcmp(info->arithmetic, attune_self_test_arithmetic) == 0 && kept >= ATTUNE_DETERMINISM_PORTABLE;
    for (int64_t i = 0; i < outputs(&attune_self_tests[number]); ++i) {
        uint32_t got = stored_at(&on->arrays[OUT], i, storage);
        float is = value_of(got, storage), right = value_of(bits[i], storage);
        if (exact ? got == bits[i] : fabsf(is - right) <= attune_self_test_tolerance(storage))
            continue;
        (void)attune_fail(error, ATTUNE_INTERNAL, ATTUNE_DOMAIN, on->generation->path,
                          "%s gives wrong numbers: known answer %u in %s, value %lld is %.9g, %s %.9g",
                          info->name, number, attune_dtype_name(dtype_of(storage)), (long long)i, (double)is,
                          exact ? "to the bit it is" : "it is", (double)right);
        attune_hint(error, "%s",
                    exact ? "its arithmetic id promises the bits of docs/arithmetic.md"
                          : "no rounding explains that");
        return ATTUNE_INTERNAL;
    }
    return ATTUNE_OK;
}

/* Whether a backend's table lists such problems at all. */
static bool listed(const attune_attention_info *info, const attune_self_test_case *c) {
    static const uint32_t storages[] = {ATTUNE_DTYPE_BIT_F32, ATTUNE_DTYPE_BIT_F16, ATTUNE_DTYPE_BIT_BF16};
    const int64_t most = c->d_qk > c->d_v ? c->d_qk : c->d_v, least = c->d_qk < c->d_v ? c->d_qk : c->d_v;
    return info->dtypes & storages[c->storage] && info->masks & (1u << c->mask) &&
           (!c->causal || info->masks & ATTUNE_MASK_BIT_CAUSAL) &&
           (!info->head_dim_max || most <= info->head_dim_max) && least >= info->head_dim_min;
}

/* *answered counts the cases that the backend took. */
static attune_code run_case(bench *on, uint32_t index, uint32_t number, const uint32_t *bits,
                            uint32_t *answered, attune_error *error) {
    attune_generation *generation = on->generation;
    const attune_attention_info *info = &generation->backends[index];
    array *arrays = on->arrays;
    attune_attention_problem problem;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    attune_error reason = {.code = ATTUNE_OK};
    if (!listed(info, &attune_self_tests[number]))
        return ATTUNE_OK;
    make_case(on, number, &info->device);
    attune_code code = bring(on, error);
    if (!code)
        code = attune_attention_problem_init(&problem, &arrays[Q].view, &arrays[K].view, &arrays[V].view,
                                             arrays[MASK].bytes ? &arrays[MASK].view : NULL,
                                             &arrays[OUT].view, error);
    if (!code) {
        problem.causal = attune_self_tests[number].causal;
        problem.workers = on->place.stream.workers;
        code = generation->attention->query(generation->instance, index, &problem, &answer, &reason);
        (void)attune_plugin_said(code, generation->id, "query", &reason, error);
    }
    if (!code && !answer.code) {
        ++*answered;
        code = run_answered(on, index, &problem, &answer, error);
        if (!code)
            code = compare(on, info, answer.determinism, number, bits, error);
    }
    put_away(on);
    return code;
}

/* All cases of one backend. One that lacks a shared library serves nobody, and is asked nothing. */
static attune_code test_backend(bench *on, uint32_t index, attune_error *error) {
    attune_generation *generation = on->generation;
    const attune_attention_info *info = &generation->backends[index];
    const uint32_t *bits = attune_self_test_bits;
    uint32_t answered = 0;
    if (*generation->lacks[index])
        return ATTUNE_OK;
    attune_code code = attune_place_open(generation, &info->device, &on->place, error);
    const char *untested = on->place.missing ? "no loaded plugin drives its device" : NULL;
    for (uint32_t number = 0; number < ATTUNE_SELF_TESTS && !code && !untested; ++number) {
        code = run_case(on, index, number, bits, &answered, error);
        bits += outputs(&attune_self_tests[number]);
    }
    if (!untested && !answered)
        untested = "it takes none of the problems";
    if (!code && untested)
        attune_log(&generation->host->logger, ATTUNE_LOG_WARNING, generation->id,
                   "no known answer was asked of %s: %s", info->name, untested);
    attune_place_close(&on->place);
    return code;
}

attune_code attune_self_test(attune_generation *generation, attune_error *error) {
    bench *on = calloc(1, sizeof *on);
    attune_code code = ATTUNE_OK;
    if (!on)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, generation->path,
                           "no memory for the self-test");
    on->generation = generation;
    for (uint32_t i = 0; i < generation->attention_count && !code; ++i)
        code = test_backend(on, i, error);
    free(on);
    return code;
}
