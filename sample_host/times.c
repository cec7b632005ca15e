/* times.c: the least, the median and the most of several times. */
#include "times.h"

#include <stdlib.h>

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

times_summary times_of(double *times, int count) {
    qsort(times, (size_t)count, sizeof *times, compare);
    return (times_summary){times[0], times[count / 2], times[count - 1]};
}

json_t *times_json(times_summary times) {
    return json_pack("{s:f, s:f, s:f}", "min", times.min, "median", times.median, "max", times.max);
}
