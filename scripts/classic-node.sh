#!/usr/bin/env bash
# Builds the hardened profile's library for sketches (firmware/classic) for an ATmega1281, runs a sketch with it on simavr,
# opens on this computer what it sealed, and prints cycles, flash and stack beside what the vendor's AES takes.
#
#   scripts/classic-node.sh         numbers are those of docs/firmware.md, "Classic nodes"
#
# Fails when a frame does not open, the node takes what it must refuse or the reverse, KR1 is not the one that
# vectors/key-message.json has, or flash or stack are above their limits.
set -euo pipefail
cd "$(dirname "$0")/.."

# Bytes at most, library and what it needs, without RSA; and with KR1, without RSA.
FLASH_FRAMES=32768
FLASH_ALL=49152
# Bytes of stack at most, to seal and to renew. The chip has 8 KB of RAM.
STACK_SEAL=1024
STACK_RENEW=4096
# The RSA of the simulated sketch: BearSSL as Debian has it, i15, which needs no wide multiplication.
BEARSSL=bearssl_0.6+dfsg.1.orig.tar.xz
BEARSSL_SHA256=102a625bd8f6155260867a50c508df8d8c3f796985dd744df1a68e5cd1a79004
# Inner bytes and cycles of the vendor's encryptFrame, AES-256, with its key setup, on the same simulated chip.
declare -A VENDOR=([32]=58540 [48]=84508 [64]=110480 [96]=162288 [128]=214228 [240]=395818)
HZ=14745600

die() { printf 'classic-node.sh: %s\n' "$*" >&2; exit 1; }
for tool in avr-gcc avr-size simavr python3; do
    command -v "$tool" >/dev/null || die "$tool is missing; ./ci.sh classic-node installs it"
done
work=$PWD/target/classic-node
mkdir -p "$work"

# The source package, by this computer's own list of Debian mirrors, without a change to that list.
fetch_bearssl() {
    local apt=$work/apt codename
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    rm -rf "$apt"
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
    for list in /etc/apt/sources.list.d/*.sources; do
        if [ -e "$list" ] && grep -qE "^Suites:.*\b$codename\b" "$list" && grep -qE '^Components:.*\bmain\b' "$list"; then
            sed 's/^Types:.*/Types: deb-src/' "$list" >"$apt/parts/${list##*/}"
        fi
    done
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -e "$list" ] && sed -nE "s/^deb((\s+\[[^]]*\])?\s+\S+\s+$codename\s.*\bmain\b)/deb-src\1/p" "$list" >>"$apt/parts/some.list"
    done
    local from=(-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/parts" -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache")
    apt-get "${from[@]}" update -qq
    (cd "$apt" && apt-get "${from[@]}" source -qq --download-only bearssl 2>/dev/null)
    mv "$apt/$BEARSSL" "$work/" || die "Debian has another bearssl than $BEARSSL: look at it, then change its name and sum here"
    rm -rf "$apt"
}
[ -e "$work/$BEARSSL" ] || fetch_bearssl
echo "$BEARSSL_SHA256  $work/$BEARSSL" | sha256sum --quiet --strict -c - || die "$BEARSSL is another one than it was"
[ -d "$work/bearssl" ] || { mkdir "$work/bearssl" && tar -xf "$work/$BEARSSL" -C "$work/bearssl" --strip-components 1; }
bearssl=$work/bearssl

# What the sketch is given and hears, sealed by the crate; and what an RSA-2048 signature would be, by the second
# implementation: the PSS encoding and the signature of the message `signed-2048` of vectors/key-message.json.
cargo run --locked --quiet -p fivefold-waspmote --example classic_node -- scene >"$work/scene.h"
python=.venv/bin/python
[ -x "$python" ] || python3 -m venv .venv
"$python" -c 'import cryptography' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check -r vectors/requirements.txt
"$python" - >"$work/private.h" <<'END'
import sys

sys.path.insert(0, "vectors")
import key_message as k

keys = {(name, 2048): k.Key(name, 2048) for name in ("server", "device")}
case = k.Case("signed-2048", "", keys, 2048)
c, private = case.encrypted(), keys["device", 2048].private.private_numbers()
value = k.pss(2048, case.domain + case.hdr + c, case.salt)
parts = {"P": private.p, "Q": private.q, "DP": private.dmp1, "DQ": private.dmq1, "QINV": private.iqmp}
parts = {name: number.to_bytes(128, "big") for name, number in parts.items()}
parts |= {"VALUE": value, "RESULT": case.proof(c)}
print("#define BITS 2048")
for name, data in parts.items():
    print(f"static const uint8_t {name}[{len(data)}] = {{{','.join(map(str, data))}}};")
END

(
    # shellcheck source=scripts/mcu-env.sh
    . scripts/mcu-env.sh avr-none
    [ -z "$MCU_FLAGS" ] || MCU_FLAGS=-Zbuild-std=core,alloc
    export CARGO_TARGET_DIR=$PWD/target/classic-avr RUSTFLAGS='-C target-cpu=atmega1281 --cfg sha2_backend_soft="compact"'
    cd firmware/classic
    cargo build --release --locked --quiet $MCU_FLAGS --target avr-none
    "${RUSTC:-rustc}" -V >"$work/compiler"
)
library=target/classic-avr/avr-none/release/libfivefold_classic.a

link() { # PART: the sketch with that part
    avr-gcc -mmcu=atmega1281 -Os -std=gnu99 -Wall -Wextra -DPART="$1" -I"$work" -Ifirmware/classic/include -I"$bearssl/inc" \
        -ffunction-sections -fdata-sections -Wl,--gc-sections firmware/classic/sim/main.c "$work"/bear/*.o "$library" \
        -o "$work/part$1.elf"
}
mkdir -p "$work/bear"
for file in rsa/rsa_i15_pub rsa/rsa_i15_priv codec/ccopy $(cd "$bearssl/src" && ls int/i15_*.c); do
    avr-gcc -mmcu=atmega1281 -O2 -std=gnu99 -I"$bearssl/inc" -I"$bearssl/src" -ffunction-sections -fdata-sections \
        -c "$bearssl/src/${file%.c}.c" -o "$work/bear/$(basename "${file%.c}").o"
done
for part in 0 1 2 3; do link "$part"; done

run() { # PART: what the sketch writes to its serial port, without simavr's colours and its dots for line ends
    timeout 1800 simavr -m atmega1281 -f $HZ "$work/part$1.elf" 2>&1 </dev/null |
        sed -E 's/\x1b\[[0-9;]*m//g; s/[.\r]+$//' >"$work/part$1.txt" || die "simavr: $(tail -n 3 "$work/part$1.txt")"
    grep -q '^end ' "$work/part$1.txt" || die "the sketch did not come to its end: $(tail -n 3 "$work/part$1.txt")"
}
run 2
cargo run --locked --quiet -p fivefold-waspmote --example classic_node -- check "$work/part2.txt" ||
    die "the node and this computer do not agree: $work/part2.txt"
run 3
grep -q '^private .* right$' "$work/part3.txt" || die "the signature is not the one of vectors/key-message.json"

flash() { avr-size "$work/part$1.elf" | awk 'NR == 2 { print $1 + $2 }'; }
ram() { avr-size "$work/part$1.elf" | awk 'NR == 2 { print $2 + $3 }'; }
ms() { awk -v c="$1" -v hz=$HZ 'BEGIN { printf c / hz < 1 ? "%.1f ms" : "%.1f s", c / hz < 1 ? 1000 * c / hz : c / hz }'; }
# RSA is the sketch's: what it takes is found by leaving it out.
rsa=0
while read -r size; do rsa=$((rsa + 0x$size)); done < <(avr-nm -S "$work/part2.elf" | awk '$4 ~ /^br_/ { print $2 }')
frames=$(($(flash 1) - $(flash 0)))
all=$(($(flash 2) - $(flash 0) - rsa))

printf '\nATmega1281 at 14.7456 MHz (simavr), %s, %s\n' "$(cat "$work/compiler")" "$(avr-gcc --version | head -n1)"
printf '  %-44s %8d bytes\n' "flash: frames and answers" "$frames" "flash: renewal too, without RSA" "$all" "flash: RSA, BearSSL i15" "$rsa"
printf '\n  %-6s %-34s | %-34s\n' inner "hardened, AES-256-CCM" "the vendor's AES-256-ECB"
printf '  %-6s %10s %10s %5s %5s | %10s %10s %5s\n' bytes cycles time stack frame cycles time frame
while read -r _ size cycles stack frame _; do
    vendor=${VENDOR[$size]:-}
    if [ -n "$vendor" ]; then
        printf '  %-6d %10d %10s %5d %5d | %10d %10s %5d\n' "$size" "$cycles" "$(ms "$cycles")" "$stack" "$frame" \
            "$vendor" "$(ms "$vendor")" $((13 + (size + 15) / 16 * 16))
    else
        printf '  %-6d %10d %10s %5d %5d | %10s\n' "$size" "$cycles" "$(ms "$cycles")" "$stack" "$frame" "240: ${VENDOR[240]}"
    fi
    [ "$stack" -le $STACK_SEAL ] || die "sealing $size bytes takes $stack bytes of stack, more than $STACK_SEAL"
done < <(grep '^frame ' "$work/part2.txt" | head -n 6)
echo
while read -r _ what cycles stack; do
    printf '  %-44s %12d cycles %10s %6d bytes of stack\n' "$what" "$cycles" "$(ms "$cycles")" "$stack"
    [ "$stack" -le $STACK_RENEW ] || die "$what takes $stack bytes of stack, more than $STACK_RENEW"
done < <(grep '^cost ' "$work/part2.txt")
read -r _ _ cycles stack _ <"$work/part3.txt"
printf '  %-44s %12d cycles %10s %6d bytes of stack\n' "an RSA-2048 PSS signature (private operation)" "$cycles" "$(ms "$cycles")" "$stack"
printf '  %-44s %12d bytes, the sketch of the simulation\n' "RAM without stack" "$(ram 2)"
[ "$frames" -le $FLASH_FRAMES ] || die "frames take $frames bytes of flash, more than $FLASH_FRAMES"
[ "$all" -le $FLASH_ALL ] || die "frames and renewal take $all bytes of flash, more than $FLASH_ALL"
printf '\nwhat the node sealed opens here, what was sealed here opens on the node, KR1 is that of vectors/key-message.json\n'
