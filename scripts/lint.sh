#!/bin/sh
# `make lint`: the format of every C file, then clang-tidy's checks.
set -eu
git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror
# plugin/cuda needs CUDA's headers, which lie beside nvcc.
nvcc=$(command -v "${NVCC:-nvcc}" || true)
cuda=${nvcc:+$(dirname "$nvcc")/../include}
git ls-files 'host_api/*.c' 'sample_host/*.c' 'plugin/*.c' 'kernels/reference/*.c' 'kernels/cuda/*.c' 'tools/*.c' 'examples/*.c' |
    { [ -n "$cuda" ] && cat || grep -v '^plugin/cuda/'; } |
    xargs -P 2 -I '{}' clang-tidy --quiet --warnings-as-errors='*' \
        --checks='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-implicit-widening-of-multiplication-result,-bugprone-narrowing-conversions' \
        '{}' -- -include scripts/lint.h -std=c11 -D_GNU_SOURCE -DATTUNE_VERSION='"lint"' -Ihost_api -I. ${cuda:+-isystem "$cuda"}
