/* elementwise_generic.c: the loops of elementwise.h for any machine of the architecture. */
#define ELEMENTWISE_TABLE elementwise_generic
#define ELEMENTWISE_ISA   "generic"
#include "plugin/cpu/ops/elementwise_tmpl.h"
