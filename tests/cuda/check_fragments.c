/*
 * check_fragments.c: where mma.sync and ldmatrix expect and leave elements. The tables are written out here
 * element by element, apart from the emulator's code. Those of mma were compared with the text of the PTX ISA
 * manual 9.0: 9.7.14.5.7, "Matrix Fragments for mma.m16n8k8" (.f16, .bf16 and .tf32), and 9.7.14.5.8, "Matrix
 * Fragments for mma.m16n8k16 with floating point type"; that of ldmatrix with 9.7.14.5.15, "ldmatrix".
 */
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32 };

/* groupID = laneid >> 2, threadID_in_group = laneid % 4; i is the number of the element in the lane's
 * fragment. */
static int a_row(int lane, int i) { /* .f16 and .bf16: a0 ... a7 (depth 16), a0 ... a3 (depth 8) */
    const int group = lane >> 2;
    return i == 0 || i == 1 || i == 4 || i == 5 ? group : group + 8;
}

static int a_column(int lane, int i) {
    const int thread = lane % 4;
    return thread * 2 + (i & 1) + (i >= 4 ? 8 : 0);
}

static int b_row(int lane, int i) { /* b0 ... b3, or b0 and b1 */
    const int thread = lane % 4;
    return thread * 2 + (i & 1) + (i >= 2 ? 8 : 0);
}

static int b_column(int lane) {
    return lane >> 2;
}

static int c_row(int lane, int i) {
    return i < 2 ? lane >> 2 : (lane >> 2) + 8;
}

static int c_column(int lane, int i) {
    return lane % 4 * 2 + (i & 1);
}

static uint16_t small_half(int value) { /* -8 ... 8 */
    static const uint16_t values[] = {0x0000, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800};
    return (uint16_t)(values[abs(value)] | (value < 0 ? 0x8000 : 0));
}

static uint16_t small_bf16(int value) {
    const float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return (uint16_t)(bits >> 16);
}

/* The kernel loads from a 8, from b 4 and from c 4 32-bit words a lane, multiplies, and stores 4 words a
 * lane. */
static void run_mma(const char *instruction, int a_words, int b_words, int c_words, const uint32_t *a,
                    const uint32_t *b, const uint32_t *c, uint32_t *d) {
    char body[4096], list[4][128];
    const char names[] = "abcd";
    const int words[] = {a_words, b_words, c_words, c_words};
    for (int o = 0; o < 4; ++o) {
        list[o][0] = 0;
        for (int w = 0; w < words[o]; ++w)
            snprintf(list[o] + strlen(list[o]), sizeof list[o] - strlen(list[o]), "%s%%f%c%d", w ? ", " : "",
                     names[o], w);
    }
    size_t n = (size_t)snprintf(
        body, sizeof body,
        ".reg .b64 %%at;\n.reg .b32 %%fa<4>, %%fb<4>, %%fc<4>, %%fd<4>;\nmul.wide.u32 %%at, %%lane, 16;\n"
        "add.s64 %%a, %%a, %%at;\nadd.s64 %%b, %%b, %%at;\nadd.s64 %%c, %%c, %%at;\nadd.s64 %%out, %%out, "
        "%%at;\n");
    for (int o = 0; o < 3; ++o)
        for (int w = 0; w < words[o]; ++w)
            n += (size_t)snprintf(body + n, sizeof body - n, "ld.global.b32 %%f%c%d, [%%%c+%d];\n", names[o],
                                  w, names[o], 4 * w);
    n += (size_t)snprintf(body + n, sizeof body - n, "%s {%s}, {%s}, {%s}, {%s};\n", instruction, list[3],
                          list[0], list[1], list[2]);
    for (int w = 0; w < c_words; ++w)
        n += (size_t)snprintf(body + n, sizeof body - n, "st.global.b32 [%%out+%d], %%fd%d;\n", 4 * w, w);
    void *device[4] = {suite_device(a, LANES * 16), suite_device(b, LANES * 16), suite_device(c, LANES * 16),
                       suite_device(c, LANES * 16)};
    void *arguments[] = {&device[0], &device[1], &device[2], &device[3]};
    OK(suite_run(suite_kernel(suite_ptx(body), "test"), LANES, arguments));
    OK(cudaMemcpy(d, device[3], LANES * 16, cudaMemcpyDeviceToHost));
}

static const struct shape {
    const char *instruction;
    int depth;
    bool bf16, half_result;
} shapes[] = {{"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", 16, false, false},
              {"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", 8, false, false},
              {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 16, true, false},
              {"mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", 8, true, false},
              {"mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", 16, false, true},
              {"mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16", 8, false, true}};

START_TEST(mma_fragments_are_where_the_tables_say) {
    const struct shape *s = &shapes[_i];
    int a[16][16], b[16][8], c[16][8];
    uint32_t fa[LANES][4] = {{0}}, fb[LANES][4] = {{0}}, fc[LANES][4] = {{0}}, fd[LANES][4];
    for (int r = 0; r < 16; ++r) {
        for (int k = 0; k < 16; ++k)
            a[r][k] = (r * 7 + k * 5 + r * k) % 9 - 4;
        for (int n = 0; n < 8; ++n) {
            b[r][n] = (r * 3 + n * 11 + r * r * n) % 7 - 3;
            c[r][n] = (r + 2 * n) % 9 - 4;
        }
    }
    for (int lane = 0; lane < LANES; ++lane) {
        for (int i = 0; i < s->depth / 2; ++i) {
            const int value = a[a_row(lane, i)][a_column(lane, i)];
            fa[lane][i / 2] |= (uint32_t)(s->bf16 ? small_bf16(value) : small_half(value)) << i % 2 * 16;
        }
        for (int i = 0; i < s->depth / 4; ++i) {
            const int value = b[b_row(lane, i)][b_column(lane)];
            fb[lane][i / 2] |= (uint32_t)(s->bf16 ? small_bf16(value) : small_half(value)) << i % 2 * 16;
        }
        for (int i = 0; i < 4; ++i) {
            const float value = (float)c[c_row(lane, i)][c_column(lane, i)];
            if (s->half_result)
                fc[lane][i / 2] |= (uint32_t)small_half((int)value) << i % 2 * 16;
            else
                memcpy(&fc[lane][i], &value, 4);
        }
    }
    run_mma(s->instruction, s->depth / 4, s->depth / 8, s->half_result ? 2 : 4, fa[0], fb[0], fc[0], fd[0]);
    for (int lane = 0; lane < LANES; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int row = c_row(lane, i), column = c_column(lane, i);
            int wanted = c[row][column];
            for (int k = 0; k < s->depth; ++k)
                wanted += a[row][k] * b[k][column];
            double got;
            if (s->half_result) {
                const uint32_t h = fd[lane][i / 2] >> i % 2 * 16 & 0xffff;
                got = ldexp((h & 1023) + (h >> 10 & 31 ? 1024 : 0),
                            (int)(h >> 10 & 31 ? h >> 10 & 31 : 1) - 25) *
                      (h >> 15 ? -1 : 1);
            } else {
                float f;
                memcpy(&f, &fd[lane][i], 4);
                got = f;
            }
            ck_assert_msg(got == wanted, "%s: D[%d][%d] = %g, not %d", s->instruction, row, column, got,
                          wanted);
        }
}
END_TEST

START_TEST(tf32_fragments_are_where_the_tables_say) {
    float a[16][8], b[8][8];
    uint32_t fa[LANES][4], fb[LANES][4], fc[LANES][4] = {{0}}, fd[LANES][4];
    for (int r = 0; r < 16; ++r)
        for (int k = 0; k < 8; ++k)
            a[r][k] = (float)((r * 5 + k * 3) % 11 - 5), b[r % 8][k] = (float)((r % 8 * 2 + k * 7) % 5 - 2);
    for (int lane = 0; lane < LANES; ++lane) {
        const int group = lane >> 2, thread = lane % 4;
        const int rows[] = {group, group + 8, group, group + 8},
                  columns[] = {thread, thread, thread + 4, thread + 4};
        for (int i = 0; i < 4; ++i)
            memcpy(&fa[lane][i], &a[rows[i]][columns[i]], 4);
        for (int i = 0; i < 2; ++i)
            memcpy(&fb[lane][i], &b[thread + 4 * i][group], 4);
    }
    run_mma("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 4, 2, 4, fa[0], fb[0], fc[0], fd[0]);
    for (int lane = 0; lane < LANES; ++lane)
        for (int i = 0; i < 4; ++i) {
            float wanted = 0, got;
            for (int k = 0; k < 8; ++k)
                wanted += a[c_row(lane, i)][k] * b[k][c_column(lane, i)];
            memcpy(&got, &fd[lane][i], 4);
            ck_assert_float_eq(got, wanted);
        }
}
END_TEST

/* Row r of matrix m begins at a place of its own in shared memory; element (r, c) has the value m * 64 + r *
 * 8 + c. */
static int place_of_row(int matrix, int row) {
    return (matrix * 8 + row) * 7 % 32 * 16; /* a permutation of 32 rows of 16 bytes */
}

/*
 * 9.7.14.5.15: threads 0-7 give addr0-addr7, the rows of the first matrix, 8-15 addr8-addr15, those of the
 * second (.x2, .x4), and so on. Thread 0 receives a row's first fragment, a group of four threads an entire
 * row, the next matrix in the next register; .trans: the matrix is loaded column by column. Figure 104, r of
 * lane 4 g + t: (g, 2 t) and (g, 2 t + 1).
 */
static void fragment_of_ldmatrix(int lane, int half, bool transposed, int *row, int *column) {
    static const int row_of[LANES] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3,
                                      4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7};
    static const int columns_of[4][2] = {{0, 1}, {2, 3}, {4, 5}, {6, 7}};
    const int along = columns_of[lane % 4][half];
    *row = transposed ? along : row_of[lane];
    *column = transposed ? row_of[lane] : along;
}

static const struct ldmatrix_kind {
    const char *name;
    int matrices;
    bool transposed;
} kinds[] = {{"x1", 1, false},      {"x2", 2, false},      {"x4", 4, false},
             {"x1.trans", 1, true}, {"x2.trans", 2, true}, {"x4.trans", 4, true}};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* The tile's rows, at their places, and the place that each lane names where it follows the table. */
static void make_tile(uint16_t tile[256], uint32_t places[LANES]) {
    for (int m = 0; m < 4; ++m)
        for (int r = 0; r < 8; ++r) {
            places[m * 8 + r] = (uint32_t)place_of_row(m, r);
            for (int c = 0; c < 8; ++c)
                tile[place_of_row(m, r) / 2 + c] = (uint16_t)(m * 64 + r * 8 + c);
        }
}

/* Puts the tile into shared memory; each lane then names the place given for it. */
static cudaError_t run_ldmatrix(const char *target, const struct ldmatrix_kind *kind,
                                const uint16_t tile[256], const uint32_t places[LANES],
                                uint32_t out[LANES][4]) {
    char body[2048], list[64] = "%v0";
    for (int m = 1; m < kind->matrices; ++m)
        snprintf(list + strlen(list), sizeof list - strlen(list), ", %%v%d", m);
    int n = snprintf(
        body, sizeof body,
        ".reg .b64 %%at, %%from;\n.reg .b32 %%to, %%row, %%v<4>;\nmul.wide.u32 %%at, %%lane, 16;\nadd.s64 "
        "%%from, %%a, %%at;\n"
        "ld.global.v4.b32 {%%v0, %%v1, %%v2, %%v3}, [%%from];\nmov.u32 %%to, tile;\nshl.b32 %%row, %%lane, "
        "4;\n"
        "add.u32 %%to, %%to, %%row;\nst.shared.v4.b32 [%%to], {%%v0, %%v1, %%v2, %%v3};\nbar.sync 0;\n"
        "mul.wide.u32 %%from, %%lane, 4;\nadd.s64 %%from, %%from, %%b;\nld.global.u32 %%row, "
        "[%%from];\nmov.u32 %%to, tile;\n"
        "add.u32 %%to, %%to, %%row;\nldmatrix.sync.aligned.m8n8.%s.shared.b16 {%s}, [%%to];\nadd.s64 %%out, "
        "%%out, %%at;\n",
        kind->name, list);
    for (int m = 0; m < kind->matrices; ++m)
        n += snprintf(body + n, sizeof body - (size_t)n, "st.global.b32 [%%out+%d], %%v%d;\n", 4 * m, m);
    void *device[4] = {suite_device(tile, 512), suite_device(places, LANES * sizeof *places),
                       suite_device(NULL, 16), suite_device(NULL, LANES * sizeof *out)};
    void *arguments[] = {&device[0], &device[1], &device[2], &device[3]};
    const cudaError_t error = suite_run(suite_kernel(suite_ptx_for(target, body), "test"), LANES, arguments);
    if (error == cudaSuccess)
        OK(cudaMemcpy(out, device[3], LANES * sizeof *out, cudaMemcpyDeviceToHost));
    return error;
}

static void check_ldmatrix(const struct ldmatrix_kind *kind, uint32_t out[LANES][4]) {
    for (int lane = 0; lane < LANES; ++lane)
        for (int m = 0; m < kind->matrices; ++m)
            for (int half = 0; half < 2; ++half) {
                int row, column;
                fragment_of_ldmatrix(lane, half, kind->transposed, &row, &column);
                ck_assert_int_eq(out[lane][m] >> half * 16 & 0xffff, m * 64 + row * 8 + column);
            }
}

START_TEST(ldmatrix_leaves_elements_where_the_table_says) {
    uint16_t tile[256];
    uint32_t places[LANES], out[LANES][4];
    make_tile(tile, places);
    OK(run_ldmatrix("sm_80", &kinds[_i], tile, places, out));
    check_ldmatrix(&kinds[_i], out);
}
END_TEST

/*
 * 9.7.14.5.15: "For .target sm_75 or below, all threads must contain valid addresses", those of .x1 and .x2
 * that give no row as well; later targets do not look at these. A lane that gives a row is looked at by all.
 */
static const struct {
    uint32_t place; /* of one lane */
    enum cuda_emulator_check check;
    cudaError_t error;
} invalid[] = {{0x7ffffff0, CUDA_EMULATOR_SHARED_BOUNDS, cudaErrorIllegalAddress},
               {4096 - 8, CUDA_EMULATOR_MISALIGNED, cudaErrorMisalignedAddress}};

START_TEST(ldmatrix_on_7_5_wants_every_lanes_address) {
    const struct ldmatrix_kind *kind = &kinds[_i];
    static const char *const targets[] = {"sm_75", "sm_80", "sm_90"};
    const int rows = kind->matrices * 8;
    uint16_t tile[256];
    uint32_t places[LANES], out[LANES][4];
    for (int i = 0; i < 2; ++i)
        for (int t = 0; t < 3; ++t)
            for (int lane = rows - 1; lane < LANES; lane += lane < rows ? 1 : 7) {
                cuda_emulator_report r = {.check = -1};
                make_tile(tile, places);
                places[lane] = invalid[i].place;
                const bool wrong = lane < rows || t == 0;
                cuda_emulator_clear_reports();
                const cudaError_t error = run_ldmatrix(targets[t], kind, tile, places, out);
                const size_t reports = cuda_emulator_reports(&r, 1);
                ck_assert_msg(error == (wrong ? invalid[i].error : cudaSuccess) && reports == wrong,
                              "%s on %s, lane %d at %x: %s, %zu reports", kind->name, targets[t], lane,
                              places[lane], cudaGetErrorName(error), reports);
                if (wrong) {
                    ck_assert_int_eq(r.check, (int)invalid[i].check);
                    ck_assert_uint_eq(r.thread[0], (uint32_t)lane);
                    OK(cudaDeviceReset());
                } else
                    check_ldmatrix(kind, out);
            }
}
END_TEST

/* What the manual advises there: the addresses of lower threads copied to higher ones. */
START_TEST(ldmatrix_on_7_5_takes_copied_addresses) {
    const struct ldmatrix_kind *kind = &kinds[_i];
    uint16_t tile[256];
    uint32_t places[LANES], out[LANES][4];
    make_tile(tile, places);
    for (int lane = kind->matrices * 8; lane < LANES; ++lane)
        places[lane] = places[lane % (kind->matrices * 8)];
    OK(run_ldmatrix("sm_75", kind, tile, places, out));
    check_ldmatrix(kind, out);
    ck_assert_uint_eq(cuda_emulator_reports(NULL, 0), 0);
}
END_TEST

TCase *fragment_cases(void) {
    TCase *c = tcase_create("fragments");
    tcase_add_loop_test(c, mma_fragments_are_where_the_tables_say, 0, (int)(sizeof shapes / sizeof *shapes));
    tcase_add_test(c, tf32_fragments_are_where_the_tables_say);
    tcase_add_loop_test(c, ldmatrix_leaves_elements_where_the_table_says, 0, KINDS);
    tcase_add_loop_test(c, ldmatrix_on_7_5_wants_every_lanes_address, 0, KINDS);
    tcase_add_loop_test(c, ldmatrix_on_7_5_takes_copied_addresses, 0, KINDS);
    return c;
}
