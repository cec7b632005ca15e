/* kernels/cpu/convolution_avx2.c: 3x3 convolutions in AVX2 and FMA. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx2.h"

#define TILE_ROWS 6

#include "kernels/cpu/convolution_tile.h"

const attune_convolution_f32_kernel attune_convolution_f32_avx2 = CONVOLUTION("avx2");
#endif
