/* kernels/cpu/matmul_avx2.c: products in AVX2 and FMA. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx2.h"

#define TILE_ROWS 6

#include "kernels/cpu/matmul_tile.h"

const attune_matmul_f32_kernel attune_matmul_f32_avx2 = MATMUL("avx2");
#endif
