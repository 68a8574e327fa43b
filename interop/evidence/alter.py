#!/usr/bin/env python3
"""Alters a bundle byte by byte, to every other value or to some of them, and shows that each is refused.

    alter.py FILE --trust TRUST [--values N]

Takes the first reading of FILE. N is how many other values each byte takes: 255 is every one. Fewer are the eight with one bit
changed, and then others. Exits 0 when all were refused, 1 when one was not.
"""

import argparse
import collections
import functools
import multiprocessing
import os
import sys

import cbor2

import note
import verify
from forms import Wrong


@functools.cache
def values(byte, n):
    """n values other than `byte`, those that differ in one bit first."""
    others = [byte ^ 1 << bit for bit in range(8)]
    return (others + [v for v in range(256) if v != byte and v not in others])[:n]


def altered(data, trusted, begin, end, n):
    """What became of each alteration in a part of the bundle: steps counted, and the places where none refused it."""
    steps, proven = collections.Counter(), []
    for at in range(begin, end):
        for value in values(data[at], n):
            answers = verify.verify_file(data[:at] + bytes([value]) + data[at + 1:], trusted)
            if any(a.verdict == "proven" for a in answers):
                proven.append((at, data[at], value))
            steps.update(a.step for a in answers)
    return steps, proven


def _part(arguments):
    return altered(*arguments)


def every(data, trusted, n):
    """The same for all of the bundle."""
    processes = os.cpu_count() or 2
    step = -(-len(data) // (processes * 8))
    parts = [(data, trusted, begin, min(begin + step, len(data)), n) for begin in range(0, len(data), step)]
    steps, proven = collections.Counter(), []
    with multiprocessing.Pool(processes) as pool:
        for counted, found in pool.imap_unordered(_part, parts):
            steps += counted
            proven += found
    return steps, proven


def report(data, trusted, n):
    """What became of the alterations, in words, and whether all were refused."""
    whole = verify.verify_file(data, trusted)
    if [a.verdict for a in whole] != ["proven"]:
        return f"unaltered it is not proven: {whole[0].step}: {whole[0].reason}", False
    steps, proven = every(data, trusted, n)
    total = len(data) * n
    said = [f"{total} alterations of one byte in {len(data)} bytes: {total - len(proven)} refused, {len(proven)} not",
            "  " + ", ".join(f"{step} {steps[step]}" for step in verify.STEPS if steps[step])]
    said += [f"  proven with byte {at} changed from {old:02x} to {new:02x}" for at, old, new in proven[:20]]
    return "\n".join(said), not proven


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--trust", required=True)
    parser.add_argument("--values", type=int, default=255)
    options = parser.parse_args()
    try:
        trusted = note.trust(options.trust)
        with open(options.file, "rb") as f:
            first = cbor2.dumps(verify.maps(f.read())[0], canonical=True)
    except (Wrong, OSError) as e:
        print(f"alter.py: {e}", file=sys.stderr)
        return 2
    said, all_refused = report(first, trusted, options.values)
    print(said)
    return 0 if all_refused else 1


if __name__ == "__main__":
    sys.exit(main())
