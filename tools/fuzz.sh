#!/bin/bash
# Runs the fuzz targets, as many at once as there are cores. Usage: tools/fuzz.sh SECONDS [TARGET…]
#
# The toolchain stays the stable one: the fuzzer's instrumentation and the address sanitizer come with it, and
# RUSTC_BOOTSTRAP lets them be asked for. What is new goes to fuzz/target/found, and not into the corpus, which
# is kept small: `cargo fuzz cmin TARGET` there takes over what is worth it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: tools/fuzz.sh SECONDS [TARGET…]}
shift
if [ $# = 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do
        name=${file##*/}
        set -- "$@" "${name%.rs}"
    done
fi

export RUSTC_BOOTSTRAP=1
unset CARGO_TARGET_DIR
# cargo-fuzz takes no --locked; what it would change in the lock file is asked first.
"${CARGO:-cargo}" metadata --locked --manifest-path fuzz/Cargo.toml --format-version 1 >/dev/null
"${CARGO:-cargo}" fuzz build

one() {
    local name=$1 found=fuzz/target/found/$1 crashes=fuzz/artifacts/$1/ log=fuzz/target/found/$1.log status=0
    mkdir -p "$found" "$crashes"
    # libgit2 and its parts have two tables of one name, which is no fault of memory.
    ASAN_OPTIONS=detect_odr_violation=0 "fuzz/target/$HOST/release/$name" "$found" "fuzz/corpus/$name" \
        -max_total_time="$SECONDS_EACH" -timeout=20 -malloc_limit_mb=64 -rss_limit_mb=2048 -max_len=4096 \
        -artifact_prefix="$crashes" -print_final_stats=1 >"$log" 2>&1 || status=$?
    local runs
    runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
    if [ "$status" = 0 ]; then
        echo "ok      $name: $runs inputs"
        return 0
    fi
    echo "FAILED  $name: $(grep -m1 -A1 -E 'panicked at|ERROR: ' "$log" | tr '\n' ' ')"
    local file
    file=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
    echo "        kept in ${file:-$log}; again: RUSTC_BOOTSTRAP=1 cargo fuzz run $name ${file:-}"
    return 1
}
export -f one
HOST=$(rustc -vV | sed -n 's/^host: //p')
export HOST SECONDS_EACH=$seconds
printf '%s\n' "$@" | xargs --max-procs="$(nproc)" --replace=NAME bash -c 'one NAME'
