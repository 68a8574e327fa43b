#!/usr/bin/env bash
# Villages from seeds: every engine, every store, loss, reboots, a hostile gateway. ARG: how many seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --release --locked -p fivefold-sim --features witness --bin fivefold-sim -- --seeds "${1:-1000}"
