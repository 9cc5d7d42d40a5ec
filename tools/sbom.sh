#!/bin/bash
# What is in the program, as CycloneDX JSON. Usage: tools/sbom.sh FILE
#
# cargo-cyclonedx lists the crates, each with its checksum. The C libraries that two of them bring along are
# added here, by the versions in their headers. The same sources make the same file, wherever they lie.
set -euo pipefail
file=$(realpath -- "${1:?usage: tools/sbom.sh FILE}")
cd "$(dirname "$0")/.."

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
cargo cyclonedx --quiet --format json --spec-version 1.5 --override-filename poller-sbom.tmp
trap 'rm -f poller-sbom.tmp.json' EXIT

folder_of() {
    cargo metadata --locked --format-version 1 |
        jq --raw-output --arg name "$1" '.packages[] | select(.name == $name) | .manifest_path | rtrimstr("/Cargo.toml")'
}
version_in() {
    sed -n "s/^#define $1[[:space:]]*\"\(.*\)\"/\1/p" "$2"
}
libgit2=$(folder_of libgit2-sys)/libgit2
zlib=$(folder_of libz-sys)/src/zlib

jq --arg here "file://$PWD" \
    --arg libgit2 "$(version_in LIBGIT2_VERSION "$libgit2/include/git2/version.h")" \
    --arg zlib "$(version_in ZLIB_VERSION "$zlib/zlib.h")" '
    def c($name; $version; $inside; $license): {
        type: "library", "bom-ref": "c:\($name)", name: $name, version: $version, scope: "required",
        description: "C, compiled into the program by the crate \($inside)",
        licenses: [{ license: $license }]
    };
    .components += [
        c("libgit2"; $libgit2; "libgit2-sys"; { name: "GPL-2.0-only with an exception for linking" }),
        c("llhttp"; "as in libgit2 \($libgit2)"; "libgit2-sys"; { id: "MIT" }),
        c("pcre2"; "as in libgit2 \($libgit2)"; "libgit2-sys"; { name: "BSD-3-Clause WITH PCRE2-exception" }),
        c("xdiff"; "as in libgit2 \($libgit2)"; "libgit2-sys"; { id: "LGPL-2.1-or-later" }),
        c("zlib"; $zlib; "libz-sys"; { id: "Zlib" })
    ]
    # Not where it was made.
    | walk(if type == "string" then gsub("path\\+\($here)"; "path+file:///poller") else . end)
' poller-sbom.tmp.json >"$file.partial"
mv "$file.partial" "$file"
jq --raw-output '"\(.components | length) components"' "$file"
