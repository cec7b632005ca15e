/* kernels/reference/matmul.c: rule 40 of docs/arithmetic.md in plain C: loops to be checked by reading. */
#include "kernels/matmul.h"

#include "kernels/reference/products.h"

#include <math.h>
#include <stddef.h>

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void multiply_row(const attune_matmul_f32 *a, int64_t row) {
    for (int64_t o = 0; o < a->out; ++o) {
        float sum = a->start ? a->start[o] : 0.0f;
        for (int64_t c = 0; c < a->in; ++c)
            sum = fmaf(a->x[row * a->stride_x + c], weight_at(a->weights, a->storage, o * a->in + c), sum);
        a->result[row * a->stride_result + o] =
            product_end(sum, a->residual ? a->residual + row * a->stride_residual + o : NULL);
    }
}

void attune_matmul_f32_reference(const attune_matmul_f32 *args) {
    const uint64_t environment = attune_fp_enter();
    for (int64_t row = 0; row < args->rows; ++row)
        multiply_row(args, row);
    attune_fp_leave(environment);
}
