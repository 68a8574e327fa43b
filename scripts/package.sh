#!/usr/bin/env bash
# The packages, on a fresh Debian: installed on a new root, booted with the systemd that it has, used, upgraded, removed. Run by root.
# The machine is QEMU's, and emulated: KVM inside of other machines is not what it seems everywhere.
#
#   scripts/package.sh FIVEFOLD BEFORE           the program, and that of the release before (scripts/before.sh)
set -euo pipefail
fivefold=$(realpath "$1")
before=$(realpath "$2")
cd "$(dirname "$0")/.."
work=$PWD/target/package
out=$work/packages
root=$work/root
rm -rf "$root" "$out" "$work/disk"
mkdir -p "$out"
trap 'rm -rf "$root" "$work/disk" "$work/before"' EXIT

SOURCE_DATE_EPOCH=1 packages/build.sh --binary "$fivefold" --out "$out/again" >/dev/null
SOURCE_DATE_EPOCH=1 packages/build.sh --binary "$fivefold" --out "$out/new"
diff -r "$out/again" "$out/new"
rm -r "$out/again"
# The release before had no packages of its own: these are ours around its program, which has no manual and tells systemd nothing.
rm -rf "$work/before"
mkdir "$work/before"
cp -r docs packages README.md CHANGELOG.md LICENSE-MIT Cargo.lock "$work/before/"
sed -i 's/^Type=notify$/Type=exec/; /^WatchdogSec=/d' "$work"/before/packages/*/*.service
strip -o "$work/before/fivefold" "$before"
"$work/before/packages/build.sh" --binary "$work/before/fivefold" --out "$out/old" --version 0.0.1 --pages none

# What debootstrap makes is kept, for it takes longest; from the mirror that this machine has, if it is such a Debian itself.
base=$work/bookworm.tar
if [ ! -e "$base" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 2>/dev/null | sort -u | head -1)
    timeout 1200 debootstrap --variant=minbase --include=systemd-sysv,linux-image-cloud-amd64,procps,dbus bookworm "$root" $mirror >"$work/debootstrap" ||
        { tail -20 "$work/debootstrap"; echo "package: no fresh root" >&2; exit 1; }
    tar -C "$root" -cf "$base.part" .
    mv "$base.part" "$base"
else
    mkdir "$root"
    tar -C "$root" -xpf "$base"
fi

mkdir -p "$root/opt/packages" "$root/etc/systemd/system/multi-user.target.wants"
cp -r "$out/old" "$out/new" "$root/opt/packages/"
install -m 755 packages/test/inside.sh "$root/opt/packages/"
cat >"$root/etc/systemd/system/package-test.service" <<'UNIT'
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/bash -c 'exec >/dev/ttyS0 2>&1; code=0; /opt/packages/inside.sh || code=$?; echo "package: ended with $code"'
UNIT
ln -s /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"
ln -s /etc/systemd/system/package-test.service "$root/etc/systemd/system/multi-user.target.wants/"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
printf '/dev/vda / ext4 rw 0 1\n' >"$root/etc/fstab"
# What there is before, to be compared with what is left when all is removed.
touch "$root/opt/packages/before"
(cd "$root" && find . | sed 's,^\.,,; s,^$,/,' | sort) >"$work/files"
mv "$work/files" "$root/opt/packages/before"
unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" sh -c "dpkg -i /opt/packages/new/*.deb"' sh "$root" >/dev/null
echo "installed on a fresh root"

cp "$root"/boot/vmlinuz-* "$work/kernel"
cp "$root"/boot/initrd.img-* "$work/initrd"
mke2fs -q -t ext4 -d "$root" "$work/disk" 2G
rm -rf "$root"

# The time for a start is for units of Debian's own, which the emulator makes slow; ours say their own.
# A kernel that measures its clock while the emulator waits for this machine takes it for broken: it is told not to.
log=$work/console
timeout 1500 qemu-system-x86_64 -machine q35,accel=tcg -cpu max -m 1024 -smp 2 -nographic -no-reboot -net none \
    -drive "file=$work/disk,format=raw,if=virtio" -kernel "$work/kernel" -initrd "$work/initrd" \
    -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 no_timer_check systemd.default_timeout_start_sec=300" </dev/null >"$log" 2>&1 || true
tr -d '\r' <"$log" | grep -a '^package: ' || true
tr -d '\r' <"$log" | grep -aqx 'package: ended with 0' || { tail -60 "$log"; echo "package: it did not end well" >&2; exit 1; }
