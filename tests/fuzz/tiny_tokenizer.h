/*
 * tiny_tokenizer.h: the small vocabulary of tests/golden, opened once.
 */
#ifndef ATTUNE_FUZZ_TINY_TOKENIZER_H
#define ATTUNE_FUZZ_TINY_TOKENIZER_H

#include "plugin/sampler/tokens.h"
#include "tests/fuzz/fuzz.h"

/* `memory` is set up at the first call and must be the same each time. */
static inline tokenizer *fuzz_tiny_tokenizer(fuzz_memory *memory) {
    static tokenizer *tokens;
    const char *root = getenv("ATTUNE_SOURCE");
    char folder[512];
    if (tokens)
        return tokens;
    fuzz_memory_init(memory, 0);
    (void)snprintf(folder, sizeof folder, "%s/tests/golden/data/tiny/tokenizer", root ? root : ".");
    FUZZ_CHECK(tokenizer_open(&memory->service, folder, &tokens, NULL) == ATTUNE_OK);
    return tokens;
}

#endif
