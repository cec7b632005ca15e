/* kernels/cpu/attention_avx2.c: the attention kernels in AVX2 and FMA: 8 queries per vector, 16 registers. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx2.h"

#define TILE_VECTORS  3
#define GROUP_1       8
#define GROUP_2       6
#define GROUP_3       4
#define CHANNEL_PIECE 160
#define ROW_GROUP     4
#define EXP2_CHAINS   6
#define AHEAD_WITHIN  0
#define FEW_KEYS      0

#include "kernels/cpu/attention_tile.h"

ATTENTION_KERNELS(avx2);
#endif
