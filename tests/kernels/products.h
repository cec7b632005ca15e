/* tests/kernels/products.h: random products and convolutions, and the one place where their kernels' bits are
 * compared with the reference's. */
#ifndef ATTUNE_TEST_KERNELS_PRODUCTS_H
#define ATTUNE_TEST_KERNELS_PRODUCTS_H

#include <stdint.h>

enum { RESIDUAL_NONE, RESIDUAL_APART, RESIDUAL_IN_PLACE };
enum { VALUES_USUAL, VALUES_SPECIAL, VALUES_TINY, VALUES_HUGE, VALUES };

/* A product of `rows` rows where `height` is 0, else a convolution of `rows` images. */
typedef struct product_case {
    int64_t rows, in, out;
    int64_t height, width;
    int stride;
    int storage;
    int start; /* 0: none; 1: one; 2: one for each image */
    int residual;
    int values;
    int activation; /* of a product; its residual is then RESIDUAL_NONE, and of GEGLU `out` is even */
    int64_t first_row, strip; /* of a convolution of one image: the strip's rows; 0: the whole */
    int gap;                  /* between rows of a product's x and result */
    int shift; /* every array but the packed weights starts this many floats after an aligned address */
    uint64_t seed;
} product_case;

product_case random_product(uint64_t index);
/* By every kernel that this processor has, the last task first, in each floating-point environment in turn:
 * the reference's bits, nothing else written. */
void compare_product(const product_case *c);

#endif
