/*
 * rig.h: a small host around the sampler for its tests: counted memory that can run out, threads, and
 * attention by kernels/cpu. The plugin is driven through its own tables; the networks can be driven one by
 * one.
 */
#ifndef ATTUNE_TESTS_SAMPLER_RIG_H
#define ATTUNE_TESTS_SAMPLER_RIG_H

#include "plugin/sampler/session.h"

#include <stdatomic.h>

typedef struct rig {
    attune_memory_service memory;
    attune_log_service log;
    attune_parallel_service parallel;
    attune_clock_service clock;
    services services;
    attune_host host;
    attune_stream stream;
    attune_binder binder;
    /* Bindings are 1 + index into these. */
    attune_attention_problem problem[ATTENTION_MAX_PROBLEMS];
    _Atomic uint32_t problems;
    _Atomic int64_t live;     /* allocations not yet freed */
    _Atomic int64_t bytes;    /* in them */
    _Atomic int64_t peak;     /* the most so far */
    _Atomic uint64_t allocs;  /* so far */
    _Atomic uint64_t attends; /* attention calls so far */
    uint64_t fail_at;         /* the allocation that gets NULL, from 1; 0 = none */
    int32_t determinism;      /* what bindings say they keep */
    uint64_t workspace;       /* what bindings say they need */
    uint64_t nan_at;          /* the attention call whose last value is no number, from 1; 0 = none */
    char logged[512];         /* the last line */
    /* The plugin's instance. */
    const attune_plugin *plugin;
    const attune_sampler_interface *sampler;
    void *instance;
} rig;

/* Set up with `workers` threads and create the plugin's instance. */
void rig_open(rig *r, uint32_t workers);
/* Destroys the instance; the test fails where something was not freed. */
void rig_close(rig *r);

/* "models/emoji" or "tests/golden/data/tiny" of the source tree, by name "emoji" or "tiny". */
const char *rig_model_path(const char *name);
/* An open model; the test fails where it does not open. */
model *rig_model(rig *r, const char *name);

/* A pass over networks of `m`: walk once planning, then rig_pass_run, then walk again; rig_pass_close. */
void rig_pass_plan(rig *r, model *m, pass *p);
void rig_pass_run(rig *r, model *m, pass *p);

/* A copy of a model's folder in a fresh temporary folder, which the test may damage; static text. */
const char *rig_copy_model(const char *name);

/* The largest |a − b|; NaN where one of them is NaN. */
double rig_distance(const float *a, const float *b, size_t n);

#endif
