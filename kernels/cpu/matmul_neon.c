/* kernels/cpu/matmul_neon.c: products in AArch64's Advanced SIMD. */
#ifdef __aarch64__
#include "kernels/cpu/vector_neon.h"

#define TILE_ROWS 14

#include "kernels/cpu/matmul_tile.h"

const attune_matmul_f32_kernel attune_matmul_f32_neon = MATMUL("neon");
#endif
