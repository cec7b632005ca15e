/* elementwise_avx2.c: the loops of elementwise.h for machines with AVX2. */
#define ELEMENTWISE_TABLE elementwise_avx2
#define ELEMENTWISE_ISA   "avx2"
#include "plugin/cpu/ops/elementwise_tmpl.h"
