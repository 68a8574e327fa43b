#!/usr/bin/env bash
# Villages from seeds: every engine, every store, nodes that sign, loss, reboots, a hostile gateway; ARG: how many seeds.
# After them two months of renewals. `year [SEED]` as ARG: a whole year of a thousand devices, and no villages; that takes
# a while.
set -euo pipefail
cd "$(dirname "$0")/.."
sim() { cargo run --release --locked -p fivefold-sim --features witness -- "$@"; }
if [ "${1:-}" = year ]; then
    sim renewal --devices 1000 --days 365 --seed "${2:-1}"
elif [ "${1:-}" = one ]; then
    sim --signing --start "$2" --seeds 1
else
    sim --signing --seeds "${1:-1000}"
    sim renewal --devices 30 --days 60 --rotation 25 --seed 1
fi
