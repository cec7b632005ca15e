/* check_opcodes.c: opcodes in small hand-written PTX kernels, compared with C over values at the edges of
 * their types. */
#include "tests/cuda/suite.h"
#include "tests/cuda_emulator/emulator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t u16, n16, f16, bf16;
typedef uint32_t u32, n32, h32, h2,
    b2; /* n32, n16, n64: not 0; h32: a small number; h2, b2: pairs of halves, of bf16 */
typedef uint64_t u64, n64;
typedef int16_t s16;
typedef int32_t s32, d32; /* d32, d64: not 0, not -1 */
typedef int64_t s64, d64;
typedef float f32;
typedef double f64;
typedef unsigned __int128 u128;
typedef __int128 s128;
enum { LANES = 32, ROUNDS = 24 };

/* ---- C's side ---- */

static u32 count_bits(u64 x) {
    u32 n = 0;
    for (; x; x >>= 1)
        n += x & 1;
    return n;
}

static u32 length_of(u64 x) {
    u32 n = 0;
    for (; x; x >>= 1)
        ++n;
    return n;
}

static u32 reversed(u32 x) {
    u32 made = 0;
    for (int i = 0; i < 32; ++i)
        made |= (x >> i & 1) << (31 - i);
    return made;
}

/* bfe as the manual's pseudo code has it: bit by bit. */
static u32 field(u32 x, u32 position, u32 length, bool is_signed) {
    const u32 pos = position & 255, len = length & 255, last = pos + len - 1 < 31 ? pos + len - 1 : 31;
    const u32 sign = !is_signed || !len ? 0 : x >> last & 1;
    u32 made = 0;
    for (u32 i = 0; i < 32; ++i)
        made |= (i < len && pos + i <= 31 ? x >> (pos + i) & 1 : sign) << i;
    return made;
}

static u32 bytes_of(u32 x, u32 y, u32 selectors) {
    u32 made = 0;
    for (int i = 0; i < 4; ++i) {
        const u32 s = selectors >> 4 * i & 15, from = s & 4 ? y : x, byte = from >> 8 * (s & 3) & 255;
        made |= (s & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return made;
}

static f32 flushed(f32 x) {
    return fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x;
}

static double smaller(double x, double y) {
    if (isnan(x))
        return y;
    if (isnan(y))
        return x;
    return x == y ? (signbit(x) ? x : y) : x < y ? x : y;
}

static double clamped(double x, double low, double high) {
    return isnan(x) ? 0 : x < low ? low : x > high ? high : x;
}

/* A float format of `bits` fraction bits and least exponent `least`, rounded to nearest even by the C
 * library. */
static u16 to_format(double x, int bits, int least, int bias, int limit) {
    const u16 sign = signbit(x) ? 0x8000 : 0;
    if (isnan(x))
        return 0x7fff;
    int exponent;
    frexp(x, &exponent);
    const int unit = (x == 0 || exponent - 1 < least ? least : exponent - 1) - bits;
    const double scaled = isinf(x) ? x : nearbyint(ldexp(fabs(x), -unit)); /* an integer of the last place */
    if (isinf(x) || ldexp(scaled, unit) >= ldexp(1, limit + 1))
        return (u16)(sign | (unsigned)(limit + bias + 1) << bits);
    const unsigned whole = (unsigned)scaled, one = 1u << bits;
    if (whole < one)
        return (u16)(sign | whole); /* subnormal or zero */
    const unsigned carried = whole == 2 * one;
    return (u16)(sign | (unsigned)(unit + bits + (int)carried + bias) << bits | (carried ? 0 : whole - one));
}

static u16 to_half(double x) {
    return to_format(x, 10, -14, 15, 15);
}

static u16 to_bf16(double x) {
    return to_format(x, 7, -126, 127, 127);
}

static double of_half(u32 h) {
    const int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
    const double value = exponent == 31 ? (fraction ? NAN : INFINITY)
                         : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                        : ldexp(fraction, -24);
    return h >> 15 & 1 ? -value : value;
}

static double of_bf16(u32 b) {
    const u32 bits = b << 16;
    f32 x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

/* Towards zero: the rounded value, or the one before it. */
static u16 cut_half(double x) {
    const u16 near = to_half(x);
    return (u16)(near - (fabs(of_half(near)) > fabs(x)));
}

static u16 cut_bf16(double x) {
    const u16 near = to_bf16(x);
    return (u16)(near - (fabs(of_bf16(near)) > fabs(x)));
}

static double smaller_or_nan(double x, double y) {
    return isnan(x) || isnan(y) ? NAN : smaller(x, y);
}

static s64 to_s64(double x) {
    return isnan(x) ? 0 : x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (s64)x;
}

static u64 to_u64(double x) {
    return isnan(x) || x < 0 ? 0 : x >= 0x1p64 ? UINT64_MAX : (u64)x;
}

static u32 pair(u16 low, u16 high) {
    return low | (u32)high << 16;
}

#define ROW(name, D, A, B, C, ulps, value)                                                                   \
    static u64 FUNCTION(__LINE__)(u64 sx, u64 sy, u64 sz) {                                                  \
        A x;                                                                                                 \
        B y;                                                                                                 \
        C z;                                                                                                 \
        D d;                                                                                                 \
        u64 made = 0;                                                                                        \
        memcpy(&x, &sx, sizeof x);                                                                           \
        memcpy(&y, &sy, sizeof y);                                                                           \
        memcpy(&z, &sz, sizeof z);                                                                           \
        (void)y, (void)z;                                                                                    \
        d = (D)(value);                                                                                      \
        memcpy(&made, &d, sizeof d);                                                                         \
        return made;                                                                                         \
    }
#define ROW1(name, D, A, ulps, value) ROW(name, D, A, A, A, ulps, value)
#define FUNCTION(line)                FUNCTION_(line)
#define FUNCTION_(line)               value_##line
#include "tests/cuda/opcodes.h"
#undef ROW
#undef ROW1

static const struct row {
    const char *name, *types[4];
    int sources, ulps;
    u64 (*value)(u64, u64, u64);
} rows[] = {
#define ROW(name, D, A, B, C, ulps, value) {name, {#D, #A, #B, #C}, 0, ulps, FUNCTION(__LINE__)},
#define ROW1(name, D, A, ulps, value)      {name, {#D, #A, #A, #A}, 1, ulps, FUNCTION(__LINE__)},
#include "tests/cuda/opcodes.h"
};

static int source_count(const struct row *r) {
    static const char *const three[] = {"mad.", "fma.", "bfe.", "shf.", "prmt.", "sad."};
    if (r->sources)
        return r->sources;
    for (size_t i = 0; i < sizeof three / sizeof *three; ++i)
        if (strncmp(r->name, three[i], strlen(three[i])) == 0)
            return 3;
    return 2;
}

static int size_of(const char *type) {
    return strstr(type, "64") ? 8 : strstr(type, "16") ? 2 : 4;
}

/* ---- values ---- */

static u64 random_bits(u64 *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 32 ^ *state << 20;
}

static u64 value_of(const char *type, u64 *state) {
    static const u32 floats[] = {0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                 0x7fc00000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff,
                                 0x3f000000, 0x4f000000, 0xcf000000, 0x477fefff, 0x477ff000, 0x33000000,
                                 0x33000001, 0x387fffff, 0x3fc00000, 0x40200000, 0xbfc00000, 0x3f7fffff,
                                 0x38800000, 0x7f7f8000};
    static const u64 doubles[] = {
        0, 1ull << 63,         0x3ff0000000000000, 0x7ff0000000000000, 0x7ff8000000000000,
        1, 0x47efffffe0000000, 0x3fe0000000000000, 0xc1e0000000000000};
    static const u16 halves[] = {0, 0x8000, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7e00,
                                 1, 0x8001, 0x3ff,  0x400,  0x7bff, 0x3800};
    static const u64 integers[] = {0,
                                   1,
                                   2,
                                   0x7f,
                                   0x80,
                                   0xff,
                                   0x7fff,
                                   0x8000,
                                   0xffff,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   0x7fffffffffffffff,
                                   0x8000000000000000,
                                   0xffffffffffffffff};
    const u64 bits = random_bits(state), pick = random_bits(state), edge = pick >> 8;
    const bool at_edge = pick & 1;
    if (strcmp(type, "f32") == 0)
        return at_edge ? floats[edge % 26] : pick & 2 ? (u32)bits : 0x3f000000 + (bits & 0x80ffffff);
    if (strcmp(type, "f64") == 0)
        return at_edge ? doubles[edge % 9] : bits;
    if (strcmp(type, "f16") == 0)
        return at_edge ? halves[edge % 13] : bits & 0xffff;
    if (strcmp(type, "h2") == 0)
        return (u64)halves[edge % 13] << 16 | (bits & 0xffff);
    if (strcmp(type, "h32") == 0)
        return at_edge ? edge % 70 : bits % 33;
    const u64 made = at_edge ? integers[edge % 15] : bits;
    if (strcmp(type, "n32") == 0)
        return (u32)made ? made : 3;
    if (strcmp(type, "n16") == 0)
        return (u16)made ? made : 3;
    if (strcmp(type, "n64") == 0)
        return made ? made : 3;
    if (strcmp(type, "d64") == 0)
        return made && made != UINT64_MAX ? made : 7;
    if (strcmp(type, "d32") == 0)
        return (u32)made && (u32)made != UINT32_MAX ? made : 7;
    return made;
}

/* ---- one opcode ---- */

static cudaLibrary_t make_library(const struct row *r) {
    char body[1024];
    size_t n = (size_t)snprintf(
        body, sizeof body,
        ".reg .b64 %%at;\nmul.wide.u32 %%at, %%lane, 8;\nadd.s64 %%a, %%a, %%at;\nadd.s64 %%b, %%b, %%at;\n"
        "add.s64 %%c, %%c, %%at;\nadd.s64 %%out, %%out, %%at;\n");
    const int sources = source_count(r);
    static const char names[] = "abc";
    for (int i = 0; i <= sources; ++i)
        n += (size_t)snprintf(body + n, sizeof body - n, ".reg .b%d %%v%d;\n", 8 * size_of(r->types[i]), i);
    for (int i = 1; i <= sources; ++i)
        n += (size_t)snprintf(body + n, sizeof body - n, "ld.global.b%d %%v%d, [%%%c];\n",
                              8 * size_of(r->types[i]), i, names[i - 1]);
    n += (size_t)snprintf(body + n, sizeof body - n, "%s %%v0, %%v1%s%s;\n", r->name,
                          sources > 1 ? ", %v2" : "", sources > 2 ? ", %v3" : "");
    snprintf(body + n, sizeof body - n, "st.global.b%d [%%out], %%v0;", 8 * size_of(r->types[0]));
    return suite_ptx(body);
}

static bool is_nan(const char *type, u64 bits) {
    return strcmp(type, "f32") == 0   ? (bits & 0x7fffffff) > 0x7f800000
           : strcmp(type, "f64") == 0 ? (bits & INT64_MAX) > 0x7ff0000000000000
           : strcmp(type, "f16") == 0 ? (bits & 0x7fff) > 0x7c00
                                      : false;
}

static bool equal(const struct row *r, u64 got, u64 wanted) {
    const char *type = r->types[0];
    const u64 mask = size_of(type) == 8 ? UINT64_MAX : size_of(type) == 4 ? UINT32_MAX : 0xffff;
    got &= mask;
    wanted &= mask;
    if (is_nan(type, got) && is_nan(type, wanted))
        return true; /* which NaN is not promised for f32 and f64 */
    const u64 distance = got > wanted ? got - wanted : wanted - got;
    return distance <= (u64)r->ulps;
}

START_TEST(an_opcode_computes_what_the_manual_says) {
    const struct row *r = &rows[_i];
    const cudaKernel_t kernel = suite_kernel(make_library(r), "test");
    u64 state = 12345 + (u64)_i, in[3][LANES], out[LANES];
    for (int round = 0; round < ROUNDS; ++round) {
        const unsigned lanes = round % 2 ? LANES : 1 + (unsigned)round; /* whole warps and parts */
        void *device[4];
        for (int s = 0; s < 3; ++s) {
            for (int l = 0; l < LANES; ++l)
                in[s][l] = value_of(r->types[1 + s], &state);
            device[s] = suite_device(in[s], sizeof in[s]);
        }
        memset(out, 0xab, sizeof out);
        device[3] = suite_device(out, sizeof out);
        void *arguments[] = {&device[0], &device[1], &device[2], &device[3]};
        OK(suite_run(kernel, lanes, arguments));
        OK(cudaMemcpy(out, device[3], sizeof out, cudaMemcpyDeviceToHost));
        for (unsigned l = 0; l < lanes; ++l) {
            const u64 wanted = r->value(in[0][l], in[1][l], in[2][l]);
            ck_assert_msg(equal(r, out[l], wanted), "%s(%#llx, %#llx, %#llx) = %#llx, not %#llx", r->name,
                          (unsigned long long)in[0][l], (unsigned long long)in[1][l],
                          (unsigned long long)in[2][l], (unsigned long long)out[l],
                          (unsigned long long)wanted);
        }
        for (unsigned l = lanes; l < LANES; ++l)
            ck_assert_msg(out[l] == 0xabababababababab, "%s wrote for lane %u of %u", r->name, l, lanes);
        for (int s = 0; s < 4; ++s)
            OK(cudaFree(device[s]));
    }
}
END_TEST

/* ---- opcodes with words of their own: a kernel and what it must store ---- */

/* Run a body for one warp; a, b and c hold the lanes' numbers, plus 0, 100 and 200. */
static void run_body(const char *body, u32 out[LANES]) {
    u32 in[3][LANES];
    void *device[4];
    for (u32 s = 0; s < 3; ++s) {
        for (u32 l = 0; l < LANES; ++l)
            in[s][l] = l + 100 * s;
        device[s] = suite_device(in[s], sizeof in[s]);
    }
    memset(out, 0, LANES * sizeof *out);
    device[3] = suite_device(out, LANES * sizeof *out);
    char whole[4096];
    snprintf(whole, sizeof whole,
             ".reg .b64 %%at;\n.reg .b32 %%x, %%y, %%z, %%r;\n.reg .pred %%p, %%q;\nmul.wide.u32 %%at, "
             "%%lane, 4;\nadd.s64 %%a, %%a, %%at;\n"
             "add.s64 %%b, %%b, %%at;\nadd.s64 %%c, %%c, %%at;\nadd.s64 %%out, %%out, %%at;\nld.global.u32 "
             "%%x, [%%a];\n"
             "ld.global.u32 %%y, [%%b];\nld.global.u32 %%z, [%%c];\n%s\nst.global.u32 [%%out], %%r;",
             body);
    void *arguments[] = {&device[0], &device[1], &device[2], &device[3]};
    OK(suite_run(suite_kernel(suite_ptx(whole), "test"), LANES, arguments));
    OK(cudaMemcpy(out, device[3], LANES * sizeof *out, cudaMemcpyDeviceToHost));
}

#define EXPECT(body, value)                                                                                  \
    do {                                                                                                     \
        u32 got[LANES];                                                                                      \
        run_body(body, got);                                                                                 \
        for (u32 l = 0; l < LANES; ++l)                                                                      \
            ck_assert_msg(got[l] == (u32)(value), "lane %u: %u, not %u, after\n%s", l, got[l], (u32)(value), \
                          body);                                                                             \
    } while (0)

START_TEST(shuffles_and_votes) {
    EXPECT("shfl.sync.bfly.b32 %r, %x, 5, 31, -1;", l ^ 5);
    EXPECT("shfl.sync.idx.b32 %r, %y, 7, 31, -1;", 107);
    EXPECT("shfl.sync.up.b32 %r|%p, %x, 3, 0, -1;", l < 3 ? l : l - 3);
    EXPECT("shfl.sync.down.b32 %r|%p, %x, 3, 31, -1;\n@!%p mov.u32 %r, 99;", l > 28 ? 99 : l + 3);
    EXPECT("shfl.sync.down.b32 %r, %x, 3, 0x1807, -1;", l % 8 > 4 ? l : l + 3); /* segments of eight lanes */
    EXPECT("setp.lt.u32 %p, %x, 9;\nvote.sync.ballot.b32 %r, %p, -1;", 0x1ff);
    EXPECT("setp.lt.u32 %p, %x, 32;\nvote.sync.all.pred %q, %p, -1;\nselp.u32 %r, 1, 0, %q;", 1);
    EXPECT("setp.eq.u32 %p, %x, 31;\nvote.sync.any.pred %q, %p, -1;\nselp.u32 %r, 1, 0, %q;", 1);
    EXPECT("setp.eq.u32 %p, %x, 31;\nvote.sync.uni.pred %q, %p, -1;\nselp.u32 %r, 1, 0, %q;", 0);
    EXPECT("redux.sync.add.s32 %r, %x, -1;", 31 * 16);
    EXPECT("redux.sync.max.u32 %r, %y, -1;", 131);
    EXPECT("activemask.b32 %r;", 0xffffffff);
    EXPECT("mov.u32 %r, %laneid;\nmov.u32 %y, %lanemask_lt;\nadd.u32 %r, %r, %y;", l + ((1u << l) - 1));
}
END_TEST

START_TEST(comparisons) {
    EXPECT("setp.lt.s32 %p, %x, 4;\nselp.b32 %r, %y, %z, %p;", l < 4 ? l + 100 : l + 200);
    EXPECT("add.s32 %y, %x, -5;\nsetp.ge.s32 %p, %y, 0;\nselp.b32 %r, 1, 0, %p;", l >= 5);
    EXPECT("add.s32 %y, %x, -5;\nsetp.hi.u32 %p, %y, 7;\nselp.b32 %r, 1, 0, %p;", l - 5 > 7);
    EXPECT("setp.eq.s32 %q, %x, 3;\nsetp.gt.or.s32 %p, %x, 20, %q;\nselp.b32 %r, 1, 0, %p;",
           l > 20 || l == 3);
    EXPECT("setp.eq.s32 %q, %x, 30;\nsetp.gt.and.s32 %p, %x, 20, !%q;\nselp.b32 %r, 1, 0, %p;",
           l > 20 && l != 30);
    EXPECT("setp.lt.s32 %p|%q, %x, 4;\nselp.b32 %y, 1, 0, %p;\nselp.b32 %z, 2, 0, %q;\nadd.u32 %r, %y, %z;",
           l < 4 ? 1 : 2);
    static const char *const nan = "mov.b32 %y, 0f7FC00000;\ncvt.rn.f32.u32 %x, %x;\n";
    static const struct {
        const char *comparison;
        u32 value;
    } unordered[] = {{"eq", 0},  {"ne", 0},  {"lt", 0},  {"le", 0},  {"gt", 0},  {"ge", 0},  {"equ", 1},
                     {"neu", 1}, {"ltu", 1}, {"leu", 1}, {"gtu", 1}, {"geu", 1}, {"num", 0}, {"nan", 1}};
    for (size_t i = 0; i < sizeof unordered / sizeof *unordered; ++i) {
        char body[256];
        snprintf(body, sizeof body, "%ssetp.%s.f32 %%p, %%x, %%y;\nselp.b32 %%r, 1, 0, %%p;", nan,
                 unordered[i].comparison);
        EXPECT(body, unordered[i].value);
    }
    EXPECT("cvt.rn.f32.u32 %x, %x;\nsetp.neu.f32 %p, %x, 0f40A00000;\nselp.b32 %r, 1, 0, %p;", l != 5);
}
END_TEST

START_TEST(predicates) {
    static const char *const begin = "setp.lt.u32 %p, %x, 12;\nsetp.gt.u32 %q, %x, 5;\n",
                             *const end = "selp.u32 %r, 1, 0, %p;";
    static const struct {
        const char *operation;
        int kind;
    } operations[] = {{"and.pred %p, %p, %q;", 0}, {"or.pred %p, %p, %q;", 1}, {"xor.pred %p, %p, %q;", 2},
                      {"not.pred %p, %q;", 3},     {"mov.pred %p, %q;", 4},    {"mov.pred %p, -1;", 5},
                      {"mov.pred %p, 0;", 6}};
    for (size_t i = 0; i < sizeof operations / sizeof *operations; ++i) {
        char body[256];
        snprintf(body, sizeof body, "%s%s\n%s", begin, operations[i].operation, end);
        const int kind = operations[i].kind;
        EXPECT(body, kind == 0   ? l < 12 && l > 5
                     : kind == 1 ? l < 12 || l > 5
                     : kind == 2 ? (l < 12) != (l > 5)
                     : kind == 3 ? l <= 5
                     : kind == 4 ? l > 5
                                 : kind == 5);
    }
    EXPECT("setp.lt.u32 %p, %x, 12;\nselp.f32 %r, %y, %z, %p;", l < 12 ? l + 100 : l + 200);
    EXPECT(".reg .b16 %h, %g;\ncvt.u16.u32 %h, %x;\nmov.u16 %g, 9;\nsetp.eq.b16 %p, %h, 9;\nselp.b16 %h, %g, "
           "1, %p;\ncvt.u32.u16 %r, %h;",
           l == 9 ? 9 : 1);
    EXPECT(".reg .b64 %w, %v;\nsetp.ge.u32 %p, %x, 12;\ncvt.u64.u32 %w, %y;\nmov.b64 %v, 5;\nselp.b64 %w, "
           "%w, %v, %p;\ncvt.u32.u64 %r, %w;",
           l >= 12 ? l + 100 : 5);
}
END_TEST

/* Every type of selp, and the windows of shared and local memory in the generic space. */
START_TEST(choices_and_address_spaces) {
    static const struct {
        const char *type;
        int bits;
    } types[] = {{"b16", 16}, {"u16", 16}, {"s16", 16}, {"b32", 32}, {"u32", 32}, {"s32", 32},
                 {"f32", 32}, {"b64", 64}, {"u64", 64}, {"s64", 64}, {"f64", 64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; ++i) {
        char body[512];
        snprintf(
            body, sizeof body,
            ".reg .b%d %%v, %%w;\ncvt.u%d.u32 %%v, %%y;\ncvt.u%d.u32 %%w, %%z;\nsetp.lt.u32 %%p, %%x, 12;\n"
            "selp.%s %%v, %%v, %%w, %%p;\ncvt.u32.u%d %%r, %%v;",
            types[i].bits, types[i].bits, types[i].bits, types[i].type, types[i].bits);
        if (types[i].bits == 32)
            snprintf(body, sizeof body, "setp.lt.u32 %%p, %%x, 12;\nselp.%s %%r, %%y, %%z, %%p;",
                     types[i].type);
        EXPECT(body, l < 12 ? l + 100 : l + 200);
    }
    EXPECT(".reg .b64 %g, %s, %o;\nmov.u64 %s, tile;\nmul.wide.u32 %o, %x, 4;\nadd.s64 %s, %s, "
           "%o;\ncvta.shared.u64 %g, %s;\nst.u32 [%g], %y;\nbar.warp.sync -1;\nld.shared.u32 %r, [%s];",
           l + 100);
    EXPECT(".reg .b64 %g, %s, %o;\nmov.u64 %s, tile;\nmul.wide.u32 %o, %x, 4;\nadd.s64 %s, %s, "
           "%o;\nst.shared.u32 [%s], %y;\ncvta.shared.u64 %g, %s;\ncvta.to.shared.u64 %s, %g;\nld.shared.u32 "
           "%r, [%s];",
           l + 100);
    EXPECT(".local .align 4 .b8 own[16];\n.reg .b64 %g, %s;\nmov.u64 %s, own;\ncvta.local.u64 %g, "
           "%s;\nst.u32 [%g+4], "
           "%z;\nld.local.u32 %r, [%s+4];",
           l + 200);
    EXPECT(".local .align 4 .b8 own[16];\n.reg .b64 %g, %s;\nmov.u64 %s, own;\nst.local.u32 [%s+8], "
           "%z;\ncvta.local.u64 %g, %s;\ncvta.to.local.u64 %s, %g;\nld.local.u32 %r, [%s+8];",
           l + 200);
}
END_TEST

START_TEST(asynchronous_copies) {
    /* a copy lands at its wait; bytes of the source beyond the count are zeros */
    static const char *const begin = "mov.u32 %y, tile;\nshl.b32 %z, %x, 2;\nadd.u32 %y, %y, %z;\n";
    static const struct {
        const char *copy;
        bool zeros;
    } copies[] = {
        {"cp.async.ca.shared.global [%y], [%a], 4;\ncp.async.commit_group;\ncp.async.wait_group 0;", false},
        {"cp.async.ca.shared.global [%y], [%a], 4;\ncp.async.wait_all;", false},
        {"setp.lt.u32 %p, %x, 16;\nselp.u32 %z, 4, 0, %p;\ncp.async.ca.shared.global [%y], [%a], 4, "
         "%z;\ncp.async.commit_group;\n"
         "cp.async.commit_group;\ncp.async.wait_group 1;",
         true}};
    for (size_t i = 0; i < sizeof copies / sizeof *copies; ++i) {
        char body[512];
        snprintf(body, sizeof body, "%s%s\nld.shared.u32 %%r, [%%y];", begin, copies[i].copy);
        EXPECT(body, copies[i].zeros && l >= 16 ? 0 : l);
    }
}
END_TEST

START_TEST(branches_meet_again) {
    /* two sides, then all lanes together: the shuffle needs them all */
    EXPECT("setp.lt.u32 %p, %x, 10;\n@%p bra LOW;\nadd.u32 %r, %x, 1000;\nbra.uni MEET;\nLOW:\nadd.u32 %r, "
           "%x, 2000;\nMEET:\n"
           "shfl.sync.bfly.b32 %r, %r, 1, 31, -1;",
           (l ^ 1) + (l < 10 ? 2000 : 1000));
    /* a loop that lanes leave one after another */
    EXPECT("mov.u32 %r, 0;\nAGAIN:\nadd.u32 %r, %r, 2;\nsub.u32 %x, %x, 1;\nsetp.ge.s32 %p, %x, 0;\n@%p bra "
           "AGAIN;\n"
           "shfl.sync.bfly.b32 %r, %r, 1, 31, -1;",
           2 * ((l ^ 1) + 1));
    /* nested, with some lanes that end inside */
    EXPECT("mov.u32 %r, 7;\nst.global.u32 [%out], %r;\nsetp.lt.u32 %p, %x, 16;\n@%p bra A;\nsetp.lt.u32 %q, "
           "%x, 24;\n@%q exit;\n"
           "mov.u32 %r, 3;\nbra.uni B;\nA:\nsetp.lt.u32 %q, %x, 8;\n@%q bra C;\nmov.u32 %r, 2;\nbra.uni "
           "B;\nC:\nmov.u32 %r, 1;\nB:",
           l < 8    ? 1
           : l < 16 ? 2
           : l < 24 ? 7
                    : 3);
}
END_TEST

START_TEST(memory_and_parts) {
    EXPECT("mov.u32 %y, tile;\nshl.b32 %z, %x, 2;\nadd.u32 %y, %y, %z;\nst.shared.u32 [%y], %x;\nbar.sync "
           "0;\nxor.b32 %z, %z, 28;\n"
           "mov.u32 %y, tile;\nadd.u32 %y, %y, %z;\nld.shared.u32 %r, [%y];",
           l ^ 7);
    EXPECT(".reg .b16 %h, %g;\nmov.b32 {%h, %g}, 0x00050003;\ncvt.u32.u16 %y, %h;\ncvt.u32.u16 %z, "
           "%g;\nshl.b32 %z, %z, 8;\nor.b32 %r, %y, %z;",
           0x503);
    EXPECT(".reg .b16 %h;\ncvt.u16.u32 %h, %x;\nmov.b32 %r, {%h, %h};", l | l << 16);
    EXPECT(".reg .b64 %w;\nmov.b64 %w, {%x, %y};\nmov.b64 {%z, %r}, %w;\nadd.u32 %r, %r, %z;", 2 * l + 100);
    EXPECT("lop3.b32 %r, %x, %y, %z, 0x96;", l ^ (l + 100) ^ (l + 200));
    EXPECT("lop3.b32 %r, %x, %y, %z, 0xe8;", (l & (l + 100)) | (l & (l + 200)) | ((l + 100) & (l + 200)));
    EXPECT("bfi.b32 %r, %x, 0, 8, 4;", (l & 15) << 8);
    EXPECT(".local .align 4 .b8 own[16];\n.reg .b64 %l;\nmov.u64 %l, own;\nst.local.u32 [%l+8], "
           "%y;\nld.local.u32 %r, [%l+8];",
           l + 100);
    EXPECT("mov.u32 %r, tile;\nst.shared.u32 [%r], 0;\nbar.sync 0;\natom.shared.add.u32 %y, [%r], "
           "2;\nbar.sync 0;\nld.shared.u32 %r, [%r];",
           64);
    EXPECT("atom.global.max.u32 %r, [%c], 210;", l + 200);
    EXPECT("atom.global.cas.b32 %r, [%c], 205, 1;\nld.global.u32 %r, [%c];", l == 5 ? 1 : l + 200);
    EXPECT("st.global.u32 [%out], 1;\nred.global.add.u32 [%out], 4;\nld.global.u32 %r, [%out];", 5);
    EXPECT("ld.global.s8 %r, [%b];", (s32)(int8_t)(l + 100));
    EXPECT("ld.global.u8 %r, [%c];", l + 200);
    EXPECT(".reg .b64 %w, %v;\nmov.b64 %w, {%x, %y};\ncvt.s64.s32 %v, %w;\ncvt.u32.u64 %r, %v;", l);
    EXPECT(".reg .b64 %w, %v;\nmov.b64 %w, pa;\nld.param.u64 %v, [%w+8];\nld.global.u32 %r, [%v];", 100);
}
END_TEST

/* Every row of the emulator's table is in one of ours: in opcodes.h, or by its name in this file. */
START_TEST(every_opcode_has_a_test) {
    size_t size;
    char *table = suite_read("tests/cuda_emulator/ops.h", &size),
         *here = suite_read("tests/cuda/check_opcodes.c", &size),
         *there = suite_read("tests/cuda/opcodes.h", &size);
    int count = 0;
    for (char *line = table; line; line = strchr(line, '\n')) {
        char name[64], quoted[72], spaced[72];
        line += *line == '\n';
        if (sscanf(line, "%*[A-Z](\"%60[^\"]\"", name) != 1)
            continue;
        ++count;
        snprintf(quoted, sizeof quoted, "(\"%s\"", name);
        if (strncmp(name, "selp.", 5) == 0) /* choices_and_address_spaces has the types alone */
            snprintf(spaced, sizeof spaced, "{\"%s\", ", name + 5);
        else
            snprintf(spaced, sizeof spaced, "%s ", name);
        ck_assert_msg(strstr(there, quoted) || strstr(here, spaced), "%s has no test", name);
    }
    ck_assert_int_gt(count, 300);
    free(table);
    free(here);
    free(there);
}
END_TEST

TCase *opcode_cases(void) {
    TCase *c = tcase_create("opcodes");
    tcase_add_loop_test(c, an_opcode_computes_what_the_manual_says, 0, (int)(sizeof rows / sizeof *rows));
    tcase_add_test(c, shuffles_and_votes);
    tcase_add_test(c, comparisons);
    tcase_add_test(c, predicates);
    tcase_add_test(c, choices_and_address_spaces);
    tcase_add_test(c, every_opcode_has_a_test);
    tcase_add_test(c, asynchronous_copies);
    tcase_add_test(c, branches_meet_again);
    tcase_add_test(c, memory_and_parts);
    return c;
}
