#!/usr/bin/env bash
# Lets the release before this one and this one run one deployment together, in the middle of a campaign of renewals.
set -euo pipefail
cd "$(dirname "$0")/.."
FIVEFOLD_BEFORE=$(scripts/before.sh)
export FIVEFOLD_BEFORE
cargo test --workspace --features fivefold-device/lorawan --locked --test skew -- --ignored --nocapture
