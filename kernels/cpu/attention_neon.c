/* kernels/cpu/attention_neon.c: the attention kernels in AArch64's Advanced SIMD: 4 queries per vector, 32
 * registers. */
#ifdef __aarch64__
#include "kernels/cpu/vector_neon.h"

#define TILE_VECTORS  4
#define GROUP_1       8
#define GROUP_2       8
#define GROUP_3       8
#define GROUP_4       6
#define CHANNEL_PIECE 160
#define ROW_GROUP     8
#define EXP2_CHAINS   8
#define AHEAD_WITHIN  0
#define FEW_KEYS      0

#include "kernels/cpu/attention_tile.h"

ATTENTION_KERNELS(neon);
#endif
