#!/bin/sh
# `make lint`: the format of every C file, then clang-tidy's checks.
set -eu
git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror
git ls-files 'host_api/*.c' 'sample_host/*.c' 'plugin/*.c' 'kernels/reference/*.c' 'tools/*.c' 'examples/*.c' |
    xargs -P 2 -I '{}' clang-tidy --quiet --warnings-as-errors='*' \
        --checks='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-implicit-widening-of-multiplication-result,-bugprone-narrowing-conversions' \
        '{}' -- -include scripts/lint.h -std=c11 -D_GNU_SOURCE -DATTUNE_VERSION='"lint"' -Ihost_api -I.
