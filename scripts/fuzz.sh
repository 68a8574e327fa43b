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

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target"
    seeds=()
    [ -d "seeds/$target" ] && seeds=("seeds/$target")
    if cargo fuzz run --sanitizer none "$target" "corpus/$target" "${seeds[@]}" -- \
        -max_total_time="$seconds" -max_len=2048 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        [ "${runs:-0}" -gt 0 ] || { echo "fuzz: $target ran nothing" >&2; failed+=("$target"); continue; }
        cover=$(grep -oE 'cov: [0-9]+' "$log" | tail -n1)
        printf '%-16s %12s runs  %s\n' "$target" "$runs" "$cover"
    else
        tail -n 40 "$log" >&2
        failed+=("$target")
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: findings in ${failed[*]}; each input is under fuzz/artifacts" >&2
    exit 1
fi
echo "${#targets[@]} targets, ${seconds} s each, no finding"
