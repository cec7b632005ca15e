/* kernels/cuda/portable.h: the tile that portable.cu computes and portable.c plans. */
#ifndef ATTUNE_KERNELS_CUDA_PORTABLE_H
#define ATTUNE_KERNELS_CUDA_PORTABLE_H

enum {
    PORTABLE_ROWS = 64,     /* queries of a block */
    PORTABLE_THREADS = 256, /* of a block */
    PORTABLE_CHANNELS = 16, /* of queries and keys in shared memory at a time */
    PORTABLE_PITCH = PORTABLE_ROWS + 4,
    PORTABLE_PARTS = PORTABLE_THREADS / PORTABLE_ROWS
};

/* Channels of values that a block sums: one kernel for each. */
#define PORTABLE_TILES(X) X(64) X(96) X(128) X(160) X(256) X(512)

/* Keys whose values are in shared memory at a time. */
#define PORTABLE_VALUES(tile) ((tile) > 256 ? 8 : 16)

#endif
