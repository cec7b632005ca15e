#!/bin/sh
# run.sh FOLDER SECONDS TARGET...: run the fuzz targets built in FOLDER, one after the other; say how many
# inputs each tried; fail when one crashed, with the path of the input.
set -u
folder=$1 seconds=$2
shift 2
parent=/dev/shm # the targets write many small files: in memory where there is such a folder
[ -d "$parent" ] && [ -w "$parent" ] || parent=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d "$parent/attune-fuzz-run-XXXXXX") || exit 1
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$folder/artifacts"
failed=""
for target in "$@"; do
    found=$folder/corpus/$target log=$folder/$target.log dictionary=tests/fuzz/$target.dict
    mkdir -p "$found"
    set -- -max_total_time="$seconds" -print_final_stats=1 -timeout=10 -artifact_prefix="$folder/artifacts/$target-"
    [ -f "$dictionary" ] && set -- "$@" -dict="$dictionary"
    if "$folder/fuzz_$target" "$@" "$found" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
        echo "  $target: $(sed -n 's/^stat::*number_of_executed_units: *//p' "$log") inputs, $(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1) edges, no crash"
    else
        failed="$failed $target"
        grep -E 'does not hold|ERROR:|runtime error|SUMMARY|Test unit written' "$log" || tail -n 20 "$log"
        echo "  $target: FAILED, log in $log"
    fi
done
[ -z "$failed" ] && exit 0
echo "failed:$failed; again with: $folder/fuzz_TARGET $folder/artifacts/FILE" >&2
exit 1
