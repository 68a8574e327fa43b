"""Checks that nothing in the lock file asks for a newer Rust than our Cargo.toml promises.

usage: cargo metadata --format-version 1 --locked | python3 scripts/msrv.py

Our own code is held to the same version by clippy's incompatible_msrv, which reads rust-version.
"""

import json
import sys


def version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in (text + ".0.0").split(".")[:3])


def main() -> int:
    metadata = json.load(sys.stdin)
    members = set(metadata["workspace_members"])
    promised = {p["rust_version"] for p in metadata["packages"] if p["id"] in members}
    if len(promised) != 1 or None in promised:
        print(f"the crates of the workspace promise different versions of Rust: {promised}", file=sys.stderr)
        return 1
    ours = promised.pop()
    newer = [p for p in metadata["packages"] if p["rust_version"] and version(p["rust_version"]) > version(ours)]
    for p in newer:
        print(f"{p['name']} {p['version']} needs Rust {p['rust_version']}; we promise {ours}", file=sys.stderr)
    if not newer:
        print(f"all {len(metadata['packages'])} packages build with Rust {ours}")
    return 1 if newer else 0


if __name__ == "__main__":
    sys.exit(main())
