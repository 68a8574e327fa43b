#!/usr/bin/env bash
# Builds the programs in firmware/ for a Cortex-M4 and a Cortex-M0, runs each on QEMU, and prints what it takes.
#
#   scripts/firmware.sh           a table for each board; numbers are those of docs/firmware.md
#   scripts/firmware.sh compact   the same with the smaller AES and SHA-256
#
# Fails when a program is refused, runs into something that is not as it must be, or takes more flash than its limit.
set -euo pipefail
cd "$(dirname "$0")/.."

# The engines with the gateway and the cloud that answer them need more than the 16 KB of RAM of the M0 board.
M4=(measuring empty e1 e1_e3 e1_e2_e3 edhoc signing relay node node_signs)
M0=(measuring empty e1 e1_e3 e1_e2_e3 edhoc signing)
# Bytes of flash with the runtime, at most, on either board. Another compiler may need a tenth more or less.
declare -A LIMIT=([measuring]=8192 [empty]=4096 [e1]=40960 [e1_e3]=49152 [e1_e2_e3]=51200 [edhoc]=57344 [signing]=45056 [relay]=61440 [node]=106496 [node_signs]=139264)

COMPACT=
case "${1:-}" in
    '') ;;
    compact) COMPACT=' --cfg aes_backend_soft="compact" --cfg sha2_backend_soft="compact"' ;;
    *) echo "firmware.sh: 'compact' or nothing, not '$1'" >&2; exit 2 ;;
esac

die() { printf 'firmware.sh: %s\n' "$*" >&2; exit 1; }
for tool in qemu-system-arm size python3; do
    command -v "$tool" >/dev/null || die "$tool is missing; ./ci.sh firmware installs it"
done

# The frames that the programs must produce come from another implementation, in Python.
python=.venv/bin/python
[ -x "$python" ] || python3 -m venv .venv
"$python" -c 'import cryptography' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check -r vectors/requirements.txt ||
    die "the Python package cryptography is missing from .venv and could not be installed"
"$python" firmware/expected.py --check

run() { # MACHINE PROGRAM: standard output and error of the program, and its exit status
    local shift=6 # 64 ns an instruction; two programs have more of them than SysTick counts at that pace
    case "${2##*/}" in edhoc | signing) shift=0 ;; esac
    timeout 120 qemu-system-arm -M "$1" -nographic -monitor none -serial none \
        -semihosting-config enable=on,target=native -icount shift="$shift" -kernel "$2" </dev/null 2>&1
}

board() { # TARGET MACHINE NAME PROGRAM...
    local target=$1 machine=$2 name=$3 program elf text data flash base=0 said word what a b
    shift 3
    # shellcheck source=scripts/mcu-env.sh
    . scripts/mcu-env.sh "$target"
    export RUSTFLAGS="-C link-arg=-Tlink.x -C linker=$MCU_LLD -C linker-flavor=ld.lld$COMPACT"
    CARGO_TARGET_DIR=$(realpath -m "$CARGO_TARGET_DIR")-firmware${COMPACT:+-compact}
    (cd firmware && cargo build --release --locked --quiet $MCU_FLAGS --target "$target")
    printf '\n%s (%s), %s\n' "$name" "$machine" "$("${RUSTC:-rustc}" -V)"
    printf '  %-10s %-20s %8s %14s\n' program what bytes instructions
    for program in "$@"; do
        elf=$CARGO_TARGET_DIR/$target/release/$program
        read -r text data _ < <(size "$elf" | tail -n1)
        flash=$((text + data))
        [ "$program" = empty ] && base=$flash
        said=$(run "$machine" "$elf") || die "$program on $machine: exit $?: $said"
        printf '  %-10s %-20s %8d\n' "$program" "flash, all" "$flash"
        [ "$base" -eq 0 ] || [ "$program" = empty ] || printf '  %-10s %-20s %8d\n' "$program" "flash, ours" $((flash - base))
        while read -r word a b what; do
            case $word in
                size) printf '  %-10s %-20s %8d\n' "$program" "size of $what" "$a" ;;
                cost) printf '  %-10s %-20s %8d %14d\n' "$program" "stack $what" "$b" "$a" ;;
                peak) printf '  %-10s %-20s %8d\n' "$program" "stack, deepest" "$a" ;;
                *) die "$program on $machine says: $word $a $b $what" ;;
            esac
        done <<<"$said"
        grep -q '^peak' <<<"$said" || die "$program on $machine did not come to its end: $said"
        [ "$flash" -le "${LIMIT[$program]}" ] || die "$program on $machine takes $flash bytes of flash, more than ${LIMIT[$program]}"
    done
}

# Each in a shell of its own: mcu-env.sh sets the compiler for one target.
(board thumbv7em-none-eabi mps2-an386 "Cortex-M4" "${M4[@]}")
(board thumbv6m-none-eabi microbit "Cortex-M0" "${M0[@]}")
printf '\nevery program came to its end: each frame was as the second implementation has it, each reading was confirmed\n'
