#!/usr/bin/env bash
# Builds the release before this one, as it is in the field, once, and says where its program is: for what shows that the two get
# along (scripts/skew.sh, scripts/package.sh). What both depend on in the same version is built once for both.
set -euo pipefail
cd "$(dirname "$0")/.."

# Until there is a tag, the last commit of one format of the store before the present ones.
BEFORE=461c9ba
folder=target/skew/$BEFORE

if [ ! -x $folder/fivefold ]; then
    git cat-file -e "$BEFORE^{commit}" 2>/dev/null || {
        echo "before.sh: commit $BEFORE is not in this clone, so the release before this one cannot be built; type: git fetch --unshallow" >&2
        exit 1
    }
    rm -rf $folder
    mkdir -p $folder/source
    git archive $BEFORE | tar -x -C $folder/source
    # A profile of its own would build all of it anew. Without lines for backtraces its crates alone are built otherwise than ours: where
    # they were not, cargo would take them for ours, which have the same names, versions and places in their workspace, and newer
    # ones. The program's name is the same all the same, so it is moved away.
    (cd $folder/source && CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 cargo build --workspace --features fivefold-device/lorawan --bin fivefold \
        --locked --target-dir "$PWD/../../../" >&2)
    mv target/debug/fivefold $folder/fivefold.new
    rm -rf $folder/source
    mv $folder/fivefold.new $folder/fivefold
fi
echo "$PWD/$folder/fivefold"
