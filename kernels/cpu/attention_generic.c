/* kernels/cpu/attention_generic.c: the attention kernels in the compilers' vectors: 4 queries per vector, for
 * any processor. */
#include "kernels/cpu/vector_generic.h"

#define TILE_VECTORS  3
#define GROUP_1       4
#define GROUP_2       4
#define GROUP_3       4
#define CHANNEL_PIECE 160
#define ROW_GROUP     4
#define EXP2_CHAINS   3
#define AHEAD_WITHIN  0
#define FEW_KEYS      0

#include "kernels/cpu/attention_tile.h"

ATTENTION_KERNELS(generic);
