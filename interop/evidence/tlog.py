#!/usr/bin/env python3
"""Checks a transparency log from outside, from its static files alone (docs/evidence.md 4; C2SP tlog-tiles).

    tlog.py DIRECTORY --trust TRUST [--proofs N]

Reads the checkpoint and every tile and entry bundle that its size needs, and confirms: each entry against its leaf hash, each
tile against the ones below, the root against the checkpoint, the checkpoint against the log's key and the witnesses, and then N
inclusion proofs and N consistency proofs, made from tiles and checked by the rules of RFC 9162. With --log VKEY in the place of
--trust, witnesses are not asked for. Exits 0 when everything holds, 1 when something does not, 2 when it cannot be read.
"""

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

import note
from forms import Wrong, consistent, included, leaf_hash, need, node_hash

WIDTH = 256


def tile_path(level, number, width):
    """`tile/<L>/<N>[.p/<W>]`; level may be "entries"."""
    digits = f"{number % 1000:03}"
    while number >= 1000:
        number //= 1000
        digits = f"x{number % 1000:03}/{digits}"
    return f"tile/{level}/{digits}" + (f".p/{width}" if width < WIDTH else "")


class Files:
    """The files of a log of one size. A partial tile may be gone once the full one is there."""

    def __init__(self, folder, size):
        self.folder, self.size, self.read = Path(folder), size, Counter()

    def tile(self, level, number, width):
        path = self.folder / tile_path(level, number, width)
        if width < WIDTH and not path.exists():
            path = self.folder / tile_path(level, number, WIDTH)
        try:
            data = path.read_bytes()
        except OSError as e:
            raise Wrong(f"{tile_path(level, number, width)} is missing: {e.strerror}") from None
        self.read[level] += 1
        return data

    def hashes(self, level, number, width):
        data = self.tile(level, number, width)
        need(len(data) in (width * 32, WIDTH * 32), f"{tile_path(level, number, width)} has another size")
        return [data[at:at + 32] for at in range(0, width * 32, 32)]

    def entries(self, number, width):
        data, found, at = self.tile("entries", number, width), [], 0
        while at < len(data):
            n = int.from_bytes(data[at:at + 2], "big")
            need(at + 2 + n <= len(data), f"{tile_path('entries', number, width)} ends early")
            found.append(data[at + 2:at + 2 + n])
            at += 2 + n
        need(len(found) in (width, WIDTH), f"{tile_path('entries', number, width)} has another number of entries")
        return found[:width]

    def widths(self, level):
        """(number, width) of each tile of a level."""
        total = self.size >> 8 * level
        return [(n, min(WIDTH, total - n * WIDTH)) for n in range(-(-total // WIDTH))]


class Tree:
    """All full subtrees of a log, by level of the binary tree: rows[h][i] is the root of leaves i·2^h to (i + 1)·2^h."""

    def __init__(self, leaves):
        self.rows = [leaves]
        while len(self.rows[-1]) > 1:
            row = self.rows[-1]
            self.rows.append([node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)])

    def root(self, begin, end):
        """MTH(D[begin:end]) of RFC 9162 2.1.1, where begin is a multiple of the greatest power of two in it."""
        n = end - begin
        if n & (n - 1) == 0:
            h = n.bit_length() - 1
            return self.rows[h][begin >> h]
        k = 1 << n.bit_length() - 1
        return node_hash(self.root(begin, begin + k), self.root(begin + k, end))

    def inclusion(self, index, begin, end):
        n = end - begin
        if n == 1:
            return []
        k = begin + (1 << (n - 1).bit_length() - 1)
        if index < k:
            return self.inclusion(index, begin, k) + [self.root(k, end)]
        return self.inclusion(index, k, end) + [self.root(begin, k)]

    def consistency(self, size, begin, end, whole=True):
        """PROOF of RFC 9162 2.1.4.1."""
        if size == end - begin:
            return [] if whole else [self.root(begin, end)]
        k = 1 << (end - begin - 1).bit_length() - 1
        if size <= k:
            return self.consistency(size, begin, begin + k, whole) + [self.root(begin + k, end)]
        return self.consistency(size - k, begin + k, end, False) + [self.root(begin, begin + k)]


def check(folder, log, trusted, proofs=1000, older=()):
    """Checks a log; returns what was found, in words. `older` are notes that were seen before: the tree must go on from
    each. Raises `Wrong` with the first thing that does not hold."""
    try:
        text = (Path(folder) / "checkpoint").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise Wrong(f"checkpoint: {e}") from None
    point = note.checkpoint(text)
    note.by_log(point, log)
    said = [f"checkpoint of {point.origin}: {point.size} entries, signed by the log"]
    if trusted:
        seen = note.witnessed(point, trusted)
        said.append(f"cosigned by {len(seen.witnesses)} witnesses, {trusted.need} of them by {seen.time}")

    files, leaves, kinds = Files(folder, point.size), [], Counter()
    for number, width in files.widths(0):
        hashes = files.hashes(0, number, width)
        for at, entry in enumerate(files.entries(number, width)):
            need(leaf_hash(entry) == hashes[at], f"entry {number * WIDTH + at} is not what its leaf hash says")
            kinds[entry[:2].decode("ascii", "replace")] += 1
            need(len(entry) == 34, f"entry {number * WIDTH + at} has not 34 bytes")
        leaves += hashes
    need(point.size or not leaves, "an empty log with entries")
    tree = Tree(leaves) if leaves else None
    level = 1
    while point.size >> 8 * level:
        for number, width in files.widths(level):
            need(files.hashes(level, number, width) == tree.rows[8 * level][number * WIDTH:number * WIDTH + width],
                 f"{tile_path(level, number, width)} is not what the tiles below say")
        level += 1
    root = tree.root(0, point.size) if tree else note.sha(b"")
    need(root == point.root, "the tiles lead to another root than that of the checkpoint")
    said.append(f"{len(leaves)} entries ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}) and "
                f"{sum(files.read.values())} files lead to its root")

    rng = random.Random(point.size)
    pick = sorted(rng.sample(range(point.size), min(proofs, point.size)))
    for index in pick:
        included(leaves[index], index, point.size, tree.inclusion(index, 0, point.size), point.root)
    for index in pick:
        size = index + 1
        consistent(size, tree.root(0, size), point.size, point.root, tree.consistency(size, 0, point.size))
    said.append(f"{len(pick)} inclusion proofs and {len(pick)} consistency proofs hold")
    for text in older:
        before = note.checkpoint(text)
        note.by_log(before, log)
        need(before.size <= point.size, "an older checkpoint of a larger log")
        if before.size:
            need(tree.root(0, before.size) == before.root, f"a fork: at {before.size} entries the log once had another root")
        said.append(f"it goes on from the checkpoint of {before.size} entries")
    return said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--trust", help="trust file: the log's key and its witnesses")
    parser.add_argument("--log", help="vkey of the log; its witnesses are not asked for")
    parser.add_argument("--proofs", type=int, default=1000)
    parser.add_argument("--older", action="append", default=[], help="file with a checkpoint that was seen before")
    options = parser.parse_args()
    if bool(options.trust) == bool(options.log):
        parser.error("one of --trust and --log is needed")
    begun = time.monotonic()
    try:
        trusted = note.trust(options.trust) if options.trust else None
        log = trusted.log if trusted else note.vkey(options.log)
        older = [Path(path).read_text(encoding="utf-8") for path in options.older]
    except (Wrong, OSError, UnicodeDecodeError) as e:
        print(f"tlog.py: {e}", file=sys.stderr)
        return 2
    try:
        for sentence in check(options.directory, log, trusted, options.proofs, older):
            print(sentence)
    except Wrong as e:
        print(f"refused: {e}")
        return 1
    print(f"everything holds ({time.monotonic() - begun:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
