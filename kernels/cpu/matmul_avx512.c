/* kernels/cpu/matmul_avx512.c: products in AVX-512. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx512.h"

#define TILE_ROWS 14

#include "kernels/cpu/matmul_tile.h"

const attune_matmul_f32_kernel attune_matmul_f32_avx512 = MATMUL("avx512");
#endif
