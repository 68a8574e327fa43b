#!/usr/bin/env bash
# Each rule lives in its room. Prints every line that stands in the wrong one.
set -euo pipefail
cd "$(dirname "$0")/.."
wrong=0

# forbid WHAT PATTERN FILE...: no line of the files matches, comments and what stands in quotes apart.
forbid() {
    local what=$1 pattern=$2
    shift 2
    local hits
    [ $# -gt 0 ] || { echo "rooms: nothing to look at for: $what" >&2; wrong=1; return; }
    hits=$(grep -nHE "$pattern" "$@" | grep -vE '^[^:]+:[0-9]+:\s*//' | sed -E 's/"[^"]*"/""/g' | grep -E "$pattern" || true)
    if [ -n "$hits" ]; then
        printf 'rooms: %s\n%s\n' "$what" "$hits" >&2
        wrong=1
    fi
}

mapfile -t core_but_suite < <(git ls-files 'core/src/*.rs' | grep -v '^core/src/suite')
mapfile -t core < <(git ls-files 'core/src/*.rs')
mapfile -t device < <(git ls-files 'device/src/*.rs')
mapfile -t gateway < <(git ls-files 'gateway/src/*.rs')
mapfile -t engines < <(git ls-files 'core/src/*.rs' 'device/src/*.rs' 'gateway/src/gateway*' 'cloud/src/cloud*' 'keep/src/key_message*' 'keep/src/runs*' | grep '\.rs$')

forbid "only core/src/suite.rs names an algorithm" '\b(aes|ccm|sha2|hmac|hkdf|cipher|digest|aead)::' "${core_but_suite[@]}"
# `suite::p256` is ours, and names the crate for everybody else.
forbid "only core/src/suite names a curve" '(^|[^A-Za-z0-9_:])(::)?(p256|ecdsa|elliptic_curve)::' "${core_but_suite[@]}" "${device[@]}"
mapfile -t all_but_waspmote < <(git ls-files '*/src/*.rs' | grep -v '^waspmote/')
forbid "only waspmote names a broken algorithm" '\b(ecb|cbc|md5|md_5|sha1)::|(^|[^A-Za-z0-9_:])(::)?rsa::[A-Z]' "${all_but_waspmote[@]}"
mapfile -t waspmote < <(git ls-files 'waspmote/src/*.rs')
forbid "waspmote has no std" '\bstd::|extern crate std' "${waspmote[@]}"
# suite.rs has std behind the feature `witness`; that it is not there without it, the microcontroller builds show.
mapfile -t bare < <(printf '%s\n' "${core_but_suite[@]}" "${device[@]}" | xargs grep -LE '#!?\[cfg\(test\)\]')
forbid "core and device have no std and no heap" '\b(std|alloc)::|extern crate (std|alloc)' "${bare[@]}"
forbid "the gateway names no type of E3" '\b(E3|E3Secret|CloudSecrets|e3_cloud|Key<.*E3|Context<.*E3)\b' "${gateway[@]}"
forbid "the gateway names nothing of root_psk or K_e2root" '\b(PqMix|E2Root|DeviceSecrets)\b' "${gateway[@]}"
forbid "an engine reads no clock and draws no randomness" '\b(Instant|SystemTime)::now|getrandom::|OsRng' "${engines[@]}"
# Logs and witnesses are files; all else is the rim's.
mapfile -t evidence < <(git ls-files 'evidence/src/*.rs')
forbid "evidence has no clock, randomness, socket or runtime" '\b(Instant|SystemTime)::now|getrandom::|OsRng|\b(std::net|tokio|reqwest)::' "${evidence[@]}"
mapfile -t audit < <(git ls-files 'audit/src/*.rs')
forbid "audit has no clock, randomness, socket or runtime" '\b(Instant|SystemTime)::now|getrandom::|OsRng|\b(std::net::(Udp|Tcp)|tokio|reqwest)::' "${audit[@]}"
forbid "an engine has no socket, file or thread" '\b(std::(net::(Udp|Tcp)|fs|thread)|tokio|rusqlite)::' "${engines[@]}"
# The cloud's engine alone logs: it is no script of outputs that a runner could log from.
mapfile -t silent < <(printf '%s\n' "${engines[@]}" | grep -v '^cloud/')
forbid "engines of core, devices and gateways log nothing" '\btracing::' "${silent[@]}"

# Tests listen and answer.
mapfile -t attackers < <(git ls-files 'cli/src/attack/*.rs' | grep -v '/door\.rs$')
for file in "${attackers[@]}"; do
    hits=$(sed '/#\[cfg(test)\]/,$d' "$file" | grep -nE '(TcpStream|UdpSocket)::connect|connect_timeout|\.send_to\(' | grep -v 'door\.send_to(' || true)
    [ -z "$hits" ] || { printf 'rooms: an attacker speaks to somebody by its door alone (attack/door.rs)\n%s: %s\n' "$file" "$hits" >&2; wrong=1; }
done

for place in device gateway cloud; do
    for other in device gateway cloud; do
        [ "$place" = "$other" ] || forbid "$place does not see $other" "\bfivefold_$other\b" $(git ls-files "$place/src/*.rs")
    done
done

for room in e1_link e2_gateway e3_cloud e4_channel e5_renewal; do
    grep -q '^//! | Key held by' "core/src/$room.rs" || { echo "rooms: core/src/$room.rs has no card" >&2; wrong=1; }
done

[ "$wrong" -eq 0 ] && echo "every rule is in its room"
exit "$wrong"
