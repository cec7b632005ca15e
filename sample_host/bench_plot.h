/* bench_plot.h: seconds and peak memory per backend as bars, in an SVG file. */
#ifndef ATTUNE_BENCH_PLOT_H
#define ATTUNE_BENCH_PLOT_H

#include "attune/abi.h"
#include "times.h"

#include <stdint.h>

typedef struct plot_bar {
    const char *name, *class;
    times_summary seconds;
    uint64_t peak; /* bytes; 0 = not known */
} plot_bar;

/* Write `path` whole or not at all (output.h), after output_check. Errors: as output_commit's. */
attune_code bench_plot_write(const char *path, const char *title, const plot_bar *bars, uint32_t count,
                             attune_error *error);

#endif
