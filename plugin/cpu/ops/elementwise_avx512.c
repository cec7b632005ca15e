/* elementwise_avx512.c: the loops of elementwise.h for machines with AVX512. */
#define ELEMENTWISE_TABLE elementwise_avx512
#define ELEMENTWISE_ISA   "avx512"
#include "plugin/cpu/ops/elementwise_tmpl.h"
