#!/bin/sh
# lengthen.sh FROM TO: the headers of FROM/attune in TO/attune as a later revision might have them: every struct that says its
# struct_size has two fields more at its end.
set -eu
mkdir -p "$2/attune"
for header in "$1"/attune/*.h; do
    awk '
        /^typedef struct [a-z0-9_]+ \{/ { first = 1; grows = 0; print; next }
        first { grows = /struct_size;/; first = 0; if (grows) ++grown }
        /^\} [a-z0-9_]+;/ && grows { print "    uint64_t added_later[2];"; changed[substr($2, 1, length($2) - 1)] = 1; grows = 0 }
        /^ATTUNE_STATIC_ASSERT\(sizeof\(/ { name = $0; sub(/.*sizeof\(/, "", name); sub(/\).*/, "", name); if (changed[name]) next }
        { print }' "$header" >"$2/attune/$(basename "$header")"
done
