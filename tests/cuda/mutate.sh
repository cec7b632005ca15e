#!/bin/sh
# mutate.sh NAME KERNEL OUT: the kernels with the bug NAME of mutations.txt as PTX of compute capability 8.0, in OUT.fatbin; only
# what mutant_kernels.cu has for KERNEL. Fails where the bug changes nothing.
set -eu
name=$1 kernel=$2 out=$3
line=$(grep "^$name | $kernel | " tests/cuda/mutations.txt)
file=$(printf '%s\n' "$line" | cut -d'|' -f4 | tr -d ' ')
script=$(printf '%s\n' "$line" | cut -d'|' -f5- | sed 's/^ //')
rm -rf "$out"
mkdir -p "$out/kernels/cuda"
cp kernels/cuda/*.cuh kernels/cuda/*.h kernels/cuda/*.cu "$out/kernels/cuda"
sed -i "$script" "$out/kernels/cuda/$file"
if [ "$name" != none ] && cmp -s "kernels/cuda/$file" "$out/kernels/cuda/$file"; then
    echo "mutate.sh: $name changes nothing in $file" >&2
    exit 1
fi
"${NVCC:-nvcc}" -fatbin -std=c++17 -I"$out" -I. --compress-mode=none -lineinfo -ftz=false -w -D"MUTANT_$kernel" \
    -gencode arch=compute_80,code=compute_80 -o "$out.fatbin" tests/cuda/mutant_kernels.cu
