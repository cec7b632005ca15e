/* kernels/cpu/attention_avx512.c: the attention kernels in AVX-512 (F, BW, DQ, VL): 16 queries per vector, 32
 * registers. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx512.h"

#define TILE_VECTORS  4
#define GROUP_1       8
#define GROUP_2       8
#define GROUP_3       8
#define GROUP_4       6
#define CHANNEL_PIECE 96
#define ROW_GROUP     8
#define EXP2_CHAINS   8
#define AHEAD_WITHIN  1
#define FEW_KEYS      16

#include "kernels/cpu/attention_tile.h"

ATTENTION_KERNELS(avx512);
#endif
