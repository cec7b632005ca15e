/* exec_avx512.c: the interpreter for avx512, chosen where the CPU has it. */
#define EXEC exec_run_avx512
#include "tests/cuda_emulator/exec_tmpl.h"
