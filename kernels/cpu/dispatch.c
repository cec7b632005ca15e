/* kernels/cpu/dispatch.c: looks at the processor and fills the kernel table, weakest set first. */
#include "kernels/cpu/dispatch.h"

#include <stddef.h>
#include <string.h>

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

int attune_cpu_cap(const char *mask, attune_cpu_isa *isa) {
    static const char *const names[] = {"generic", "avx2", "avx512"};
    if (!mask || !*mask)
        return 1;
    for (int i = 0; i <= ATTUNE_CPU_AVX512; ++i)
        if (strcmp(mask, names[i]) == 0) {
            if (*isa > (attune_cpu_isa)i)
                *isa = (attune_cpu_isa)i;
            return 1;
        }
    return 0;
}

void attune_cpu_dispatch(attune_cpu_isa isa, attune_cpu_kernels *kernels) {
    memset(kernels, 0, sizeof *kernels);
    kernels->isa = isa;
    kernels->attention_f32 = &attune_attention_f32_generic;
    kernels->activation_f32 = &attune_activation_f32_generic;
    kernels->norm_f32 = &attune_norm_f32_generic;
    if (isa >= ATTUNE_CPU_AVX2) {
        kernels->attention_f32 = &attune_attention_f32_avx2;
        kernels->activation_f32 = &attune_activation_f32_avx2;
        kernels->norm_f32 = &attune_norm_f32_avx2;
    }
    if (isa >= ATTUNE_CPU_AVX512) {
        kernels->attention_f32 = &attune_attention_f32_avx512;
        kernels->activation_f32 = &attune_activation_f32_avx512;
        kernels->norm_f32 = &attune_norm_f32_avx512;
    }
}
