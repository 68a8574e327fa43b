#!/usr/bin/env bash
# Nothing in the repository names a place on somebody's machine, and no private key lies in it.
set -euo pipefail
cd "$(dirname "$0")/.."
wrong=0
# Spelled with brackets so that this file does not match itself.
if hits=$(git grep -nIE '(^|[^A-Za-z0-9_.])/([w]ork|[r]oot|[h]ome/[a-z])/' -- . ':!*.lock'); then
    printf 'places: a path of somebody'"'"'s machine\n%s\n' "$hits" >&2
    wrong=1
fi
if hits=$(git grep -nIE -e '-----[B]EGIN [A-Z ]*PRIVATE KEY-----' -- .); then
    printf 'places: a private key\n%s\n' "$hits" >&2
    wrong=1
fi
if hits=$(git ls-files | grep -E '\.(pem|key|db|sqlite|p12)$|(^|/)passphrase$'); then
    printf 'places: files that look like somebody'"'"'s state\n%s\n' "$hits" >&2
    wrong=1
fi
if hits=$(git grep -nE '\b([t]odo!|[u]nimplemented!)\(|\b[F]IXME\b' -- '*.rs' '*.sh' '*.py'); then
    printf 'places: unfinished by its own word\n%s\n' "$hits" >&2
    wrong=1
fi
[ "$wrong" -eq 0 ] && echo "no foreign path, no private key"
exit "$wrong"
