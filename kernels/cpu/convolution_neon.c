/* kernels/cpu/convolution_neon.c: 3x3 convolutions in AArch64's Advanced SIMD. */
#ifdef __aarch64__
#include "kernels/cpu/vector_neon.h"

#define TILE_ROWS 14

#include "kernels/cpu/convolution_tile.h"

const attune_convolution_f32_kernel attune_convolution_f32_neon = CONVOLUTION("neon");
#endif
