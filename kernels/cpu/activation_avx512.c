/* kernels/cpu/activation_avx512.c: the loops of kernels/activation.h in AVX-512. */
#ifdef __x86_64__
#include "kernels/cpu/vector_avx512.h"

#include "kernels/cpu/activation_tile.h"

const attune_activation_f32_kernel attune_activation_f32_avx512 = ACTIVATIONS("avx512");
#endif
