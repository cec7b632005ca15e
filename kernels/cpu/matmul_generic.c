/* kernels/cpu/matmul_generic.c: products in the compilers' vectors. */
#include "kernels/cpu/vector_generic.h"

#define TILE_ROWS 6

#include "kernels/cpu/matmul_tile.h"

const attune_matmul_f32_kernel attune_matmul_f32_generic = MATMUL("generic");
