/* kernels/cpu/norm_avx512.c: group norm and layer norm in AVX-512. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx512.h"

#include "kernels/cpu/norm_tile.h"

const attune_norm_f32_kernel attune_norm_f32_avx512 = NORMS("avx512");
#endif
