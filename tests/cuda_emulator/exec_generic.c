/* exec_generic.c: the interpreter for any CPU. */
#define EXEC exec_run_generic
#include "tests/cuda_emulator/exec_tmpl.h"
