/* kernels/cpu/norm_neon.c: group norm and layer norm in AArch64's Advanced SIMD. */
#ifdef __aarch64__
#include "kernels/cpu/vector_neon.h"

#include "kernels/cpu/norm_tile.h"

const attune_norm_f32_kernel attune_norm_f32_neon = NORMS("neon");
#endif
