#!/usr/bin/env bash
# Packages for Debian, of a program that is built already:
#
#   packages/build.sh --binary target/release/fivefold --out target/packages [--version 0.1.0] [--arch amd64] [--pages none]
#
# fivefold          the command, its manual pages and completion
# fivefold-cloud    the unit of the cloud and its user
# fivefold-gateway  the unit of gateways and their user
set -euo pipefail
cd "$(dirname "$0")/.."

binary='' out='' version='' arch=$(dpkg --print-architecture) pages=all
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "build.sh: $1 wants a value" >&2; exit 2; }
    case "$1" in
        --binary) binary=$2 ;;
        --out) out=$2 ;;
        --version) version=$2 ;;
        --arch) arch=$2 ;;
        # Of a program that writes no manual and no completion.
        --pages) pages=$2 ;;
        *) echo "build.sh: no option $1; there are --binary, --out, --version, --arch, --pages" >&2; exit 2 ;;
    esac
    shift 2
done
[ -x "$binary" ] || { echo "build.sh: --binary names no program; build it with: cargo build --release" >&2; exit 2; }
[ -n "$out" ] || { echo "build.sh: --out names no folder" >&2; exit 2; }
[ -n "$version" ] || version=$("$binary" --version | cut -d' ' -f2)
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The same sources give the same bytes: files have the time of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}
export SOURCE_DATE_EPOCH

put() { install -D -m "$1" "$2" "$root$3"; }

# finish NAME ARCHITECTURE DEPENDS DESCRIPTION: copyright, control, and the file.
finish() {
    local name=$1
    put 644 LICENSE-MIT "/usr/share/doc/$name/copyright"
    mkdir -p "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: $name
Version: $version
Architecture: $2
Maintainer: Fivefold <fivefold@example.org>
Depends: $3
Section: net
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Description: $4
CONTROL
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --build --root-owner-group -z2 "$root" "$out/${name}_${version}_$2.deb" >/dev/null
    echo "$out/${name}_${version}_$2.deb"
}

# The oldest C library that has every symbol the program asks for; none is asked for by a static one.
libc() {
    local newest
    newest=$(objdump -T "$binary" 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 || true)
    if [ -n "$newest" ]; then
        echo "libc6 (>= ${newest#GLIBC_}), libgcc-s1"
    elif head -c 4096 "$binary" | grep -qaE '/ld-(linux|musl)'; then
        # A package that needs nothing would install where the program does not start.
        echo "build.sh: $binary is loaded with libraries, and objdump does not say which; type: apt-get install binutils (of another machine's program: binutils-multiarch)" >&2
        exit 2
    else
        echo "base-files"
    fi
}

root=$work/fivefold
put 755 "$binary" /usr/bin/fivefold
if [ "$pages" != none ]; then
    "$binary" man "$root/usr/share/man/man1" >/dev/null
    find "$root/usr/share/man" -type f -exec gzip -9n {} +
    mkdir -p "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" \
        "$root/usr/share/fish/vendor_completions.d"
    "$binary" completion bash >"$root/usr/share/bash-completion/completions/fivefold"
    "$binary" completion zsh >"$root/usr/share/zsh/vendor-completions/_fivefold"
    "$binary" completion fish >"$root/usr/share/fish/vendor_completions.d/fivefold.fish"
fi
for page in docs/*.md README.md CHANGELOG.md; do put 644 "$page" "/usr/share/doc/fivefold/${page##*/}"; done
depends=$(libc)
finish fivefold "$arch" "$depends" "five-level security for networks of sensors: the command"

# daemon NAME UNIT UNITS DESCRIPTION: a unit with its user; what is in the folder beside it are drop-ins to copy.
daemon() {
    local name=$1 from=packages/${1#fivefold-} script
    root=$work/$name
    put 644 "$from/$2" "/lib/systemd/system/$2"
    put 644 "$from/sysusers.conf" "/usr/lib/sysusers.d/$name.conf"
    put 644 "$from/tmpfiles.conf" "/usr/lib/tmpfiles.d/$name.conf"
    put 644 "$from/credential.conf" "/usr/share/doc/$name/examples/credential.conf"
    [ ! -e "$from/serial.conf" ] || put 644 "$from/serial.conf" "/usr/share/doc/$name/examples/serial.conf"
    for example in "$from"/backup.*; do
        [ ! -e "$example" ] || put 644 "$example" "/usr/share/doc/$name/examples/fivefold-${example##*/}"
    done
    mkdir -p "$root/DEBIAN"
    for script in postinst prerm postrm; do
        sed "s/@PACKAGE@/$name/g; s/@UNITS@/$3/g" "packages/$script" >"$root/DEBIAN/$script"
        chmod 755 "$root/DEBIAN/$script"
    done
    finish "$name" all "fivefold (= $version), systemd (>= 250)" "$4"
}

daemon fivefold-cloud fivefold-cloud.service fivefold-cloud.service "five-level security for networks of sensors: the cloud"
daemon fivefold-gateway fivefold-gateway@.service 'fivefold-gateway@*.service' "five-level security for networks of sensors: gateways"
