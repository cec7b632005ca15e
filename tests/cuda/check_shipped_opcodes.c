/* check_shipped_opcodes.c: every opcode in the PTX that ships has a test; those that come in many forms have
 * theirs here: comparisons, loads and stores (PTX ISA 9.0, 9.7.6.1, 9.7.9.8, 9.7.9.11, 9.7.9.25). */
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32, ROOM = 16 /* bytes of a lane */ };

static int at_of(const char *const *list, int count, const char *word) {
    int i = 0;
    while (i < count && strcmp(list[i], word) != 0)
        ++i;
    return i < count ? i : -1;
}

/* A kernel of one warp: %a, %b and %out are the lane's 16 bytes of each array. */
static void run_lanes(const char *body, const void *a, const void *b, void *out) {
    char whole[4096];
    snprintf(whole, sizeof whole,
             ".reg .b64 %%at;\n.reg .pred %%p;\nmul.wide.u32 %%at, %%lane, 16;\nadd.s64 %%a, %%a, "
             "%%at;\nadd.s64 %%b, "
             "%%b, %%at;\nadd.s64 %%out, %%out, %%at;\n%s",
             body);
    void *device[] = {suite_device(a, (size_t)LANES * ROOM), suite_device(b, (size_t)LANES * ROOM),
                      suite_device(NULL, ROOM), suite_device(out, (size_t)LANES * ROOM)};
    void *arguments[] = {&device[0], &device[1], &device[2], &device[3]};
    OK(suite_run(suite_kernel(suite_ptx(whole), "test"), LANES, arguments));
    OK(cudaMemcpy(out, device[3], (size_t)LANES * ROOM, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 4; ++i)
        OK(cudaFree(device[i]));
}

/* ---- comparisons ---- */

static const char *const comparisons[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                          "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
static const struct {
    const char *name;
    int bits;
    char kind; /* b, u, s, f */
} types[] = {{"b16", 16, 'b'}, {"u16", 16, 'u'}, {"s16", 16, 's'}, {"b32", 32, 'b'},
             {"u32", 32, 'u'}, {"s32", 32, 's'}, {"f32", 32, 'f'}, {"b64", 64, 'b'},
             {"u64", 64, 'u'}, {"s64", 64, 's'}, {"f64", 64, 'f'}};
enum { COMPARISONS = 14, ORDERED = 6, TYPES = sizeof types / sizeof *types };

/* -1, 0 or 1; 2 where one is NaN. */
static int order_of(int type, uint64_t x, uint64_t y) {
    const int unused = 64 - types[type].bits;
    double f = 0, g = 0;
    if (types[type].kind == 'f' && types[type].bits == 32) {
        float small[2];
        memcpy(&small[0], &x, 4);
        memcpy(&small[1], &y, 4);
        f = (double)small[0], g = (double)small[1];
    } else if (types[type].kind == 'f') {
        memcpy(&f, &x, 8);
        memcpy(&g, &y, 8);
    }
    if (types[type].kind == 'f')
        return isnan(f) || isnan(g) ? 2 : (f > g) - (f < g);
    x <<= unused, y <<= unused;
    if (types[type].kind == 's')
        return ((int64_t)x > (int64_t)y) - ((int64_t)x < (int64_t)y);
    return (x > y) - (x < y);
}

static int holds(int comparison, int order) {
    static const int ordered[ORDERED][3] = {{0, 1, 0}, {1, 0, 1}, {1, 0, 0}, {1, 1, 0}, {0, 0, 1}, {0, 1, 1}};
    if (comparison >= 2 * ORDERED)
        return (comparison == 2 * ORDERED) == (order != 2); /* num, nan */
    if (order == 2)
        return comparison >= ORDERED;
    return ordered[comparison % ORDERED][order + 1];
}

/* The edges of a type, and their neighbours. */
static uint64_t edge(int type, unsigned i) {
    static const float floats[] = {0.0f, -0.0f, 1.0f, -1.5f, INFINITY, -INFINITY, NAN, 3e38f};
    const unsigned bits = (unsigned)types[type].bits;
    const uint64_t all = ~UINT64_C(0) >> (64 - bits), top = UINT64_C(1) << (bits - 1);
    const uint64_t whole[] = {0, 1, all, top, top - 1, top + 1, all - 1, 77};
    uint64_t made = 0;
    const double wide = (double)floats[i % 8];
    if (types[type].kind != 'f')
        return whole[i % 8];
    memcpy(&made, bits == 32 ? (const void *)&floats[i % 8] : (const void *)&wide, bits / 8);
    return made;
}

static void compare_all(int type, int comparison) {
    char body[1024];
    uint64_t a[LANES][2] = {{0}}, b[LANES][2] = {{0}}, out[LANES][2];
    const int bits = types[type].bits;
    snprintf(body, sizeof body,
             ".reg .b%d %%x, %%y;\n.reg .b32 %%r;\nld.global.b%d %%x, [%%a];\nld.global.b%d %%y, "
             "[%%b];\nsetp.%s.%s "
             "%%p, %%x, %%y;\nselp.b32 %%r, 1, 0, %%p;\nst.global.b32 [%%out], %%r;",
             bits, bits, bits, comparisons[comparison], types[type].name);
    for (unsigned half = 0; half < 2; ++half) {
        for (unsigned l = 0; l < LANES; ++l)
            a[l][0] = edge(type, l / 8 + 4 * half), b[l][0] = edge(type, l);
        run_lanes(body, a, b, out);
        for (int l = 0; l < LANES; ++l)
            ck_assert_msg((out[l][0] & UINT32_MAX) ==
                              (uint64_t)holds(comparison, order_of(type, a[l][0], b[l][0])),
                          "setp.%s.%s(%#llx, %#llx) = %llu", comparisons[comparison], types[type].name,
                          (unsigned long long)a[l][0], (unsigned long long)b[l][0],
                          (unsigned long long)(out[l][0] & UINT32_MAX));
    }
}

/* Bits are equal or not; NaN has comparisons of its own. */
static int compares(int type, int comparison) {
    return comparison < (types[type].kind == 'b' ? 2 : types[type].kind == 'f' ? COMPARISONS : ORDERED);
}

START_TEST(comparisons_of_every_type) {
    for (int comparison = 0; comparison < COMPARISONS; ++comparison)
        if (compares(_i, comparison))
            compare_all(_i, comparison);
}
END_TEST

/* ---- loads and stores ---- */

static const char *const spaces[] = {"global", "shared", "local"};
static const char *const vectors[] = {"", "v2", "v4"};
enum { SPACES = 3, VECTORS = 3 };

static int elements_of(int vector) {
    return 1 << vector;
}

/* "ld.global.v2.u32 {%v0, %v1}, [%a];", or an instruction for each element where `vector` is 0. */
static size_t put_access(char *text, size_t room, int load, const char *space, int vector, int type, int n,
                         const char *from) {
    size_t used = 0;
    for (int i = 0; i < (vector ? 1 : n); ++i) {
        char list[64], place[32];
        if (vector == 2)
            snprintf(list, sizeof list, "{%%v0, %%v1, %%v2, %%v3}");
        else
            snprintf(list, sizeof list, vector ? "{%%v%d, %%v1}" : "%%v%d", i);
        snprintf(place, sizeof place, "[%s+%d]", from, i * types[type].bits / 8);
        used += (size_t)snprintf(text + used, room - used, "%s.%s%s%s.%s %s, %s;\n", load ? "ld" : "st",
                                 space, vector ? "." : "", vectors[vector], types[type].name,
                                 load ? list : place, load ? place : list);
    }
    return used;
}

/* Bytes go from a by way of the space to out; of the four accesses one alone is a vector's, so that none
 * undoes what another one does. Nothing beside them is touched. */
static void move_one(int space, int vector, int type, int which) {
    static const char *const places[] = {"%a", "%to", "%to", "%out"};
    const int n = elements_of(vector), bytes = n * types[type].bits / 8;
    unsigned char a[LANES][ROOM], out[LANES][ROOM], before[LANES][ROOM];
    char body[2048];
    if (bytes > ROOM)
        return;
    size_t used = (size_t)snprintf(body, sizeof body,
                                   ".reg .b%d %%v<4>;\n.reg .b64 %%to;\n.local .align 16 .b8 own[16];\n%s",
                                   types[type].bits,
                                   space == 0   ? "mov.u64 %to, %b;\n"
                                   : space == 1 ? "mov.u64 %to, tile;\nadd.s64 %to, %to, %at;\n"
                                                : "mov.u64 %to, own;\n");
    for (int i = 0; i < 4; ++i) {
        if (i == 2) /* what is read back is not what still stands in the registers */
            for (int k = 0; k < n; ++k)
                used += (size_t)snprintf(body + used, sizeof body - used, "mov.b%d %%v%d, 0;\n",
                                         types[type].bits, k);
        used += put_access(body + used, sizeof body - used, i % 2 == 0, i % 3 ? spaces[space] : "global",
                           i == which ? vector : 0, type, n, places[i]);
    }
    for (int i = 0; i < LANES * ROOM; ++i)
        a[i / ROOM][i % ROOM] = (unsigned char)(i * 37 + 11),
                        before[i / ROOM][i % ROOM] = (unsigned char)(i * 5 + 1);
    memcpy(out, before, sizeof out);
    run_lanes(body, a, before, out);
    for (int l = 0; l < LANES; ++l) {
        ck_assert_msg(memcmp(out[l], a[l], (size_t)bytes) == 0, "lane %d, after\n%s", l, body);
        ck_assert_mem_eq(out[l] + bytes, before[l] + bytes, (size_t)(ROOM - bytes));
    }
}

START_TEST(loads_and_stores_of_every_form) {
    for (int space = 0; space < SPACES; ++space)
        for (int vector = 0; vector < VECTORS; ++vector)
            for (int which = 0; which < 4; ++which)
                move_one(space, vector, _i, which);
    ck_assert_uint_eq(cuda_emulator_reports(NULL, 0), 0);
}
END_TEST

/* Kernel parameters, in the types that kernels read them: the first is an address, whose words are known. */
START_TEST(parameters_of_every_type) {
    static const char *const words[] = {"u32", "b32", "s32", "f32"};
    uint64_t a[LANES][2] = {{0}}, b[LANES][2] = {{0}}, out[LANES][2];
    for (size_t i = 0; i < sizeof words / sizeof *words; ++i) {
        char body[1024];
        snprintf(
            body, sizeof body,
            ".reg .b32 %%x<4>;\n.reg .b64 %%w;\nld.param.%s %%x0, [pa];\nld.param.%s %%x1, "
            "[pa+4];\nld.param.v2.%s "
            "{%%x2, %%x3}, [pa];\nsub.u32 %%x2, %%x2, %%x0;\nsub.u32 %%x3, %%x3, %%x1;\nld.param.u64 %%w, "
            "[pa];\nst.global.v2.u32 [%%out], {%%x0, %%x1};\nmov.b64 %%at, {%%x2, %%x3};\nmov.b64 {%%x0, "
            "%%x1}, "
            "%%w;\nst.global.u64 [%%out+8], %%w;\nsetp.ne.u64 %%p, %%at, 0;\n@%%p st.global.u64 [%%out], "
            "%%at;",
            words[i], words[i], words[i]);
        run_lanes(body, a, b, out);
        for (int l = 0; l < LANES; ++l) {
            ck_assert_uint_ne(out[l][0], 0);
            ck_assert_uint_eq(out[l][0], out[l][1]);
        }
    }
}
END_TEST

/* 16 bytes past the first cache; bytes of the source beyond the count are zeros. */
START_TEST(copies_of_sixteen_bytes) {
    unsigned char a[LANES][ROOM], b[LANES][ROOM] = {{0}}, out[LANES][ROOM];
    for (int i = 0; i < LANES * ROOM; ++i)
        a[i / ROOM][i % ROOM] = (unsigned char)(i * 13 + 7);
    run_lanes(".reg .b32 %to, %n, %v<4>;\nmov.u32 %to, tile;\ncvt.u32.u64 %n, %at;\nadd.u32 %to, %to, "
              "%n;\nsetp.lt.u32 "
              "%p, %lane, 20;\nselp.u32 %n, 16, 4, %p;\ncp.async.cg.shared.global [%to], [%a], 16, "
              "%n;\ncp.async.commit_group;\ncp.async.wait_group 0;\nld.shared.v4.u32 {%v0, %v1, %v2, %v3}, "
              "[%to];\nst.global.v4.u32 [%out], {%v0, %v1, %v2, %v3};",
              a, b, out);
    for (int l = 0; l < LANES; ++l)
        for (int i = 0; i < ROOM; ++i)
            ck_assert_uint_eq(out[l][i], l < 20 || i < 4 ? a[l][i] : 0);
}
END_TEST

/* ---- what ships ---- */

static char *tests_text; /* the sources of the tests, "\n" within them made spaces */

static void read_tests(void) {
    static const char *const files[] = {"check_opcodes.c", "opcodes.h", "check_fragments.c",
                                        "check_shipped_opcodes.c"};
    size_t used = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; ++i) {
        char path[96];
        size_t size;
        snprintf(path, sizeof path, "tests/cuda/%s", files[i]);
        char *one = suite_read(path, &size);
        tests_text = realloc(tests_text, used + size + 1);
        ck_assert_ptr_nonnull(tests_text);
        memcpy(tests_text + used, one, size + 1);
        used += size;
        free(one);
    }
    for (char *c = tests_text; (c = strstr(c, "\\n")) != NULL; c += 2)
        c[0] = c[1] = ' ';
}

static int within_word(char c) {
    return c == '.' || c == '_' || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static int named(const char *opcode) {
    const size_t length = strlen(opcode);
    for (const char *c = tests_text; (c = strstr(c, opcode)) != NULL; ++c)
        if (c > tests_text && !within_word(c[-1]) && !within_word(c[length]))
            return 1;
    return 0;
}

static int type_at(const char *name) {
    for (int i = 0; i < TYPES; ++i)
        if (strcmp(types[i].name, name) == 0)
            return i;
    return -1;
}

/* Whether the tables above, or the lists of kinds in the other files, make a test of it. */
static int made(char *opcode) {
    char quoted[32], *part[8] = {NULL}, *save = NULL;
    int n = 0;
    for (char *p = strtok_r(opcode, ".", &save); p && n < 8; p = strtok_r(NULL, ".", &save))
        part[n++] = p;
    if (strcmp(part[0], "setp") == 0 && n == 3) {
        const int type = type_at(part[2]), comparison = at_of(comparisons, COMPARISONS, part[1]);
        return type >= 0 && comparison >= 0 && compares(type, comparison);
    }
    if ((strcmp(part[0], "ld") == 0 || strcmp(part[0], "st") == 0) && (n == 3 || n == 4))
        return at_of(spaces, SPACES, part[1]) >= 0 && type_at(part[n - 1]) >= 0 &&
               (n == 3 || at_of(vectors, VECTORS, part[2]) > 0);
    snprintf(quoted, sizeof quoted, "{\"%s%s%s\", ",
             n > 1 ? part[strcmp(part[0], "ldmatrix") == 0 ? 4 : 1] : "",
             n > 5 && strcmp(part[5], "trans") == 0 ? ".trans" : "", "");
    return (strcmp(part[0], "selp") == 0 || strcmp(part[0], "ldmatrix") == 0) &&
           strstr(tests_text, quoted) != NULL;
}

/* `ret` ends every kernel here; `trap` has a kernel of its own (kernels/mutants.cu); parameters come in the
 * types of parameters_of_every_type. */
static int elsewhere(const char *opcode) {
    static const char *const known[] = {"ret", "trap", "ld.param.u32", "ld.param.f32", "ld.param.v2.u32"};
    return at_of(known, sizeof known / sizeof *known, opcode) >= 0;
}

static void check_opcode(const char *opcode, const char *where) {
    char copy[128];
    ck_assert_msg(strncmp(opcode, "atom.", 5) != 0 && strncmp(opcode, "red.", 4) != 0,
                  "%s has the atomic operation %s: its order is nobody's", where, opcode);
    snprintf(copy, sizeof copy, "%s", opcode);
    ck_assert_msg(named(opcode) || elsewhere(opcode) || made(copy), "%s, of %s, has no test", opcode, where);
}

/* Every instruction of one PTX text; each opcode is looked at where it is new. */
static int check_text(const char *text, const char *where) {
    static char seen[512][64];
    static int count;
    for (const char *c = text; *c; c += strcspn(c, ";\n"), c += *c != 0) {
        char opcode[64];
        int known = 0;
        c += strspn(c, " \t{");
        if (*c == '@')
            c += strcspn(c, " \t"), c += strspn(c, " \t");
        const size_t length = strspn(c, "abcdefghijklmnopqrstuvwxyz0123456789_.:");
        if (*c < 'a' || *c > 'z' || length >= sizeof opcode || !strchr(" \t;", c[length]))
            continue;
        snprintf(opcode, sizeof opcode, "%.*s", (int)length, c);
        for (int i = 0; i < count && !known; ++i)
            known = strcmp(seen[i], opcode) == 0;
        if (known)
            continue;
        ck_assert_int_lt(count, 512);
        memcpy(seen[count++], opcode, sizeof opcode);
        check_opcode(opcode, where);
    }
    return count;
}

START_TEST(every_opcode_that_ships_has_a_test) {
    static const char *const files[] = {"flash", "efficient", "portable", "softmax"};
    static const char begin[] = ".version ";
    int count = 0;
    read_tests();
    for (size_t i = 0; i < sizeof files / sizeof *files; ++i) {
        char path[512];
        size_t size;
        int texts = 0;
        snprintf(path, sizeof path, "%s/kernels/cuda/%s.fatbin", getenv("ATTUNE_BUILD"), files[i]);
        char *bytes = suite_read(path, &size);
        for (char *c = bytes; (c = memmem(c, size - (size_t)(c - bytes), begin, sizeof begin - 1)) != NULL;
             ++texts) {
            count = check_text(c, files[i]);
            c += strlen(c);
        }
        ck_assert_int_ge(texts, 1);
        free(bytes);
    }
    ck_assert_int_gt(count, 100);
    free(tests_text);
}
END_TEST

TCase *shipped_opcode_cases(void) {
    TCase *c = tcase_create("shipped opcodes");
    tcase_add_loop_test(c, comparisons_of_every_type, 0, TYPES);
    tcase_add_loop_test(c, loads_and_stores_of_every_form, 0, TYPES);
    tcase_add_test(c, parameters_of_every_type);
    tcase_add_test(c, copies_of_sixteen_bytes);
    tcase_add_test(c, every_opcode_that_ships_has_a_test);
    return c;
}
