/* kernels/cpu/convolution_avx512.c: 3x3 convolutions in AVX-512. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx512.h"

#define TILE_ROWS 14

#include "kernels/cpu/convolution_tile.h"

const attune_convolution_f32_kernel attune_convolution_f32_avx512 = CONVOLUTION("avx512");
#endif
