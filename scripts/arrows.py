"""Checks the arrows between our crates against ARCHITECTURE.md, and the outside crates that core may have.

usage: cargo metadata --format-version 1 --locked | python3 scripts/arrows.py
"""

import json
import re
import sys

CORE_OUTSIDE = {"aes", "ccm", "hkdf", "hmac", "minicbor", "p256", "rand_core", "sha2", "subtle", "zeroize"}
# aes and ccm for frames, md-5, sha1 and sha2 for reading what exists, rsa for textbook RSA, hmac and hkdf for the hardened profile.
WASPMOTE_OUTSIDE = {"aes", "ccm", "hkdf", "hmac", "md-5", "num-bigint", "sha1", "sha2", "subtle", "zeroize"}
DEVICE_OUTSIDE = {"heapless", "rand_core", "zeroize"}
# Crates that name an algorithm: core's, for its suite alone; p256 only where its feature is asked for (docs/why.md). Who else needs a primitive takes it from aws-lc-rs.
ALGORITHMS = {"aes", "ccm", "sha2", "hmac", "hkdf", "cipher", "digest", "aead", "p256", "ecdsa", "elliptic-curve"}
# What nobody but the classic wire may use: broken, or without a padding.
CLASSIC = {"cbc", "ecb", "md-5", "md5", "rsa", "sha1"}


def main() -> int:
    page = open("ARCHITECTURE.md", encoding="utf-8").read()
    block = re.search(r"<!-- arrows:begin -->\s*```text\n(.*?)```\s*<!-- arrows:end -->", page, re.S)
    if not block:
        print("ARCHITECTURE.md has no list between arrows:begin and arrows:end", file=sys.stderr)
        return 1
    allowed = {}
    for line in block.group(1).splitlines():
        name, _, rest = line.partition(":")
        allowed[name.strip()] = set(rest.split())

    metadata = json.load(sys.stdin)
    members = set(metadata["workspace_members"])
    packages = {p["name"]: p for p in metadata["packages"] if p["id"] in members}
    wrong = []
    if set(packages) != set(allowed):
        wrong.append(f"ARCHITECTURE.md lists {sorted(allowed)}, the workspace has {sorted(packages)}")
    for name, package in packages.items():
        shipped = {d["name"] for d in package["dependencies"] if d["kind"] != "dev"}
        ours = {d for d in shipped if d in packages}
        for extra in sorted(ours - allowed.get(name, set())):
            wrong.append(f"{name} uses {extra}: no such arrow")
        for d in package["dependencies"]:
            if d["kind"] == "dev" and d["name"] in packages and name != "fivefold-sim":
                # A crate may ask its own tests for its own features.
                if d["name"] != name and d["name"] not in allowed.get(name, set()):
                    wrong.append(f"{name} tests with {d['name']}: what sees both sides belongs to sim")
        outside = shipped - set(packages)
        pinned = {"fivefold-core": CORE_OUTSIDE, "fivefold-device": DEVICE_OUTSIDE, "fivefold-waspmote": WASPMOTE_OUTSIDE}.get(name)
        if pinned is not None and outside - pinned:
            wrong.append(f"{name} depends on {sorted(outside - pinned)}: not on the pinned list of scripts/arrows.py")
        if name not in ("fivefold-core", "fivefold-waspmote") and outside & ALGORITHMS:
            wrong.append(f"{name} depends on {sorted(outside & ALGORITHMS)}: only core's suite names an algorithm")
        if name != "fivefold-waspmote" and outside & CLASSIC:
            wrong.append(f"{name} depends on {sorted(outside & CLASSIC)}: only waspmote may")
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{len(packages)} crates, all arrows as in ARCHITECTURE.md")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
