/* self_test.c: known answers, asked of a backend before anybody else runs it. */
#include "self_test.h"
#include "registry.h"
#include "structs.h"
#include <math.h>
#include <stdlib.h>

/* Everything that one case needs, allocated once. */
typedef struct bench {
    attune_generation *generation;
    attune_stream stream;
    float q[ATTUNE_SELF_TEST_VALUES], k[ATTUNE_SELF_TEST_VALUES], v[ATTUNE_SELF_TEST_VALUES],
        out[ATTUNE_SELF_TEST_VALUES], added[ATTUNE_SELF_TEST_VALUES];
    uint8_t kept[ATTUNE_SELF_TEST_VALUES];
} bench;

static int64_t outputs(const attune_self_test_case *one) {
    return one->batch * one->heads_q * one->n_q * one->d_v;
}

static attune_code compare(const bench *on, const attune_attention_info *info, int32_t kept, uint32_t number,
                           const uint32_t *bits, attune_error *error) {
    bool exact =
        strcmp(info->arithmetic, attune_self_test_arithmetic) == 0 && kept >= ATTUNE_DETERMINISM_PORTABLE;
    for (int64_t i = 0; i < outputs(&attune_self_tests[number]); ++i) {
        float right;
        memcpy(&right, &bits[i], sizeof right);
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): bits are what is promised */
        bool same = exact ? memcmp(&on->out[i], &right, sizeof right) == 0
                          : fabsf(on->out[i] - right) <= ATTUNE_SELF_TEST_TOLERANCE;
        if (same)
            continue;
        (void)attune_fail(error, ATTUNE_INTERNAL, ATTUNE_DOMAIN, on->generation->path,
                          "%s gives wrong numbers: known answer %u, value %lld is %.9g, %s %.9g", info->name,
                          number, (long long)i, (double)on->out[i], exact ? "to the bit it is" : "it is",
                          (double)right);
        attune_hint(error, "%s",
                    exact ? "its arithmetic id promises the bits of docs/arithmetic.md"
                          : "no rounding explains that");
        return ATTUNE_INTERNAL;
    }
    return ATTUNE_OK;
}

/* The tensors of one case; the mask as the host's calls hand it over: broadcast to four axes by strides of 0.
 */
typedef struct views {
    attune_tensor q, k, v, out, mask, wide;
} views;

static void fill_case(bench *on, uint32_t number, const attune_device_id *device, views *to) {
    const attune_self_test_case *c = &attune_self_tests[number];
    const int64_t shape_q[4] = {c->batch, c->heads_q, c->n_q, c->d_qk},
                  shape_k[4] = {c->batch, c->heads_kv, c->n_k, c->d_qk},
                  shape_v[4] = {c->batch, c->heads_kv, c->n_k, c->d_v},
                  shape_o[4] = {c->batch, c->heads_q, c->n_q, c->d_v}, shape_m[4] = {1, 1, c->n_q, c->n_k},
                  full[4] = {c->batch, c->heads_q, c->n_q, c->n_k};
    attune_self_test_fill(on->q, c->batch * c->heads_q * c->n_q * c->d_qk, 4 * number + 1);
    attune_self_test_fill(on->k, c->batch * c->heads_kv * c->n_k * c->d_qk, 4 * number + 2);
    attune_self_test_fill(on->v, c->batch * c->heads_kv * c->n_k * c->d_v, 4 * number + 3);
    attune_self_test_fill(on->added, c->n_q * c->n_k, 4 * number + 4);
    attune_self_test_mask(on->kept, c->n_q, c->n_k, 4 * number + 4);
    for (int64_t i = 0; i < outputs(c); ++i)
        on->out[i] = NAN;
    bool floats = c->mask == ATTUNE_MASK_FLOAT;
    to->q = attune_tensor_view(on->q, ATTUNE_F32, *device, 4, shape_q);
    to->k = attune_tensor_view(on->k, ATTUNE_F32, *device, 4, shape_k);
    to->v = attune_tensor_view(on->v, ATTUNE_F32, *device, 4, shape_v);
    to->out = attune_tensor_view(on->out, ATTUNE_F32, *device, 4, shape_o);
    to->mask = to->wide = attune_tensor_view(floats ? (void *)on->added : on->kept,
                                             floats ? ATTUNE_F32 : ATTUNE_BOOL, *device, 4, shape_m);
    memcpy(to->wide.shape, full, sizeof full);
}

/* Run what was answered, in a workspace of its own. */
static attune_code run_answered(bench *on, uint32_t index, const attune_attention_problem *problem,
                                const attune_attention_answer *answer, attune_attention_args *args,
                                attune_error *error) {
    attune_generation *generation = on->generation;
    const attune_control control = {.struct_size = sizeof control};
    attune_error reason = {.code = ATTUNE_OK};
    void *workspace = answer->workspace
                          ? attune_services_alloc(&generation->services, answer->workspace, "workspace")
                          : NULL;
    if (answer->workspace && !workspace)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, generation->path,
                           "no memory for the self-test's workspace");
    args->workspace = workspace;
    args->workspace_bytes = answer->workspace;
    attune_pool_enter(generation->host->pool);
    attune_code code = generation->attention->run(generation->instance, index, problem, answer->plan, args,
                                                  &on->stream, &control, &reason);
    attune_pool_leave(generation->host->pool);
    attune_services_free(&generation->services, workspace);
    return code ? attune_plugin_said(code, generation->id, "run", &reason, error) : ATTUNE_OK;
}

static attune_code run_case(bench *on, uint32_t index, const attune_attention_info *info, uint32_t number,
                            const uint32_t *bits, attune_error *error) {
    attune_generation *generation = on->generation;
    bool masked = attune_self_tests[number].mask != ATTUNE_MASK_NONE;
    views at;
    fill_case(on, number, &info->device, &at);
    attune_attention_problem problem;
    attune_code code = attune_attention_problem_init(&problem, &at.q, &at.k, &at.v, masked ? &at.mask : NULL,
                                                     &at.out, error);
    if (code)
        return code;
    problem.causal = attune_self_tests[number].causal;
    problem.workers = on->stream.workers;
    attune_attention_answer answer = {.struct_size = sizeof answer};
    attune_error reason = {.code = ATTUNE_OK};
    code = generation->attention->query(generation->instance, index, &problem, &answer, &reason);
    if (code)
        return attune_plugin_said(code, generation->id, "query", &reason, error);
    if (answer.code)
        return ATTUNE_OK;
    attune_attention_args args = {
        .struct_size = sizeof args, .q = &at.q, .k = &at.k, .v = &at.v, .out = &at.out};
    memcpy(at.wide.stride, problem.stride_mask, sizeof problem.stride_mask);
    if (masked)
        args.mask = &at.wide;
    code = run_answered(on, index, &problem, &answer, &args, error);
    return code ? code : compare(on, info, answer.determinism, number, bits, error);
}

attune_code attune_self_test(attune_generation *generation, attune_error *error) {
    bench *on = calloc(1, sizeof *on);
    attune_code code = ATTUNE_OK;
    if (!on)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, generation->path,
                           "no memory for the self-test");
    on->generation = generation;
    for (uint32_t i = 0; i < generation->attention_count && !code; ++i) {
        const attune_attention_info *info = &generation->backends[i];
        const uint32_t *bits = attune_self_test_bits;
        if (info->device.type != ATTUNE_DEVICE_CPU || !(info->dtypes & ATTUNE_DTYPE_BIT_F32))
            continue;
        on->stream = (attune_stream){.struct_size = sizeof on->stream,
                                     .workers = attune_pool_threads(generation->host->pool),
                                     .device = info->device,
                                     .native = generation->host->pool};
        for (uint32_t number = 0; number < ATTUNE_SELF_TESTS && !code; ++number) {
            code = run_case(on, i, info, number, bits, error);
            bits += outputs(&attune_self_tests[number]);
        }
    }
    free(on);
    return code;
}
