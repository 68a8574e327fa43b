"""Vectors of others, and the worked example of docs/evidence.md, against the second verifier."""

import json
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

import note
from forms import Wrong, consistent, included, leaf_hash, node_hash, sha, sign1, signed
from make import cbor, path, tree
from peers import expect

ROOT = Path(__file__).resolve().parents[2]
h = bytes.fromhex


def read(name):
    return json.loads((ROOT / "vectors" / "standards" / name).read_text(encoding="utf-8"))


def holds(check, *arguments):
    try:
        check(*arguments)
        return True
    except Wrong:
        return False


def merkle():
    """RFC 9162: roots, and every proof, and none of them for another leaf or root."""
    file, n = read("merkle-rfc9162.json"), 0
    for case in file["own"]:
        size, root = case["tree_size"], h(case["root"])
        leaves = [leaf_hash(h(leaf)) for leaf in file["own_leaves"][:size]]
        expect(tree(leaves) == root, f"root of {size}")
        for one in case["inclusion"]:
            index, proof = one["leaf_index"], [h(p) for p in one["proof"]]
            expect(path(leaves, index) == proof and holds(included, leaves[index], index, size, proof, root), f"{index} of {size}")
            expect(not holds(included, bytes(32), index, size, proof, root), f"{index} of {size}: another leaf")
            expect(not holds(included, leaves[index], index, size, [*proof, bytes(32)], root), f"{index} of {size}: a longer proof")
            n += 1
        for one in case["consistency"]:
            before, proof = one["size1"], [h(p) for p in one["proof"]]
            expect(holds(consistent, before, h(one["root1"]), size, root, proof), f"{before} to {size}")
            expect(not holds(consistent, before, bytes(32), size, root, proof), f"{before} to {size}: another root")
            n += 1
    return n


def cose():
    """COSE_Sign1 in our one form."""
    file = read("cose-sign1.json")
    for case in file["own"]:
        data = h(case["cose_sign1"])
        expect(holds(signed, data, h(case["spki"]), h(case["external_aad"])) == case["verifies"], case["id"])
    return len(file["own"])


def tlog():
    """C2SP: notes, checkpoints, cosignatures of both types, proofs, and what is none of these."""
    file, n = read("tlog-c2sp.json"), 0
    keys = {called: note.vkey(key["vkey"]) for called, key in file["keys"].items()}
    log, trusted = keys["log"], note.Trust((), keys["log"], (keys["w1"], keys["w2"]), 2, 0, ())
    for case in file["own_checkpoints"]:
        point = note.checkpoint(case["checkpoint"])
        note.by_log(point, log)
        expect((point.size, point.root.hex()) == (case["size"], case["root"]), case["id"])
        for called in ("w1", "w2", "pq"):
            time = note.cosigned(point, keys[called])
            expect(time == (case["timestamp"] if case["verifies"][called] else None), f"{case['id']}: {called}")
        n += 1

    def proven(text, entry):
        index, hashed, of = note.tlog_proof(text)
        point = note.checkpoint(of)
        note.by_log(point, log)
        included(leaf_hash(entry), index, point.size, hashed, point.root)
        return point

    for case in file["own_proofs"]:
        expect(holds(proven, case["text"], h(case["entry"])) == (case["id"] != "with extra"), case["id"])
        n += 1
    for case in file["malformed_proofs"]:
        expect(not holds(lambda c: note.witnessed(proven(c["text"], h(c["entry"])), trusted), case), case["id"])
        n += 1
    for case in file["malformed_checkpoints"]:
        expect(not holds(note.checkpoint, case["checkpoint"]), case["id"])
        n += 1
    return n


def page():
    """That the worked example is what the rules of the page give."""
    did, payload, blind = h("acde480000000001"), h("840118d7182d1825"), bytes(range(0x40, 0x60))
    text = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    shown = "".join(text[text.index("## 12."):].split())
    leaves = []
    for piv in (300, 301, 303):
        salt = HKDFExpand(hashes.SHA256(), 16, b"leaf" + piv.to_bytes(8, "big")).derive(blind)
        tbs = cbor(["r1", 3, did, 5, b"", piv, payload])
        leaves.append(leaf_hash(salt, tbs))
        if piv == 300:
            first = [salt, tbs, leaves[0]]
    root = node_hash(node_hash(leaves[0], leaves[1]), leaves[2])
    stmt = cbor(["b1", 3, did, 5, b"", 1, 300, b"\x0b", root, bytes(32)])
    case = read("cose-sign1.json")["own"][0]
    batch, spki = h(case["cose_sign1"]), h(case["spki"])
    signed(batch, spki, b"iotsec-batch-v1")
    expect(sign1(batch)[2] == stmt and root == tree(leaves), "the statement of the worked example")
    entry = b"b1" + sha(batch)
    for value in (*first, root, stmt[:-34], spki, case["protected"], case["signature"], entry, leaf_hash(entry)):
        value = value if isinstance(value, str) else value.hex()
        expect(value in shown, f"docs/evidence.md 12 does not have {value}")


def check():
    """Goes through all; returns what was found, in words."""
    page()
    return f"{merkle()} Merkle proofs of RFC 9162, {cose()} COSE_Sign1, {tlog()} of C2SP; the worked example of docs/evidence.md"
