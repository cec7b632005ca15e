#!/bin/sh
# Build TARGETs for AArch64 into build/arm64 on another machine, with Debian's cross compiler. The libraries are Debian's arm64
# packages, unpacked beneath build/arm64/root and linked as archives, so that the system's own packages stay as they are.
# Usage: arm64.sh TARGET...; status 3 where the compiler, the emulator or the libraries cannot be had.
set -eu
cd "$(dirname "$0")/.."
build=build/arm64
root=$build/root
apt=$PWD/$build/apt
libraries=$root/usr/lib/aarch64-linux-gnu

# Package lists of their own: nothing of the system's changes, and nobody needs to be root.
apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root -o Debug::NoLocking=true \
        -o Acquire::Languages=none -o Dir::State::Lists="$apt/lists" -o Dir::State::status=/dev/null \
        -o Dir::Cache="$apt" "$@"
}
fetch_libraries() {
    [ -e $root/complete ] && return
    echo "attune: fetching the arm64 libraries into $root" >&2
    rm -rf $root "$apt"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/packages"
    apt update && (cd "$apt/packages" && apt download libjansson-dev nettle-dev libpopt-dev libpng-dev libutf8proc-dev zlib1g-dev) ||
        return 1
    for package in "$apt"/packages/*.deb; do dpkg-deb -x "$package" $root || return 1; done
    rm -rf $libraries/*.so "$apt" # what is linked then runs without them
    touch $root/complete
}

if ! scripts/deps.sh gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user >&2 || ! command -v qemu-aarch64 >/dev/null 2>&1 ||
    ! command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 || ! fetch_libraries; then
    exit 3
fi
export PKG_CONFIG_LIBDIR=$libraries/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
export CPPFLAGS="-isystem $root/usr/include -isystem $root/usr/include/aarch64-linux-gnu" MAKEFLAGS=
exec make -s --no-print-directory -j"$(nproc)" B=$build SAN= NVCC= CC="${ARM64_CC:-aarch64-linux-gnu-gcc}" AR=aarch64-linux-gnu-ar \
    PKG_CONFIG="pkg-config --static" RUN="qemu-aarch64 -L /usr/aarch64-linux-gnu" $(printf "$build/%s " "$@")
