#!/usr/bin/env bash
# Every check of the project. CI is this file, and this file is CI.
#
#   ./ci.sh                all jobs, in the order below
#   ./ci.sh JOB [ARG]      one job
#   ./ci.sh list           the jobs and what they are for
#
# A job installs what it needs (Debian packages, cargo tools, Python peers into .venv) and fails when something is
# missing: none is skipped. Warnings are errors here and only here.
set -euo pipefail
cd "$(dirname "$0")"

JOBS=(
    "fmt        rustfmt has nothing to change"
    "arrows     crates use what ARCHITECTURE.md lets them use; core's dependencies are the pinned list"
    "rooms      each rule lives in its room: algorithms in suite.rs, no E3 in the gateway, no clock in engines"
    "vectors    other people's vectors are unchanged; a second implementation, in Python, agrees with what we compute"
    "msrv       every dependency builds with the Rust that Cargo.toml promises"
    "places     no path of a developer's machine and no private key in the repository"
    "clippy     lints of the workspace, as errors"
    "test       all tests of the workspace"
    "doctest    examples in the documentation, and what must not compile"
    "doc        the documentation builds without a warning"
    "no-std     core, waspmote and device build for a Cortex-M0+ and a Cortex-M4"
    "firmware   node and relay run on an emulated M4 and M0: flash, stack, instructions"
    "classic-node  a classic node on a simulated ATmega1281: what it seals opens here; cycles, flash, stack"
    "fuzz       every parser under a fuzzer; ARG: seconds per target, 5 by default"
    "models     symbolic models of renewal: claims hold, broken variants fail; ARG: a word of models/claims.txt"
    "deny       licences, banned crates and sources"
    "demo       the village, its attackers, and outcomes as docs/threats.md states them"
    "range      the range against the demo's networks as docs/threats.md states, and against weakened ones, where it must find more"
    "interop    tshark, aiocoap, lakers and other people's captures against running daemons"
    "evidence   a second verifier, a log looked at from outside, and pycose and openssl, over what our own code made"
    "reports    SARIF of the audit holds to its schema, JUnit opens in a foreign parser, all forms say the same; pyarrow reads the outbox's files"
    "sim        the engines under loss, reboots and a hostile gateway, and two months of renewals; ARG: seeds, or year [SEED]"
    "states     every course of renewal, rotation and nonces over the engines, up to a depth; ARG: a model, --deeper N"
    "timing     RSA key messages are refused after one and the same time, whatever the cause; ARG: seconds, 20 by default"
    "skew       the release before this one and this one run one deployment together and change places in the middle of renewals (builds the other first, so the clone must have its commit)"
    "kill       processes killed at random under load, and no nonce twice; ARG: kills, 100 by default"
    "metrics    promtool over the pages of a running gateway and cloud, the alert rules and what they say minute by minute"
    "package    packages on a fresh Debian that is booted: installed, used, upgraded from the release before (built first, so the clone must have its commit), removed; daemons write to their folders alone"
)
EXTRA=(
    "static     one file without libraries, for x86-64, arm64 and armv7, and each of them run; ARG: an architecture"
    "advisories the RustSec database, which lies in a git repository on the Internet (not part of the default run)"
)

say() { printf '\n== %s\n' "$*"; }
die() { printf 'ci.sh: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# need_deb PACKAGE...: Debian packages, installed if they are not there.
need_deb() {
    local missing=() p
    for p in "$@"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep 'install ok installed' >/dev/null || missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return
    have apt-get || die "install these yourself, there is no apt-get here: ${missing[*]}"
    say "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

# need_cargo TOOL VERSION [ARG...]: a cargo subcommand, or another tool of crates.io, of exactly that version.
need_cargo() {
    local tool=$1 version=$2
    shift 2
    if have "$tool" && "$tool" "${tool#cargo-}" --version 2>/dev/null | grep -F "$version" >/dev/null; then return; fi
    if have "$tool" && "$tool" --version 2>/dev/null | grep -F "$version" >/dev/null; then return; fi
    say "installing $tool $version"
    cargo install "$tool" --locked --version "$version" "$@"
}

# What jobs run beside `fivefold`, built with the features that it has: each set of features builds all below it anew.
build_examples() {
    cargo build --release --locked -p fivefold -p fivefold-device -p fivefold-evidence -p fivefold-keep --examples
}

job_fmt() {
    cargo fmt --all --check
    for manifest in fuzz/Cargo.toml firmware/Cargo.toml firmware/classic/Cargo.toml; do
        cargo fmt --manifest-path "$manifest" --check
    done
}

job_arrows() { need_deb python3; cargo metadata --format-version 1 --locked | python3 scripts/arrows.py; }

job_rooms() { bash scripts/rooms.sh; }

job_vectors() {
    need_deb python3 python3-venv
    (cd vectors && sha256sum --quiet --strict -c SHA256SUMS)
    echo "vectors are as their makers left them"
    python3 waspmote/tables/make.py --check
    scripts/vectors.sh
    local made
    made=$(mktemp)
    # With the features of `test`, whose build this is.
    cargo build --workspace --features fivefold-device/lorawan --locked --example key_messages
    target/debug/examples/key_messages >"$made"
    scripts/vectors.sh --key-messages "$made"
    rm -f "$made"
}

job_msrv() { need_deb python3; cargo metadata --format-version 1 --locked | python3 scripts/msrv.py; }

job_places() { bash scripts/places.sh; }

job_clippy() {
    # The features are those of tests that watch every seal, and of devices on LoRaWAN; without them their code would not be
    # looked at.
    cargo clippy --workspace --all-targets --features fivefold-sim/witness,fivefold-device/lorawan --locked -- -D warnings
    cargo clippy --manifest-path fuzz/Cargo.toml --locked --target-dir target/fuzz-clippy -- -D warnings
    # As tests, for a library without std lacks on this computer what the chip gives it.
    cargo clippy --manifest-path firmware/classic/Cargo.toml --locked --target-dir target/classic --tests -- -D warnings
}

job_test() {
    # A token for vaults: SoftHSM, and OpenSC's tool to make keys in it that must be refused. A broker for LoRaWAN.
    # A database such as a Meshlium has: mariadb-server. A core dump of a gateway: gdb.
    # Where readings go: nats-server and influxdb.
    need_deb softhsm2 opensc mosquitto mosquitto-clients mariadb-server gdb nats-server influxdb
    if have cargo-nextest; then
        # More than there are cores: half of them wait for daemons most of the time.
        cargo nextest run --workspace --features fivefold-device/lorawan --locked --no-fail-fast -j $(($(nproc) * 3 / 2))
    else
        cargo test --workspace --features fivefold-device/lorawan --locked --no-fail-fast --lib --bins --tests
    fi
}

job_doctest() { cargo test --workspace --features fivefold-device/lorawan --locked --doc; }

job_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --locked --no-deps; }

job_no-std() {
    local target
    need_deb lld
    for target in thumbv6m-none-eabi thumbv7em-none-eabi; do
        say "$target"
        (
            [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ] || need_deb rustc-web rust-web-src
            # shellcheck source=scripts/mcu-env.sh
            . scripts/mcu-env.sh "$target"
            cargo build --release --locked $MCU_FLAGS --target "$target" -p fivefold-core -p fivefold-waspmote -p fivefold-device
        )
    done
}

job_firmware() {
    need_deb qemu-system-arm lld python3 python3-venv binutils
    local target
    for target in thumbv6m-none-eabi thumbv7em-none-eabi; do
        [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ] || need_deb rustc-web rust-web-src
    done
    bash scripts/firmware.sh
}

job_classic-node() {
    need_deb gcc-avr avr-libc binutils-avr simavr python3 python3-venv
    [ -d "$(rustc --print target-libdir --target avr-none 2>/dev/null)" ] || need_deb rustc-web rust-web-src
    cargo test --manifest-path firmware/classic/Cargo.toml --locked --target-dir target/classic
    bash scripts/classic-node.sh
}

job_fuzz() {
    need_deb g++
    need_cargo cargo-fuzz 0.13.2
    bash scripts/fuzz.sh "${1:-5}"
}

job_models() {
    need_deb spass cpp python3
    # It asks for a newer Rust than it needs.
    need_cargo verifpal 1.6.7 --ignore-rust-version
    python3 models/run.py "$@"
}

job_deny() {
    need_cargo cargo-deny 0.20.2
    cargo deny --locked check bans licenses sources
    cargo deny --locked --manifest-path fuzz/Cargo.toml --config deny.toml check bans licenses sources
}

job_advisories() {
    need_cargo cargo-deny 0.20.2
    cargo deny --locked check advisories
}

job_demo() { cargo run --release --locked -- demo; }

job_range() {
    cargo build --release --locked -p fivefold
    scripts/range.sh target/release/fivefold
}

job_interop() {
    need_deb tshark python3 python3-venv openssl stunnel4
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r interop/requirements.txt
    cargo build --release --locked -p fivefold
    build_examples
    .venv/bin/python interop/run.py "$@"
}

job_evidence() {
    need_deb python3 python3-venv openssl
    # A folder of its own: the stock clients of `interop` are tested with an older `cryptography`, which has no ML-DSA-44.
    local venv=target/evidence/venv
    [ -x $venv/bin/python ] || python3 -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check -r interop/evidence/requirements.txt
    cargo build --release --locked -p fivefold
    build_examples
    # As `sim` builds it.
    cargo build --release --locked -p fivefold-sim --features witness
    $venv/bin/python interop/evidence/run.py "$@"
}

job_reports() {
    need_deb python3 python3-venv
    local venv=target/reports/venv
    [ -x $venv/bin/python ] || python3 -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check -r interop/reports/requirements.txt
    cargo build --release --locked -p fivefold
    $venv/bin/python interop/reports/run.py "$@"
    local lake
    lake=$(mktemp -d)
    # With the features of `test`, whose build this is.
    FIVEFOLD_LAKE=$lake cargo test --workspace --features fivefold-device/lorawan --locked --test lake
    $venv/bin/python interop/reports/lake.py "$lake"
    rm -r "$lake"
}

job_sim() { bash scripts/sim.sh "${@:-1000}"; }

job_states() {
    cargo run --release --locked -p fivefold-sim --features witness -- states "$@"
}

job_timing() {
    local code broken
    build_examples
    target/release/examples/key_message_timing "${1:-20}"
    for broken in check decrypt; do
        code=0
        target/release/examples/key_message_timing "${1:-20}" --broken "$broken" || code=$?
        [ "$code" -eq 1 ] || die "the server that does not $broken for strangers was not told from the good one (exit $code)"
    done
}

job_package() {
    need_deb debootstrap qemu-system-x86 e2fsprogs binutils
    cargo build --release --locked -p fivefold
    local before
    before=$(bash scripts/before.sh)
    as_root bash scripts/package.sh target/release/fivefold "$before"
}

job_static() {
    need_deb python3 python3-venv binutils qemu-user
    local target venv=target/static/venv
    for target in x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf; do
        [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ] || need_deb rustc-web rust-web-src
    done
    # Zig has a C compiler, a linker and musl for all of them.
    [ -x $venv/bin/python ] || python3 -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check ziglang==0.17.0 cargo-zigbuild==0.24.0
    bash scripts/static.sh $venv/bin/python "$@"
}

job_skew() { bash scripts/skew.sh; }

job_kill() {
    cargo run --release --locked -p fivefold-sim --features witness -- kill --kills "${1:-100}"
}

job_metrics() {
    need_deb prometheus
    local pages page
    pages=$(mktemp -d)
    # With the features of `test`, whose builds these are.
    FIVEFOLD_PAGES=$pages cargo test --workspace --features fivefold-device/lorawan --locked --test metrics
    for page in gateway cloud; do
        say "the page of a running $page"
        promtool check metrics <"$pages/$page"
        wc -l <"$pages/$page"
    done
    rm -r "$pages"
    promtool check config --syntax-only monitoring/prometheus.yml
    promtool check rules monitoring/alerts.yml
    promtool test rules monitoring/alerts_test.yml
}

list() { printf '  %s\n' "${JOBS[@]}" "${EXTRA[@]}"; }

names() { local line; for line in "$@"; do echo "${line%% *}"; done; }

run_all() {
    local started=$SECONDS failed=() times=() job before code
    for job in $(names "${JOBS[@]}"); do
        printf '\n######## %s\n' "$job"
        before=$SECONDS
        code=0
        bash ./ci.sh "$job" || code=$?
        times+=("$(printf '  %-10s %5d s  %s' "$job" $((SECONDS - before)) "$([ $code -eq 0 ] && echo ok || echo "FAILED, exit $code")")")
        [ $code -eq 0 ] || failed+=("$job")
    done
    printf '\n######## times\n'
    printf '%s\n' "${times[@]}"
    printf '  %-10s %5d s\n' all $((SECONDS - started))
    if [ ${#failed[@]} -ne 0 ]; then
        printf '\nFailed. To run each again:\n'
        printf '  ./ci.sh %s\n' "${failed[@]}"
        exit 1
    fi
    printf '\nAll %d jobs passed.\n' ${#JOBS[@]}
}

case "${1:-all}" in
    all) run_all ;;
    list | -h | --help) list ;;
    *)
        job=$1
        shift
        names "${JOBS[@]}" "${EXTRA[@]}" | grep -xF -- "$job" >/dev/null || { echo "ci.sh: no job '$job'. The jobs:" >&2; list >&2; exit 2; }
        "job_$job" "$@"
        ;;
esac
