#!/bin/sh
# Build the kernels for AArch64 with their test program into DIRECTORY and run it under qemu-user. The cross compiler and the
# emulator are installed where they are missing; where they cannot be, this says that the test was skipped. On AArch64
# neither is needed: the suite itself runs these kernels. Usage: arm64.sh SOURCE DIRECTORY COUNT
set -eu
source=$1
directory=$2
compiler=aarch64-linux-gnu-gcc
if [ "$(uname -m)" = aarch64 ]; then
    exit 0
fi
if ! "$source/scripts/deps.sh" gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user >&2 ||
    ! command -v $compiler >/dev/null 2>&1 || ! command -v qemu-aarch64 >/dev/null 2>&1; then
    echo "arm64: SKIPPED, the NEON kernel is not tested: no $compiler or no qemu-aarch64" >&2
    exit 0
fi
$compiler -std=c11 -D_GNU_SOURCE -O3 -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -static \
    -I"$source/tests/kernels/arm64" -I"$source" -o "$directory/arm64" "$source/tests/kernels/arm64/main.c" \
    "$source/tests/kernels/cases.c" "$source/tests/kernels/norm_cases.c" "$source/tests/kernels/products.c" "$source"/kernels/cpu/*.c "$source"/kernels/reference/*.c -lm
qemu-aarch64 "$directory/arm64" "$3"
