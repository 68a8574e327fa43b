#!/usr/bin/env python3
"""The independent check of evidence. Run by `./ci.sh evidence`; `--keep` leaves the folder for a look.

1. Vectors of others, and cases: vectors/evidence/bundles.json and operator-log.json are what is made from docs/evidence.md, and
   are answered as it says.
2. Bundles from the simulator, whose villages know what was sent; and samples that are wrong in every way that we know. Our own
   code made both: both verifiers give the verdict that each was made for, at the same step.
3. As many bundles made here, whole or altered by chance: both verifiers agree.
4. Every byte of a bundle takes every other value: both verifiers refuse all, as often at each step.
5. COSE_Sign1 opened by pycose, certificates followed by `openssl verify`, timestamps made and verified by `openssl ts`.
6. A log of 100,000 entries that our own code made, from its static files alone.
7. A witness over HTTP cosigns what goes on, and refuses a fork.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import alter
import cases
import chain
import compare
import deeds
import make
import note
import peers
import standards
import tlog
import verify
import witness
from forms import Wrong
from peers import Failed, expect

ROOT = Path(__file__).resolve().parents[2]
# Samples of every kind: each kind at least once.
KINDS = 200


def say(*words):
    print(*words, flush=True)


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600, **more)
    expect(done.returncode == 0, f"{command[0]}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def agreed(what, files, command):
    found, counts = compare.over(files, command)
    for wrong in found[:20]:
        say("  " + wrong)
    expect(not found, f"{what}: the verifiers differ in {len(found)} places")
    verdicts = ", ".join(f"{counts[v]} {v}" for v in verify.EXIT)
    steps = ", ".join(f"{counts[s]} {s}" for s in verify.STEPS if counts[s])
    say(f"{what}: {len(files)} files, both verifiers say the same: {verdicts} ({steps})")


def samples(what, options, number, folder, *command):
    """What our own code made, and what each was made for. Returns some that are proven by one trust file, and that."""
    say(run(*command).rstrip())
    expected = json.loads((folder / "expected.json").read_text())
    expect(len(expected) == number, f"{len(expected)} samples")
    trusts = {name: folder / name for name in dict.fromkeys(case["trust"] for case in expected)}
    trusted = {name: note.trust(path) for name, path in trusts.items()}
    for case in expected:
        answers = verify.verify_file((folder / case["file"]).read_bytes(), trusted[case["trust"]])
        said = [(a.verdict, a.step) for a in answers]
        expect(said == [(case["verdict"], case["step"])], f"{case['file']} ({case['what']}): {answers}")
    agreed(what, [(folder / case["file"], trusts[case["trust"]]) for case in expected], options.verifier)
    proven = [case for case in expected if case["verdict"] == "proven"]
    most = Counter(case["trust"] for case in proven).most_common(1)[0][0]
    good = [case["file"] for case in proven if case["trust"] == most]
    return [(folder / file).read_bytes() for file in good[:20]], trusts[most]


def alterations(bundles, trust, options, folder):
    """Every byte of one of our own bundles, of one made here and of one with a timestamp. Of the one made here, which is the
    smallest, both verifiers see every byte with every other value."""
    folder.mkdir()
    sets = [("own", min((b for b in bundles if verify.maps(b)[0][9]), key=len), trust, 2)]
    for called, stamps, values in (("made", 0, 255), ("stamped", 1, 8)):
        world = make.World(make.Options(stamps=stamps, gateway_certificate="by an issuer"), 1)
        (folder / f"{called}.toml").write_text(make.toml(world.trust))
        sets.append((called, make.cbor(min(world.bundles, key=lambda b: len(make.cbor(b)))), folder / f"{called}.toml", values))
    for called, data, trust, values in sets:
        begun = time.monotonic()
        said, all_refused = alter.report(data, note.trust(trust), values)
        say(said)
        expect(all_refused, "an altered bundle is proven")
        second = time.monotonic() - begun
        (folder / f"{called}.evb").write_bytes(data)
        begun = time.monotonic()
        own = run(options.examples / "alter", folder / f"{called}.evb", trust, values).rstrip()
        expect(own == said, f"our own verifier refuses otherwise:\n{own}")
        say(f"  the same by both verifiers, step by step ({second:.0f} s; our own {time.monotonic() - begun:.0f} s)")


def independent(bundles, trusted, folder, options):
    """pycose and openssl over our own samples and those made here."""
    counts = {"batches": 0, "receipts": 0, "chains": 0, "tokens": 0}
    worlds = [(make.World(make.Options(device_alg=alg, gateway_certificate="by an issuer"), 2)) for alg in (-9, -19)]
    sets = [(verify.maps(b)[0], trusted) for b in bundles]
    sets += [(w.bundles[0], note.trust_of(w.trust)) for w in worlds]
    for bundle, trust in sets:
        _, seen = note.proven(bundle[7], b"b1", bundle[4], trust)
        for what, data, certificates, context in [
            ("batches", bundle[4], bundle[5], b"iotsec-batch-v1"),
            *(("receipts", r[0], r[6], b"iotsec-receipt-v1") for r in bundle[9]),
        ]:
            peers.cose(data, chain.spki(certificates[0]), context)
            peers.certificates(certificates, trust.ca, seen.time, folder)
            counts[what] += 1
            counts["chains"] += 1
    expect(all(counts[k] for k in ("batches", "receipts", "chains")), f"nothing to look at: {counts}")

    files = []
    for number, key in enumerate((("-newkey", "rsa:2048"), ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"))):
        authority = peers.Authority(folder / f"authority-{number}", *key)
        world = worlds[number]
        bundle = world.bundles[0]
        imprint = peers.imprint(bundle)
        for more in ((), ("-cert",)):
            token = authority.stamp(imprint, *more)
            expect(authority.verifies(token, imprint), "openssl ts does not verify its own token")
            expect(not authority.verifies(token, bytes(32)), "openssl ts verifies a token for something else")
            world.trust["timestamps"] = {"ca": [authority.ca]}
            trust = folder / f"stamped-{number}.toml"
            trust.write_text(make.toml(world.trust))
            for wrong, tokens in ((False, token), (True, token[:-1] + bytes([token[-1] ^ 1]))):
                file = folder / f"stamped-{len(files)}.evb"
                file.write_bytes(make.cbor({**bundle, 12: [[tokens, [authority.certificate], [authority.list]]]}))
                said = verify.verify_file(file.read_bytes(), note.trust(trust))[0]
                expect((said.verdict, said.step) == (("refused", "timestamps") if wrong else ("proven", None)), f"{file}: {said}")
                files.append((file, trust))
            counts["tokens"] += 1
    say("opened by pycose: {batches} batches, {receipts} receipts; by openssl verify: {chains} chains; by openssl ts: {tokens} tokens"
        .format(**counts))
    agreed("timestamps by openssl ts", files, options.verifier)


def log(options, folder):
    """A log of our own code with its witnesses, looked at from outside, and what a change of any of its files does."""
    run(options.examples / "make_log", folder, options.entries)
    keys = (folder / "vkeys").read_text().split()
    authority = make.World(make.Options(), 1).trust["operator"]
    trusted = note.trust_of({"operator": authority, "log": {"vkey": keys[0]},
                             "witnesses": {"need": 2, "pq_need": 1, "vkeys": keys[1:]}})
    older = [path.read_text() for path in sorted((folder / "heads").iterdir())]
    expect(older, "no older checkpoints to go on from")
    begun = time.monotonic()
    for sentence in tlog.check(folder, trusted.log, trusted, options.entries, older):
        say(sentence)
    say(f"  ({time.monotonic() - begun:.0f} s)")
    refused = 0
    for path in ("tile/0/000", "tile/1/000", "tile/entries/000", "checkpoint"):
        file = folder / path
        whole = file.read_bytes()
        file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        try:
            tlog.check(folder, trusted.log, trusted, 10)
        except Wrong:
            refused += 1
        else:
            raise Failed(f"{path} altered, and nobody sees it")
        file.write_bytes(whole)
    say(f"a bit changed in {refused} of its files, one after the other: refused each time")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fivefold", type=Path, default=ROOT / "target/release/fivefold")
    parser.add_argument("--sim", type=Path, default=ROOT / "target/release/fivefold-sim")
    parser.add_argument("--examples", type=Path, default=ROOT / "target/release/examples")
    parser.add_argument("--number", type=int, default=1000, help="bundles of each kind")
    parser.add_argument("--entries", type=int, default=100_000, help="entries of the log")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    options.verifier = [str(options.fivefold), "-o", "json", "evidence", "verify"]
    folder = Path(tempfile.mkdtemp(prefix="evidence-"))
    try:
        say(standards.check())
        expect(cases.main([]) == 0, "cases")
        say(deeds.vectors())
        village = folder / "villages"
        good, trust = samples("bundles from the simulator", options, options.number, village,
                              options.sim, "--bundles", village, "--number", options.number)
        kinds = folder / "samples"
        samples("samples of every kind", options, KINDS, kinds, options.examples / "bundles", kinds, KINDS)
        agreed("bundles made here", compare.made(folder / "made", options.number, 1), options.verifier)
        alterations(good, trust, options, folder / "altered")
        (folder / "peers").mkdir()
        independent(good, note.trust(trust), folder / "peers", options)
        log(options, folder / "log")
        for sentence in witness.run(options.fivefold, folder / "witness"):
            say("the witness " + sentence)
    except (Failed, Wrong) as e:
        say(f"FAILED: {e}")
        say(f"The files are in {folder}.")
        return 1
    if options.keep:
        say(f"The files are in {folder}.")
    else:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
