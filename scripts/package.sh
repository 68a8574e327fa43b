#!/usr/bin/env bash
# The packages, on a fresh Debian: installed on a new root, booted with the systemd that it has, used, upgraded, removed.
# The machine is QEMU's, and emulated: KVM inside of other machines is not what it seems everywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/target/package
out=$work/packages
root=$work/root
rm -rf "$root" "$out" "$work/disk"
mkdir -p "$out"
# A folder of roots is kept: making one is most of the time.
base=$work/base.tar

cargo build --release --locked -p fivefold
SOURCE_DATE_EPOCH=1 packages/build.sh --binary target/release/fivefold --out "$out/again" >/dev/null
SOURCE_DATE_EPOCH=1 packages/build.sh --binary target/release/fivefold --out "$out/new"
diff -r "$out/again" "$out/new"
# The package before it has the same program: what is tested here is the packages' own upgrade.
packages/build.sh --binary target/release/fivefold --out "$out/old" --version 0.0.1
rm -r "$out/again"

for unit in packages/*/*.service; do
    # 20 stands for 2.0: systemd's own measure, from 0 (confined) to 10 (not at all).
    systemd-analyze security --offline=true --threshold=20 --no-pager "$unit" | tail -1
done

if [ ! -e "$base" ]; then
    debootstrap --variant=minbase --include=systemd-sysv,linux-image-cloud-amd64,procps bookworm "$root" http://deb.debian.org/debian
    tar -C "$root" -cf "$base.part" .
    mv "$base.part" "$base"
else
    mkdir "$root"
    tar -C "$root" -xpf "$base"
fi

mkdir -p "$root/opt/packages"
cp -r "$out/old" "$out/new" "$root/opt/packages/"
unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" sh -c "dpkg -i /opt/packages/old/*.deb"' sh "$root" >/dev/null
echo "installed on a fresh root"

install -m 755 packages/test/inside.sh "$root/usr/local/sbin/package-test"
cat >"$root/etc/systemd/system/package-test.service" <<'UNIT'
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/bash -c 'exec >/dev/ttyS0 2>&1; code=0; /usr/local/sbin/package-test || code=$?; echo "package: ended with $code"'
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"
ln -s /etc/systemd/system/package-test.service "$root/etc/systemd/system/multi-user.target.wants/"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
printf '/dev/vda / ext4 rw 0 1\n' >"$root/etc/fstab"

kernel=$(echo "$root"/boot/vmlinuz-*)
initrd=$(echo "$root"/boot/initrd.img-*)
cp "$kernel" "$work/kernel"
cp "$initrd" "$work/initrd"
mke2fs -q -t ext4 -d "$root" "$work/disk" 2G
rm -rf "$root"

log=$work/console
timeout 900 qemu-system-x86_64 -machine q35,accel=tcg -cpu max -m 1024 -smp 2 -nographic -no-reboot -net none \
    -drive "file=$work/disk,format=raw,if=virtio" -kernel "$work/kernel" -initrd "$work/initrd" \
    -append "root=/dev/vda rw console=ttyS0 quiet panic=-1" </dev/null >"$log" 2>&1 || true
tr -d '\r' <"$log" | grep -a '^package: ' || true
rm -f "$work/disk"
tr -d '\r' <"$log" | grep -aqx 'package: ended with 0' || { tail -40 "$log"; echo "package: it did not end well" >&2; exit 1; }
