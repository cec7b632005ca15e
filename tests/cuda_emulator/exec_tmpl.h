/*
 * exec_tmpl.h: the interpreter's loop, compiled once for each instruction set (exec_generic.c, exec_avx2.c,
 * exec_avx512.c define EXEC). A warp runs in lockstep: one instruction for all active lanes. Where a branch
 * divides them, one side runs to the point where both meet again (flow.c), then the other.
 */
#include "tests/cuda_emulator/exec.h"

#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* loops that call libm stay as they are */
#define VECTORISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define VECTORISE _Pragma("GCC ivdep")
#endif
#define LANE_LOOP VECTORISE for (int l = 0; l < LANES; ++l)

typedef float __attribute__((may_alias)) f32_alias;
typedef double __attribute__((may_alias)) f64_alias;
typedef u16 __attribute__((may_alias)) u16_alias;

static const u32 lane_bit[LANES] = {1u << 0,  1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,
                                    1u << 7,  1u << 8,  1u << 9,  1u << 10, 1u << 11, 1u << 12, 1u << 13,
                                    1u << 14, 1u << 15, 1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20,
                                    1u << 21, 1u << 22, 1u << 23, 1u << 24, 1u << 25, 1u << 26, 1u << 27,
                                    1u << 28, 1u << 29, 1u << 30, 1u << 31};

/* Registers as the types of ops.h; 16-bit ones live in 32 bits. */
#define GET_u16(p, l)    ((u16)((const u32 *)(p))[l])
#define GET_s16(p, l)    ((s16)((const u32 *)(p))[l])
#define GET_u32(p, l)    (((const u32 *)(p))[l])
#define GET_s32(p, l)    ((s32)((const u32 *)(p))[l])
#define GET_f32(p, l)    (((const f32_alias *)(p))[l])
#define GET_u64(p, l)    (((const u64 *)(p))[l])
#define GET_s64(p, l)    ((s64)((const u64 *)(p))[l])
#define GET_f64(p, l)    (((const f64_alias *)(p))[l])
#define PUT_u16(p, l, v) (((u32 *)(p))[l] = (u16)(v))
#define PUT_s16(p, l, v) (((u32 *)(p))[l] = (u16)(v))
#define PUT_u32(p, l, v) (((u32 *)(p))[l] = (u32)(v))
#define PUT_s32(p, l, v) (((u32 *)(p))[l] = (u32)(v))
#define PUT_f32(p, l, v) (((f32_alias *)(p))[l] = (v))
#define PUT_u64(p, l, v) (((u64 *)(p))[l] = (u64)(v))
#define PUT_s64(p, l, v) (((u64 *)(p))[l] = (u64)(v))
#define PUT_f64(p, l, v) (((f64_alias *)(p))[l] = (v))
#define WIDE_u16         0
#define WIDE_s16         0
#define WIDE_u32         0
#define WIDE_s32         0
#define WIDE_f32         0
#define WIDE_u64         1
#define WIDE_s64         1
#define WIDE_f64         1

static void blend(void *to, const void *from, u32 lanes, int wide) {
    if (wide) {
        u64 *d = to;
        const u64 *s = from;
        LANE_LOOP d[l] = lanes & lane_bit[l] ? s[l] : d[l];
    } else {
        u32 *d = to;
        const u32 *s = from;
        LANE_LOOP d[l] = lanes & lane_bit[l] ? s[l] : d[l];
    }
}

static u32 mask_of(const u32 *bits) {
    u32 mask = 0;
    LANE_LOOP mask |= bits[l];
    return mask;
}

/* ---- setp ---- */

#define COMPARE(T, test)                                                                                     \
    LANE_LOOP {                                                                                              \
        const T x = GET(T, a, l), y = GET(T, c, l);                                                          \
        bits[l] = (test) ? lane_bit[l] : 0;                                                                  \
    }                                                                                                        \
    break
#define GET(T, p, l) GET_##T(p, l)
#define COMPARE_ORDERED(T)                                                                                   \
    switch (mode) {                                                                                          \
    case COMPARE_EQ:                                                                                         \
        COMPARE(T, x == y);                                                                                  \
    case COMPARE_NE:                                                                                         \
        COMPARE(T, x != y);                                                                                  \
    case COMPARE_LT:                                                                                         \
        COMPARE(T, x < y);                                                                                   \
    case COMPARE_LE:                                                                                         \
        COMPARE(T, x <= y);                                                                                  \
    case COMPARE_GT:                                                                                         \
        COMPARE(T, x > y);                                                                                   \
    default:                                                                                                 \
        COMPARE(T, x >= y);                                                                                  \
    }
#define COMPARE_FLOAT(T)                                                                                     \
    switch (mode) {                                                                                          \
    case COMPARE_EQ:                                                                                         \
        COMPARE(T, x == y);                                                                                  \
    case COMPARE_NE:                                                                                         \
        COMPARE(T, x<y || x> y);                                                                             \
    case COMPARE_LT:                                                                                         \
        COMPARE(T, x < y);                                                                                   \
    case COMPARE_LE:                                                                                         \
        COMPARE(T, x <= y);                                                                                  \
    case COMPARE_GT:                                                                                         \
        COMPARE(T, x > y);                                                                                   \
    case COMPARE_GE:                                                                                         \
        COMPARE(T, x >= y);                                                                                  \
    case COMPARE_EQU:                                                                                        \
        COMPARE(T, !(x < y || x > y));                                                                       \
    case COMPARE_NEU:                                                                                        \
        COMPARE(T, x != y);                                                                                  \
    case COMPARE_LTU:                                                                                        \
        COMPARE(T, !(x >= y));                                                                               \
    case COMPARE_LEU:                                                                                        \
        COMPARE(T, !(x > y));                                                                                \
    case COMPARE_GTU:                                                                                        \
        COMPARE(T, !(x <= y));                                                                               \
    case COMPARE_GEU:                                                                                        \
        COMPARE(T, !(x < y));                                                                                \
    case COMPARE_NUM:                                                                                        \
        COMPARE(T, x == x && y == y);                                                                        \
    default:                                                                                                 \
        COMPARE(T, x != x || y != y);                                                                        \
    }

/* 16-bit floats and flushed ones as 32-bit floats, so that one comparison serves them all. */
static const void *as_floats(const void *p, int type, bool flush, f32 *to) {
    if (type == TYPE_F16)
        LANE_LOOP to[l] = half_to_float(GET_u16(p, l));
    else if (type == TYPE_BF16)
        LANE_LOOP to[l] = bf16_to_float(GET_u16(p, l));
    else if (flush)
        LANE_LOOP to[l] = ftz(GET_f32(p, l));
    else
        return p;
    return to;
}

static u32 compare(const ptx_instruction *i, const void *a, const void *c) {
    u32 bits[LANES];
    f32 floats[2][LANES];
    const int mode = i->mode;
    switch (i->type) {
    case TYPE_S16:
        COMPARE_ORDERED(s16)
        break;
    case TYPE_U16:
    case TYPE_B16:
        COMPARE_ORDERED(u16)
        break;
    case TYPE_S32:
        COMPARE_ORDERED(s32)
        break;
    case TYPE_U32:
    case TYPE_B32:
        COMPARE_ORDERED(u32)
        break;
    case TYPE_S64:
        COMPARE_ORDERED(s64)
        break;
    case TYPE_U64:
    case TYPE_B64:
        COMPARE_ORDERED(u64)
        break;
    case TYPE_F64:
        COMPARE_FLOAT(f64)
        break;
    default:
        a = as_floats(a, i->type, i->count, floats[0]);
        c = as_floats(c, i->type, i->count, floats[1]);
        COMPARE_FLOAT(f32)
    }
    return mask_of(bits);
}

static u32 join(int mode2, u32 result, u32 c) {
    if (mode2 & SETP_NOT)
        c = ~c;
    switch (mode2 & 7) {
    case 0:
        return result;
    case 1:
        return result & c;
    case 2:
        return result | c;
    default:
        return result ^ c;
    }
}

static void set_predicate(exec_warp *w, u32 place, u32 value, u32 lanes) {
    u32 *p = exec_u32(w, place);
    *p = (*p & ~lanes) | (value & lanes);
}

static void run_setp(exec_warp *w, const ptx_instruction *i, u32 lanes) {
    const u16 *sources = i->r + i->writes;
    const u32 result = compare(i, exec_u32(w, sources[0]), exec_u32(w, sources[1]));
    const u32 c = i->reads == 3 ? *exec_u32(w, sources[2]) : 0;
    if (i->writes == 2)
        set_predicate(w, i->r[1], join(i->mode2, ~result, c), lanes);
    set_predicate(w, i->r[0], join(i->mode2, result, c), lanes);
}

/* ---- parts of registers ---- */

static void run_pack(exec_warp *w, const ptx_instruction *i, u32 lanes) {
    u64 made[LANES] = {0};
    const bool wide =
        i->type == TYPE_B64 || i->type == TYPE_U64 || i->type == TYPE_F64 || i->type == TYPE_S64;
    const int part = (wide ? 64 : 32) / i->count;
    for (int k = 0; k < i->count; ++k) {
        const u32 *from = exec_u32(w, i->r[1 + k]);
        const u32 keep = part == 16 ? 0xffffu : ~0u;
        LANE_LOOP made[l] |= (u64)(from[l] & keep) << (k * part);
    }
    for (int l = 0; l < LANES; ++l)
        if (lanes & lane_bit[l]) {
            if (wide)
                exec_u64(w, i->r[0])[l] = made[l];
            else
                exec_u32(w, i->r[0])[l] = (u32)made[l];
        }
}

static void run_unpack(exec_warp *w, const ptx_instruction *i, u32 lanes) {
    u64 whole[LANES];
    const bool wide =
        i->type == TYPE_B64 || i->type == TYPE_U64 || i->type == TYPE_F64 || i->type == TYPE_S64;
    const int part = (wide ? 64 : 32) / i->count;
    for (int l = 0; l < LANES; ++l)
        whole[l] = wide ? exec_u64(w, i->r[i->writes])[l] : exec_u32(w, i->r[i->writes])[l];
    for (int k = 0; k < i->count; ++k) {
        u32 *to = exec_u32(w, i->r[k]);
        const u32 keep = part == 16 ? 0xffffu : ~0u;
        LANE_LOOP to[l] = lanes & lane_bit[l] ? (u32)(whole[l] >> (k * part)) & keep : to[l];
    }
}

/* ---- across the warp ---- */

static bool converged(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes, u32 place,
                      const char *what) {
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        const u32 named = exec_u32(w, place)[__builtin_ctz(rest)];
        const u32 missing = named & w->live & ~lanes;
        if (missing || !(named >> __builtin_ctz(rest) & 1)) {
            exec_fail(b, w, i->loc, __builtin_ctz(rest), CUDA_EMULATOR_CONVERGENCE,
                      "%s names the lanes %08x, but %08x take part", what, named, lanes);
            return false;
        }
    }
    return true;
}

/* PTX ISA 9.0, 9.7.9.6: c holds the last lane of a segment and, at bit 8, the mask that finds its first. */
static bool run_shuffle(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    if (!converged(b, w, i, lanes, i->r[5], "shfl.sync"))
        return false;
    const u32 *a = exec_u32(w, i->r[2]), *distance = exec_u32(w, i->r[3]), *clamp = exec_u32(w, i->r[4]);
    u32 made[LANES], inside = 0;
    for (u32 l = 0; l < LANES; ++l) {
        const u32 by = distance[l] & 31, last = clamp[l] & 31, segment = clamp[l] >> 8 & 31;
        const u32 low = l & segment, high = low | (last & ~segment);
        s32 from = 0;
        bool ok = true;
        switch (i->mode) {
        case SHUFFLE_UP:
            from = (s32)l - (s32)by;
            ok = from >= (s32)high;
            break;
        case SHUFFLE_DOWN:
            from = (s32)(l + by);
            ok = from <= (s32)high;
            break;
        case SHUFFLE_BUTTERFLY:
            from = (s32)(l ^ by);
            ok = from <= (s32)high;
            break;
        default:
            from = (s32)(low | (by & ~segment));
            ok = from <= (s32)high;
        }
        if (!ok)
            from = (s32)l;
        if (lanes >> l & 1 && !(lanes >> from & 1)) {
            exec_fail(b, w, i->loc, (int)l, CUDA_EMULATOR_CONVERGENCE,
                      "shfl.sync reads lane %d, which takes no part", from);
            return false;
        }
        made[l] = a[from];
        inside |= ok ? lane_bit[l] : 0;
    }
    blend(exec_u32(w, i->r[0]), made, lanes, 0);
    set_predicate(w, i->r[1], inside, lanes);
    return true;
}

static bool run_vote(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    if (!converged(b, w, i, lanes, i->r[2], "vote.sync"))
        return false;
    const u32 p = (i->count ? ~*exec_u32(w, i->r[1]) : *exec_u32(w, i->r[1])) & lanes;
    if (i->mode == VOTE_BALLOT) {
        u32 made[LANES];
        LANE_LOOP made[l] = p;
        blend(exec_u32(w, i->r[0]), made, lanes, 0);
    } else {
        const bool yes = i->mode == VOTE_ALL   ? p == lanes
                         : i->mode == VOTE_ANY ? p != 0
                                               : p == 0 || p == lanes;
        set_predicate(w, i->r[0], yes ? ~0u : 0, lanes);
    }
    return true;
}

static bool run_redux(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    if (!converged(b, w, i, lanes, i->r[2], "redux.sync"))
        return false;
    const u32 *a = exec_u32(w, i->r[1]);
    u32 total = a[__builtin_ctz(lanes)], made[LANES];
    for (u32 rest = lanes & (lanes - 1); rest; rest &= rest - 1) {
        const u32 x = a[__builtin_ctz(rest)];
        const bool less = i->type == TYPE_S32 ? (s32)x < (s32)total : x < total;
        switch (i->mode) {
        case ATOMIC_ADD:
            total += x;
            break;
        case ATOMIC_MIN:
            total = less ? x : total;
            break;
        case ATOMIC_MAX:
            total = less ? total : x;
            break;
        case ATOMIC_AND:
            total &= x;
            break;
        case ATOMIC_OR:
            total |= x;
            break;
        default:
            total ^= x;
        }
    }
    LANE_LOOP made[l] = total;
    blend(exec_u32(w, i->r[0]), made, lanes, 0);
    return true;
}

/* ---- mma.sync (PTX ISA 9.0, 9.7.14.5.8 and 9): D = A B + C. ----
 * Lane 4 g + t holds of A rows g and g + 8, of B column g, of C rows g and g + 8; a register of 16-bit pairs
 * is, over all lanes, an 8 x 8 matrix row by row (of B: column by column). Products are exact in binary32;
 * they are added in ascending k. */

typedef f32 v8f32 __attribute__((vector_size(32), aligned(4), may_alias));
typedef u16 v32u16 __attribute__((vector_size(64), aligned(2), may_alias));

static void widen(const u16_alias *from, int mode, f32 to[64]) {
    if (mode == MMA_BF16)
        VECTORISE for (int e = 0; e < 64; ++e) to[e] = bf16_to_float(from[e]);
    else
        VECTORISE for (int e = 0; e < 64; ++e) to[e] = half_to_float(from[e]);
}

/* An 8 x 8 matrix of 16-bit elements with rows and columns exchanged. */
static void transpose(const u16_alias *from, u16 to[64]) {
    const v32u16 low = *(const v32u16 *)from, high = *(const v32u16 *)(from + 32);
    *(v32u16 *)to = __builtin_shufflevector(low, high, 0, 8, 16, 24, 32, 40, 48, 56, 1, 9, 17, 25, 33, 41, 49,
                                            57, 2, 10, 18, 26, 34, 42, 50, 58, 3, 11, 19, 27, 35, 43, 51, 59);
    *(v32u16 *)(to + 32) =
        __builtin_shufflevector(low, high, 4, 12, 20, 28, 36, 44, 52, 60, 5, 13, 21, 29, 37, 45, 53, 61, 6,
                                14, 22, 30, 38, 46, 54, 62, 7, 15, 23, 31, 39, 47, 55, 63);
}

/* a[half + 2 * step] is 8 rows by 8 of k; bt is k by 8 columns, d 16 rows by 8 columns. */
static void multiply(f32 a[4][64], const f32 *bt, int depth, f32 *d) {
    for (int quarter = 0; quarter < 4; ++quarter) {
        f32 *to = d + quarter * 32;
        v8f32 sum[4];
        for (int i = 0; i < 4; ++i)
            sum[i] = *(const v8f32 *)(to + 8 * i);
        for (int k = 0; k < depth; ++k) {
            const f32 *x = a[quarter / 2 + k / 8 * 2] + quarter % 2 * 32 + k % 8;
            const v8f32 y = *(const v8f32 *)(bt + 8 * k);
            for (int i = 0; i < 4; ++i)
                sum[i] += x[8 * i] * y;
        }
        for (int i = 0; i < 4; ++i)
            *(v8f32 *)(to + 8 * i) = sum[i];
    }
}

/* tf32: one element a register; lane 4 g + t holds of A (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4). */
static void load_tf32(const exec_warp *w, const ptx_instruction *i, f32 a[4][64], f32 *bt) {
    const int a_count = i->count / 2, b_count = i->count / 4;
    for (int q = 0; q < a_count; ++q)
        for (int l = 0; l < LANES; ++l)
            a[q % 2][l / 4 * 8 + l % 4 + q / 2 * 4] = float_of(exec_u32(w, i->r[4 + q])[l] & 0xffffe000u);
    for (int q = 0; q < b_count; ++q)
        for (int l = 0; l < LANES; ++l)
            bt[(l % 4 + q * 4) * 8 + l / 4] = float_of(exec_u32(w, i->r[4 + a_count + q])[l] & 0xffffe000u);
}

static void load_halves(const exec_warp *w, const ptx_instruction *i, f32 a[4][64], f32 *bt) {
    const int a_count = i->count / 4, b_count = i->count / 8;
    for (int q = 0; q < a_count; ++q)
        widen((const u16_alias *)exec_u32(w, i->r[i->writes + q]), i->mode, a[q]);
    for (int q = 0; q < b_count; ++q) {
        u16 columns[64];
        transpose((const u16_alias *)exec_u32(w, i->r[i->writes + a_count + q]), columns);
        widen(columns, i->mode, bt + q * 64);
    }
}

static void load_sums(const exec_warp *w, const ptx_instruction *i, f32 d[2][64]) {
    const u16 *c = i->r + i->reads; /* the last operands; C has as many registers as D */
    for (int half = 0; half < 2; ++half) {
        if (i->mode == MMA_F16_F16) {
            widen((const u16_alias *)exec_u32(w, c[half]), MMA_F16, d[half]);
            continue;
        }
        const f32_alias *even = (const f32_alias *)exec_u32(w, c[2 * half]);
        const f32_alias *odd = (const f32_alias *)exec_u32(w, c[2 * half + 1]);
        LANE_LOOP d[half][2 * l] = even[l], d[half][2 * l + 1] = odd[l];
    }
}

static void run_mma(exec_warp *w, const ptx_instruction *i) {
    f32 a[4][64], bt[16 * 8], d[2][64];
    if (i->mode == MMA_TF32)
        load_tf32(w, i, a, bt);
    else
        load_halves(w, i, a, bt);
    load_sums(w, i, d);
    multiply(a, bt, i->count, d[0]);
    for (int half = 0; half < 2; ++half) {
        if (i->mode == MMA_F16_F16) {
            u16_alias *to = (u16_alias *)exec_u32(w, i->r[half]);
            for (int e = 0; e < 64; ++e)
                to[e] = (u16)float_to_half(d[half][e]);
            continue;
        }
        f32_alias *even = (f32_alias *)exec_u32(w, i->r[2 * half]),
                  *odd = (f32_alias *)exec_u32(w, i->r[2 * half + 1]);
        LANE_LOOP even[l] = d[half][2 * l], odd[l] = d[half][2 * l + 1];
    }
}

/* ---- control ---- */

static void leave_path(exec_warp *w) {
    do {
        if (!w->depth) {
            w->state = WARP_DONE;
            return;
        }
        const exec_path *path = &w->stack[--w->depth];
        w->pc = path->pc;
        w->rejoin = path->rejoin;
        w->active = path->mask & w->live;
    } while (!w->active || w->pc == w->rejoin);
}

static bool push_path(exec_block *b, exec_warp *w, u32 loc, int pc, int rejoin, u32 mask) {
    if (w->depth == MAX_STACK) {
        exec_fail(b, w, loc, -1, CUDA_EMULATOR_CONVERGENCE, "branches nest more than %d deep", MAX_STACK);
        return false;
    }
    w->stack[w->depth++] = (exec_path){pc, rejoin, mask};
    return true;
}

/* `taken` of the active lanes go to the target. */
static bool run_branch(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 taken) {
    const u32 stay = w->active & ~taken;
    const int after = w->pc + 1, rejoin = i->rejoin;
    if (!stay || !taken) {
        w->pc = taken ? i->target : after;
    } else {
        if (rejoin >= 0 && rejoin != w->rejoin && !push_path(b, w, i->loc, rejoin, w->rejoin, w->active))
            return false;
        const bool stay_runs = after != rejoin, taken_runs = i->target != rejoin;
        if (stay_runs && taken_runs && !push_path(b, w, i->loc, after, rejoin, stay))
            return false;
        w->pc = taken_runs ? i->target : after;
        w->active = taken_runs ? taken : stay;
        w->rejoin = rejoin;
        if (!stay_runs && !taken_runs)
            leave_path(w);
    }
    if (w->pc == w->rejoin)
        leave_path(w);
    return true;
}

static bool run_barrier(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    if (lanes != w->live) {
        exec_fail(b, w, i->loc, __builtin_ctz(w->live & ~lanes), CUDA_EMULATOR_BARRIER,
                  "only the lanes %08x of the warp's %08x reach the barrier", lanes, w->live);
        return false;
    }
    w->barrier = exec_u32(w, i->r[0])[__builtin_ctz(lanes)];
    w->barrier_threads = i->reads == 2 ? exec_u32(w, i->r[1])[__builtin_ctz(lanes)] : 0;
    w->barrier_loc = i->loc;
    w->state = WARP_WAITS;
    ++w->pc;
    if (w->pc == w->rejoin)
        leave_path(w);
    return true;
}

static bool defined(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    for (int r = i->writes; r < i->writes + i->reads; ++r) {
        const u32 missing = lanes & ~w->defined[i->r[r]];
        if (missing) {
            exec_fail(b, w, i->loc, __builtin_ctz(missing), CUDA_EMULATOR_REGISTER_UNINITIALISED,
                      "operand %d of an instruction was never written", r - i->writes + 1);
            return false;
        }
    }
    return true;
}

static void note_defined(exec_warp *w, const ptx_instruction *i, u32 lanes) {
    for (int r = 0; r < i->writes; ++r)
        w->defined[i->r[r]] |= lanes;
}

/* The opcodes that are not elementwise. False: the warp stops here. */
static bool run_special(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    switch (i->op) {
    case OP_SETP:
        run_setp(w, i, lanes);
        return true;
    case OP_LOP3: {
        const u32 *x = exec_u32(w, i->r[1]), *y = exec_u32(w, i->r[2]), *z = exec_u32(w, i->r[3]),
                  table = (u32)i->offset;
        u32 made[LANES];
        LANE_LOOP made[l] = logic3(x[l], y[l], z[l], table);
        blend(exec_u32(w, i->r[0]), made, lanes, 0);
        return true;
    }
    case OP_BFI: {
        const u32 *x = exec_u32(w, i->r[1]), *y = exec_u32(w, i->r[2]), *at = exec_u32(w, i->r[3]),
                  *n = exec_u32(w, i->r[4]);
        u32 made[LANES];
        LANE_LOOP made[l] = insert_u32(x[l], y[l], at[l], n[l]);
        blend(exec_u32(w, i->r[0]), made, lanes, 0);
        return true;
    }
    case OP_PACK:
        run_pack(w, i, lanes);
        return true;
    case OP_UNPACK:
        run_unpack(w, i, lanes);
        return true;
    case OP_LD:
        return exec_load(b, w, i, lanes);
    case OP_ST:
        return exec_store(b, w, i, lanes);
    case OP_LDMATRIX:
        return exec_ldmatrix(b, w, i, lanes);
    case OP_CP_ASYNC:
        return exec_copy_issue(b, w, i, lanes);
    case OP_CP_COMMIT:
        exec_copy_commit(w, lanes);
        return true;
    case OP_CP_WAIT:
        return exec_copy_wait(b, w, lanes, (u32)i->offset, i->mode);
    case OP_ATOM:
        return exec_atomic(b, w, i, lanes);
    case OP_BAR_WARP:
        ++w->sync;
        return converged(b, w, i, lanes, i->r[0], "bar.warp.sync");
    case OP_SHFL:
        return run_shuffle(b, w, i, lanes);
    case OP_VOTE:
        return run_vote(b, w, i, lanes);
    case OP_REDUX:
        return run_redux(b, w, i, lanes);
    case OP_ACTIVEMASK: {
        u32 made[LANES];
        LANE_LOOP made[l] = lanes;
        blend(exec_u32(w, i->r[0]), made, lanes, 0);
        return true;
    }
    case OP_FENCE:
        return true;
    default: /* OP_TRAP */
        exec_fail(b, w, i->loc, __builtin_ctz(lanes), CUDA_EMULATOR_TRAP, "trap");
        return false;
    }
}

#define PLACE(n) ((void *)(registers + (size_t)i->r[n] * LINE))
/* clang-format off */
#define TARGET(D) void *d = full ? PLACE(0) : (void *)scratch
#define COMMIT(D) if (!full) blend(PLACE(0), scratch, lanes, WIDE_##D); break
#define UNARY(name, D, A, expression) case __LINE__: { TARGET(D); const void *a = PLACE(1); \
    LANE_LOOP { const A x = GET_##A(a, l); PUT_##D(d, l, expression); } COMMIT(D); }
#define BINARY(name, D, A, B, expression) case __LINE__: { TARGET(D); const void *a = PLACE(1), *c = PLACE(2); \
    LANE_LOOP { const A x = GET_##A(a, l); const B y = GET_##B(c, l); PUT_##D(d, l, expression); } COMMIT(D); }
#define TERNARY(name, D, A, B, C, expression) case __LINE__: { TARGET(D); const void *a = PLACE(1), *c = PLACE(2), *e = PLACE(3); \
    LANE_LOOP { const A x = GET_##A(a, l); const B y = GET_##B(c, l); const C z = GET_##C(e, l); PUT_##D(d, l, expression); } COMMIT(D); }
#define SELECT(name, D) case __LINE__: { TARGET(D); const void *a = PLACE(1), *c = PLACE(2); const u32 p = *(u32 *)PLACE(3); \
    LANE_LOOP { PUT_##D(d, l, p & lane_bit[l] ? GET_##D(a, l) : GET_##D(c, l)); } COMMIT(D); }
#define PREDICATE(name, expression) case __LINE__: { const u32 x = *(u32 *)PLACE(1), y = i->reads > 1 ? *(u32 *)PLACE(2) : 0; \
    (void)y; set_predicate(w, i->r[0], expression, lanes); break; }
/* clang-format on */

void EXEC(exec_block *b, exec_warp *w) {
    const ptx_instruction *code = b->launch->kernel->code;
    unsigned char *registers = w->registers;
    u64 scratch[LANES] = {0};
    u64 left = b->launch->instruction_limit - w->instructions;
    const u64 began = left;
    while (w->state == WARP_RUNS) {
        const ptx_instruction *i = &code[w->pc];
        u32 lanes = w->active;
        if (left-- == 0) {
            exec_fail(b, w, i->loc, -1, CUDA_EMULATOR_RUNAWAY, "more than %llu instructions",
                      (unsigned long long)w->instructions);
            return;
        }
        if (i->guard != NO_REGISTER) {
            const u32 p = *exec_u32(w, i->guard);
            if (i->flags & CHECK_READS && lanes & ~w->defined[i->guard]) {
                exec_fail(b, w, i->loc, __builtin_ctz(lanes & ~w->defined[i->guard]),
                          CUDA_EMULATOR_REGISTER_UNINITIALISED,
                          "the guard of an instruction was never written");
                return;
            }
            lanes &= i->flags & GUARD_NOT ? ~p : p;
        }
        if (i->op == OP_BRA) {
            if (!run_branch(b, w, i, lanes))
                return;
            continue;
        }
        if (lanes) {
            const bool full = lanes == ~0u;
            if (i->flags & CHECK_READS && !defined(b, w, i, lanes))
                return;
            switch (i->op) {
#include "tests/cuda_emulator/ops.h"
            case OP_MMA:
                if (!full) {
                    exec_fail(b, w, i->loc, -1, CUDA_EMULATOR_CONVERGENCE,
                              "mma.sync with the lanes %08x only", lanes);
                    return;
                }
                run_mma(w, i);
                ++b->counters.mma;
                break;
            case OP_EXIT:
                w->live &= ~lanes;
                w->active &= ~lanes;
                if (!w->active) {
                    leave_path(w);
                    continue;
                }
                break;
            case OP_BAR:
                if (!run_barrier(b, w, i, lanes))
                    return;
                continue;
            default:
                if (!run_special(b, w, i, lanes))
                    return;
            }
            if (i->flags & TRACK_WRITES)
                note_defined(w, i, lanes);
        }
        if (++w->pc == w->rejoin)
            leave_path(w);
    }
    w->instructions += began - left;
    b->counters.instructions += began - left;
}
