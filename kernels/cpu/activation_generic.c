/* kernels/cpu/activation_generic.c: the loops of kernels/activation.h for any processor, on the compilers'
 * vectors. */
#include "kernels/cpu/vector_generic.h"

#include "kernels/cpu/activation_tile.h"

const attune_activation_f32_kernel attune_activation_f32_generic = ACTIVATIONS("generic");
