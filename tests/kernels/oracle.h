/* tests/kernels/oracle.h: attention in double precision, which knows nothing of any arithmetic id. */
#ifndef ATTUNE_TEST_KERNELS_ORACLE_H
#define ATTUNE_TEST_KERNELS_ORACLE_H

#include "kernels/attention.h"

/* softmax(scale q kT + mask) v of one row in double, the maximum subtracted; returns the error that float
 * scores explain: the largest sum of |scale q k| terms of any key. */
double oracle_row(const attune_attention_f32 *a, int64_t b, int64_t h, int64_t i, double *out);

#endif
