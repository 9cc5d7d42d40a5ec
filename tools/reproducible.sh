#!/bin/bash
# Builds the release twice and compares the two byte by byte. Usage: tools/reproducible.sh [CARGO_HOME]
#
# The two builds have nothing in common but the sources and the compiler: each is in a folder of its own, whose
# names differ in length, with its own target directory; the second has another CARGO_HOME too, with a copy of
# the crates that were downloaded. What is built is what git would see here, committed or not.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_home=${1:-${CARGO_HOME:-$HOME/.cargo}}
world=$(mktemp -d "${TMPDIR:-/tmp}/poller-reproducible-XXXXXXXX")
trap 'rm -rf "$world"' EXIT

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

copy_to() {
    mkdir -p "$1"
    git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- | tar --extract --directory "$1"
}

one=$world/one two=$world/the-second-folder-has-a-longer-name/two
copy_to "$one"
copy_to "$two"
# Whatever the first build downloads, the second finds.
echo "building in $one"
env -u CARGO_TARGET_DIR CARGO_HOME="$cargo_home" make --silent -C "$one" build
mkdir -p "$world/cargo-home/registry"
cp -R "$cargo_home/registry/index" "$cargo_home/registry/cache" "$world/cargo-home/registry/"
echo "building in $two, with another CARGO_HOME and target directory"
CARGO_HOME=$world/cargo-home CARGO_TARGET_DIR=$world/elsewhere make --silent -C "$two" build

sha256sum "$one/target/release/poller" "$world/elsewhere/release/poller"
cmp "$one/target/release/poller" "$world/elsewhere/release/poller"
# Nor does it tell where it was built.
for told in "$world" "$cargo_home" "$HOME/"; do
    if grep --quiet --text --fixed-strings "$told" "$one/target/release/poller"; then
        echo "the program contains $told" >&2
        exit 1
    fi
done
echo "the two are equal, and name no folder of this machine"
