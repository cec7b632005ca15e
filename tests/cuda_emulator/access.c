/* access.c: loads, stores and ldmatrix of a warp (PTX ISA 9.0, 9.7.9.8, 9.7.9.11 and 9.7.14.5.15), with their
 * checks. */
#include "tests/cuda_emulator/exec.h"

#include <string.h>

static const unsigned char type_sizes[] = {1, 2, 4, 8, 16, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 4, 4, 8, 0, 0};

u64 exec_address(const exec_warp *w, const ptx_instruction *i, u32 place, int lane, s64 offset, bool wide) {
    if (wide)
        return exec_u64(w, place)[lane] + (u64)offset;
    const u64 base = exec_u32(w, place)[lane];
    return i->space == SPACE_GLOBAL || i->space == SPACE_GENERIC ? base + (u64)offset
                                                                 : (u32)(base + (u64)offset);
}

static unsigned char *resolve_global(exec_block *b, exec_warp *w, u32 loc, int lane, u64 a, u32 size) {
    const device_range *r = b->recent;
    if (!r || a - r->address >= r->size) {
        r = memory_find(a);
        b->recent = r;
    }
    const bool here = r && (r->device < 0 || r->device == b->launch->device);
    if (here && r->size - (a - r->address) >= size)
        return r->bytes + (a - r->address);
    const device_range *near = memory_nearest(a);
    if (r && !here)
        exec_fail(b, w, loc, lane, CUDA_EMULATOR_GLOBAL_BOUNDS,
                  "%u bytes at %#llx, which is memory of device %d", size, (unsigned long long)a, r->device);
    else if (near)
        exec_fail(b, w, loc, lane, CUDA_EMULATOR_GLOBAL_BOUNDS,
                  "%u bytes at %#llx, %lld bytes from the begin of an allocation of %llu", size,
                  (unsigned long long)a, (long long)(a - near->address), (unsigned long long)near->size);
    else
        exec_fail(b, w, loc, lane, CUDA_EMULATOR_GLOBAL_BOUNDS, "%u bytes at %#llx, and nothing is allocated",
                  size, (unsigned long long)a);
    return NULL;
}

unsigned char *exec_resolve(exec_block *b, exec_warp *w, const ptx_instruction *i, int lane, u64 a, u32 size,
                            int *space) {
    const exec_launch *l = b->launch;
    int where = i->space;
    if (where == SPACE_GENERIC) {
        where = SPACE_GLOBAL;
        if (a >= LOCAL_WINDOW)
            where = SPACE_LOCAL, a -= LOCAL_WINDOW;
        else if (a >= SHARED_WINDOW)
            where = SPACE_SHARED, a -= SHARED_WINDOW;
    }
    *space = where;
    if (a % size) {
        exec_fail(b, w, i->loc, lane, CUDA_EMULATOR_MISALIGNED, "an access of %u bytes at %#llx", size,
                  (unsigned long long)a);
        return NULL;
    }
    if (where == SPACE_GLOBAL)
        return resolve_global(b, w, i->loc, lane, a, size);
    const u64 limit = where == SPACE_SHARED  ? l->shared_bytes
                      : where == SPACE_LOCAL ? l->kernel->local_bytes
                                             : l->kernel->parameter_bytes;
    if (a > limit || size > limit - a) {
        exec_fail(b, w, i->loc, lane,
                  where == SPACE_SHARED ? CUDA_EMULATOR_SHARED_BOUNDS : CUDA_EMULATOR_LOCAL_BOUNDS,
                  "%u bytes at %llu of %llu bytes of %s", size, (unsigned long long)a,
                  (unsigned long long)limit,
                  where == SPACE_SHARED  ? "shared memory"
                  : where == SPACE_LOCAL ? "local memory"
                                         : "parameters");
        return NULL;
    }
    return where == SPACE_SHARED  ? b->shared + a
           : where == SPACE_LOCAL ? w->local + ((size_t)lane * 2) * l->kernel->local_bytes + a
                                  : l->parameters + a;
}

static bool local_written(const exec_block *b, const unsigned char *bytes, u32 size) {
    for (u32 k = 0; k < size; ++k)
        if (!bytes[b->launch->kernel->local_bytes + k])
            return false;
    return true;
}

static u64 element(const unsigned char *bytes, u32 size, bool is_signed) {
    u64 value = 0;
    memcpy(&value, bytes, size);
    if (is_signed && size < 8 && value >> (8 * size - 1))
        value |= ~0ull << (8 * size);
    return value;
}

bool exec_load(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    const u32 size = type_sizes[i->type], total = size * i->count;
    const bool is_signed = i->type >= TYPE_S8 && i->type <= TYPE_S64, wide = i->mode2 & MEMORY_WIDE_DATA;
    u64 addresses[LANES];
    int space = i->space;
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        const u64 a = exec_address(w, i, i->r[i->writes], lane, i->offset, i->mode2 & MEMORY_WIDE_BASE);
        const unsigned char *bytes = exec_resolve(b, w, i, lane, a, total, &space);
        if (!bytes)
            return false;
        addresses[lane] = a;
        if (b->launch->checks) {
            if (space == SPACE_SHARED && !shadow_read(b, w, i->loc, lane, (u32)a, total))
                return false;
            if (space == SPACE_LOCAL && !local_written(b, bytes, total)) {
                exec_fail(b, w, i->loc, lane, CUDA_EMULATOR_LOCAL_UNINITIALISED,
                          "local byte %u was never written", (u32)a);
                return false;
            }
        }
        for (u32 k = 0; k < i->count; ++k) {
            const u64 value = element(bytes + k * size, size, is_signed);
            if (wide)
                exec_u64(w, i->r[k])[lane] = value;
            else
                exec_u32(w, i->r[k])[lane] = (u32)value;
        }
    }
    if (space == SPACE_SHARED)
        count_shared(b, addresses, lanes, total);
    else if (space == SPACE_GLOBAL)
        count_global(b, addresses, lanes, total);
    return true;
}

bool exec_store(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    const u32 size = type_sizes[i->type], total = size * i->count;
    const bool wide = i->mode2 & MEMORY_WIDE_DATA;
    u64 addresses[LANES];
    int space = i->space;
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        const u64 a = exec_address(w, i, i->r[0], lane, i->offset, i->mode2 & MEMORY_WIDE_BASE);
        unsigned char *bytes = exec_resolve(b, w, i, lane, a, total, &space);
        if (!bytes)
            return false;
        addresses[lane] = a;
        unsigned char values[64];
        for (u32 k = 0; k < i->count; ++k) {
            const u64 value = wide ? exec_u64(w, i->r[1 + k])[lane] : exec_u32(w, i->r[1 + k])[lane];
            memcpy(values + k * size, &value, size);
        }
        /* threads that store one value to one place do no harm */
        const enum shadow_kind kind =
            space == SPACE_SHARED && memcmp(bytes, values, total) == 0 ? SHADOW_SAME : SHADOW_WRITE;
        if (space == SPACE_SHARED && b->launch->checks &&
            !shadow_write(b, w, i->loc, lane, (u32)a, total, kind))
            return false;
        memcpy(bytes, values, total);
        if (space == SPACE_LOCAL)
            memset(bytes + b->launch->kernel->local_bytes, 1, total);
    }
    if (space == SPACE_SHARED)
        count_shared(b, addresses, lanes, total);
    else if (space == SPACE_GLOBAL)
        count_global(b, addresses, lanes, total);
    return true;
}

/* Lane 8 m + r gives the address of row r of matrix m; lane l gets of each matrix elements 2 (l % 4) and the
 * next of row l / 4, or of column l / 4 where it is transposed. A register of all lanes is thus the matrix
 * itself, row by row. */
bool exec_ldmatrix(exec_block *b, exec_warp *w, const ptx_instruction *i, u32 lanes) {
    if (lanes != ~0u) {
        exec_fail(b, w, i->loc, -1, CUDA_EMULATOR_CONVERGENCE, "ldmatrix with the lanes %08x only", lanes);
        return false;
    }
    u64 addresses[LANES];
    u16 matrices[4][64];
    if (b->launch->kernel->module->target <= 75) /* there every lane's address must be valid */
        for (int lane = (int)i->count * 8; lane < LANES; ++lane) {
            int space = SPACE_SHARED;
            const u64 a = exec_address(w, i, i->r[i->writes], lane, i->offset, i->mode2 & MEMORY_WIDE_BASE);
            if (!exec_resolve(b, w, i, lane, a, 16, &space))
                return false;
        }
    for (u32 m = 0; m < i->count; ++m) {
        for (int row = 0; row < 8; ++row) {
            const int lane = (int)m * 8 + row;
            int space = SPACE_SHARED;
            const u64 a = exec_address(w, i, i->r[i->writes], lane, i->offset, i->mode2 & MEMORY_WIDE_BASE);
            const unsigned char *bytes = exec_resolve(b, w, i, lane, a, 16, &space);
            if (!bytes || (b->launch->checks && !shadow_read(b, w, i->loc, lane, (u32)a, 16)))
                return false;
            addresses[lane] = a;
            if (i->mode)
                for (int column = 0; column < 8; ++column)
                    memcpy(&matrices[m][column * 8 + row], bytes + 2 * column, 2);
            else
                memcpy(&matrices[m][row * 8], bytes, 16);
        }
    }
    for (u32 m = 0; m < i->count; ++m) /* after all reads: a result may be where the addresses were */
        memcpy(exec_u32(w, i->r[m]), matrices[m], LINE);
    count_shared(b, addresses, i->count == 4 ? ~0u : (1u << 8 * i->count) - 1, 16);
    return true;
}
