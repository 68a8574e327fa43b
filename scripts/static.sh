#!/usr/bin/env bash
# `fivefold` as one file without libraries, for machines that are no Debian, and each such file run: by this machine if it can, by
# qemu-user otherwise. What runs is a whole small deployment: init, a cloud, a gateway, and readings of a node that the cloud confirms.
#
#   scripts/static.sh PYTHON [ARCHITECTURE...]      a Python that has ziglang and cargo-zigbuild; amd64, arm64, armhf by default
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "$1")
shift
[ $# -gt 0 ] || set -- amd64 arm64 armhf
PATH=$(dirname "$python"):$PATH
export CARGO_TARGET_DIR=$PWD/target/static XDG_CACHE_HOME=$PWD/target/static/cache

work=$(mktemp -d)
daemons=()
end() {
    local id
    for id in "${daemons[@]}"; do kill "$id" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap end EXIT
die() { printf 'static: %s\n' "$*" >&2; exit 1; }

port() { "$python" -c 'import socket, sys; s = socket.socket(type=getattr(socket, sys.argv[1])); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' "$1"; }

# build TARGET: with the target's own standard library if it is installed, otherwise with one made here from Debian's source.
build() (
    flags=() last=()
    if [ ! -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)" ]; then
        RUSTC=$(dpkg -L rustc-web 2>/dev/null | grep '/bin/rustc$' | head -n1)
        [ -n "$RUSTC" ] || die "no standard library for $1: rustup target add $1, or apt-get install rustc-web rust-web-src"
        export RUSTC RUSTC_BOOTSTRAP=1
        flags=(-Zbuild-std=std,panic_unwind)
        # That library has no start of a program and no C library beside it: Zig has.
        last=(-- -C link-self-contained=no)
    fi
    cargo-zigbuild rustc --release --locked "${flags[@]}" --target "$1" -p fivefold --bin fivefold "${last[@]}"
)

for arch in "$@"; do
    case "$arch" in
        amd64) target=x86_64-unknown-linux-musl by=qemu-x86_64 ;;
        arm64) target=aarch64-unknown-linux-musl by=qemu-aarch64 ;;
        armhf) target=armv7-unknown-linux-musleabihf by=qemu-arm ;;
        *) die "no architecture $arch; there are amd64, arm64, armhf" ;;
    esac
    build $target
    file=$CARGO_TARGET_DIR/$target/release/fivefold
    ! readelf -lW "$file" | grep -q INTERP || die "$file asks for a loader"
    ! readelf -dW "$file" 2>/dev/null | grep -q NEEDED || die "$file asks for a library"
    [ "$arch" != "$(dpkg --print-architecture)" ] || by=
    fivefold() { $by "$file" "$@"; }
    rm -rf "$work"/*
    dir=$work/farm
    fivefold init "$dir" --ingest "127.0.0.1:$(port SOCK_STREAM)" --api "127.0.0.1:$(port SOCK_STREAM)" >/dev/null
    fivefold network add --dir "$dir" field-7 >/dev/null
    fivefold gateway add --dir "$dir" --net field-7 north --radio "127.0.0.1:$(port SOCK_DGRAM)" >/dev/null
    did=$(fivefold device add --dir "$dir" --net field-7 -o json | grep -oE '[0-9a-f]{16}' | head -1)
    (umask 077 && fivefold token add --dir "$dir" me >"$work/token")
    $by "$file" cloud run --dir "$dir/cloud" >"$work/cloud.log" 2>&1 &
    daemons+=($!)
    $by "$file" gateway run --dir "$dir/gateways/north" >"$work/gateway.log" 2>&1 &
    daemons+=($!)
    fivefold node run --dir "$dir/nodes/$did" --every 1 --count 2 --wait 120 >"$work/node.log" 2>&1 ||
        { tail -n 20 "$work"/*.log >&2; die "the node's readings were not confirmed ($arch)"; }
    came=$(fivefold reading list --dir "$dir" --token-file "$work/token" -o json | grep -o '"device"' | wc -l)
    [ "$came" -eq 2 ] || die "$came readings, not 2 ($arch)"
    for id in "${daemons[@]}"; do kill "$id"; done
    wait
    daemons=()
    echo "$arch: $(stat -c %s "$file") bytes, no library; init, cloud, gateway and two readings of a node ${by:+under }${by:-on this machine}"
done
