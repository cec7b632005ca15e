/* kernels/reference/matmul.c: rule 40 of docs/arithmetic.md in plain C: loops to be checked by reading. */
#include "kernels/matmul.h"
#include "kernels/activation.h"

#include "kernels/reference/products.h"

#include <math.h>
#include <stddef.h>

static float chain(const attune_matmul_f32 *a, int64_t row, int64_t o) {
    float sum = a->start ? a->start[o] : 0.0f;
    for (int64_t c = 0; c < a->in; ++c)
        sum = fmaf(a->x[row * a->stride_x + c], weight_at(a->weights, a->storage, o * a->in + c), sum);
    return sum;
}

static float activated(const attune_matmul_f32 *a, float x) {
    return a->activation == ATTUNE_PRODUCT_SILU         ? attune_silu_f32_reference(x)
           : a->activation == ATTUNE_PRODUCT_GELU       ? attune_gelu_f32_reference(x)
           : a->activation == ATTUNE_PRODUCT_QUICK_GELU ? attune_quick_gelu_f32_reference(x)
                                                        : x;
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void multiply_row(const attune_matmul_f32 *a, int64_t row) {
    const int geglu = a->activation == ATTUNE_PRODUCT_GEGLU;
    for (int64_t o = 0; o < (geglu ? a->out / 2 : a->out); ++o) {
        float value = activated(a, chain(a, row, o));
        if (geglu)
            value = value * attune_gelu_f32_reference(chain(a, row, a->out / 2 + o));
        a->result[row * a->stride_result + o] =
            product_end(value, a->residual ? a->residual + row * a->stride_residual + o : NULL);
    }
}

void attune_matmul_f32_reference(const attune_matmul_f32 *args) {
    const uint64_t environment = attune_fp_enter();
    for (int64_t row = 0; row < args->rows; ++row)
        multiply_row(args, row);
    attune_fp_leave(environment);
}
