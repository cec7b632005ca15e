/* kernels/reference/convolution.c: rule 41 of docs/arithmetic.md in plain C: loops to be checked by reading.
 */
#include "kernels/convolution.h"

#include "kernels/reference/products.h"

#include <math.h>
#include <stddef.h>

/* Which row x begins with. */
static int64_t first_input_row(const attune_convolution_f32 *a) {
    return a->rows && a->first_row > 0 ? a->first_row * a->stride - 1 : 0;
}

/* One output: image b, row y, column x, channel o. */
static float output_at(const attune_convolution_f32 *a, int64_t b, int64_t y, int64_t x, int64_t o) {
    float sum = a->start ? a->start[b * a->stride_start + o] : 0.0f;
    for (int64_t ky = 0; ky < 3; ++ky)
        for (int64_t kx = 0; kx < 3; ++kx) {
            const int64_t row = y * a->stride + ky - 1, column = x * a->stride + kx - 1;
            if (row < 0 || row >= a->height || column < 0 || column >= a->width)
                continue;
            const float *const pixel =
                a->x + ((b * a->height + row - first_input_row(a)) * a->width + column) * a->in;
            for (int64_t c = 0; c < a->in; ++c) {
                const int64_t at = ((o * a->in + c) * 3 + ky) * 3 + kx;
                sum = fmaf(pixel[c], weight_at(a->weights, a->storage, at), sum);
            }
        }
    return sum;
}

/* Not inlined: see attune_fp_enter. */
__attribute__((noinline)) static void convolve_row(const attune_convolution_f32 *a, int64_t b, int64_t y) {
    const int64_t height = (a->height + a->stride - 1) / a->stride;
    const int64_t width = (a->width + a->stride - 1) / a->stride;
    for (int64_t x = 0; x < width; ++x)
        for (int64_t o = 0; o < a->out; ++o) {
            const int64_t at = ((b * height + y - a->first_row) * width + x) * a->out + o;
            a->result[at] = product_end(output_at(a, b, y, x, o), a->residual ? a->residual + at : NULL);
        }
}

void attune_convolution_f32_reference(const attune_convolution_f32 *args) {
    const uint64_t environment = attune_fp_enter();
    const int64_t rows = args->rows ? args->rows : (args->height + args->stride - 1) / args->stride;
    for (int64_t b = 0; b < args->batch; ++b)
        for (int64_t y = args->first_row; y < args->first_row + rows; ++y)
            convolve_row(args, b, y);
    attune_fp_leave(environment);
}
