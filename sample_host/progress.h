/* progress.h: a bar on a terminal, nothing in a pipe. */
#ifndef ATTUNE_PROGRESS_H
#define ATTUNE_PROGRESS_H

#include <stdint.h>

typedef struct progress_bar {
    const char *label;
    uint64_t total;
    double started; /* seconds, monotonic */
    int shown;      /* standard error is a terminal and -q was not given */
} progress_bar;

void progress_begin(progress_bar *bar, const char *label, uint64_t total, int quiet);
/* Draw with `done` of the total; `part` names what is being done. */
void progress_show(const progress_bar *bar, uint64_t done, const char *part);
/* Leave the line clean. */
void progress_end(const progress_bar *bar);

/* Seconds from an arbitrary start, monotonic. */
double progress_now(void);

#endif
