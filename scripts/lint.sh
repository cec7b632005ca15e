#!/bin/sh
# `make lint`: the format of every C file, then clang-tidy's checks.
set -eu
for tool in clang-format clang-tidy; do
    command -v "$tool" >/dev/null 2>&1 || { echo "attune: $tool is missing (Debian: apt-get install $tool)" >&2; exit 1; }
done
git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror
git ls-files 'host_api/*.c' 'sample_host/*.c' 'plugin/*.c' 'kernels/reference/*.c' 'tools/*.c' 'examples/*.c' |
    xargs -n 1 -P 2 clang-tidy --quiet --warnings-as-errors='*' \
        --checks='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-implicit-widening-of-multiplication-result,-bugprone-narrowing-conversions' \
        -- -std=c11 -D_GNU_SOURCE -DATTUNE_VERSION='"lint"' -Ihost_api -I.
