/* test_memory.h: a memory service that counts what is live and can run out at a chosen allocation. */
#ifndef ATTUNE_TEST_MEMORY_H
#define ATTUNE_TEST_MEMORY_H

#include "attune/plugin.h"

typedef struct test_memory {
    attune_memory_service service;
    uint64_t calls;   /* of alloc so far */
    uint64_t fail_at; /* the call that gets NULL, from 1; 0 = none */
    uint64_t last;    /* bytes asked for by the latest call */
    int64_t live;     /* allocations not yet freed */
} test_memory;

/* Fill it; one thread at a time may use it. */
void test_memory_init(test_memory *memory, uint64_t fail_at);

#endif
