/* kernels/cpu/dispatch.c: looks at the processor and fills the kernel table. Tables are by attune_cpu_isa. */
#include "kernels/cpu/dispatch.h"

#include <stddef.h>
#include <string.h>

#ifdef __aarch64__
static const attune_attention_f32_kernel *const attention_f32[ATTUNE_CPU_ISAS] = {
    attune_attention_f32_generic, attune_attention_f32_neon};
static const attune_activation_f32_kernel *const activation_f32[ATTUNE_CPU_ISAS] = {
    &attune_activation_f32_generic, &attune_activation_f32_neon};
static const attune_norm_f32_kernel *const norm_f32[ATTUNE_CPU_ISAS] = {&attune_norm_f32_generic,
                                                                        &attune_norm_f32_neon};
static const attune_matmul_f32_kernel *const matmul_f32[ATTUNE_CPU_ISAS] = {&attune_matmul_f32_generic,
                                                                            &attune_matmul_f32_neon};
static const attune_convolution_f32_kernel *const convolution_f32[ATTUNE_CPU_ISAS] = {
    &attune_convolution_f32_generic, &attune_convolution_f32_neon};

/* Every AArch64 processor has Advanced SIMD. */
attune_cpu_isa attune_cpu_detect(void) {
    return ATTUNE_CPU_NEON;
}
#else
static const attune_attention_f32_kernel *const attention_f32[ATTUNE_CPU_ISAS] = {
    attune_attention_f32_generic, attune_attention_f32_avx2, attune_attention_f32_avx512};
static const attune_activation_f32_kernel *const activation_f32[ATTUNE_CPU_ISAS] = {
    &attune_activation_f32_generic, &attune_activation_f32_avx2, &attune_activation_f32_avx512};
static const attune_norm_f32_kernel *const norm_f32[ATTUNE_CPU_ISAS] = {
    &attune_norm_f32_generic, &attune_norm_f32_avx2, &attune_norm_f32_avx512};
static const attune_matmul_f32_kernel *const matmul_f32[ATTUNE_CPU_ISAS] = {
    &attune_matmul_f32_generic, &attune_matmul_f32_avx2, &attune_matmul_f32_avx512};
static const attune_convolution_f32_kernel *const convolution_f32[ATTUNE_CPU_ISAS] = {
    &attune_convolution_f32_generic, &attune_convolution_f32_avx2, &attune_convolution_f32_avx512};

/* The compiler's runtime asks cpuid, and xgetbv for the registers that the system saves. */
attune_cpu_isa attune_cpu_detect(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return ATTUNE_CPU_GENERIC;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return ATTUNE_CPU_AVX2;
    return ATTUNE_CPU_AVX512;
}
#endif

int attune_cpu_cap(const char *mask, attune_cpu_isa *isa) {
    if (!mask || !*mask)
        return 1;
    for (int i = 0; i < ATTUNE_CPU_ISAS; ++i)
        if (strcmp(mask, attention_f32[i]->isa) == 0) {
            if (*isa > (attune_cpu_isa)i)
                *isa = (attune_cpu_isa)i;
            return 1;
        }
    return 0;
}

void attune_cpu_dispatch(attune_cpu_isa isa, attune_cpu_kernels *kernels) {
    memset(kernels, 0, sizeof *kernels);
    kernels->isa = isa;
    kernels->attention_f32 = attention_f32[isa];
    kernels->activation_f32 = activation_f32[isa];
    kernels->norm_f32 = norm_f32[isa];
    kernels->matmul_f32 = matmul_f32[isa];
    kernels->convolution_f32 = convolution_f32[isa];
}
