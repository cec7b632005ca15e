/* session_job.h: one picture request of `sample_host session`, drawn in a thread of its own. */
#ifndef ATTUNE_SESSION_JOB_H
#define ATTUNE_SESSION_JOB_H

#include "app.h"
#include "model_hash.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SESSION_AT_ONCE = 4, SESSION_MOST_JOBS = 256 };

struct session_job;

/* What all requests share. `lock` guards what stands below it; `out` the lines of standard output. */
typedef struct session_shared {
    struct app *app;
    attune_model *model;
    const char *model_path;
    attune_sampler_info sampler_info;
    attune_plugin_status sampler_plugin;
    pthread_mutex_t out;
    pthread_mutex_t files; /* one picture is written at a time */
    model_hash hash;       /* under files */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t tickets, turn; /* requests begin in the order in which they came */
    unsigned running, count;
    struct session_job *jobs;
} session_shared;

/* [any] One object as one line; takes it over. */
void session_say(session_shared *shared, json_t *object);
/* [any] {"code", "message", "hint"} (new reference). */
json_t *session_error(const attune_error *error);

/* Read a request (its "id" is `id`, borrowed) and start it. Errors are of the request: INVALID_ARGUMENT with
 * the key; RESOURCE_EXHAUSTED too many. From the reading thread only. */
attune_code session_job_start(session_shared *shared, const json_t *request, json_t *id, attune_error *error);
/* Ask a request to stop; NOT_FOUND where none of that id is unfinished. */
attune_code session_job_cancel(session_shared *shared, const json_t *id, attune_error *error);
/* Free finished requests; with `all` wait for the others first. From the reading thread only. */
void session_jobs_collect(session_shared *shared, int all);

#endif
