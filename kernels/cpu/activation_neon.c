/* kernels/cpu/activation_neon.c: the loops of kernels/activation.h in AArch64's Advanced SIMD. */
#ifdef __aarch64__
#include "kernels/cpu/vector_neon.h"

#include "kernels/cpu/activation_tile.h"

const attune_activation_f32_kernel attune_activation_f32_neon = ACTIVATIONS("neon");
#endif
