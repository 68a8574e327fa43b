"""A witness over HTTP, asked by a client of our own (C2SP tlog-witness): it cosigns what goes on from what it has seen, and
refuses a log that forked."""

import contextlib
import json
import subprocess
import urllib.error
import urllib.request

import note
from forms import leaf_hash, sha
from make import Log, Signer, b64, tree
from peers import expect


class Client:
    def __init__(self, address):
        self.address = address.rstrip("/")

    def ask(self, old, proof, checkpoint):
        """(status, body) of add-checkpoint."""
        body = f"old {old}\n" + "".join(b64(h) + "\n" for h in proof) + "\n" + checkpoint
        request = urllib.request.Request(self.address + "/add-checkpoint", body.encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()


def grown(log, size):
    """A log with more entries."""
    while len(log.leaves) < size:
        log.leaves.append(leaf_hash(b"b1", sha(f"{log.signer.name} {len(log.leaves)}".encode())))
    return log


def consistency(leaves, size):
    """PROOF of RFC 9162 2.1.4.1."""
    def proof(leaves, size, whole):
        if size == len(leaves):
            return [] if whole else [tree(leaves)]
        k = 1 << (len(leaves) - 1).bit_length() - 1
        if size <= k:
            return proof(leaves[:k], size, whole) + [tree(leaves[k:])]
        return proof(leaves[k:], size - k, False) + [tree(leaves[:k])]

    return proof(leaves, size, True)


def refuses_a_fork(address, signer, vkeys):
    """Goes through an honest log and a forked one; returns what the witness said, in words."""
    client, log, said = Client(address), Log(signer), []
    keys = [note.vkey(v) for v in vkeys]

    def cosigned(old, size):
        grown(log, size)
        checkpoint = log.checkpoint([], [])
        status, body = client.ask(old, consistency(log.leaves, old) if old else [], checkpoint)
        expect(status == 200, f"a checkpoint of {size} entries after {old}: {status} {body}")
        point = note.checkpoint(checkpoint + body)
        times = [note.cosigned(point, k) for k in keys]
        expect(all(times), f"of {len(keys)} keys of the witness, {sum(map(bool, times))} cosigned")
        said.append(f"cosigns {size} entries after {old}, with {len(keys)} keys")

    cosigned(0, 5)
    cosigned(5, 5)
    cosigned(5, 13)
    status, body = client.ask(5, consistency(log.leaves, 5), log.checkpoint([], []))
    expect(status == 409 and body.strip() == "13", f"an old size that is not its own: {status} {body}")
    said.append("says which size it has (409) to one who does not know")

    fork = Log(signer)
    fork.leaves = [sha(b"another history"), *log.leaves[1:]]
    grown(fork, 20)
    for called, old, proof, size, wanted in (
        ("another root for the size it has", 13, [], 13, (409, 422)),
        ("a fork, with the proof of its own history", 13, consistency(fork.leaves, 13), 20, (422,)),
        ("a fork, with the proof of the true history", 13, consistency(grown(Log(signer), 20).leaves, 13), 20, (422,)),
        ("a smaller tree", 13, [], 4, (400, 409, 422)),
    ):
        status, body = client.ask(old, proof, fork.checkpoint([], [], size))
        expect(status in wanted and "—" not in body, f"{called}: {status} {body}")
        said.append(f"refuses {called} ({status})")
    cosigned(13, 20)
    return said


@contextlib.contextmanager
def running(fivefold, folder, vkey):
    """`fivefold log witness` for a log: its address and its keys."""
    child = subprocess.Popen(
        [fivefold, "-o", "json", "log", "witness", "--dir", folder, "--name", "witness.example/ci", "--log", vkey,
         "--insecure-http", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = child.stdout.readline()
        expect(line, "fivefold log witness does not say where it listens")
        ready = json.loads(line)
        yield ready["url"], ready["vkeys"]
    finally:
        child.terminate()
        child.wait(20)


def run(fivefold, folder):
    """The whole of it; returns what the witness did, in words."""
    signer = Signer("fivefold.0a0b0c0d/log", 1, "ci")
    with running(fivefold, folder, signer.vkey()) as (address, vkeys):
        kinds = sorted(note.vkey(v).type for v in vkeys)
        expect(kinds == [note.COSIGNATURE, note.PQ_COSIGNATURE], f"the witness has keys of other kinds: {kinds}")
        said = refuses_a_fork(address, signer, vkeys)
    with running(fivefold, folder, signer.vkey()) as (address, again):
        expect(again == vkeys, "the witness has other keys after a restart")
        status, body = Client(address).ask(0, [], grown(Log(signer), 5).checkpoint([], []))
        expect(status == 409 and body.strip() == "20", f"a restarted witness knows nothing: {status} {body}")
    return [*said, "remembers after a restart what it cosigned (409)"]
