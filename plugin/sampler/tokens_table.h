/*
 * tokens_table.h: what a tokenizer holds once it is open; private to tokens*.c.
 */
#ifndef ATTUNE_SAMPLER_TOKENS_TABLE_H
#define ATTUNE_SAMPLER_TOKENS_TABLE_H

#include "plugin/sampler/tokens.h"

#define TOKENS_START "<|startoftext|>"
#define TOKENS_END   "<|endoftext|>"

/* Two neighbouring symbols that become one. Lower ranks first. */
typedef struct token_merge {
    int32_t left; /* −1: an empty slot */
    int32_t right;
    uint32_t rank;
    int32_t result;
} token_merge;

struct tokenizer {
    const attune_memory_service *memory;
    token_merge *merges; /* open addressing, linear probing; mask + 1 slots, at most half of them taken */
    uint32_t mask;
    uint32_t size; /* ids are 0 … size − 1 */
    int32_t start;
    int32_t end; /* also stands for a byte that the vocabulary lacks, as unk_token does */
    int32_t pad;
    int32_t inner[256]; /* the symbol of a byte inside a word … */
    int32_t last[256];  /* … and at its end (with </w>) */
};

/* The slot of a pair: its own or the empty one where it belongs. */
static inline token_merge *token_merge_slot(const tokenizer *tokens, int32_t left, int32_t right) {
    uint64_t key =
        ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    uint32_t slot = (uint32_t)(key >> 32) & tokens->mask;
    while (tokens->merges[slot].left >= 0 &&
           (tokens->merges[slot].left != left || tokens->merges[slot].right != right))
        slot = (slot + 1) & tokens->mask;
    return &tokens->merges[slot];
}

#endif
