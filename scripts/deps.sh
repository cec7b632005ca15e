#!/bin/sh
# Install the Debian packages named as arguments where they are missing; elsewhere say what is missing.
set -eu
have_package() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

if ! command -v dpkg-query >/dev/null 2>&1; then
    missing=""
    for pair in jansson:jansson nettle:nettle popt:popt libpng:libpng check:check libutf8proc:utf8proc; do
        pkg-config --exists "${pair%%:*}" 2>/dev/null || missing="$missing ${pair##*:}"
    done
    [ -z "$missing" ] && exit 0
    echo "attune: these libraries with their headers are missing:$missing (on Debian: $*)" >&2
    exit 1
fi
missing=""
for package in "$@"; do have_package "$package" || missing="$missing $package"; done
for tool in cc:gcc make:make; do command -v "${tool%%:*}" >/dev/null 2>&1 || missing="$missing ${tool##*:}"; done
[ -z "$missing" ] && exit 0
as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "attune: missing packages:$missing; as root run: apt-get install$missing" >&2; exit 1; }
    as_root=sudo
fi
echo "attune: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq || echo "attune: apt-get update failed; trying with the lists at hand" >&2
# shellcheck disable=SC2086
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    { echo "attune: could not install:$missing; install these and run make again" >&2; exit 1; }
