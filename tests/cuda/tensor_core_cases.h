/* tests/cuda/tensor_core_cases.h: random problems for one kernel of flash.cu or efficient.cu, and what their
 * results are compared with. */
#ifndef TESTS_CUDA_TENSOR_CORE_CASES_H
#define TESTS_CUDA_TENSOR_CORE_CASES_H

#include "tests/cuda/kernel_call.h"
#include "tests/kernels/cases.h"

/* Kernels by what they take. */
typedef struct tensor_core_kernel {
    const char *name;   /* as the planner says it */
    int64_t size;       /* both head sizes; 0: any */
    int storage, plain; /* plain: aligned, neither mask nor causality */
} tensor_core_kernel;

/* Problem i for this kernel; small, so that an emulated device computes it in milliseconds. `sow` != 0: with
 * special values of these kinds. */
attention_case tensor_core_problem(const tensor_core_kernel *kernel, uint64_t i, unsigned sow);

/* "" where every output is near attention in double (`sown`: near the reference), NaN and infinite where the
 * reference is, and nothing but outputs was written; else what is wrong. The tolerance stands in the .c with
 * its reason. */
const char *tensor_core_verdict(attention_arrays *a, int sown);

#endif
