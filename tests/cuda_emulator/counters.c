/*
 * counters.c: what one request of a warp costs, as NVIDIA's tuning guides describe it: shared memory has 32
 * banks of 4 bytes, and lanes that want different words of one bank take another wave; accesses of 8 (16)
 * bytes go by halves (quarters) of a warp. Device memory moves sectors of 32 bytes.
 */
#include "tests/cuda_emulator/exec.h"

enum { BANKS = 32, SECTOR = 32 };

static u32 waves_of(const u64 *addresses, u32 lanes, u32 words) {
    u64 seen[BANKS][LANES];
    u32 used[BANKS] = {0}, most = 0;
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        const u64 first = addresses[__builtin_ctz(rest)] / 4;
        for (u32 k = 0; k < words; ++k) {
            const u64 word = first + k;
            const u32 bank = (u32)(word % BANKS);
            u32 s = 0;
            while (s < used[bank] && seen[bank][s] != word)
                ++s;
            if (s == used[bank] && s < LANES)
                seen[bank][used[bank]++] = word;
            most = used[bank] > most ? used[bank] : most;
        }
    }
    return most;
}

void count_shared(exec_block *b, const u64 *addresses, u32 lanes, u32 size) {
    if (!b->launch->count || !lanes)
        return;
    const u32 words = size < 4 ? 1 : size / 4, group = words >= LANES ? 1 : LANES / words;
    ++b->counters.shared_requests;
    b->counters.shared_ideal_waves += ((u32)__builtin_popcount(lanes) * size + 4 * BANKS - 1) / (4 * BANKS);
    for (u32 first = 0; first < LANES; first += group) {
        const u32 part = group == LANES ? lanes : lanes & ((1u << group) - 1) << first;
        b->counters.shared_waves += waves_of(addresses, part, words);
    }
}

void count_global(exec_block *b, const u64 *addresses, u32 lanes, u32 size) {
    if (!b->launch->count || !lanes)
        return;
    u64 seen[2 * LANES];
    u32 used = 0;
    for (u32 rest = lanes; rest; rest &= rest - 1) {
        const u64 a = addresses[__builtin_ctz(rest)];
        for (u64 sector = a / SECTOR; sector <= (a + size - 1) / SECTOR; ++sector) {
            u32 s = 0;
            while (s < used && seen[s] != sector)
                ++s;
            if (s == used)
                seen[used++] = sector;
        }
    }
    ++b->counters.global_requests;
    b->counters.global_sectors += used;
    b->counters.global_ideal_sectors += ((u32)__builtin_popcount(lanes) * size + SECTOR - 1) / SECTOR;
}
