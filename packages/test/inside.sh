#!/bin/bash
# Run by systemd inside the machine that scripts/package.sh boots: the packages are installed, and nothing else was done.
set -euo pipefail

say() { printf 'package: %s\n' "$*"; }
die() { say "FAILED: $*"; journalctl --no-pager -n 40 -u 'fivefold-*' || true; exit 1; }

cloud=/var/lib/fivefold-cloud gateway=/var/lib/fivefold-gateway/north
as_cloud() { runuser -u fivefold-cloud -- env -C "$cloud" FIVEFOLD_DIR=$cloud "$@"; }

# readings: how many the cloud has.
readings() { as_cloud fivefold reading list --token-file token -o json | grep -o '"device"' | wc -l; }

# measure N: a node reports N readings, confirmed by the cloud.
measure() { as_cloud fivefold node run --dir "nodes/$did" --every 1 --count "$1" --wait 240 >/dev/null; }

# sandboxed UNIT STATE: the daemon runs as its own user, without a capability, and what it can write to is its state folder.
sandboxed() {
    local pid user writable
    pid=$(systemctl show -P MainPID "$1")
    user=$(systemctl show -P User "$1")
    [ "$(stat -c %U "/proc/$pid")" = "$user" ] || die "$1 runs as $(stat -c %U "/proc/$pid"), not as $user"
    grep -qx 'CapEff:[[:space:]]*0000000000000000' "/proc/$pid/status" || die "$1 has a capability"
    grep -qx 'CapBnd:[[:space:]]*0000000000000000' "/proc/$pid/status" || die "$1 could get a capability"
    grep -qx 'NoNewPrivs:[[:space:]]*1' "/proc/$pid/status" || die "$1 could get new privileges"
    grep -qx 'Seccomp:[[:space:]]*2' "/proc/$pid/status" || die "$1 has no filter of system calls"
    # Seen with its own eyes: in its mounts, as its user. Its /tmp and /var/tmp are its own, and gone with it. Links lead elsewhere,
    # sockets to somebody who answers, and the devices that it has (null, zero, random, tty) keep nothing.
    writable=$(nsenter --target "$pid" --mount -- setpriv --reuid "$user" --regid "$user" --clear-groups \
        find / \( -path /proc -o -path /sys \) -prune -o ! -type l ! -type s ! -type c -writable -print 2>/dev/null |
        grep -vE "^(/var)?/tmp(/|\$)|^$2(/|\$)" || true)
    [ -z "$writable" ] || die "$1 can write outside $2: $writable"
    # That this looks where everybody may write: outside of the sandbox it finds that.
    setpriv --reuid "$user" --regid "$user" --clear-groups test -w /dev/shm || die "nobody can write to /dev/shm here, so this shows nothing"
    say "$1 runs as $user and can write to $2 alone"
}

# restarted UNIT PID: another process than PID has said that it is ready. Upgrades do not wait for that.
restarted() {
    local pid n
    for ((n = 0; n < 300; n++)); do
        pid=$(systemctl show -P MainPID "$1") || pid=0
        if [ "$pid" != 0 ] && [ "$pid" != "$2" ] && systemctl is-active --quiet "$1"; then return 0; fi
        sleep 1
    done
    die "$1 is $(systemctl show -P ActiveState "$1") after the upgrade, its process $pid, before $2"
}

started() { systemctl start "$1" || die "$1 does not start"; }

say "systemd $(systemctl --version | head -1 | cut -d' ' -f2), $(fivefold --version), packages $(dpkg-query -W -f '${Version}' fivefold)"
for unit in fivefold-cloud.service fivefold-gateway@north.service; do
    systemd-analyze verify --man=no "$unit" || die "systemd-analyze verify $unit"
    systemctl enable --now --quiet "$unit"
    ! systemctl is-active --quiet "$unit" || die "$unit runs without a deployment"
    # What a large store takes to open, no default of the system may cut.
    [ "$(systemctl show -P TimeoutStartUSec "$unit")" = infinity ] || die "the start of $unit has an end"
done
say "units pass systemd-analyze verify, and start nothing before there is a deployment"
for unit in /lib/systemd/system/fivefold-*.service; do
    # 20 stands for 2.0: systemd's own measure, from 0 (confined) to 10 (not at all).
    score=$(systemd-analyze security --offline=true --threshold=20 --no-pager "$unit") || die "$unit is not confined enough: ${score##*$'\n'}"
    say "${unit##*/}: ${score##*Overall }"
done

# The release before this one makes a deployment and serves it.
dpkg --purge fivefold-gateway fivefold-cloud fivefold
dpkg -i /opt/packages/old/*.deb >/dev/null || die "the release before this one is not installed"
systemctl enable --quiet fivefold-cloud.service fivefold-gateway@north.service
as_cloud fivefold init "$cloud" >/dev/null
as_cloud fivefold network add field-7 >/dev/null
as_cloud fivefold gateway add --net field-7 north >/dev/null
did=$(as_cloud fivefold device add --net field-7 -o json | grep -oE '[0-9a-f]{16}' | head -1)
# It writes no token into a file by itself.
as_cloud sh -c 'umask 077; fivefold token add test > token'
install -d -m 700 -o fivefold-gateway -g fivefold-gateway "$gateway"
cp -r "$cloud/gateways/north/." "$gateway/"
chown -R fivefold-gateway: "$gateway"
started fivefold-cloud.service
started fivefold-gateway@north.service
measure 3 || die "the node's readings were not confirmed by the release before this one"
[ "$(readings)" -eq 3 ] || die "$(readings) readings, not 3"
say "the release before this one has 3 readings of a node"

of_cloud=$(systemctl show -P MainPID fivefold-cloud.service)
of_gateway=$(systemctl show -P MainPID fivefold-gateway@north.service)
dpkg -i /opt/packages/new/*.deb >/dev/null || die "the upgrade"
restarted fivefold-cloud.service "$of_cloud"
restarted fivefold-gateway@north.service "$of_gateway"
journalctl --no-pager -u fivefold-cloud.service >/tmp/log
grep -q 'the store has a new format' /tmp/log || die "the store was not of an older format"
[ "$(readings)" -eq 3 ] || die "$(readings) readings after the upgrade, not 3"
measure 2 || die "the node's readings were not confirmed after the upgrade"
[ "$(readings)" -eq 5 ] || die "$(readings) readings after the upgrade, not 5"
say "upgraded to $(dpkg-query -W -f '${Version}' fivefold) while it ran, over what the release before this one had: 3 readings kept, 2 came"

sandboxed fivefold-cloud.service "$cloud"
sandboxed fivefold-gateway@north.service /var/lib/fivefold-gateway

for unit in fivefold-cloud.service fivefold-gateway@north.service; do
    before=$(systemctl show -P MainPID $unit)
    systemctl reload $unit
    sleep 1
    [ "$(systemctl show -P MainPID $unit)" = "$before" ] || die "$unit did not live through a reload"
done

# What only somebody mends is tried once, and what may pass again and again.
cp -p "$gateway/gateway.toml" /tmp/gateway.toml
echo 'no = "setting"' >>"$gateway/gateway.toml"
! systemctl restart fivefold-gateway@north 2>/dev/null || die "a gateway starts with a setting that there is not"
sleep 12
state="$(systemctl show -P ActiveState fivefold-gateway@north) $(systemctl show -P ExecMainStatus fivefold-gateway@north) $(systemctl show -P NRestarts fivefold-gateway@north)"
[ "$state" = "failed 78 0" ] || die "a gateway with a setting that there is not is $state"
cp -p /tmp/gateway.toml "$gateway/gateway.toml"
started fivefold-gateway@north.service
say "a daemon with a wrong setting is not started again before somebody mends it"

# As docs/operate.md has it, "A systemd credential".
systemctl stop fivefold-gateway@north
mkdir -p /etc/credstore.encrypted /etc/systemd/system/fivefold-gateway@north.service.d
systemd-creds encrypt --name=fivefold "$gateway/passphrase" /etc/credstore.encrypted/fivefold-gateway-north 2>/dev/null
systemd-run --quiet --pipe --wait -p User=fivefold-gateway \
    -p LoadCredentialEncrypted=fivefold:/etc/credstore.encrypted/fivefold-gateway-north \
    fivefold vault rewrap systemd-credential --dir "$gateway" fivefold >/dev/null || die "the vault is not rewrapped"
shred -u "$gateway/passphrase"
cp /usr/share/doc/fivefold-gateway/examples/credential.conf /etc/systemd/system/fivefold-gateway@north.service.d/
systemctl daemon-reload
started fivefold-gateway@north.service
measure 1 || die "the gateway carries nothing after its passphrase became a credential"
say "the gateway's passphrase is a credential of systemd, and no file"

rm -r /etc/systemd/system/fivefold-gateway@north.service.d /etc/credstore.encrypted
dpkg --remove fivefold-gateway fivefold-cloud >/dev/null
! pgrep -x fivefold >/dev/null || die "a daemon is left after removal"
dpkg --purge fivefold-gateway fivefold-cloud fivefold
[ -s "$cloud/vault.toml" ] && [ -s "$gateway/vault.toml" ] || die "purge destroyed the keys of a deployment"
# Beside the deployment itself: what a running Debian writes, whatever is installed.
left=$(find / -xdev | sort | comm -13 /opt/packages/before - | grep -vE \
    '^/(var/lib/fivefold-(cloud|gateway)|var/log|var/lib/systemd|var/lib/dpkg|var/tmp|tmp|lost\+found)(/|$)|^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|^/etc/\.pwd\.lock$' || true)
[ -z "$left" ] || die "left behind: $left"
say "removed: nothing is left but the deployment's own folders"
