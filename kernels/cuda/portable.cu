// portable.cu: attention of arithmetic id attune-f32-1 (docs/arithmetic.md) by FFMA: the bits of kernels/reference for every
// problem. float16 and bfloat16 are storage only.
//
// A block takes 64 queries of one head through all keys, 128 at a time as rule 17 has them. Every sum is one thread's: a score's
// over the channels, an output's over the keys, and a row's l. Threads and registers divide outputs, never a sum. Compiled with
// -fmad=false -ftz=false -prec-div=true; each fma is written.
#include "kernels/arithmetic.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/portable.h"

#include <cuda_fp16.h>

enum {
    ROWS = PORTABLE_ROWS,
    THREADS = PORTABLE_THREADS,
    CHANNELS = PORTABLE_CHANNELS,
    PARTS = PORTABLE_PARTS,
    KEYS = ATTUNE_ATTENTION_KEY_BLOCK,
    PITCH = PORTABLE_PITCH, // of rows of queries and scores: a multiple of 4 that spreads over the banks
    KEY_PITCH = KEYS + 4
};

// What stands for the score of a masked key, a NaN that no score is, and for its weight.
#define MASKED_SCORE 0xffffffffu
#define MASKED_WEIGHT (-1.0f)

typedef attune_attention_f32 problem;

// One block's place in the problem.
struct place {
    int64_t batch, head, first_row, first_channel; // channel of the values
    int rows;                                      // of ROWS that exist
};

static __device__ place place_of(const problem &a, int tile) {
    // all are below the number of blocks, which has 31 bits; a division of 64 is a call, around which registers spill
    const uint32_t tiles = (uint32_t)((a.n_q + ROWS - 1) / ROWS), pieces = (uint32_t)((a.d_v + tile - 1) / tile);
    uint32_t index = blockIdx.x;
    place p;
    p.first_row = (int64_t)(index % tiles) * ROWS, index /= tiles;
    p.first_channel = (int64_t)(index % pieces) * tile, index /= pieces;
    p.head = index % (uint32_t)a.heads_q, p.batch = index / (uint32_t)a.heads_q;
    p.rows = (int)min(a.n_q - p.first_row, (int64_t)ROWS);
    return p;
}

static __device__ float load(const void *array, int64_t at, int storage) {
    if (storage == ATTUNE_KERNEL_F32)
        return ((const float *)array)[at];
    const uint16_t stored = ((const uint16_t *)array)[at];
    return storage == ATTUNE_KERNEL_F16 ? __half2float(__ushort_as_half(stored)) : attune_widen_bf16(stored);
}

// Rules 6, 7 and 32.
static __device__ void store(void *array, int64_t at, int storage, float x) {
    x = __fadd_rn(x, 0.0f);
    if (storage == ATTUNE_KERNEL_F32)
        ((float *)array)[at] = x != x ? __uint_as_float(ATTUNE_NAN_BITS) : x;
    else
        ((uint16_t *)array)[at] = storage == ATTUNE_KERNEL_F16 ? attune_narrow_f16(x) : attune_narrow_bf16(x);
}

// Rule 12.
static __device__ float exp2_of(float t) {
    const float n = rintf(t), f = __fsub_rn(t, n);
    float p = ATTUNE_EXP2_C5;
    p = __fmaf_rn(p, f, ATTUNE_EXP2_C4);
    p = __fmaf_rn(p, f, ATTUNE_EXP2_C3);
    p = __fmaf_rn(p, f, ATTUNE_EXP2_C2);
    p = __fmaf_rn(p, f, ATTUNE_EXP2_C1);
    p = __fmaf_rn(p, f, 1.0f);
    const float power = __uint_as_float(__float_as_uint(p) + ((uint32_t)(int)n << 23));
    return t != t ? t : t < ATTUNE_EXP2_MIN ? 0.0f : power;
}

// Channels [from, from + CHANNELS) of COUNT tokens, one row of shared memory for each channel; zeros where there are none.
// Zeros add nothing to a score (rule 9).
template <int COUNT, int PITCH_>
static __device__ void stage_channels(float *to, const void *array, int64_t start, int64_t stride, int tokens, int64_t from,
                                      int64_t channels, int storage, float factor) {
#pragma unroll 4
    for (int i = threadIdx.x; i < COUNT * CHANNELS; i += THREADS) {
        const int token = i / CHANNELS, channel = i % CHANNELS;
        float x = 0.0f;
        if (token < tokens && from + channel < channels)
            x = load(array, start + token * stride + from + channel, storage);
        to[channel * PITCH_ + token] = __fmul_rn(x, factor);
    }
}

// A thread's scores: rows 4 ty + i, keys 4 tx + j and 64 + 4 tx + j.
struct scores {
    float s[4][8];
};

template <bool WIDE> static __device__ void dot(scores &out, const float *queries, const float *keys, int tx, int ty) {
#pragma unroll(WIDE ? 16 : 4)
    for (int c = 0; c < CHANNELS; ++c) {
        const float4 q = *(const float4 *)(queries + c * PITCH + 4 * ty);
        const float4 low = *(const float4 *)(keys + c * KEY_PITCH + 4 * tx);
        const float rows[4] = {q.x, q.y, q.z, q.w};
        float k[8] = {low.x, low.y, low.z, low.w};
        if (WIDE) {
            const float4 high = *(const float4 *)(keys + c * KEY_PITCH + KEYS / 2 + 4 * tx);
            k[4] = high.x, k[5] = high.y, k[6] = high.z, k[7] = high.w;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < (WIDE ? 8 : 4); ++j)
                out.s[i][j] = __fmaf_rn(k[j], rows[i], out.s[i][j]);
    }
}

// Rule 19's end, and rule 20, for every score of the tile. A warp takes 8 keys of 4 rows: one sector of a float mask for each row, and
// every bank of shared memory once.
static __device__ void mask_block(const problem &a, const place &p, int64_t first, int keys, float *tile) {
    const int lane = threadIdx.x % 32;
    const int64_t mask_at = p.batch * a.stride_mask[0] + p.head * a.stride_mask[1];
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < ROWS / 4 * (KEYS / 8); i += THREADS / 32) {
        const int row = i % (ROWS / 4) * 4 + lane / 8, key = i / (ROWS / 4) * 8 + lane % 8;
        if (row >= p.rows || key >= keys)
            continue;
        const int64_t query = p.first_row + row, j = first + key;
        const int64_t at = mask_at + query * a.stride_mask[2] + j * a.stride_mask[3];
        float *const s = tile + key * PITCH + row;
        bool masked = a.causal && j > query + (a.n_k - a.n_q);
        if (!masked && a.mask_kind == ATTUNE_KERNEL_MASK_BOOL)
            masked = ((const uint8_t *)a.mask)[at] == 0;
        if (!masked && a.mask_kind == ATTUNE_KERNEL_MASK_FLOAT) {
            const float added = ((const float *)a.mask)[at], sum = __fmaf_rn(added, ATTUNE_LOG2E_F32, *s);
            masked = __float_as_uint(__fmul_rn(added, ATTUNE_LOG2E_F32)) == 0xff800000u;
            *s = sum != sum ? __uint_as_float(ATTUNE_NAN_BITS) : sum;
        }
        if (masked)
            *s = __uint_as_float(MASKED_SCORE);
    }
    __syncthreads();
}

// The scores of `keys` keys from `first` into `tile`, a row of shared memory for each key.
static __device__ void score_block(const problem &a, const place &p, float factor, int64_t first, int keys, float *tile,
                                   float *stage) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float *const staged_keys = stage, *const staged_queries = stage + CHANNELS * KEY_PITCH;
    const int64_t q_at = p.batch * a.stride_q[0] + p.head * a.stride_q[1] + p.first_row * a.stride_q[2];
    const int64_t kv = (uint32_t)p.head / ((uint32_t)a.heads_q / (uint32_t)a.heads_kv);
    const int64_t k_at = p.batch * a.stride_k[0] + kv * a.stride_k[1] + first * a.stride_k[2];
    const bool busy = ty / 2 * 8 < p.rows; // the same in a warp
    scores own = {};
    for (int64_t from = 0; from < a.d_qk; from += CHANNELS) {
        __syncthreads(); // what was staged before has been read
        stage_channels<KEYS, KEY_PITCH>(staged_keys, a.k, k_at, a.stride_k[2], keys, from, a.d_qk, a.storage, 1.0f);
        stage_channels<ROWS, PITCH>(staged_queries, a.q, q_at, a.stride_q[2], p.rows, from, a.d_qk, a.storage, factor);
        __syncthreads();
        if (busy && keys > KEYS / 2)
            dot<true>(own, staged_queries, staged_keys, tx, ty);
        else if (busy)
            dot<false>(own, staged_queries, staged_keys, tx, ty);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const int key = j / 4 * (KEYS / 2) + 4 * tx + j % 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float s = own.s[i][j];
            if (busy && key < keys)
                tile[key * PITCH + 4 * ty + i] = s != s ? __uint_as_float(ATTUNE_NAN_BITS) : s;
        }
    }
    __syncthreads();
}

// Rules 21 to 23 for one row, by PARTS threads of KEYS / PARTS keys: scores become weights, `largest` the row's maximum and
// factors[row] what its sums are multiplied by.
static __device__ void weigh_block(float *tile, float *maxima, float *factors, int keys, int rows, float &largest) {
    const int row = threadIdx.x % ROWS, part = threadIdx.x / ROWS;
    const bool busy = row / 8 * 8 < rows; // rows up to a warp's eight have scores
    const int from = part * (KEYS / PARTS), end = min(keys, from + KEYS / PARTS);
    float found = largest;
    if (busy)
        for (int key = from; key < end; ++key) {
            const float s = tile[key * PITCH + row];
            if (__float_as_uint(s) != MASKED_SCORE)
                found = fmaxf(found, s); // may drop a NaN (rule 26)
        }
    maxima[part * ROWS + row] = found;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PARTS; ++i)
        found = fmaxf(found, maxima[i * ROWS + row]);
    if (part == 0)
        factors[row] = exp2_of(__fsub_rn(largest, found));
    largest = found;
    if (busy)
#pragma unroll 2
        for (int key = from; key < end; ++key) {
            const float s = tile[key * PITCH + row];
            tile[key * PITCH + row] =
                __float_as_uint(s) == MASKED_SCORE ? MASKED_WEIGHT : exp2_of(__fsub_rn(s, found));
        }
    __syncthreads();
}

// Values of `keys` keys from `first`, channels [channel, channel + TILE).
template <int TILE>
static __device__ void stage_values(float *to, const problem &a, const place &p, int64_t first, int keys) {
    const int64_t kv = (uint32_t)p.head / ((uint32_t)a.heads_q / (uint32_t)a.heads_kv);
    const int64_t at = p.batch * a.stride_v[0] + kv * a.stride_v[1] + first * a.stride_v[2] + p.first_channel;
    const int channels = (int)min(a.d_v - p.first_channel, (int64_t)TILE);
#pragma unroll 4
    for (int i = threadIdx.x; i < keys * TILE; i += THREADS) {
        const int key = i / TILE, channel = i % TILE;
        to[i] = channel < channels ? load(a.v, at + key * a.stride_v[2] + channel, a.storage) : 0.0f;
    }
}

// A thread's outputs: rows 4 ty + i, channels 2 tx + 32 j and the next.
template <int TILE> struct outputs {
    float o[4][TILE / 16];
};

template <int TILE> static __device__ void add_values(outputs<TILE> &own, const float *weights, const float *values, int keys) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll(TILE > 160 ? 1 : 2)
    for (int key = 0; key < keys; ++key) {
        const float4 w = *(const float4 *)(weights + key * PITCH + 4 * ty);
        const float weight[4] = {w.x, w.y, w.z, w.w};
        float2 v[TILE / 32];
#pragma unroll
        for (int j = 0; j < TILE / 32; ++j)
            v[j] = *(const float2 *)(values + key * TILE + 2 * tx + 32 * j);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (weight[i] < 0.0f) // masked: takes no part, whatever the value holds (rule 27)
                continue;
#pragma unroll
            for (int j = 0; j < TILE / 32; ++j) {
                own.o[i][2 * j] = __fmaf_rn(v[j].x, weight[i], own.o[i][2 * j]);
                own.o[i][2 * j + 1] = __fmaf_rn(v[j].y, weight[i], own.o[i][2 * j + 1]);
            }
        }
    }
}

// l of row threadIdx.x, by the first ROWS threads.
static __device__ float add_weights(float l, const float *weights, int keys) {
    for (int key = 0; key < keys; ++key) {
        const float w = weights[key * PITCH + threadIdx.x];
        l = w < 0.0f ? l : __fadd_rn(l, w);
    }
    return l;
}

template <int TILE>
static __device__ void add_block(const problem &a, const place &p, int64_t first, int keys, const float *tile, float *stage,
                                 const float *factors, outputs<TILE> &own, float &l) {
    enum { VALUES = PORTABLE_VALUES(TILE) };
    const int ty = threadIdx.x / 16;
    const bool busy = ty / 2 * 8 < p.rows; // the same in a warp
    if (threadIdx.x < p.rows)
        l = add_weights(__fmul_rn(l, factors[threadIdx.x]), tile, keys);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float factor = factors[4 * ty + i];
#pragma unroll
        for (int j = 0; j < TILE / 16; ++j)
            own.o[i][j] = __fmul_rn(own.o[i][j], factor);
    }
    for (int done = 0; done < keys; done += VALUES) {
        const int now = min(keys - done, (int)VALUES);
        stage_values<TILE>(stage, a, p, first + done, now);
        __syncthreads();
        if (busy)
            add_values<TILE>(own, tile + done * PITCH, stage, now);
        __syncthreads();
    }
}

// Rules 24 and 25. 32 channels at a time go through shared memory, so that rows are stored side by side.
template <int TILE>
static __device__ void end(const problem &a, const place &p, const outputs<TILE> &own, float l, float *sums, float *stage) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const int64_t at = p.batch * a.stride_out[0] + p.head * a.stride_out[1] + p.first_row * a.stride_out[2];
    if (threadIdx.x < p.rows)
        sums[threadIdx.x] = l;
#pragma unroll
    for (int j = 0; j < TILE / 32; ++j) {
        const int64_t first = p.first_channel + 32 * j;
        if (first >= a.d_v)
            break;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; ++i)
            *(float2 *)(stage + (4 * ty + i) * 32 + 2 * tx) = make_float2(own.o[i][2 * j], own.o[i][2 * j + 1]);
        __syncthreads();
#pragma unroll 1
        for (int i = threadIdx.x; i < p.rows * 32; i += THREADS) {
            const float sum = sums[i / 32];
            if (first + i % 32 < a.d_v)
                store(a.out, at + i / 32 * a.stride_out[2] + first + i % 32, a.storage,
                      sum == 0.0f ? 0.0f : __fmul_rn(stage[i], __fdiv_rn(1.0f, sum)));
        }
    }
}

template <int TILE> static __device__ void attend(const problem &a, float factor) {
    extern __shared__ float4 shared[];
    float *const tile = (float *)shared, *const maxima = tile + KEYS * PITCH, *const factors = maxima + PARTS * ROWS;
    float *const stage = factors + ROWS;
    const place p = place_of(a, TILE);
    outputs<TILE> own = {};
    float l = 0.0f, largest = ATTUNE_ATTENTION_MAX_START;
    int64_t end_key = a.n_k;
    if (a.causal) // keys beyond the last row's are masked for all (rule 30)
        end_key = max((int64_t)0, min(a.n_k, p.first_row + p.rows + (a.n_k - a.n_q)));
    for (int64_t first = 0; first < end_key; first += KEYS) {
        const int keys = (int)min(end_key - first, (int64_t)KEYS);
        score_block(a, p, factor, first, keys, tile, stage);
        if (a.causal || a.mask_kind != ATTUNE_KERNEL_MASK_NONE)
            mask_block(a, p, first, keys, tile);
        weigh_block(tile, maxima, factors, keys, p.rows, largest);
        add_block<TILE>(a, p, first, keys, tile, stage, factors, own, l);
    }
    __syncthreads();
    end<TILE>(a, p, own, l, factors, tile);
}

#define TILE_KERNEL(tile)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                      \
        attune_portable_##tile(const __grid_constant__ attune_attention_f32 args, float factor) {              \
        attend<tile>(args, factor);                                                                            \
    }
PORTABLE_TILES(TILE_KERNEL)
