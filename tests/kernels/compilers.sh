#!/bin/sh
# Build kernels/reference twice, by compilers and options as far apart as there are, into DIRECTORY/weak.so and strong.so:
# gcc -O0 and clang -O3 -march=native (where clang is missing: gcc -O3 -march=native). Usage: compilers.sh SOURCE DIRECTORY
set -eu
source=$1
directory=$2
build() {
    output=$1
    shift
    "$@" -std=c11 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno -fPIC -shared -I"$source" -o "$directory/$output" \
        "$source"/kernels/reference/*.c -lm
}
weak=gcc
command -v gcc >/dev/null 2>&1 || weak=cc
build weak.so "$weak" -O0
if command -v clang >/dev/null 2>&1; then
    strong=clang
else
    strong=$weak
    echo "compilers.sh: clang is not installed, $weak -O3 -march=native stands in for it" >&2
fi
build strong.so "$strong" -O3 -march=native
echo "the reference: $weak -O0 and $strong -O3 -march=native"
