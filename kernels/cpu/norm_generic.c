/* kernels/cpu/norm_generic.c: group norm and layer norm for any processor, on the compilers' vectors. */
#include "kernels/cpu/vector_generic.h"

#include "kernels/cpu/norm_tile.h"

const attune_norm_f32_kernel attune_norm_f32_generic = NORMS("generic");
