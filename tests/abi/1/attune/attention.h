/*
 * attune/attention.h: interface "attune.attention/1", several attention backends of one plugin under the
 * names that users know. softmax(scale · Q Kᵀ + mask) V (Vaswani et al. 2017, eq. 1), per batch entry and
 * head.
 *
 * A host asks `query` (pure, cheap), picks a backend by the answers, then calls `run` with the plan of its
 * answer. `run` obeys plan and workspace; when memory is short it fails. It never re-chunks silently, so
 * results never depend on free memory.
 */
#ifndef ATTUNE_ATTENTION_H
#define ATTUNE_ATTENTION_H

#include "attune/plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTUNE_ATTENTION_INTERFACE "attune.attention/1"

/* Mask kinds, and bits for sets of them. BOOL: an element ≠ 0 takes part. FLOAT: added to scale·q·k. */
enum { ATTUNE_MASK_NONE = 0, ATTUNE_MASK_BOOL = 1, ATTUNE_MASK_FLOAT = 2 };
enum {
    ATTUNE_MASK_BIT_NONE = 1,
    ATTUNE_MASK_BIT_BOOL = 2,
    ATTUNE_MASK_BIT_FLOAT = 4,
    ATTUNE_MASK_BIT_CAUSAL = 8
};

#define ATTUNE_MAX_ALIASES 4

typedef struct attune_attention_info {
    uint32_t struct_size;
    int32_t priority; /* the web UI's number: breaks ties of cost, higher first */
    int32_t
        determinism; /* the highest class that the backend keeps; query says what it keeps for a problem */
    uint32_t dtypes; /* ATTUNE_DTYPE_BIT_… */
    uint32_t masks;  /* ATTUNE_MASK_BIT_… */
    uint32_t head_dim_min;
    uint32_t head_dim_max; /* 0 = no limit */
    uint32_t reserved;
    attune_device_id device;              /* the device it runs on */
    char name[32];                        /* "sdp-no-mem" */
    char aliases[ATTUNE_MAX_ALIASES][32]; /* "" where unused */
    char label[64];
    char vendor[32];     /* of the device */
    char arithmetic[32]; /* arithmetic id, "attune-f32-1": equal id and class ≥ invariant = equal bits */
    char isa[32];        /* what the kernels use now: "avx512", "generic", "sm_86" */
} attune_attention_info;
ATTUNE_STATIC_ASSERT(sizeof(attune_attention_info) == 376, "attune_attention_info is part of the ABI");

/* How `sub-quadratic` (Rabe & Staats 2021) cuts a problem; 0 = its default. Other backends look at none of
 * it. Chunks of keys are part of the arithmetic, those of queries are not. */
typedef struct attune_chunks {
    uint32_t q;         /* queries per chunk; 0 = 1024 */
    uint32_t kv;        /* keys per chunk; 0 = the square root of n_k, rounded down */
    uint32_t threshold; /* per cent, up to 100: all keys are one chunk where all scores fit into this share
                           of the budget, or, where that is any, of the device's memory; 0 = never. What is
                           cut then depends on memory: such an answer keeps `repeatable` at most */
    uint32_t reserved;
} attune_chunks;
ATTUNE_STATIC_ASSERT(sizeof(attune_chunks) == 16, "attune_chunks is part of the ABI");

/* Axis order of every shape and stride here: batch, head, token, channel; a (B, N, H, D) array comes as
 * strides. */
typedef struct attune_attention_problem {
    uint32_t struct_size;
    int32_t mask;   /* ATTUNE_MASK_… */
    int32_t causal; /* 1: query i sees keys j ≤ i + (n_k − n_q) */
    float scale;    /* 0 = 1/sqrt(d_qk) */
    int64_t batch;  /* ≥ 1, as all extents */
    int64_t heads_q;
    int64_t heads_kv; /* divides heads_q (grouped-query attention) */
    int64_t n_q;
    int64_t n_k;
    int64_t d_qk;
    int64_t d_v;
    attune_dtype dtype;      /* of q, k, v and out; a float mask is float32 */
    int32_t determinism;     /* the lowest class that will do */
    uint64_t budget;         /* bytes of workspace that the caller can give; UINT64_MAX = any */
    attune_device_id device; /* where the tensors are */
    uint32_t workers;        /* of the stream, ≥ 1 on a CPU: may size the workspace, never the arithmetic */
    uint32_t reserved;
    int64_t stride_q[4]; /* in elements; the channel stride must be 1 or the backend may decline */
    int64_t stride_k[4];
    int64_t stride_v[4];
    int64_t stride_out[4];
    int64_t stride_mask[4]; /* over (batch, head, query, key); 0 = broadcast */
    attune_chunks chunks;
} attune_attention_problem;
ATTUNE_STATIC_ASSERT(sizeof(attune_attention_problem) == 296, "attune_attention_problem is part of the ABI");

typedef struct attune_attention_answer {
    uint32_t struct_size;
    attune_code code;    /* OK = can serve; OUT_OF_RANGE head size, UNIMPLEMENTED mask or dtype, … */
    int32_t determinism; /* class kept for this problem */
    uint32_t reserved;
    char reason[160];   /* why not, one line: "head size 512 is above 256"; empty where OK */
    uint64_t workspace; /* bytes that run needs, aligned to the device's alignment */
    uint64_t flops;
    uint64_t bytes_moved;
    uint64_t nanoseconds; /* estimated time, for the choice by cost */
    uint64_t plan[4];     /* opaque to everybody else; copied into run */
} attune_attention_answer;
ATTUNE_STATIC_ASSERT(sizeof(attune_attention_answer) == 240, "attune_attention_answer is part of the ABI");

/* The arrays of one call. All on one device; q (B, Hq, Nq, D), k (B, Hkv, Nk, D), v (B, Hkv, Nk, Dv), out (B,
 * Hq, Nq, Dv); mask, where the problem has one, broadcast to (B, Hq, Nq, Nk) by strides of 0. `out` overlaps
 * no input. */
typedef struct attune_attention_args {
    uint32_t struct_size;
    uint32_t reserved;
    const attune_tensor *q;
    const attune_tensor *k;
    const attune_tensor *v;
    const attune_tensor *mask; /* NULL = none */
    const attune_tensor *out;
    void *workspace;
    uint64_t workspace_bytes;
} attune_attention_args;

typedef struct attune_attention_interface {
    uint32_t struct_size;
    uint32_t reserved;
    /* [any] How many backends; fixed for the instance's life. */
    uint32_t (*count)(void *instance);
    /* [any] Backend `index` < count. Errors: OUT_OF_RANGE. */
    attune_code (*describe)(void *instance, uint32_t index, attune_attention_info *out, attune_error *error);
    /* [any] Pure: no device call, no allocation, under 20 µs. A refusal is an answer, not an error.
     * Errors: INVALID_ARGUMENT (extents < 1, unknown struct_size). */
    attune_code (*query)(void *instance, uint32_t index, const attune_attention_problem *problem,
                         attune_attention_answer *answer, attune_error *error);
    /* [any] Several calls may run at once with their own workspaces. On a GPU it only enqueues: tensors and
     * workspace live until the stream passes that point. Checks the tensors against the problem. Errors:
     * INVALID_ARGUMENT, RESOURCE_EXHAUSTED (workspace smaller than the plan's), CANCELLED (out is then
     * undefined). */
    attune_code (*run)(void *instance, uint32_t index, const attune_attention_problem *problem,
                       const uint64_t plan[4], const attune_attention_args *args, const attune_stream *stream,
                       const attune_control *control, attune_error *error);
} attune_attention_interface;

#ifdef __cplusplus
}
#endif
#endif
