#!/usr/bin/env bash
# Runs every fuzz target for a while.
#
# usage: scripts/fuzz.sh SECONDS [TARGET...]
#
# The corpus grows in fuzz/corpus; a finding lies in fuzz/artifacts and is run again with
#   RUSTC_BOOTSTRAP=1 cargo fuzz run TARGET FILE
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:?seconds per target}
shift
export RUSTC_BOOTSTRAP=1 # sanitizer flags on a stable toolchain

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
[ ${#targets[@]} -gt 0 ] || { echo "fuzz: no targets" >&2; exit 1; }
cargo fuzz build --sanitizer none

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# One target: prints its line, or the end of what it said. A fuzzer keeps one core busy, so as many run as there are cores.
one() {
    local target=$1 log=$logs/$1 seeds=() runs cover
    mkdir -p "corpus/$target"
    [ -d "seeds/$target" ] && seeds=("seeds/$target")
    if ! cargo fuzz run --sanitizer none "$target" "corpus/$target" "${seeds[@]}" -- \
        -max_total_time="$seconds" -max_len=2048 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        : >"$logs/$target.failed"
        return
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    cover=$(grep -oE 'cov: [0-9]+' "$log" | tail -n1 || true)
    if [ "${runs:-0}" -gt 0 ]; then
        printf '%-20s %12s runs  %s\n' "$target" "$runs" "$cover"
    else
        echo "fuzz: $target ran nothing" >&2
        : >"$logs/$target.failed"
    fi
}
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
    one "$target" &
done
wait
failed=$(cd "$logs" && for f in *.failed; do [ -e "$f" ] && printf " %s" "${f%.failed}"; done) || true
if [ -n "$failed" ]; then
    echo "fuzz: findings in$failed; each input is under fuzz/artifacts" >&2
    exit 1
fi
