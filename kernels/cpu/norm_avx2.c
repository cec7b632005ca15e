/* kernels/cpu/norm_avx2.c: group norm and layer norm in AVX2 and FMA. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx2.h"

#include "kernels/cpu/norm_tile.h"

const attune_norm_f32_kernel attune_norm_f32_avx2 = NORMS("avx2");
#endif
