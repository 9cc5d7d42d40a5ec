#!/bin/bash
# The facts in the table of docs/dependencies.md: each direct dependency, its version, the day of its newest
# release, and how often its source says `unsafe`. Usage: tools/dependencies.sh
#
# Days are those of the registry's index, as cargo keeps it after `cargo update --dry-run` or a build.
set -euo pipefail
cd "$(dirname "$0")/.."

index() {
    local name=$1 path
    case ${#name} in
        1 | 2) path=${#name}/$name ;;
        3) path=3/${name:0:1}/$name ;;
        *) path=${name:0:2}/${name:2:2}/$name ;;
    esac
    cat "${CARGO_HOME:-$HOME/.cargo}"/registry/index/*/.cache/"$path" | tr '\0' '\n' | grep '^{'
}

cargo metadata --locked --format-version 1 | jq --raw-output '
    .packages as $all | .resolve as $tree
    | $tree.nodes[] | select(.id == $tree.root) | .deps[].pkg
    | . as $id | $all[] | select(.id == $id) | "\(.name) \(.version) \(.manifest_path)"' |
    sort | while read -r name version manifest; do
    day=$(index "$name" | jq --raw-output '.pubtime // "unknown" | .[:10]' | sort | tail -1)
    count=$(cd "$(dirname "$manifest")" && find . -name '*.rs' -not -path '*/tests/*' -not -path '*/benches/*' \
        -not -path '*/examples/*' -exec sed 's|//.*||' {} + |
        { grep --only-matching --extended-regexp '\bunsafe[[:space:]]*(\{|fn|impl|extern|trait)' || true; } | wc -l)
    echo "| $name | ${version%%+*} | $day | $count |"
done
