#!/bin/sh
# replay.sh FOLDER TARGET...: run the inputs of tests/fuzz/corpus through the targets built in FOLDER.
set -u
folder=$1
shift
TMPDIR=$(mktemp -d) || exit 1
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT TERM
status=0
for target in "$@"; do
    if "$folder/$target" "tests/fuzz/corpus/$target" >"$folder/$target.log"; then
        echo "$target: $(wc -l <"$folder/$target.log") inputs"
    else
        echo "$target: FAILED on $(tail -n 1 "$folder/$target.log")"
        status=1
    fi
done
exit $status
