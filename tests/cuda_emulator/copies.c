/*
 * copies.c: cp.async (PTX ISA 9.0, 9.7.9.25). The bytes arrive at the latest moment that the rules allow, at
 * the wait of the thread that asked; until then the target is poisoned for everybody, so a missing or wrong
 * wait is seen every time.
 */
#include "tests/cuda_emulator/exec.h"

#include <stdlib.h>

bool exec_copy_issue(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    ptx_instruction from_global = *i;
    from_global.space = SPACE_GLOBAL;
    u64 to_addresses[LANES], from_addresses[LANES];
    u32 reading = 0;
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        int space = SPACE_SHARED;
        ptx_instruction to_shared = *i;
        to_shared.space = SPACE_SHARED;
        const u64 to = exec_address(w, &to_shared, i->r[0], lane, i->offset, i->mode2 & MEMORY_WIDE_BASE);
        const u64 from = exec_u64(w, i->r[1])[lane] + (u64)(s64)i->target;
        const u32 asked = exec_u32(w, i->r[2])[lane], bytes = asked < i->count ? asked : i->count;
        if (!exec_resolve(b, w, &to_shared, lane, to, i->count, &space))
            return false;
        if (bytes && !exec_resolve(b, w, &from_global, lane, from, i->count, &space))
            return false;
        if (b->launch->checks) {
            if (!shadow_write(b, w, i->loc, lane, (u32)to, i->count, SHADOW_WRITE))
                return false;
            shadow_poison(b, w, lane, (u32)to, i->count);
        }
        exec_copies *c = &w->copies[lane];
        if (c->count == c->capacity) {
            c->capacity = c->capacity ? c->capacity * 2 : 32;
            c->items = realloc(c->items, c->capacity * sizeof *c->items);
            if (!c->items)
                abort(); /* a few kilobytes: there is nothing sensible left to do */
        }
        c->items[c->count++] = (exec_copy){(u32)to, i->count, bytes, from, 0, i->loc};
        to_addresses[lane] = to;
        from_addresses[lane] = from;
        reading |= bytes ? 1u << lane : 0;
    }
    count_shared(b, to_addresses, lanes, i->count);
    count_global(b, from_addresses, reading, i->count);
    return true;
}

void exec_copy_commit(exec_warp *w, u32 lanes) {
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        exec_copies *c = &w->copies[__builtin_ctz(rest)];
        ++c->groups;
        for (u32 k = c->count; k-- > 0 && c->items[k].group == 0;)
            c->items[k].group = c->groups;
    }
}

static bool land(exec_block *b, exec_warp *w, int lane, const exec_copy *copy) {
    unsigned char *to = b->shared + copy->to;
    memset(to, 0, copy->size);
    if (copy->bytes) {
        ptx_instruction from = {.space = SPACE_GLOBAL, .loc = copy->loc};
        int space;
        const unsigned char *bytes = exec_resolve(b, w, &from, lane, copy->from, copy->size, &space);
        if (!bytes)
            return false;
        memcpy(to, bytes, copy->bytes);
    }
    if (b->launch->checks)
        shadow_land(b, w, lane, copy->to, copy->size);
    return true;
}

bool exec_copy_wait(exec_block *b, exec_warp *w, u32 lanes, u32 pending, bool uncommitted) {
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        exec_copies *c = &w->copies[lane];
        u32 kept = 0;
        for (u32 k = 0; k < c->count; ++k) {
            const exec_copy *copy = &c->items[k];
            if (copy->group ? copy->group + pending <= c->groups : uncommitted) {
                if (!land(b, w, lane, copy))
                    return false;
            } else {
                c->items[kept++] = *copy;
            }
        }
        c->count = kept;
    }
    return true;
}
