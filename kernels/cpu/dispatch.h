/*
 * kernels/cpu/dispatch.h: which kernels this processor runs. No arithmetic here.
 */
#ifndef ATTUNE_KERNELS_CPU_DISPATCH_H
#define ATTUNE_KERNELS_CPU_DISPATCH_H

#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/convolution.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"

/* Weakest first: each includes what the ones before it need. */
typedef enum attune_cpu_isa {
    ATTUNE_CPU_GENERIC = 0,
#ifdef __aarch64__
    ATTUNE_CPU_NEON = 1,
#else
    ATTUNE_CPU_AVX2 = 1,
    ATTUNE_CPU_AVX512 = 2,
#endif
    ATTUNE_CPU_ISAS /* how many this architecture has */
} attune_cpu_isa;

#ifdef __aarch64__
#define ATTUNE_CPU_ISA_NAMES "generic, neon"
#else
#define ATTUNE_CPU_ISA_NAMES "generic, avx2, avx512"
#endif

typedef struct attune_cpu_kernels {
    attune_cpu_isa isa;
    const attune_attention_f32_kernel *attention_f32; /* a table by ATTUNE_ATTENTION_… */
    const attune_activation_f32_kernel *activation_f32;
    const attune_norm_f32_kernel *norm_f32;
    const attune_matmul_f32_kernel *matmul_f32;
    const attune_convolution_f32_kernel *convolution_f32;
} attune_cpu_kernels;

/* [any] The strongest set that the processor and the system (saved registers) support. */
attune_cpu_isa attune_cpu_detect(void);
/* [any] Caps *isa by a name of ATTUNE_CPU_ISA_NAMES; NULL or "" caps nothing. 0 for an unknown name, *isa is
 * then as before. */
int attune_cpu_cap(const char *mask, attune_cpu_isa *isa);
/* [any] Fills the table for `isa`, which the processor must support: the weakest first, stronger ones
 * overwrite. */
void attune_cpu_dispatch(attune_cpu_isa isa, attune_cpu_kernels *kernels);

#endif
