/* kernels/cpu/convolution_generic.c: 3x3 convolutions in the compilers' vectors. */
#include "kernels/cpu/vector_generic.h"

#define TILE_ROWS 6

#include "kernels/cpu/convolution_tile.h"

const attune_convolution_f32_kernel attune_convolution_f32_generic = CONVOLUTION("generic");
