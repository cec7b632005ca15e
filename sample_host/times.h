/* times.h: what the benchmarks say of the times of several runs. */
#ifndef ATTUNE_TIMES_H
#define ATTUNE_TIMES_H

#include <jansson.h>

typedef struct times_summary {
    double min, median, max;
} times_summary;

/* Of `count` ≥ 1 times, which are sorted. */
times_summary times_of(double *times, int count);

/* {"min", "median", "max"} (new reference). */
json_t *times_json(times_summary times);

#endif
