#!/bin/sh
# swap_cost.sh: what a swap costs beside a restart: bench/swap_cost.sh [MODEL]; needs `make build`. B is the build folder.
set -eu
cd "$(dirname "$0")/.."
build=${B:-build}
make -s B="$build" "$build/bench/swap_cost" "$build/tools/fill_manifest"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for n in 1 0; do # the same code twice, in files of other bytes
    cp "$build/attune-sampler-cpu.so" "$work"
    cp "$build/attune-cpu.so" "$work/$n.so"
    printf 'build %d' "$n" >>"$work/$n.so"
    chmod go-w "$work"/*
    ln -f "$work/$n.so" "$work/attune-cpu.so"
    "$build/tools/fill_manifest" manifest.json "$work" "$work/$n.json" attune-cuda
    chmod go-w "$work/$n.json"
done
ln "$work/0.json" "$work/manifest.json"
"$build/bench/swap_cost" "$work" "${1:-models/emoji}"
