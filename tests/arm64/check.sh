#!/bin/sh
# The product for AArch64 under an emulator: kernels, latents and pictures have the bits of this machine's every instruction set.
# A picture of the embedded model takes longer and is left to `make check-long`. Usage: check.sh BUILD
set -eu
here=$1/sample_host
there="qemu-aarch64 -L /usr/aarch64-linux-gnu build/arm64"
if [ "$(uname -m)" = aarch64 ]; then
    echo "arm64: this machine is one, and the other suites run its kernels"
    exit 0
fi
status=0
scripts/arm64.sh sample_host manifest.json tests/arm64/check || status=$?
if [ $status = 3 ]; then
    echo "arm64: SKIPPED, no NEON kernel is tested: no cross compiler, emulator or arm64 libraries" >&2
    exit 0
fi
[ $status = 0 ]
export ATTUNE_SOURCE=.
unset COMMANDLINE_ARGS ATTUNE_PLUGIN_PATH
$there/tests/arm64/check $((64 * ${ATTUNE_CHECK_TIMES:-1}))

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
pictures=0
compare() {
    $there/sample_host txt2img "red apple" -q --seed 5 --threads 2 --determinism portable "$@" -o "$folder/there.png" >/dev/null
    for isa in generic avx2 avx512; do
        ATTUNE_CPU_MASK=$isa "$here" txt2img "red apple" -q --seed 5 --determinism portable "$@" -o "$folder/here.png" >/dev/null
        cmp "$folder/here.png" "$folder/there.png"
    done
    pictures=$((pictures + 1))
}
tiny="--model tests/golden/data/tiny"
compare $tiny --steps 3
compare $tiny --steps 3 --attention-required split --sampler "DPM++ 2M" --width 72 --height 56
compare $tiny --steps 2 --attention-required sub-quadratic --sampler DDIM --randn-source NV --lowvram
compare --steps 1 --width 64 --height 64
[ "${ATTUNE_CHECK_TIMES:-1}" = 1 ] || compare --steps 3
echo "arm64: $pictures pictures: the bytes of generic, avx2 and avx512"
