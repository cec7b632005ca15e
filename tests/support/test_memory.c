/* test_memory.c: a memory service that counts and can fail. */
#include "tests/support/test_memory.h"

#include <stdlib.h>

static void *test_alloc(void *context, uint64_t bytes, const char *tag) {
    test_memory *memory = context;
    (void)tag;
    memory->last = bytes;
    if (++memory->calls == memory->fail_at)
        return NULL;
    void *block = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (block) {
        memset(block, 0xa5, bytes); /* the service does not clear */
        memory->live++;
    }
    return block;
}

static void test_free(void *context, void *block) {
    test_memory *memory = context;
    memory->live -= block != NULL;
    free(block);
}

void test_memory_init(test_memory *memory, uint64_t fail_at) {
    *memory = (test_memory){.fail_at = fail_at};
    memory->service = (attune_memory_service){sizeof memory->service, 0, test_alloc, test_free, memory};
}
