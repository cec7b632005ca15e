#!/bin/sh
# swap.sh: a second build of the CPU plugin is copied over the first while an image is in the making.
#   examples/swap.sh [BUILD]        BUILD: the build folder, default build
# It shows that the image finished, what served it, and that the next one uses the new build.
set -eu
build=$(realpath "${1:-build}")
source=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
trap 'exec 3>&- 2>/dev/null || :; rm -rf "$work"' EXIT
umask 022

# A place for the plugins that may be written over, as a package manager would.
mkdir "$work/plugins" "$work/second"
cp "$build/attune-cpu.so" "$build/attune-sampler-cpu.so" "$work/plugins"
"$build/tools/fill_manifest" "$source/manifest.json" "$work/plugins" "$work/plugins/manifest.json" attune-cuda
# The second build: here the same code in a file of other bytes. Yours would come from your compiler.
cp "$build/attune-cpu.so" "$build/attune-sampler-cpu.so" "$work/second"
printf 'built again' >>"$work/second/attune-cpu.so"
"$build/tools/fill_manifest" "$source/manifest.json" "$work/second" "$work/second/manifest.json" attune-cuda

mkfifo "$work/requests"
"$build/sample_host" session --watch --plugin "$work/plugins/manifest.json" <"$work/requests" >"$work/answers" &
host=$!
exec 3>"$work/requests"

wait_for() { # until the answers have a line like this, or the host has ended
    until grep -q "$1" "$work/answers"; do
        kill -0 "$host" 2>/dev/null || { echo "swap.sh: error: the host ended early" >&2; exit 1; }
        sleep 0.05
    done
}

echo '{"id": "first", "prompt": "red apple", "steps": 20, "seed": 1, "policy": "pin", "output": "'"$work"'/first.png"}' >&3
wait_for '"id":"first","progress"'
echo "the first image is in the making; copying the second build over the first"
cp "$work/second/attune-cpu.so" "$work/second/manifest.json" "$work/plugins"
wait_for '"swapped":1'
wait_for '"id":"first","\(result\|error\)"'
echo '{"id": "next", "prompt": "red apple", "steps": 20, "seed": 1, "output": "'"$work"'/next.png"}' >&3
exec 3>&-
wait "$host"

generation() { grep "\"id\":\"$1\",\"result\"" "$work/answers" | sed 's/.*"attention":\[{[^]]*\][^]]*"generation":\([0-9]*\).*/\1/'; }
swap=$(grep -n '"swapped":1' "$work/answers" | cut -d: -f1)
end=$(grep -n '"id":"first","result"' "$work/answers" | cut -d: -f1)
first=$(generation first) next=$(generation next)
[ "$swap" -lt "$end" ] && echo "swapped while the first image was in the making" ||
    echo "the first image was done before the swap"
echo "first image: finished, served by generation $first"
echo "next image: served by generation $next"
[ "$first" != "$next" ] || { echo "swap.sh: error: the new build did not serve" >&2; exit 1; }
cmp "$work/first.png" "$work/next.png" && echo "both are the same file, byte for byte"
