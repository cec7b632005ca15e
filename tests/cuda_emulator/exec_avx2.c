/* exec_avx2.c: the interpreter for avx2, chosen where the CPU has it. */
#define EXEC exec_run_avx2
#include "tests/cuda_emulator/exec_tmpl.h"
