"""Two verifiers over the same files: each must give the same verdict, at the same step, and end with the same code."""

import concurrent.futures
import json
import random
import subprocess
from collections import Counter
from pathlib import Path


import note
import verify
from make import Options, World, cbor, toml

# What must be equal where a reading is proven.
SAID = ("device", "level", "epoch", "piv", "batch", "order", "payload", "existed_before", "revoked_later", "ignored")


def theirs(command, file, trust):
    """What the other verifier says: (exit code, answers)."""
    done = subprocess.run([*command, str(file), "--trust", str(trust)], capture_output=True, text=True, timeout=120)
    try:
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
    except ValueError:
        raise ValueError(f"{command} {file}: exit {done.returncode}: {done.stdout}{done.stderr}") from None


def differ(file, trust, command):
    """How the two verifiers differ over a file, and the answers of this one."""
    mine = verify.verify_file(file.read_bytes(), note.trust(trust))
    code, other = theirs(command, file, trust)
    wrong = []
    if [(a.verdict, a.step) for a in mine] != [(a["verdict"], a.get("step")) for a in other]:
        wrong.append(f"{[(a.verdict, a.step, a.reason) for a in mine]} and {[(a['verdict'], a.get('step'), a.get('reason')) for a in other]}")
    else:
        for a, b in zip(mine, other):
            if a.verdict != "proven":
                continue
            wrong += [f"{k}: {vars(a)[k]!r} and {b.get(k)!r}" for k in SAID if vars(a)[k] != b.get(k)]
            heard = [[(h["gateway"], h["net"], h["at_ms"]) for h in x] for x in (a.heard, b["heard"])]
            seen = [sorted((w["name"], w["time"]) for w in x) for x in (a.witnesses, b["witnesses"])]
            stamps = [[t["at"] for t in x] for x in (a.timestamps, b["timestamps"])]
            wrong += [f"{what[0]} and {what[1]}" for what in (heard, seen, stamps) if what[0] != what[1]]
    least = max(verify.EXIT[a.verdict] for a in mine)
    if code != least:
        wrong.append(f"exit codes {least} and {code}")
    return [f"{file.name}: {w}" for w in wrong], mine


def over(files, command):
    """Compares over (file, trust) pairs; returns (differences, counts of what was said)."""
    found, counts = [], Counter()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for wrong, mine in pool.map(lambda pair: differ(*pair, command), files):
            found += wrong
            counts.update(a.verdict for a in mine)
            counts.update(a.step for a in mine if a.step)
    return found, counts


# --- bundles that are altered by chance -------------------------------------------------------------------------------


def _flip(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]


def _inside(rng, value):
    """The same value with a bit changed somewhere inside, its shape kept."""
    if isinstance(value, bytes) and value:
        return _flip(rng, value)
    if isinstance(value, str) and len(value) > 4:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice("A1/\n+—") + value[at + 1:]
    if isinstance(value, list) and value:
        at = rng.randrange(len(value))
        return [*value[:at], _inside(rng, value[at]), *value[at + 1:]]
    if type(value) is int:
        return max(0, value + rng.choice((-1, 1)))
    return value


def broken(rng, bundle, other):
    """One bundle with something altered, left out, doubled or swapped with another one."""
    b, key = dict(bundle), rng.randrange(2, 13)
    kind = rng.randrange(6)
    if kind == 0:
        return _flip(rng, cbor(b))
    if kind == 1:
        b[key] = other[key]
    elif kind == 2 and isinstance(b[key], list) and b[key]:
        at = rng.randrange(len(b[key]))
        b[key] = rng.choice(([*b[key][:at], *b[key][at + 1:]], [*b[key][:at + 1], *b[key][at:]], b[key][::-1]))
    elif kind == 3:
        data = cbor(b)
        return rng.choice((data[:rng.randrange(len(data))], data + rng.randbytes(1 + rng.randrange(3)), data + cbor(other)))
    else:
        b[key] = _inside(rng, b[key])
    return cbor(b)


def made(folder, number, seed):
    """Writes bundles of many deployments, whole ones and broken ones; returns (file, trust) pairs."""
    rng, files, n = random.Random(seed), [], 0
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    while len(files) < number:
        options = Options(
            level=rng.choice((2, 3, 3)), kind=rng.choice((1, 1, 6)), bctx=rng.choice((b"", b"", b"bootboot")),
            device_alg=rng.choice((-9, -9, -19)), key_origin=rng.randrange(4), template=rng.random() < 0.5, receipts=rng.randrange(3),
            stamps=rng.randrange(2), witnesses=rng.choice(((4,), (4, 4), (4, 4, 4), (4, 6))), need=1, stranger=rng.random() < 0.2,
            revoked=rng.choice((None, None, None, 0, 1, -5)), later=rng.random() < 0.3,
            gateway_certificate=rng.choice(("good", "clientAuth", "by an issuer")),
            certificate=rng.choice(("good",) * 8 + ("issuer for devices", "issuer for gateways", "ended", "two names")))
        if len(options.witnesses) > 1:
            options = Options(**{**vars(options), "need": 2})
        first, second = World(options, seed + n), World(options, seed + n + 1)
        n += 2
        trust = folder / f"trust-{n:04}.toml"
        trust.write_text(toml(first.trust))
        for _ in range(min(20, number - len(files))):
            bundle, other = rng.choice(first.bundles), rng.choice(second.bundles)
            data = cbor(bundle) if rng.random() < 0.3 else broken(rng, bundle, other)
            file = folder / f"{len(files):04}.evb"
            file.write_bytes(data)
            files.append((file, trust))
    return files
