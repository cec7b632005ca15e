/* atomics.c: atom and red (PTX ISA 9.0, 9.7.13.5 and 6) on shared and device memory, one lane after another.
 */
#include "tests/cuda_emulator/exec.h"

#include <pthread.h>

/* Blocks run on several threads; one lock for all addresses is simple, and kernels here use few atomics. */
static pthread_mutex_t atomic_lock = PTHREAD_MUTEX_INITIALIZER;

static u64 integer(int operation, bool is_signed, u32 size, u64 old, u64 x, u64 y) {
    const int shift = size == 4 ? 32 : 0;
    const s64 so = (s64)(old << shift) >> shift, sx = (s64)(x << shift) >> shift;
    switch (operation) {
    case ATOMIC_ADD:
        return old + x;
    case ATOMIC_MIN:
        return (is_signed ? so < sx : old < x) ? old : x;
    case ATOMIC_MAX:
        return (is_signed ? so > sx : old > x) ? old : x;
    case ATOMIC_AND:
        return old & x;
    case ATOMIC_OR:
        return old | x;
    case ATOMIC_XOR:
        return old ^ x;
    case ATOMIC_EXCH:
        return x;
    case ATOMIC_CAS:
        return old == x ? y : old;
    case ATOMIC_INC:
        return old >= x ? 0 : old + 1;
    default: /* ATOMIC_DEC */
        return old == 0 || old > x ? x : old - 1;
    }
}

static u64 combine(const ptx_instruction *i, u32 size, u64 old, u64 x, u64 y) {
    const bool adds = i->mode == ATOMIC_ADD;
    if (i->type == TYPE_F32)
        return adds ? bits_of(float_of((u32)old) + float_of((u32)x))
                    : integer(i->mode, false, size, old, x, y);
    if (i->type == TYPE_F64)
        return adds ? bits_of_f64(double_of(old) + double_of(x)) : integer(i->mode, false, size, old, x, y);
    const u32 o = (u32)old, v = (u32)x;
    if (adds && i->type == TYPE_F16)
        return float_to_half(LOW(o) + LOW(v));
    if (adds && i->type == TYPE_F16X2)
        return PAIR_HALF(LOW(o) + LOW(v), HIGH(o) + HIGH(v));
    if (adds && i->type == TYPE_BF16)
        return float_to_bf16(BLOW(o) + BLOW(v));
    if (adds && i->type == TYPE_BF16X2)
        return PAIR(float_to_bf16(BLOW(o) + BLOW(v)), float_to_bf16(BHIGH(o) + BHIGH(v)));
    return integer(i->mode, i->type == TYPE_S32 || i->type == TYPE_S64, size, old, x, y);
}

bool exec_atomic(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    const bool wide =
        i->type == TYPE_U64 || i->type == TYPE_S64 || i->type == TYPE_B64 || i->type == TYPE_F64;
    const bool half =
        i->type == TYPE_F16 || i->type == TYPE_BF16 || i->type == TYPE_B16 || i->type == TYPE_U16;
    const u32 size = wide ? 8 : half ? 2 : 4;
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        int space = i->space;
        const u64 a = exec_address(w, i, i->r[1], lane, i->offset, i->mode2 & MEMORY_WIDE_BASE);
        unsigned char *bytes = exec_resolve(b, w, i, lane, a, size, &space);
        if (!bytes || (space == SPACE_SHARED && b->launch->checks &&
                       !shadow_write(b, w, i->loc, lane, (u32)a, size, SHADOW_ATOMIC)))
            return false;
        u64 old = 0, x, y = 0;
        x = wide ? exec_u64(w, i->r[2])[lane] : exec_u32(w, i->r[2])[lane];
        if (i->reads == 3)
            y = wide ? exec_u64(w, i->r[3])[lane] : exec_u32(w, i->r[3])[lane];
        pthread_mutex_lock(&atomic_lock);
        memcpy(&old, bytes, size);
        const u64 made = combine(i, size, old, x, y);
        memcpy(bytes, &made, size);
        pthread_mutex_unlock(&atomic_lock);
        if (wide)
            exec_u64(w, i->r[0])[lane] = old;
        else
            exec_u32(w, i->r[0])[lane] = (u32)old;
    }
    return true;
}
