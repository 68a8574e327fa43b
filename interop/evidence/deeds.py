#!/usr/bin/env python3
"""The operator's log, checked by docs/evidence.md 4.1 and nothing else.

    deeds.py LINES LOG --log VKEY       LINES: what `fivefold operator log -o json` printed; LOG: a folder of the evidence log
    deeds.py --write                    vectors/evidence/operator-log.json anew

Exits 0 when the lines hold, 1 when one is found that does not, 2 when something cannot be read.
"""

import argparse
import json
import sys
from pathlib import Path

import cbor2

import note
import tlog
from forms import Wrong, is_uint, need, sha

VECTORS = Path(__file__).resolve().parents[2] / "vectors/evidence/operator-log.json"
TEXTS = ("who", "from", "command", "done", "about")


def cbor(value):
    return cbor2.dumps(value, canonical=True)


def line_hash(line):
    """SHA of a line."""
    numbers, salt, before = [line[k] for k in ("number", "deed", "at", "version")], *map(bytes.fromhex, (line["salt"], line["before"]))
    need(all(map(is_uint, numbers)) and all(type(line[k]) is str for k in TEXTS) and len(salt) == 16 and len(before) == 32,
         "a line of another form")
    return sha(cbor(["deed", *numbers[:3], *(line[k] for k in TEXTS), numbers[3], salt, before]))


def record(line):
    return cbor(["op", line["number"], line["at"], line_hash(line), bytes.fromhex(line["before"])])


def entry(line):
    return b"op" + sha(record(line))


def check(lines, entries):
    """What is wrong with lines, from the first one on, against the entries of a log; nothing where they hold."""
    wrong, before = [], bytes(32)
    for number, line in enumerate(lines, 1):
        if line["number"] != number or bytes.fromhex(line["before"]) != before:
            wrong.append(f"line {number} does not follow from the one before")
            break
        before = line_hash(line)
    logged = [e for e in entries if e[:2] == b"op"]
    own = [entry(line) for line in lines]
    if logged != own[:len(logged)]:
        wrong.append("the log has other lines, or has them in another order")
    return wrong


def made():
    """Lines as the vectors have them."""
    said = [("operator anna (uid 1000)", "pts/1", "init", "cloud's key for renewal made", "key 0", 1, 2),
            ("operator anna (uid 1000)", "pts/1", "init", "certificate entered", "the cloud, certificate 3f", 1, 2),
            ("operator jörg (uid 1001)", "ssh 2001:db8::9", "device revoke", "device revoked", "device acde480000000001", 3, 3),
            ("token shop", "192.0.2.7", "cloud run", "command queued", "device acde480000000001, command 1, op 7", 4, 3),
            ("cloud", "this computer", "cloud run", "rotation went on", "network 00000001, key 2, draining", 5, 4)]
    lines, before = [], bytes(32)
    for number, (who, place, command, done, about, deed, version) in enumerate(said, 1):
        line = {"number": number, "deed": deed, "at": 1790000000 + 7 * number, "who": who, "from": place, "command": command,
                "done": done, "about": about, "version": version, "salt": sha(b"salt %d" % number)[:16].hex(), "before": before.hex()}
        before = line_hash(line)
        lines.append({**line, "hash": before.hex()})
    return {"lines": lines, "records": [record(line).hex() for line in lines], "entries": [entry(line).hex() for line in lines]}


def vectors():
    """Whether the vectors are those of the page, and each line that is altered is found."""
    kept = json.loads(VECTORS.read_text())
    need(kept == made(), f"{VECTORS.name} is not what is made from the page; write it with deeds.py --write")
    lines, entries = kept["lines"], [bytes.fromhex(e) for e in kept["entries"]]
    need(not check(lines, [b"b1" + bytes(32), *entries]), "whole lines do not hold")
    altered = 0
    for n, line in enumerate(lines):
        for key, value in line.items():
            if key == "hash":
                continue
            other = value + 1 if type(value) is int else value[:-1] + ("0" if value[-1:] != "0" else "1")
            need(check([*lines[:n], {**line, key: other}, *lines[n + 1:]], entries), f"line {n + 1}: {key} altered, and nobody sees it")
            altered += 1
        need(check(lines[:n] + lines[n + 1:], entries), f"line {n + 1} dropped, and nobody sees it")
    need(check([lines[1], lines[0], *lines[2:]], entries), "lines moved, and nobody sees it")
    return f"the operator's log: {len(lines)} lines hold; {altered} alterations, and each line taken out, are found"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="?")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--log", help="vkey of the evidence log")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.write:
        VECTORS.write_text(json.dumps(made(), indent=1, ensure_ascii=False) + "\n")
        return 0
    if not (options.lines and options.folder and options.log):
        parser.error("LINES, LOG and --log are needed")
    try:
        log = note.vkey(options.log)
        lines = json.loads(Path(options.lines).read_text(encoding="utf-8"))["lines"]
        for sentence in tlog.check(options.folder, log, None, 100):
            print(sentence)
        point = note.checkpoint((Path(options.folder) / "checkpoint").read_text(encoding="utf-8"))
        files = tlog.Files(options.folder, point.size)
        entries = [e for number, width in files.widths(0) for e in files.entries(number, width)]
        wrong = check(lines, entries)
    except (Wrong, OSError, ValueError, KeyError, TypeError) as e:
        print(f"deeds.py: {e}", file=sys.stderr)
        return 2
    print("\n".join(wrong) or f"{len(lines)} lines hold, {sum(e[:2] == b'op' for e in entries)} of them are in the log")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
