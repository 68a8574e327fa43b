#!/usr/bin/env python3
"""Cases for both verifiers: bundles that prove and bundles that do not, each with the step that must refuse it.

    cases.py            compare vectors/evidence/bundles.json with what is made here, and verify every case in it
    cases.py --write    write it anew (then read the difference before committing it)

Signatures by ML-DSA-44 are hedged, and RSA keys made by chance: a case that has them keeps its bytes once it is written.
"""

import base64
import functools
import json
import sys
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import make
import note
import verify
from forms import ED25519_ORDER, ED25519_PRIME, leaf_hash, sha
from make import NOW, Options, World, b64, cbor, classic_frame, cose, p256, pss, node_rsa, rsa_raw

FILE = Path(__file__).resolve().parents[2] / "vectors" / "evidence" / "bundles.json"
SEED = 5


class Cases:
    def __init__(self):
        self.trusts, self.cases = {}, []

    def trust(self, trust):
        text = make.toml(trust)
        for called, known in self.trusts.items():
            if known == text:
                return called
        called = f"t{len(self.trusts)}"
        self.trusts[called] = text
        return called

    def add(self, called, trust, data, *expected, hedged=False):
        case = {"id": called, "trust": self.trust(trust), "expect": [{"verdict": v, "step": s} for v, s in expected],
                "bundle": b64(data)}
        if hedged:
            case["hedged"] = True
        self.cases.append(case)


PROVEN = ("proven", None)


def refused(step):
    return "refused", step


def world(**options):
    return World(Options(**options), SEED)


def made():
    """All cases."""
    c = Cases()
    _worlds(c)
    _broken(c)
    _ed25519(c)
    _classic(c)
    _notes(c)
    _swapped(c)
    _stamped(c)
    _undecodable(c)
    return c


def _worlds(c):
    """Deployments that differ, good and bad."""
    for called, options, expected in (
        ("plain", {}, PROVEN),
        ("level 2 with a boot id", {"level": 2, "bctx": b"bootboot"}, PROVEN),
        ("level 3 with a boot id", {"bctx": b"bootboot"}, PROVEN),
        ("heard as CoAP with Uri-Host", {"kind": 6}, PROVEN),
        ("signed by Ed25519", {"device_alg": -19}, PROVEN),
        ("secure element, no template, no receipt", {"key_origin": 2, "template": False, "receipts": 0}, PROVEN),
        ("two receipts, gateway's certificate by an issuer", {"receipts": 2, "gateway_certificate": "by an issuer"}, PROVEN),
        ("gateway's certificate with clientAuth", {"gateway_certificate": "clientAuth"}, PROVEN),
        ("device's certificate by an issuer without restrictions", {"certificate": "issuer for devices"}, PROVEN),
        ("a timestamp", {"stamps": 1}, PROVEN),
        ("list of revocations in a later checkpoint", {"later": True}, PROVEN),
        ("revoked later", {"revoked": 1}, PROVEN),
        ("two of three witnesses needed", {"witnesses": (4, 4, 4)}, PROVEN),
        ("a stranger's line is ignored", {"stranger": True}, PROVEN),
        ("revoked at the witness time", {"revoked": 0}, refused("revocation")),
        ("revoked before", {"revoked": -1000}, refused("revocation")),
        ("gateway revoked before", {"revoked_gateway": 0}, refused("receipts")),
        ("gateway revoked later", {"revoked_gateway": 1}, PROVEN),
        ("certificate of another device", {"certificate": "other did"}, refused("chain")),
        ("certificate with upper-case hex", {"certificate": "upper case"}, refused("chain")),
        ("certificate with two names", {"certificate": "two names"}, refused("chain")),
        ("certificate with clientAuth", {"certificate": "clientAuth"}, refused("chain")),
        ("certificate of an authority", {"certificate": "an authority"}, refused("chain")),
        ("certificate by another authority of the same name", {"certificate": "another authority"}, refused("chain")),
        ("certificate that names another issuer", {"certificate": "another issuer"}, refused("chain")),
        ("certificate with an unknown critical extension", {"certificate": "unknown critical"}, refused("chain")),
        ("certificate without keyUsage", {"certificate": "no key usage"}, refused("chain")),
        ("certificate by an issuer for gateways", {"certificate": "issuer for gateways"}, refused("chain")),
        ("certificate by an issuer without cA", {"certificate": "issuer without cA"}, refused("chain")),
        ("certificate that had ended", {"certificate": "ended"}, refused("revocation")),
        ("certificate not yet valid", {"certificate": "not yet"}, refused("revocation")),
        ("gateway's certificate of another network", {"gateway_certificate": "other network"}, refused("receipts")),
        ("gateway's certificate of another gateway", {"gateway_certificate": "other gateway"}, refused("receipts")),
        ("gateway's certificate with serverAuth", {"gateway_certificate": "serverAuth"}, refused("receipts")),
        ("gateway's certificate that had ended", {"gateway_certificate": "ended"}, refused("receipts")),
    ):
        w = world(**options)
        c.add(called, w.trust, cbor(w.bundles[-1]), expected)
    w = world(witnesses=(4, 6), pq_need=1)
    c.add("a witness with ML-DSA-44", w.trust, cbor(change(w.bundles[0], 9, [])), PROVEN, hedged=True)
    w = world(witnesses=(4, 6), one_name=True, need=1, times=(9, 5))
    c.add("one witness with two keys", w.trust, cbor(change(w.bundles[0], 9, [])), PROVEN, hedged=True)
    more = world(witnesses=(4, 4))
    mine = dict(w.trust["witnesses"], need=2, vkeys=[*w.trust["witnesses"]["vkeys"], more.cosigners[1].vkey()])
    c.add("one witness with two keys is not two", {**w.trust, "witnesses": mine}, cbor(change(w.bundles[0], 9, [])), refused("enrolment"), hedged=True)
    w = world()
    c.add("all readings of a batch", w.trust, b"".join(cbor(change(b, 9, [])) for b in w.bundles[:4]), *[PROVEN] * 4)
    bad = dict(w.bundles[1])
    bad[2] = [bad[2][0], bytes(16)]
    c.add("one of two refused", w.trust, cbor(w.bundles[0]) + cbor(bad), PROVEN, refused("path"))
    none = {k: v for k, v in world(stamps=1).trust.items() if k != "timestamps"}
    c.add("a timestamp, and no authority pinned", none, cbor(world(stamps=1).bundles[0]), PROVEN)
    other = world(stamps=1)
    other.trust["timestamps"] = {"ca": other.trust["operator"]["ca"]}
    c.add("a timestamp by an authority that is not pinned", other.trust, cbor(other.bundles[0]), refused("timestamps"))
    thief = World(Options(), SEED)
    thief.trust["operator"] = {"ca": [make.certify("Example CA", p256("x").public_key(), "Example CA", p256("x"), *make.AUTHORITY)
                                      .public_bytes(make.Encoding.PEM).decode()]}
    c.add("another operator pinned", thief.trust, cbor(thief.bundles[0]), refused("chain"))


def change(bundle, key, value):
    return {**bundle, key: value}


def _broken(c):
    """One good bundle with a part of it changed by hand."""
    w = world()
    whole, trust = w.bundles[1], w.trust
    b = change(whole, 9, [])
    tbs = cbor2.loads(b[2][0])
    salt = b[2][1]

    def reading(at, value):
        return change(b, 2, [cbor([*tbs[:at], value, *tbs[at + 1:]]), salt])

    def add(called, step, bundle):
        c.add(called, trust, cbor(bundle), refused(step))

    add("tbs of another kind", "leaf", reading(0, "r2"))
    add("tbs with level 1", "leaf", reading(1, 1))
    add("tbs with a did of seven bytes", "leaf", reading(2, tbs[2][:7]))
    add("tbs with something behind it", "leaf", change(b, 2, [b[2][0] + b"\0", salt]))
    add("tbs that is not deterministic", "leaf", change(b, 2, [b[2][0].replace(b"\x62r1", b"\x78\x02r1"), salt]))
    for at, called in ((1, "level"), (2, "did"), (3, "epoch"), (5, "PIV"), (6, "payload")):
        other = {1: 2, 2: bytes(8), 3: tbs[3] + 1, 5: tbs[5] + 1, 6: tbs[6] + b"\0"}[at]
        add(f"another {called}", "path", reading(at, other))
    add("another salt", "path", change(b, 2, [b[2][0], bytes(16)]))
    index, size, hashes = b[3]
    add("path with a hash too many", "path", change(b, 3, [index, size, [*hashes, bytes(32)]]))
    add("path with a hash too few", "path", change(b, 3, [index, size, hashes[:-1]]))
    add("path of the neighbour", "path", change(b, 3, [index + 1, size, hashes]))
    add("index beyond the batch", "path", change(b, 3, [size, size, hashes]))
    for called, data in (("untagged", b[4][1:]), ("cut", b[4][:-1]), ("payload of another kind", cose(w.key, b"iotsec-batch-v1", b"\x80"))):
        add(f"batch {called}", "statement", change(b, 4, data))
    stmt = cbor2.loads(cbor2.loads(b[4]).value[2])
    leaves = [leaf_hash(x[2][1], x[2][0]) for x in w.bundles]

    def batch(**over):
        s = list(stmt)
        for at, value in over.items():
            s[int(at[1:])] = value
        return cose(w.key, b"iotsec-batch-v1", cbor(s))

    for called, at, value in (("level", "_1", 2), ("device", "_2", bytes(8)), ("epoch", "_3", stmt[3] + 1), ("boot", "_4", bytes(8)),
                              ("first PIV", "_6", stmt[6] + 1), ("bitmap", "_7", stmt[7] + b"\1")):
        add(f"statement of another {called}", "statement", change(b, 4, batch(**{at: value})))
    gap = bytearray(stmt[7])
    gap[0] &= 0xFE  # the first of the batch is missing from the bitmap, and still a leaf
    add("a batch with a missing leaf", "statement", change(b, 4, batch(_7=bytes(gap))))
    doubled = [*leaves, leaves[-1]]
    add("a batch with a doubled leaf", "statement",
        {**b, 3: [1, len(doubled), make.path(doubled, 1)], 4: batch(_8=make.tree(doubled))})
    turned = [leaves[1], leaves[0], *leaves[2:]]
    add("a batch with reordered leaves", "statement",
        {**b, 3: [0, len(turned), make.path(turned, 0)], 4: batch(_8=make.tree(turned))})
    add("signed by another key", "signature", change(b, 4, cose(p256("thief"), b"iotsec-batch-v1", cbor(stmt))))
    add("signed for another purpose", "signature", change(b, 4, cose(w.key, b"iotsec-receipt-v1", cbor(stmt))))
    tagged = cbor2.loads(b[4]).value
    add("signature with its last bit flipped", "signature",
        change(b, 4, cbor(cbor2.CBORTag(18, [*tagged[:3], tagged[3][:-1] + bytes([tagged[3][-1] ^ 1])]))))
    add("signature of zeros", "signature", change(b, 4, cbor(cbor2.CBORTag(18, [*tagged[:3], bytes(64)]))))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    s = order - int.from_bytes(tagged[3][32:], "big")
    add("signature with the other s, which holds too", "log",
        change(b, 4, cbor(cbor2.CBORTag(18, [*tagged[:3], tagged[3][:32] + s.to_bytes(32, "big")]))))
    add("certificate that is none", "chain", change(b, 5, [b"\x30\0"]))
    add("certificate with something behind it", "chain", change(b, 5, [b[5][0] + b"\0"]))
    ca = x509.load_pem_x509_certificate(trust["operator"]["ca"][0].encode())
    add("the pinned certificate in the chain", "chain", change(b, 5, [b[5][0], make.der(ca)]))
    add("a certificate twice", "chain", change(b, 5, [b[5][0], b[5][0]]))

    en = cbor2.loads(b[6][0])
    for called, at, value in (("another device", 1, bytes(8)), ("another key", 4, en[4][:-1] + b"\0"), ("an unknown origin", 5, 4)):
        add(f"enrolment of {called}", "enrolment", change(b, 6, [cbor([*en[:at], value, *en[at + 1:]]), b[6][1]]))
    add("enrolment that the log has not", "enrolment", change(b, 6, [cbor([*en[:3], en[3] + 1, *en[4:]]), b[6][1]]))
    cf = cbor2.loads(b[11][0])
    add("policy of another device", "policy", change(b, 11, [cbor([cf[0], bytes(8), *cf[2:]]), b[11][1]]))
    add("policy that the log has not", "policy", change(b, 11, [cbor([*cf[:2], b"\xa0", cf[3]]), b[11][1]]))
    add("another definition of the template", "policy", change(b, 8, [24, b"{}"]))
    add("a template that the device was not set to", "policy", change(b, 8, [25, b[8][1]]))
    unused = World(Options(template=False, receipts=0), SEED)
    shown = change(unused.bundles[0], 8, [24, b"{}"])
    c.add("a template where none is used", unused.trust, cbor(shown), refused("policy"))
    c.add("no definition shown", trust, cbor(change(b, 8, None)), PROVEN)
    rv = cbor2.loads(b[10][0])
    add("list of revocations that the log has not", "revocation", change(b, 10, [cbor([rv[0], 2, rv[2]]), b[10][1]]))
    add("list of revocations out of order", "revocation",
        change(b, 10, [cbor(["rv", 1, [[b"\2" * 8, 1], [b"\1" * 8, 1]]]), b[10][1]]))
    old = w.log.checkpoint(w.cosigners, w.times, w.log.index[b"b1" + b[4]])
    first = cbor(["rv", 0, []])
    add("list of revocations in a checkpoint before that of the batch", "revocation",
        change(b, 10, [first, w.log.prove(b"rv", first, old)]))

    def heard(at, value):
        r = list(whole[9][0])
        r[at] = value
        return change(b, 9, [r])

    r = whole[9][0]
    e = cbor2.loads(r[1])
    add("receipt of another key", "receipts", heard(0, cose(p256("thief"), b"iotsec-receipt-v1", cbor2.loads(r[0]).value[2])))
    add("receipt that the log has not", "receipts", heard(0, cose(w.gw_key, b"iotsec-receipt-v1", cbor(
        [*cbor2.loads(cbor2.loads(r[0]).value[2])[:3], 99, *cbor2.loads(cbor2.loads(r[0]).value[2])[4:]]))))
    add("envelope received earlier", "receipts", heard(1, cbor({**e, 2: e[2] - 1})))
    add("envelope of another kind", "receipts", heard(1, cbor({**e, 3: 3})))
    add("envelope of the neighbour", "receipts", change(b, 9, [w.bundles[0][9][0]]))
    add("receipt over another number of envelopes", "receipts", heard(3, r[3] + 1))
    add("receipt without its path", "receipts", heard(4, []))
    add("receipt with the device's certificate", "receipts", heard(6, b[5]))


class _Neutral:
    """A key of order 1: one signature is good for every message, and everybody can write it."""
    NEUTRAL = b"\1" + bytes(31)

    def public_key(self):
        return ed25519.Ed25519PublicKey.from_public_bytes(self.NEUTRAL)

    def sign(self, message):
        return self.NEUTRAL + bytes(32)


ed25519.Ed25519PrivateKey.register(_Neutral)


def _ed25519(c):
    """What a verifier of Ed25519 takes that is not strict."""
    w = world(device_alg=-19)
    b = change(w.bundles[0], 9, [])
    stmt, signature = (cbor2.loads(b[4]).value[at] for at in (2, 3))
    more = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    for called, sign in (
        ("S and the order of the group", lambda m: signature[:32] + more.to_bytes(32, "little")),
        ("an R of order 1", lambda m: _Neutral.NEUTRAL + signature[32:]),
        ("an R that is y and the prime", lambda m: (ED25519_PRIME + 3).to_bytes(32, "little") + signature[32:]),
    ):
        c.add(f"Ed25519: {called}", w.trust, cbor(change(b, 4, cose(w.key, b"iotsec-batch-v1", stmt, sign=sign))), refused("signature"))
    for called, alg in (("ESP256 with an Ed25519 key", -9), ("Ed25519 with its own key", -19)):
        signed = cose(w.key, b"iotsec-batch-v1", stmt, alg=alg, sign=w.key.sign)
        c.add(f"Ed25519: {called}", w.trust, cbor(change(b, 4, signed)), PROVEN if alg == -19 else refused("signature"))
    weak = World(Options(device_alg=-19), SEED, device=_Neutral())
    c.add("Ed25519: a device's key of order 1", weak.trust, cbor(change(weak.bundles[0], 9, [])), refused("signature"))


def _classic(c):
    """Classic nodes, which sign by RSA."""
    plain = {"device_alg": -37, "template": False, "receipts": 0, "key_origin": 3}

    def classic(called, expected=refused("signature"), device=None, frame=None, **more):
        w = World(Options(**plain, **more), SEED, device=device, frame=frame)
        c.add(f"classic: {called}", w.trust, cbor(w.bundles[-1]), expected)
        return w

    w = classic("RSA-2048", PROVEN)
    classic("RSA-2048, for the gateway", PROVEN, level=2)
    for bits in (3072, 4096):
        classic(f"RSA-{bits}", PROVEN, device=node_rsa("device", bits))
    weak = node_rsa("device").private_numbers()
    classic("RSA-1024", refused("statement"), device=node_rsa("device", 1024))
    phi = (weak.p - 1) * (weak.q - 1)
    other = next(e for e in (65539, 65541, 65543, 65545) if make.coprime(e, phi))
    classic("another exponent than 65537", device=make.rsa_of(weak.p, weak.q, other))
    classic("a reading that is no frame", frame=lambda did, n: cbor([24, n]))
    classic("a frame of another node", frame=lambda did, n: classic_frame(bytes(8), n))
    classic("a frame that goes on", frame=lambda did, n: classic_frame(did, n) + b"\0")
    classic("an ASCII frame", frame=lambda did, n: classic_frame(did, n, 0x86))
    classic("a frame of a type that no reading has", frame=lambda did, n: classic_frame(did, n, 0x6E))
    b, key, stmt = w.bundles[0], w.key, cbor2.loads(w.bundles[0][4]).value[2]

    def batch(called, step, **how):
        context, by = how.pop("context", b"iotsec-batch-v1"), how.pop("by", key)
        c.add(f"classic: {called}", w.trust, cbor(change(b, 4, cose(by, context, how.pop("stmt", stmt), **how))), refused(step))

    batch("signed by another key", "signature", by=node_rsa("thief"))
    batch("signed for another purpose", "signature", context=b"iotsec-receipt-v1")
    batch("a salt of 20 bytes", "signature", sign=lambda m: pss(key, m, bytes(20)))
    batch("PKCS #1 v1.5", "signature", sign=lambda m: key.sign(m, make.PKCS1, make.hashes.SHA256()))
    batch("the bare hash to the power of d", "signature", sign=lambda m: rsa_raw(key, sha(m)))
    batch("a signature of zeros", "signature", sign=lambda m: bytes(256))
    batch("a signature with its last bit flipped", "signature",
          sign=lambda m: (lambda s: s[:-1] + bytes([s[-1] ^ 1]))(pss(key, m, sha(m))))
    batch("a signature of 64 bytes", "statement", sign=lambda m: bytes(64))
    batch("a signature of 384 bytes", "signature", sign=lambda m: bytes(384))
    batch("the algorithm of P-256", "signature", alg=-9, sign=lambda m: bytes(64))
    parts = cbor2.loads(stmt)
    leaves = [leaf_hash(x[2][1], x[2][0]) for x in w.bundles]
    turned = [leaves[1], leaves[0], *leaves[2:]]
    signed = cose(key, b"iotsec-batch-v1", cbor([*parts[:8], make.tree(turned), parts[9]]))
    c.add("classic: reordered leaves", w.trust, cbor({**b, 3: [1, len(turned), make.path(turned, 1)], 4: signed}), refused("statement"))
    p = world()
    rsa_in_p256 = cose(p.key, b"iotsec-batch-v1", cbor2.loads(p.bundles[0][4]).value[2], alg=-37, sign=lambda m: bytes(256))
    c.add("RSA named, of a device that is not classic", p.trust, cbor(change(p.bundles[0], 4, rsa_in_p256)), refused("signature"))
    heard = list(p.bundles[0][9][0])
    heard[0] = cose(node_rsa("device"), b"iotsec-receipt-v1", cbor2.loads(heard[0]).value[2])
    c.add("a receipt signed by RSA", p.trust, cbor(change(p.bundles[0], 9, [heard])), refused("receipts"))


def _notes(c):
    """Proofs with a line changed."""
    w = world()
    b, trust = change(w.bundles[0], 9, []), w.trust
    head, _, signed = b[7].partition("\n\n")
    index = w.log.index[b"b1" + b[4]]
    rows = signed.split("\n")  # origin, size, root, empty, log, w1, w2, empty

    def proof(*lines):
        return change(b, 7, head + "\n\n" + "\n".join(lines))

    def add(called, step, bundle):
        c.add(called, trust, cbor(bundle), refused(step))

    add("proof of another version", "log", change(b, 7, b[7].replace("@v1", "@v2")))
    add("proof with something extra", "log", change(b, 7, b[7].replace("\nindex", "\nextra AAAA\nindex")))
    add("proof of another index", "log", change(b, 7, b[7].replace(f"index {index}", f"index {index - 1}")))
    add("proof with a leading zero", "log", change(b, 7, b[7].replace("index ", "index 0")))
    add("proof with CR LF", "log", change(b, 7, b[7].replace("\n", "\r\n")))
    add("checkpoint of another log", "log", proof("fivefold.00000000/log", *rows[1:]))
    add("checkpoint of another size", "log", proof(rows[0], str(int(rows[1]) + 1), *rows[2:]))
    add("checkpoint without the log's line", "log", proof(*rows[:4], *rows[5:]))
    add("checkpoint with the log's line twice", "log", proof(*rows[:5], *rows[4:]))
    add("checkpoint with a witness's line twice", "log", proof(*rows[:6], *rows[5:]))
    add("checkpoint with one witness", "witnesses", proof(*rows[:6], ""))
    add("checkpoint without its last newline", "log", proof(*rows[:-1]))
    add("base64 that is not canonical", "log", proof(*rows[:2], rows[2].replace("=", "") + "A", *rows[3:]))
    name, data = rows[5][2:].split(" ")
    raw = base64.b64decode(data)
    later = raw[:4] + (int.from_bytes(raw[4:12], "big") + 1).to_bytes(8, "big") + raw[12:]
    add("a witness's time changed", "witnesses", proof(*rows[:5], f"— {name} {b64(later)}", *rows[6:]))
    add("a witness's name changed", "witnesses", proof(*rows[:5], f"— {name}x {data}", *rows[6:]))
    never = w.cosigners[0].line("\n".join(rows[:3]) + "\n", 0)[:-1]
    add("a witness that says no time", "witnesses", proof(*rows[:5], never, *rows[6:]))
    more = world(witnesses=(4, 4, 4))
    m = change(more.bundles[0], 9, [])
    bad = m[7].split("\n")
    bad[-2] = bad[-2][:-8] + ("B" if bad[-2][-8] != "B" else "C") + bad[-2][-7:]
    c.add("a third witness's line that does not hold", more.trust, cbor(change(m, 7, "\n".join(bad))), refused("witnesses"))
    fork = world()
    fork.log.leaves[0] = sha(b"another history")
    note_ = fork.log.checkpoint([], [])
    text = fork.log.prove(b"b1", b[4], note_)
    add("a fork that no witness saw", "witnesses", change(b, 7, text))
    add("a fork with the cosignatures of the true log", "witnesses", change(b, 7, text + "\n".join(rows[5:])))
    pq = world(witnesses=(4, 4, 6), pq_need=1)
    short = change(pq.bundles[0], 9, [])
    lines = short[7].split("\n")
    del lines[-2]
    c.add("without the line by ML-DSA-44", pq.trust, cbor(change(short, 7, "\n".join(lines))), refused("witnesses"), hedged=True)


def _swapped(c):
    """Parts of another good bundle in the place of its own."""
    w, other = world(), World(Options(), SEED + 1)
    b, o = change(w.bundles[0], 9, []), other.bundles[0]
    for key, step in ((2, "path"), (3, "path"), (4, "path"), (7, "log"), (9, "receipts")):
        if b[key] != o[key]:
            c.add(f"item {key} of another bundle", w.trust, cbor(change(b, key, o[key])), refused(step))
    c.add("device's certificate of another key", w.trust, cbor(change(b, 5, world(device_alg=-19).bundles[0][5])), refused("signature"))
    stamped, another = world(stamps=1), World(Options(stamps=1), SEED + 1)
    s = change(stamped.bundles[0], 9, [])
    c.add("timestamp of another checkpoint", stamped.trust, cbor(change(s, 12, another.bundles[0][12])), refused("timestamps"))
    token, chain, lists = s[12][0]
    c.add("timestamp without revocation lists", stamped.trust, cbor(change(s, 12, [[token, chain, []]])), PROVEN)
    c.add("timestamp with another certificate", stamped.trust, cbor(change(s, 12, [[token, b[5], lists]])), refused("timestamps"))
    c.add("timestamp cut", stamped.trust, cbor(change(s, 12, [[token[:-1], chain, lists]])), refused("timestamps"))


def _stamped(c):
    """Authorities of timestamps that differ, good and bad."""
    w = world(stamps=1, receipts=0)
    stamping, signing = make.STAMPING, make.SIGNING
    certifying = (make.usage(key_cert_sign=True, crl_sign=True), True)
    ca = (x509.BasicConstraints(True, None), True)
    serial = x509.load_der_x509_certificate(make.stamp(w.note)[1][0]).serial_number

    def may(*purposes, critical=True):
        return x509.ExtendedKeyUsage([getattr(x509.ExtendedKeyUsageOID, p) for p in purposes]), critical

    def names(permitted=None, excluded=None):
        return x509.NameConstraints(permitted, excluded), True

    def under(*above, **more):
        """Signed below authorities with these extensions, the nearest first."""
        return {"above": [(p256(f"tsa ca {n}"), extensions) for n, extensions in enumerate(above)], **more}

    dns = [x509.DNSName("example")]
    directory = [x509.DirectoryName(make.name("Example"))]
    other_type = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Example TSA CA", x509.name._ASN1Type.PrintableString)])
    for called, how, expected in (
        ("key on P-384", {"key": ec.derive_private_key(5, ec.SECP384R1())}, PROVEN),
        ("key on P-521", {"key": ec.derive_private_key(5, ec.SECP521R1())}, refused),
        ("RSA key of 2048 bits", {"key": rsa_key(2048)}, PROVEN),
        ("RSA key of 1024 bits", {"key": rsa_key(1024)}, refused),
        ("without keyUsage", {"extensions": (stamping,)}, PROVEN),
        ("with an unknown extension", {"extensions": (stamping, signing, _unknown(False))}, PROVEN),
        ("with an unknown critical extension", {"extensions": (stamping, signing, _unknown(True))}, refused),
        ("without extKeyUsage", {"extensions": (signing,)}, refused),
        ("with extKeyUsage that is not critical", {"extensions": (may("TIME_STAMPING", critical=False), signing)}, refused),
        ("with two purposes", {"extensions": (may("TIME_STAMPING", "CODE_SIGNING"), signing)}, refused),
        ("of an authority", {"extensions": (stamping, *make.AUTHORITY)}, refused),
        ("with constraints on names", {"extensions": (stamping, signing, names(excluded=dns))}, refused),
        ("that had ended", {"extensions": (stamping, signing), "begin": NOW - 86_400 * 30, "days": 29}, refused),
        ("not yet valid", {"extensions": (stamping, signing), "begin": NOW + 86_400}, refused),
        ("by another authority of the same name", {"issuer_key": p256("thief")}, refused),
        ("by an authority on Ed25519", under((ca, certifying), issuer_key=make.ed("tsa ca 0")), refused),
        ("whose issuer's name is written in another type", {"issuer": other_type}, refused),
        ("below an issuer", under((ca, certifying)), PROVEN),
        ("below two issuers", under((ca, certifying), (ca, certifying)), PROVEN),
        ("below an issuer that may have one below", under((ca, certifying), ((x509.BasicConstraints(True, 1), True), certifying)), PROVEN),
        ("below an issuer that may have none below", under((ca, certifying), ((x509.BasicConstraints(True, 0), True), certifying)), refused),
        ("below an issuer without cA", under(((x509.BasicConstraints(False, None), True), certifying)), refused),
        ("below an issuer without basicConstraints", under((certifying,)), refused),
        ("below an issuer without keyUsage", under((ca,)), refused),
        ("below an issuer that signs lists alone", under((ca, (make.usage(crl_sign=True), True))), refused),
        ("below an issuer for timestamps", under((ca, certifying, may("TIME_STAMPING"))), PROVEN),
        ("below an issuer for any purpose", under((ca, certifying, may("ANY_EXTENDED_KEY_USAGE", critical=False))), PROVEN),
        ("below an issuer for clients", under((ca, certifying, may("CLIENT_AUTH"))), refused),
        ("below an issuer that excludes hosts", under((ca, certifying, names(excluded=dns))), PROVEN),
        ("below an issuer that excludes directory names", under((ca, certifying, names(excluded=directory))), refused),
        ("below an issuer that permits directory names", under((ca, certifying, names(permitted=directory))), refused),
        ("below an issuer with an unknown critical extension", under((ca, certifying, _unknown(True))), refused),
        ("below an issuer with an RSA key of 1024 bits", {"above": [(rsa_key(1024), (ca, certifying))]}, refused),
        ("listed as revoked at that time", {"listed": [(serial, NOW + 60)]}, refused),
        ("listed as revoked later", {"listed": [(serial, NOW + 61)]}, PROVEN),
        ("listed twice, the later time last", {"listed": [(serial, NOW), (serial, NOW + 99)]}, refused),
        ("listed by its number alone", {"listed": [(serial ^ 2, NOW)]}, PROVEN),
    ):
        is_hedged = any(isinstance(k, rsa.RSAPrivateKey) for k in (how.get("key"), *(k for k, _ in how.get("above", ()))))
        c.add(f"timestamp by a certificate {called}", w.trust, cbor(change(w.bundles[0], 12, [make.stamp(w.note, **how)])),
              expected if expected is PROVEN else refused("timestamps"), hedged=is_hedged)
    token, chain, _ = make.stamp(w.note)
    stranger = make.revocations(key=p256("thief"))
    for called, lists, expected in (("of somebody else", [stranger], refused("timestamps")), ("with something behind it", [make.revocations() + b"\0"], refused("timestamps")),
                                    ("twice", [make.revocations()] * 2, PROVEN)):
        c.add(f"timestamp with a revocation list {called}", w.trust, cbor(change(w.bundles[0], 12, [[token, chain, lists]])), expected)


def _unknown(critical):
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), critical


@functools.cache
def rsa_key(bits):
    """Made by chance: a case with one keeps its bytes once it is written."""
    return rsa.generate_private_key(65537, bits)


def _undecodable(c):
    """Files that are no bundles."""
    w = world()
    b = change(w.bundles[0], 9, [])
    good = cbor(b)
    for called, data in (
        ("nothing", b""),
        ("cut", good[:-1]),
        ("something behind", good + b"\0"),
        ("an array", cbor(list(b.values()))),
        ("another version", cbor(change(b, 1, "evb2"))),
        ("an item missing", cbor({k: v for k, v in b.items() if k != 8})),
        ("an item more", cbor({**b, 13: None})),
        ("items out of order", b"\xac" + cbor(2) + cbor(b[2]) + cbor(1) + cbor(b[1]) + cbor({k: b[k] for k in range(3, 13)})[1:]),
        ("an item twice", b"\xac" + (cbor(1) + cbor(b[1])) * 2 + cbor({k: b[k] for k in range(3, 13)})[1:]),
        ("indefinite length", b"\xbf" + good[1:] + b"\xff"),
        ("a head that is not the shortest", b"\xb8\x0c" + good[1:]),
        ("a salt of 15 bytes", cbor(change(b, 2, [b[2][0], bytes(15)]))),
        ("an index that is no number", cbor(change(b, 3, ["0", *b[3][1:]]))),
        ("no certificate", cbor(change(b, 5, []))),
        ("a proof as bytes", cbor(change(b, 7, b[7].encode()))),
        ("a template without its definition", cbor(change(b, 8, [24]))),
        ("true in the place of a number", cbor(change(b, 8, [True, b[8][1]]))),
        ("a timestamp of two parts", cbor(change(b, 12, [[b"", []]]))),
        ("a second bundle cut", good + good[:-1]),
    ):
        c.add(f"unreadable: {called}", w.trust, data, ("unreadable", "decode"))


def document(c):
    meta = {
        "source": "interop/evidence/cases.py, which follows docs/evidence.md; seeded keys, never use them",
        "encoding": "bundle: base64 of the file; trust: the trust file; expect: one answer for each reading; hedged: has ML-DSA-44 signatures, or an RSA key",
    }
    return {"meta": meta, "trust": c.trusts, "cases": c.cases}


def check(file):
    """Prints what the second verifier says otherwise than a case expects."""
    wrong = 0
    for case in file["cases"]:
        trusted = note.trust_text(file["trust"][case["trust"]])
        answers = verify.verify_file(base64.b64decode(case["bundle"]), trusted)
        found = [{"verdict": a.verdict, "step": a.step} for a in answers]
        if found != case["expect"]:
            wrong += 1
            print(f"{case['id']}: {[(a.verdict, a.step, a.reason) for a in answers]}, expected {case['expect']}")
    return wrong


def main(arguments):
    new = document(made())
    if "--write" in arguments:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n")
    old = json.loads(FILE.read_text())
    strip = [{k: v for k, v in case.items() if k != "bundle" or not case.get("hedged")} for case in old["cases"]]
    again = [{k: v for k, v in case.items() if k != "bundle" or not case.get("hedged")} for case in new["cases"]]
    differ = old["meta"] != new["meta"] or old["trust"] != new["trust"] or strip != again
    if differ:
        print("vectors/evidence/bundles.json is not what cases.py makes")
    wrong = check(old)
    verdicts = [a["verdict"] for case in old["cases"] for a in case["expect"]]
    print(f"{len(old['cases'])} cases: " + ", ".join(f"{verdicts.count(v)} {v}" for v in verify.EXIT)
          + (f"; {wrong} are answered otherwise" if wrong else ", all as expected"))
    return 1 if differ or wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
