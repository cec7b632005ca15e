/* kernels/cpu/activation_avx2.c: the loops of kernels/activation.h in AVX2 and FMA. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx2.h"

#include "kernels/cpu/activation_tile.h"

const attune_activation_f32_kernel attune_activation_f32_avx2 = ACTIVATIONS("avx2");
#endif
