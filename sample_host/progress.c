/* progress.c: the progress bar on standard error. */
#include "progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double progress_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_begin(progress_bar *bar, const char *label, uint64_t total, int quiet) {
    bar->label = label;
    bar->total = total ? total : 1;
    bar->started = progress_now();
    bar->shown = !quiet && isatty(STDERR_FILENO);
}

void progress_show(const progress_bar *bar, uint64_t done, const char *part) {
    if (!bar->shown)
        return;
    char cells[31];
    unsigned filled = (unsigned)(done * 30 / bar->total);
    for (unsigned i = 0; i < 30; ++i)
        cells[i] = i < filled ? '#' : '.';
    cells[30] = 0;
    double spent = progress_now() - bar->started;
    double left = done ? spent / (double)done * (double)(bar->total - done) : 0;
    fprintf(stderr, "\r\033[K%s [%s] %llu/%llu %s, %.1f s, %.1f s left", bar->label, cells,
            (unsigned long long)done, (unsigned long long)bar->total, part, spent, left);
    fflush(stderr);
}

void progress_end(const progress_bar *bar) {
    if (bar->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}
