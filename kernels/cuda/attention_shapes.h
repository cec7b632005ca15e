/*
 * attention_shapes.h: how the tensor-core kernels of this folder cut attention into tiles, for the kernels
 * and their planners alike. All are blocks of 128 threads.
 */
#ifndef ATTUNE_KERNELS_CUDA_ATTENTION_SHAPES_H
#define ATTUNE_KERNELS_CUDA_ATTENTION_SHAPES_H

/* Head sizes with a kernel of their own (attention_tile.cuh): size, 16s of queries of a warp, keys of a tile.
 */
#define ATTUNE_CUDA_TILES(X)                                                                                 \
    X(40, 2, 64)                                                                                             \
    X(64, 2, 64)                                                                                             \
    X(80, 2, 64)                                                                                             \
    X(128, 2, 32)                                                                                            \
    X(160, 1, 32)

/* All others up to 512 (attention_wide.cuh): a block's queries, the keys of a tile. */
#define ATTUNE_CUDA_WIDE_ROWS 16
#define ATTUNE_CUDA_WIDE_KEYS 16
#define ATTUNE_CUDA_WIDE_SIZE 512

/* Elements from one row of a tile in shared memory to the next: an odd number of 16 bytes, so that the 8 rows
 * of a matrix lie in all 32 banks. */
#define ATTUNE_CUDA_ROW(size) ((size) / 8 % 2 ? (size) : (size) + 8)

/* Bytes of shared memory. Wide: head sizes padded to 16; the queries pass through the place of the keys
 * first, and four partial scores follow, a row 24 floats. */
#define ATTUNE_CUDA_TILE_SHARED(size, sixteens, keys)                                                        \
    ((64 * (sixteens) + 2 * (keys)) * ATTUNE_CUDA_ROW(size) * 2)
#define ATTUNE_CUDA_WIDE_SCORES                 (4 * ATTUNE_CUDA_WIDE_ROWS * 24 * 4)
#define ATTUNE_CUDA_WIDE_TILES(size_qk, size_v) (ATTUNE_CUDA_WIDE_KEYS * ((size_qk) + (size_v) + 16) * 2)

#endif
