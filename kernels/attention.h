/*
 * kernels/attention.h: softmax(scale q kT + mask) v in float32, as one args struct, one function-pointer type
 * and a table of algorithms that dispatch fills. Each algorithm has an arithmetic id, and all of one id give
 * the same bits: those of that id's reference.
 *
 * Work is cut into tasks that never share an output, by the args alone: the thread count is not an input.
 */
#ifndef ATTUNE_KERNELS_ATTENTION_H
#define ATTUNE_KERNELS_ATTENTION_H

#include "kernels/storage.h"

enum { ATTUNE_KERNEL_MASK_NONE = 0, ATTUNE_KERNEL_MASK_BOOL = 1, ATTUNE_KERNEL_MASK_FLOAT = 2 };

/* Axes of strides: batch, head, token, channel, in elements; of the mask: batch, head, query, key, 0 =
 * broadcast. q (B, Hq, Nq, Dqk), k (B, Hkv, Nk, Dqk), v (B, Hkv, Nk, Dv), out (B, Hq, Nq, Dv). Extents are >=
 * 1, heads_kv divides heads_q, out overlaps nothing. The channel stride is 1 for every kernel but the
 * reference, which takes ATTUNE_KERNEL_F32 alone. */
typedef struct attune_attention_f32 {
    int64_t batch, heads_q, heads_kv, n_q, n_k, d_qk, d_v;
    const void *q, *k, *v; /* elements as `storage` says */
    const void *mask;      /* uint8_t (not 0 = takes part) or float (added to scale q.k), by mask_kind */
    void *out;
    int64_t stride_q[4], stride_k[4], stride_v[4], stride_mask[4], stride_out[4];
    int32_t mask_kind;
    int32_t storage;
    int32_t causal; /* not 0: query i sees keys j <= i + (n_k - n_q) */
    float scale;    /* 0 = 1 / sqrt(d_qk) */
    /* Queries taken together by ATTUNE_ATTENTION_SLICES and ATTUNE_ATTENTION_CHUNKS, keys by the latter; >= 1
     * there, 0 elsewhere. Only chunk_k is part of the arithmetic. */
    int64_t chunk_q, chunk_k;
    void *matrix; /* what all tasks share: the kernel's `shared` bytes, aligned to 64, or NULL */
    int32_t pass; /* of the kernel's passes, the one that runs */
} attune_attention_f32;

/* The algorithms, each a kernel of its own per ISA; docs/arithmetic.md has their rules. */
enum {
    ATTUNE_ATTENTION_PANELS,     /* attune-f32-1: panels of queries, one pass over the keys */
    ATTUNE_ATTENTION_ROW_BLOCKS, /* attune-f32-1: one block of queries at a time, the least workspace */
    ATTUNE_ATTENTION_SLICES,     /* attune-f32-full-1: all scores of a slice of queries at once */
    ATTUNE_ATTENTION_MATRIX,     /* attune-f32-full-1: the scores of the whole problem at once */
    ATTUNE_ATTENTION_CHUNKS,     /* attune-f32-chunked-1: chunks of queries by chunks of keys */
    ATTUNE_ATTENTION_ALGORITHMS
};

/* A kernel. The pointers of the args may be NULL in tasks, shared and workspace. */
typedef struct attune_attention_f32_kernel {
    const char *isa; /* "generic", "avx2", "avx512", "neon" */
    /* All tasks of a pass end before the next one begins. */
    int32_t passes;
    /* [any] How many tasks a problem is cut into, >= 1. */
    uint64_t (*tasks)(const attune_attention_f32 *args);
    /* [any] Bytes of workspace, aligned to 64, that each concurrent run needs; a multiple of 64; UINT64_MAX =
     * overflow. */
    uint64_t (*workspace)(const attune_attention_f32 *args);
    /* [any] Bytes that all runs share, as args->matrix; otherwise likewise. */
    uint64_t (*shared)(const attune_attention_f32 *args);
    /* [any] Task `task` < tasks(args). Sets and restores the floating-point environment. */
    void (*run)(const attune_attention_f32 *args, uint64_t task, void *workspace);
} attune_attention_f32_kernel;

extern const attune_attention_f32_kernel attune_attention_f32_generic[ATTUNE_ATTENTION_ALGORITHMS];
extern const attune_attention_f32_kernel attune_attention_f32_avx2[ATTUNE_ATTENTION_ALGORITHMS];
extern const attune_attention_f32_kernel attune_attention_f32_avx512[ATTUNE_ATTENTION_ALGORITHMS];
extern const attune_attention_f32_kernel
    attune_attention_f32_neon[ATTUNE_ATTENTION_ALGORITHMS]; /* each on its own architecture */

/* ---- the reference (kernels/reference): any channel stride, no workspace, one thread ---- */

/* [any] Everything, in arithmetic id attune-f32-1, attune-f32-full-1 and (by chunk_k) attune-f32-chunked-1.
 * Sets and restores the floating-point environment. */
void attune_attention_f32_reference(const attune_attention_f32 *args);
void attune_attention_f32_full_reference(const attune_attention_f32 *args);
void attune_attention_f32_chunked_reference(const attune_attention_f32 *args);
/* [any] 2^t for t <= 0 as docs/arithmetic.md defines it; in the caller's floating-point environment. */
float attune_exp2_f32_reference(float t);
/* [any] c: what queries are multiplied by, so that the softmax is taken to base 2. */
float attune_attention_f32_factor(float scale, int64_t d_qk);

#endif
