#!/usr/bin/env bash
# The range against the demo's networks: what it obtains is what docs/threats.md states, no more and no less. Then against the same
# deployment, weakened on purpose: it must obtain what is not stated, and say so with exit code 1. A range that finds nothing
# there would find nothing anywhere.
#
#   scripts/range.sh FIVEFOLD
set -euo pipefail
fivefold=$1
work=$(mktemp -d)
dir=$work/dam/operator
token=$work/dam/token
weak=()

# Whatever still runs, of what was started here: the demo names its processes, and the range starts some of them again.
end() {
    local id
    for id in "${weak[@]}" $(cat "$work/dam/pids" 2>/dev/null || true) $(started_again); do kill "$id" 2>/dev/null || true; done
    rm -rf "$work"
}
started_again() { grep -lFa "$work/dam/" /proc/[0-9]*/cmdline 2>/dev/null | tr -dc '0-9\n' || true; }
trap end EXIT

die() { printf 'range: %s\n' "$*" >&2; exit 1; }

# expect CODE WORD FILE ARG...: the range with these arguments exits so, and its report has the word.
expect() {
    local code=$1 word=$2 file=$3 came=0
    shift 3
    "$fivefold" range run --dir "$dir" --token-file "$token" "$@" >"$file" 2>"$file.err" || came=$?
    [ "$came" -eq "$code" ] || { tail -n 40 "$file" "$file.err" >&2; die "exit code $came where $code is expected: range run $*"; }
    grep -qF -- "$word" "$file" || { tail -n 40 "$file" >&2; die "the report does not say \`$word\`: range run $*"; }
}

"$fivefold" demo --for-range --no-attacks --no-renewal --folder "$work/dam" >"$work/demo" 2>&1 || { cat "$work/demo" >&2; die "no demo"; }

# A permit of the operator's own, not the demo's.
"$fivefold" range permit --dir "$dir" --until "$(date -u -d tomorrow +%F)"

# 1. What the page states. Those that wait longest are left to ./ci.sh demo, which is the same code.
slow="gateway-withholds gateway-drops recorder-replays-restart stolen-node-itself classic-gateway-withholds classic-gateway-drops \
classic-recorder-restarts classic-stolen-node-itself"
quick=()
for name in $("$fivefold" range list | awk 'NR > 1 { print $1 }'); do
    case " $slow " in *" $name "*) ;; *) quick+=(--attack "$name") ;; esac
done
expect 0 "outcomes are what docs/threats.md states" "$work/as-stated" --exactly "${quick[@]}"
tail -n 1 "$work/as-stated"

# 2. Weakened: a classic node whose key is a word, as the operator's override lets it be; and a network with E1 alone that its
# operator takes for e1+e3+e4.
serial=7a000000000000aa
printf password >"$work/word.key"
chmod 600 "$work/word.key"
"$fivefold" device add --dir "$dir" --net shore --classic $serial --gateway-key-file "$work/word.key" --gateway-key-bits 256 \
    --danger-weak-key "a range that must find something" >/dev/null
# Its frames go where those of the others go.
road=$(cat $(grep -lFa "$work/dam/logs/shore/7a00000000000001" /proc/[0-9]*/cmdline 2>/dev/null) 2>/dev/null | tr '\0' '\n' | grep -A1 -m1 -xF -- --http | tail -n 1)
"$fivefold" -o json node waspmote --every 1 --serial $serial --http "$road" --node-id 7 --seal gateway --key-file "$work/word.key" \
    >"$work/dam/weak.log" 2>&1 &
weak+=($!)
attacks=(insider-reads insider-forges classic-recorder-reads classic-stranger-guesses)
expect 1 "more was obtained than docs/threats.md states" "$work/weakened" --profile e1+e3+e4 "${attacks[@]/#/--attack=}"
for who in bench $serial; do
    for gain in reads forges; do
        grep -F "$who" "$work/weakened" | grep -F "MORE THAN STATED (nothing): $gain" ||
            { cat "$work/weakened" >&2; die "$who was weakened, and nobody found it: $gain"; }
    done
done
