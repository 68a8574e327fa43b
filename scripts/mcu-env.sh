# Finds what builds for a microcontroller: an installed target, or Debian's compiler with its matching source.
#
# usage:  . scripts/mcu-env.sh TARGET && cargo build --release $MCU_FLAGS --target TARGET
#
# Sets MCU_LLD (a linker), MCU_FLAGS (for cargo), and exports CARGO_TARGET_DIR and, if needed, RUSTC and RUSTC_BOOTSTRAP.
# Returns 77 when neither is there.
mcu_target=$1
mcu_host=$(rustc -vV | sed -n 's/^host: //p')
MCU_LLD=$(rustc --print sysroot)/lib/rustlib/$mcu_host/bin/rust-lld
[ -x "$MCU_LLD" ] || MCU_LLD=$(command -v ld.lld || echo rust-lld)
MCU_FLAGS=
if [ -d "$(rustc --print target-libdir --target "$mcu_target" 2>/dev/null)" ]; then
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/mcu}
else
    mcu_rustc=$(dpkg -L rustc-web 2>/dev/null | grep '/bin/rustc$' | head -n1)
    if [ -n "$mcu_rustc" ] && [ -e "$("$mcu_rustc" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; then
        export RUSTC=$mcu_rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/mcu-std}
        MCU_FLAGS=-Zbuild-std=core,alloc
    else
        echo "no core library for $mcu_target: rustup target add $mcu_target, or apt-get install --no-install-recommends rustc-web rust-web-src" >&2
        return 77
    fi
fi
