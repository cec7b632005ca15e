/* check_problem.c: problems from tensors, with numpy's broadcasting of masks, and what does not fit together.
 */
#include "cases.h"

static float data[4][4096];
static attune_tensor q, k, v, out;
static attune_attention_problem problem;
static attune_error error;

/* q (2, 4, 6, 8), k (2, 2, 5, 8), v (2, 2, 5, 3): grouped queries, another value size. */
static void make_tensors(void) {
    q = filled(data[0], 2, 4, 6, 8, 1);
    k = filled(data[1], 2, 2, 5, 8, 2);
    v = filled(data[2], 2, 2, 5, 3, 3);
    out = filled(data[3], 2, 4, 6, 3, 4);
}

static attune_tensor mask_of(attune_dtype dtype, int32_t ndim, const int64_t *shape) {
    static uint8_t values[65536];
    return attune_tensor_view(values, dtype, q.device, ndim, shape);
}

START_TEST(test_problem_fields) {
    assert_ok(attune_attention_problem_init(&problem, &q, &k, &v, NULL, &out, &error), error);
    ck_assert_uint_eq(problem.struct_size, sizeof problem);
    ck_assert_int_eq(problem.batch, 2);
    ck_assert_int_eq(problem.heads_q, 4);
    ck_assert_int_eq(problem.heads_kv, 2);
    ck_assert_int_eq(problem.n_q, 6);
    ck_assert_int_eq(problem.n_k, 5);
    ck_assert_int_eq(problem.d_qk, 8);
    ck_assert_int_eq(problem.d_v, 3);
    ck_assert_int_eq(problem.mask, ATTUNE_MASK_NONE);
    ck_assert_int_eq(problem.causal, 0);
    ck_assert_float_eq(problem.scale, 0);
    ck_assert_int_eq(problem.determinism, ATTUNE_DETERMINISM_NONE);
    ck_assert_uint_eq(problem.budget, UINT64_MAX);
    ck_assert_uint_eq(problem.workers, 1);
    for (int i = 0; i < 4; ++i) {
        ck_assert_int_eq(problem.stride_q[i], q.stride[i]);
        ck_assert_int_eq(problem.stride_k[i], k.stride[i]);
        ck_assert_int_eq(problem.stride_v[i], v.stride[i]);
        ck_assert_int_eq(problem.stride_out[i], out.stride[i]);
        ck_assert_int_eq(problem.stride_mask[i], 0);
    }
}
END_TEST

/* A mask's shape, and its strides over (2, 4, 6, 5); −1 = refused. numpy.broadcast_to says the same. */
static const struct {
    int32_t ndim;
    int64_t shape[4];
    int64_t stride[4];
} broadcasts[] = {
    {4, {2, 4, 6, 5}, {120, 30, 5, 1}},
    {4, {1, 1, 6, 5}, {0, 0, 5, 1}},
    {4, {2, 1, 1, 5}, {5, 0, 0, 1}},
    {2, {6, 5}, {0, 0, 5, 1}},
    {3, {4, 1, 5}, {0, 5, 0, 1}},
    {1, {5}, {0, 0, 0, 1}},
    {1, {1}, {0, 0, 0, 0}},
    {0, {0}, {0, 0, 0, 0}},
    {2, {6, 1}, {0, 0, 1, 0}},
    {2, {5, 6}, {-1, 0, 0, 0}},
    {4, {2, 2, 6, 5}, {-1, 0, 0, 0}},
    {1, {6}, {-1, 0, 0, 0}},
    {4, {3, 4, 6, 5}, {-1, 0, 0, 0}},
};

START_TEST(test_problem_mask_broadcast) {
    attune_tensor mask = mask_of(ATTUNE_BOOL, broadcasts[_i].ndim, broadcasts[_i].shape);
    if (broadcasts[_i].stride[0] < 0) {
        assert_fails(attune_attention_problem_init(&problem, &q, &k, &v, &mask, &out, &error), error,
                     ATTUNE_INVALID_ARGUMENT, "cannot be broadcast to (2, 4, 6, 5)");
        return;
    }
    assert_ok(attune_attention_problem_init(&problem, &q, &k, &v, &mask, &out, &error), error);
    ck_assert_int_eq(problem.mask, ATTUNE_MASK_BOOL);
    for (int i = 0; i < 4; ++i)
        ck_assert_int_eq(problem.stride_mask[i], broadcasts[_i].stride[i]);
}
END_TEST

START_TEST(test_problem_mask_types) {
    const int64_t shape[2] = {6, 5};
    attune_tensor mask = mask_of(ATTUNE_F32, 2, shape);
    assert_ok(attune_attention_problem_init(&problem, &q, &k, &v, &mask, &out, &error), error);
    ck_assert_int_eq(problem.mask, ATTUNE_MASK_FLOAT);
    mask = mask_of(ATTUNE_F16, 2, shape);
    assert_fails(attune_attention_problem_init(&problem, &q, &k, &v, &mask, &out, &error), error,
                 ATTUNE_INVALID_ARGUMENT, "the mask is float16, expected bool or float32");
}
END_TEST

static void refuse(const char *text) {
    attune_attention_problem untouched = problem;
    assert_fails(attune_attention_problem_init(&problem, &q, &k, &v, NULL, &out, &error), error,
                 ATTUNE_INVALID_ARGUMENT, text);
    ck_assert_mem_eq(&untouched, &problem, sizeof problem);
    make_tensors();
}

START_TEST(test_problem_wrong_shapes) {
    memset(&problem, 7, sizeof problem);
    k = filled(data[1], 1, 2, 5, 8, 2);
    refuse("q (2, 4, 6, 8) and k (1, 2, 5, 8) differ in batch");
    k = filled(data[1], 2, 2, 5, 9, 2);
    refuse("and k (2, 2, 5, 9) differ");
    k = filled(data[1], 2, 3, 5, 8, 2);
    refuse("the heads of k (2, 3, 5, 8) do not divide those of q (2, 4, 6, 8)");
    v = filled(data[2], 2, 2, 4, 3, 3);
    refuse("k (2, 2, 5, 8) and v (2, 2, 4, 3) differ");
    out = filled(data[3], 2, 4, 6, 8, 4);
    refuse("out (2, 4, 6, 8), expected (2, 4, 6, 3)");
    q.ndim = 3;
    refuse("q has 3 axes");
    q.shape[2] = 0;
    refuse("empty axis");
    q.shape[2] = -1;
    refuse("negative");
    q.stride[0] = -1;
    refuse("negative");
    q.shape[0] = INT64_MAX;
    q.stride[0] = INT64_MAX;
    refuse("overflows");
    q.bytes -= 1;
    refuse("needs 1536 bytes by its strides, it has 1535");
    v.data = NULL;
    refuse("v (2, 2, 5, 3) needs");
    v.dtype = ATTUNE_F16;
    refuse("q is float32 and v is float16");
    k.device.type = ATTUNE_DEVICE_CUDA;
    refuse("q and k are on different devices");
    out.device.uuid[3] = 1;
    refuse("q and out are on different devices");
    ck_assert_int_eq(attune_attention_problem_init(&problem, NULL, &k, &v, NULL, &out, NULL),
                     ATTUNE_INVALID_ARGUMENT);
}
END_TEST

/* A (B, N, H, D) array comes as strides. */
START_TEST(test_problem_strides) {
    const int64_t layout[4] = {2, 6, 4, 8};
    attune_tensor bnhd = attune_tensor_view(data[0], ATTUNE_F32, q.device, 4, layout);
    q = bnhd;
    q.shape[1] = 4;
    q.shape[2] = 6;
    q.stride[1] = bnhd.stride[2];
    q.stride[2] = bnhd.stride[1];
    assert_ok(attune_attention_problem_init(&problem, &q, &k, &v, NULL, &out, &error), error);
    ck_assert_int_eq(problem.n_q, 6);
    ck_assert_int_eq(problem.stride_q[1], 8);
    ck_assert_int_eq(problem.stride_q[2], 32);
}
END_TEST

TCase *problem_cases(void) {
    TCase *cases = tcase_create("problem");
    tcase_add_checked_fixture(cases, make_tensors, NULL);
    tcase_add_test(cases, test_problem_fields);
    tcase_add_loop_test(cases, test_problem_mask_broadcast, 0, sizeof broadcasts / sizeof *broadcasts);
    tcase_add_test(cases, test_problem_mask_types);
    tcase_add_test(cases, test_problem_wrong_shapes);
    tcase_add_test(cases, test_problem_strides);
    tcase_set_timeout(cases, 0);
    return cases;
}
