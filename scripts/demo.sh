#!/bin/sh
# `make demo`: draw with the embedded model; print the file's name, the backend chosen and why. $1 = the build folder.
set -eu
build=$1
prompt=${PROMPT:-red apple}
out=${OUT:-attune-demo.png}
"$build/sample_host" txt2img "$prompt" --sampler "DPM++ 2M" --scheduler Karras --cfg-scale 5 --seed 7 --explain -o "$out"
echo "Drew \"$prompt\" into $out"
