/* study.h: what `sample_host study determinism` has seen of a backend, and its report. */
#ifndef ATTUNE_STUDY_H
#define ATTUNE_STUDY_H

#include "app.h"
#include "study_difference.h"

/* What is varied; everything else stays. */
enum { STUDY_RUNS, STUDY_THREADS, STUDY_BATCH, STUDY_MEMORY, STUDY_ISA, STUDY_VARIATIONS };

/* How a picture was made. */
typedef struct study_member {
    uint64_t seed;
    uint32_t threads, run; /* run counts from 1 */
    uint32_t batch, place; /* place in the batch, from 0 */
    uint32_t memory;       /* ATTUNE_MEMORY_… */
    const char *isa;       /* the processor's instructions capped at this set; "" = not capped */
} study_member;

/* All comparisons of one kind; the largest counts are over all of them. */
typedef struct study_variation {
    uint32_t comparisons, differ;
    uint64_t pixels;
    uint32_t largest;
    double mean;
    study_member worst;    /* of the pair with the most pixels that differ … */
    difference difference; /* … how much that pair differs … */
    uint8_t *absolute; /* … and where: |a − b|, width × height × 3; NULL where none differs. Owned. */
} study_variation;

typedef struct study_backend {
    char name[32];
    attune_choice choice;     /* of the problem with the most arithmetic; candidates 0: none was made */
    attune_session_plan plan; /* the one that promises least */
    char refused[512];        /* why it cannot serve the request, or "" */
    study_variation variation[STUDY_VARIATIONS];
} study_backend;

/* Print one backend's rows and verdict, append them to the reply's "backends", and write the difference
 * pictures to `folder` (NULL: none) as BACKEND-VARIATION.png. Errors: as png_write's. */
attune_code study_report(struct app *app, study_backend *backend, const char *folder);

/* Fill app->error where the backend broke a promise: INTERNAL. */
attune_code study_judge(struct app *app, const study_backend *backend);

#endif
