#!/bin/sh
# `make install`: $1 = the build folder, $2 = the prefix (with DESTDIR before it).
set -eu
build=$1
prefix=$2
umask 022
mkdir -p "$prefix/bin" "$prefix/lib/attune" "$prefix/include/attune" "$prefix/share/attune/models"
install -m 755 "$build/sample_host" "$prefix/bin/sample_host"
install -m 644 "$build/libattune.a" "$prefix/lib/libattune.a"
install -m 755 "$build/libattune.so" "$prefix/lib/libattune.so.0"
ln -sf libattune.so.0 "$prefix/lib/libattune.so"
install -m 644 host_api/attune/*.h "$prefix/include/attune/"
install -m 755 "$build"/attune-*.so "$prefix/lib/attune/"
install -m 644 "$build/manifest.json" "$prefix/lib/attune/manifest.json"
mkdir -p "$prefix/share/attune/models/emoji"
for part in README.md known_words.txt known_modifiers.txt model_index.json scheduler text_encoder tokenizer unet vae; do
    cp -R "models/emoji/$part" "$prefix/share/attune/models/emoji/"
done
chmod -R go-w "$prefix/lib/attune" "$prefix/share/attune"
echo "installed below $prefix"
