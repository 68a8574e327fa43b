#!/bin/sh
# The second implementation (vectors/make.py) must reproduce the committed vectors. Uses .venv, and makes it if it is not
# there; without its packages this fails, it never skips.
set -eu
cd "$(dirname "$0")/.."

python=.venv/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv .venv
fi
if ! "$python" -c 'import cbor2, cryptography' 2>/dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check -r vectors/requirements.txt || {
        echo "vectors.sh: cbor2 and cryptography are missing from .venv and could not be installed;" >&2
        echo "            install them there: .venv/bin/python -m pip install -r vectors/requirements.txt" >&2
        exit 1
    }
fi
exec "$python" vectors/make.py "$@"
